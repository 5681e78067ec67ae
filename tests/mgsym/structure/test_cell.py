"""The geometry of cells: right-angled, skewed, and sheared by more than a vector."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from mgsym.structure.cell import (
    central_image,
    fractional,
    heights,
    nearest_image,
    wrap,
    wrap_fraction,
)

CELLS = {
    "cubic": [[7.0, 0, 0], [0, 7, 0], [0, 0, 7]],
    "flat": [[3.0, 0, 0], [0, 20, 0], [0, 0, 11]],
    "hexagonal": [[5.0, 0, 0], [-2.5, 4.330127, 0], [0, 0, 8]],
    "triclinic": [[6.0, 0.3, -0.2], [2.4, 5.5, 0.4], [-1.9, 2.2, 7.1]],
    "sheared": [[6.0, 0, 0], [13.0, 6, 0], [-7.5, 9.0, 5]],  # more than one vector over
    "left-handed": [[0, 6.0, 0], [5.0, 1.0, 0], [0.5, 0, 4.0]],
}
PERIODIC = list(itertools.product((True, False), repeat=3))


def places(count: int = 40, spread: float = 30.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return spread * (torch.rand(count, 3, generator=generator, dtype=torch.float64) - 0.5)


@pytest.fixture(params=CELLS)
def cell(request: pytest.FixtureRequest) -> Tensor:
    return torch.tensor(CELLS[request.param], dtype=torch.float64)


def test_fractional_coordinates_are_in_cell_vectors(cell: Tensor) -> None:
    expected = torch.tensor([[0.25, -1.5, 3.0], [0.0, 0.0, 0.0], [1.0, 0.5, -0.125]]).double()
    torch.testing.assert_close(fractional(expected @ cell, cell), expected)
    # a cell for each place
    cells = torch.stack([cell, 2 * cell, cell.roll(1, 0)])
    own = (expected[:, None] @ cells).squeeze(1)
    torch.testing.assert_close(fractional(own, cells), expected)


def test_heights_are_volume_over_area(cell: Tensor) -> None:
    a, b, c = cell
    volume = torch.linalg.det(cell).abs()
    areas = [torch.linalg.cross(*pair).norm() for pair in ((b, c), (c, a), (a, b))]
    torch.testing.assert_close(heights(cell), volume / torch.stack(areas))


@pytest.mark.parametrize("periodic", PERIODIC)
def test_wrapping_moves_by_whole_vectors_of_directions_that_repeat(
    cell: Tensor, periodic: tuple[bool, bool, bool]
) -> None:
    before = places()
    after = wrap(before, cell, periodic)
    steps = fractional(before - after, cell)
    torch.testing.assert_close(steps, steps.round(), atol=1e-9, rtol=0)
    inside = fractional(after, cell)
    for axis, repeats in enumerate(periodic):
        if repeats:
            assert bool(((inside[:, axis] > -1e-12) & (inside[:, axis] < 1 + 1e-12)).all())
        else:
            assert not bool(steps[:, axis].round().any())
    several = wrap(before, cell.expand(len(before), 3, 3), torch.tensor(periodic).expand(40, 3))
    torch.testing.assert_close(several, after)


def test_wrapped_fractions_are_below_one() -> None:
    found = wrap_fraction(torch.tensor([[-1e-17, 1.0, -0.25]]).double(), (True, True, True))
    assert found.tolist() == [[0.0, 0.0, 0.75]]


@pytest.mark.parametrize("periodic", PERIODIC)
def test_the_nearest_image_is_the_shortest_of_all(
    cell: Tensor, periodic: tuple[bool, bool, bool]
) -> None:
    vectors = wrap(places(), cell, periodic)
    far = 6 if all(periodic) else 24  # what does not repeat is not wrapped, and far off
    counts = [range(-far, far + 1) if repeats else range(1) for repeats in periodic]
    steps = torch.tensor(list(itertools.product(*counts))).double()
    every = (vectors[:, None] + steps @ cell).norm(dim=2)
    found = nearest_image(vectors, cell, periodic)
    torch.testing.assert_close(found.norm(dim=1), every.amin(1))
    moved = fractional(found - vectors, cell)
    torch.testing.assert_close(moved, moved.round(), atol=1e-9, rtol=0)
    assert not bool((moved.round() != 0)[:, ~torch.tensor(periodic)].any())


def test_the_central_image_is_half_a_vector_off_at_most_but_not_always_the_nearest() -> None:
    sheared, whole = torch.tensor(CELLS["sheared"]).double(), (True, True, True)
    central = central_image(places(), sheared, whole)
    assert float(fractional(central, sheared).abs().max()) <= 0.5 + 1e-12
    nearest = nearest_image(places(), sheared, whole)
    assert bool((nearest.norm(dim=1) < central.norm(dim=1) - 0.5).any())
    cubic = torch.tensor(CELLS["cubic"]).double()
    assert torch.equal(central_image(places(), cubic, whole), nearest_image(places(), cubic, whole))


def test_nothing_has_no_image() -> None:
    assert nearest_image(places(0), torch.eye(3).double(), (True, True, True)).shape == (0, 3)
