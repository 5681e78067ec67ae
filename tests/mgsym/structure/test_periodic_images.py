"""The explicit periodic images behind the neighbour search."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mgsym.structure.periodic_images import periodic_images, shortest_basis

EVERYWHERE = (True, True, True)


@pytest.mark.parametrize("seed", range(10))
def test_any_basis_of_a_cubic_lattice_is_brought_back_to_its_edges(seed: int) -> None:
    generator = np.random.default_rng(seed)
    upper = np.triu(generator.integers(-30, 31, (3, 3)), 1) + np.eye(3)
    lower = np.tril(generator.integers(-5, 6, (3, 3)), -1) + np.eye(3)
    combination = shortest_basis(upper @ lower * 2.5)
    assert abs(np.linalg.det(combination)) == pytest.approx(1)
    assert (combination == np.round(combination)).all()
    lengths = np.linalg.norm(combination @ upper @ lower * 2.5, axis=1)
    np.testing.assert_allclose(lengths, 2.5)


def test_short_sum_of_three_long_vectors_is_found() -> None:
    # no pair of them can be shortened, but all three add up to (0, 0, 0.3)
    half, high = 0.5, np.sqrt(0.75)
    vectors = np.array([[1, 0, 0.1], [-half, high, 0.1], [-half, -high, 0.1]])
    lengths = np.linalg.norm(shortest_basis(vectors) @ vectors, axis=1)
    assert min(lengths) == pytest.approx(0.3)


def test_a_good_basis_is_left_alone() -> None:
    for d in range(4):
        vectors = np.array([[3.0, 0, 0], [0.2, 4.0, 0], [0.1, -0.3, 5.0]])[:d]
        assert np.array_equal(shortest_basis(vectors), np.eye(d))


def test_atoms_in_one_cell_are_not_moved_wherever_it_lies() -> None:
    positions = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)).double() * 6 - 41.7
    images = periodic_images(positions, np.eye(3) * 7, EVERYWHERE, 2.0)
    assert images.offset is None
    assert torch.equal(images.wrapped.T, positions)


def test_images_are_where_they_say_and_reach_just_far_enough() -> None:
    cell = np.diag([4.0, 5.0, 6.0])
    positions = torch.rand(30, 3, generator=torch.Generator().manual_seed(1)).double() * 40
    images = periodic_images(positions, cell, (True, False, True), 3.0)
    atom = images.atom.long()
    expected = positions[atom] + images.shift.double() @ torch.as_tensor(cell)
    torch.testing.assert_close(images.place.T, expected)
    low, high = images.wrapped.amin(dim=1), images.wrapped.amax(dim=1)
    assert (low - 3.001 <= images.place.T).all()
    assert (high + 3.001 >= images.place.T).all()
    torch.testing.assert_close(images.place[:, images.home.long()], images.wrapped)
    # without vacuum to save, about (4 + 2·3)/4 · (6 + 2·3)/6 = 5 images of each atom
    assert 4 < len(atom) / 30 < 5
    keys = [(a, *s) for a, s in zip(atom.tolist(), images.shift.tolist(), strict=True)]
    assert keys == sorted(set(keys))
