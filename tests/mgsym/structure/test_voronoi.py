"""Voronoi polyhedra of crystals are known, and those of a glass fill its cell."""

from __future__ import annotations

import pytest
import torch

from mgsym.data_tools.sample import sample_structures
from mgsym.errors import InputError
from mgsym.structure.voronoi import voronoi_polyhedra

pytest.importorskip("scipy")
ALL = (True, True, True)


def bcc(cells: int) -> torch.Tensor:
    """Positions of a body-centred cubic crystal, 3 Å."""
    corners = torch.cartesian_prod(*[torch.arange(cells)] * 3).double() * 3
    return torch.cat([corners, corners + 1.5])


@pytest.mark.parametrize("cells", [1, 2])
def test_bcc_has_truncated_octahedra(cells: int) -> None:
    found = voronoi_polyhedra(bcc(cells), torch.eye(3) * 3 * cells, ALL)
    assert found.index.tolist() == [[0, 6, 0, 8]] * len(found.index)
    assert found.coordination.tolist() == [14] * len(found.index)
    assert found.volume.tolist() == pytest.approx([13.5] * len(found.index))
    assert found.icosahedral.sum() == 0


def test_an_icosahedron_is_one() -> None:
    golden = (1 + 5**0.5) / 2
    corners = [(0, a, b * golden) for a in (-1, 1) for b in (-1, 1)]
    corners = [(*c[i:], *c[:i]) for c in corners for i in range(3)]
    place = torch.tensor([(0, 0, 0), *corners], dtype=torch.float64)
    far = 3 * torch.tensor(corners, dtype=torch.float64)
    found = voronoi_polyhedra(torch.cat([place, far]), torch.eye(3), (False,) * 3)
    assert found.icosahedral[0] == 1
    assert found.fivefold[0] == 1
    assert found.coordination[-1:].isnan().all()  # open at the surface


def test_polyhedra_of_a_glass_fill_its_cell() -> None:
    glass = sample_structures()[0]
    found = voronoi_polyhedra(glass.positions, glass.cell, ALL)
    assert float(found.volume.sum()) == pytest.approx(float(torch.linalg.det(glass.cell)))
    shift = torch.tensor([100.0, -30, 7]).double()
    moved = voronoi_polyhedra(glass.positions + shift, glass.cell, ALL)
    assert torch.equal(moved.coordination, found.coordination)


def test_atoms_in_a_plane_have_none() -> None:
    flat = torch.rand(6, 3).double()
    flat[:, 2] = 0
    with pytest.raises(InputError, match="do not fill space"):
        voronoi_polyhedra(flat, torch.eye(3), (False,) * 3)
