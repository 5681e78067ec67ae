"""The periodic images of atoms that can matter within a distance, one by one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mgsym.errors import InputError

# an image is counted by a 16-bit integer along each cell vector
LARGEST_SHIFT = 32767
# more images than this need tens of gigabytes
MOST_IMAGES = 2**28
# relative; rounding is far smaller
SLACK = 1e-9


class Images(NamedTuple):
    """Every image of an atom that may be in reach of an atom, sorted by atom, then shift.

    Wrapped atoms are those within one cell; where no atom had to be moved they are as given.

    Attributes:
        wrapped: [3, n] float64, Å, the atoms moved into one cell.
        offset: [n, 3] int16, the cell each atom was moved from; None if none had to be moved.
        home: [n] int32, the image that is the wrapped atom itself.
        atom: [m] int32, the atom each image is of.
        shift: [m, 3] int16, from the atom as given to the image, in cells.
        translation: [3, m] float64, Å, from the wrapped atom to the image.
        place: [3, m] float64, Å, where the image is (rounded).
    """

    wrapped: Tensor
    offset: Tensor | None
    home: Tensor
    atom: Tensor
    shift: Tensor
    translation: Tensor
    place: Tensor


def periodic_images(
    positions: Tensor, cell: np.ndarray, periodic: tuple[bool, bool, bool], reach: float
) -> Images:
    """All images no further than `reach` outside the space the wrapped atoms take up.

    Args:
        positions: [n, 3] float64, Å, n > 0.
        cell: [3, 3] float64, Å; rows are the cell vectors.
        periodic: whether the cell repeats along each of its vectors.
        reach: Å.

    Raises:
        InputError: the periodic vectors have no volume, or there are too many images.
    """
    axes = [axis for axis in range(3) if periodic[axis]]
    combination = shortest_basis(cell[axes])
    vectors = combination @ cell[axes]
    # directions that do not repeat stand at right angles to those that do
    normals = np.linalg.qr(vectors.T, mode="complete")[0][:, len(axes) :]
    inverse = np.linalg.inv(np.concatenate([vectors, normals.T]))[:, : len(axes)]
    to_fraction = positions.new_tensor(inverse)

    # into the cell that starts where the atoms do: most files then need no wrapping
    fraction = (positions @ to_fraction).T
    offset = (fraction - _lowest(fraction) + SLACK).floor()
    wrapped = positions.T - _along(vectors, offset)
    margin = positions.new_tensor(np.linalg.norm(inverse, axis=0) * reach + SLACK)
    atom, steps = _images_within((wrapped.T @ to_fraction).T, margin[:, None])
    translation = _along(vectors, steps)

    # from steps along the short vectors to steps along the cell's
    to_cell = np.zeros((len(axes), 3))
    to_cell[:, axes] = combination
    offset, steps = _along(to_cell, offset), _along(to_cell, steps)
    _refuse_far_images(offset, steps)
    if not np.array_equal(combination, np.eye(len(axes))):
        order = torch.arange(len(atom), device=atom.device)
        for key in (*steps.flip(0), atom):
            order = order[key[order].argsort(stable=True)]
        atom, steps, translation = atom[order], steps[:, order], translation[:, order]
    shift = (steps - take(offset, atom)).to(torch.int16).T.contiguous()
    home = (steps == 0).all(dim=0).nonzero().squeeze(1).int()
    moved = offset.to(torch.int16).T.contiguous() if offset.any() else None
    place = take(wrapped, atom) + translation
    return Images(wrapped, moved, home, atom.int(), shift, translation, place)


def shortest_basis(vectors: np.ndarray) -> np.ndarray:
    """The whole-number combinations of up to three vectors that are as short as can be.

    The cells of a skewed lattice are long and thin, and many of them touch a sphere; a
    Minkowski-reduced basis (Nguyen & Stehlé, ACM Trans. Algorithms 5, 46 (2009)) spans compact
    ones. Only speed depends on it.

    Args:
        vectors: [d, 3] float64, Å.

    Returns:
        [d, d] whole numbers (as float64), determinant ±1.

    Raises:
        InputError: the vectors are not independent.
    """
    d = len(vectors)
    lengths = np.linalg.norm(vectors, axis=1)
    volume = np.sqrt(max(np.linalg.det(vectors @ vectors.T), 0.0))
    # below 1e-6 of the box's volume it is rounding, not a cell
    if not (lengths > 0).all() or volume <= 1e-6 * lengths.prod():
        raise InputError(
            "the periodic cell vectors have no volume (one is zero, or they lie in a plane): "
            "give independent vectors"
        )
    combination = np.eye(d)
    if d < 2:
        return combination
    near = np.array(np.meshgrid(*[[-1.0, 0.0, 1.0]] * d)).reshape(d, -1).T
    unchanged, i = 0, 0
    while unchanged < d:
        basis = combination @ vectors
        far = np.diag(-np.round(basis @ basis[i] / (basis**2).sum(axis=1)))
        steps = np.concatenate([near, far])
        steps[:, i] = 1
        squares = ((steps @ basis) ** 2).sum(axis=1)
        shorter = squares.min() < (basis[i] ** 2).sum() * (1 - SLACK)
        if shorter:
            combination[i] = steps[squares.argmin()] @ combination
        unchanged = 0 if shorter else unchanged + 1
        i = (i + 1) % d
    return combination


def take(rows: Tensor, index: Tensor) -> Tensor:
    """rows[:, index], by one-dimensional `index_select`, which is quickest."""
    return torch.stack([row.index_select(0, index) for row in rows])


def _lowest(rows: Tensor) -> Tensor:
    return rows.amin(dim=1, keepdim=True)


def _along(vectors: np.ndarray, steps: Tensor) -> Tensor:
    """[3, m] float64: steps [d, m] along vectors [d, 3].

    Products and sums in a fixed order, so that opposite steps give exactly opposite vectors.
    """
    total = steps.new_zeros(3, steps.shape[1])
    for row, vector in zip(steps, vectors.tolist(), strict=True):
        for axis, length in enumerate(vector):
            if length != 0:
                total[axis] += row * length
    return total


def _images_within(fraction: Tensor, margin: Tensor) -> tuple[Tensor, Tensor]:
    """The images of atoms that lie no further than a margin outside the span of the atoms.

    Args:
        fraction: [d, n] float64, coordinates along the periodic vectors.
        margin: [d, 1] float64, in the same coordinates.

    Returns:
        The atom of each image [m] int64, ascending, and its steps along the vectors [d, m]
        float64, in lexicographic order for each atom.
    """
    d, n = fraction.shape
    if d == 0:
        return torch.arange(n, device=fraction.device), fraction
    first = (_lowest(fraction) - margin - fraction).ceil()
    number = ((fraction.amax(dim=1, keepdim=True) + margin - fraction).floor() - first) + 1
    images = float(number.prod(dim=0).sum())
    if images > MOST_IMAGES or float(number.max()) > LARGEST_SHIFT:
        raise InputError(
            f"the cutoff takes in {images:.3g} periodic images of {n} atoms, at most "
            f"{MOST_IMAGES:.3g} can be searched: take a smaller cutoff, or check the cell"
        )
    number = number.int()
    each = number.prod(dim=0)
    atom = torch.repeat_interleave(each)
    rank = torch.arange(len(atom), dtype=torch.int32, device=atom.device)
    rank -= (each.cumsum(0) - each).int().index_select(0, atom)
    steps = take(first, atom)
    for k in reversed(range(d)):
        size = number[k].index_select(0, atom)
        steps[k] += rank % size
        rank = rank // size
    return atom, steps


def _refuse_far_images(offset: Tensor, steps: Tensor) -> None:
    spread = offset.amax(dim=1) - offset.amin(dim=1) + steps.abs().amax(dim=1)
    largest = max(float(spread.max()), float(offset.abs().max()))
    if largest > LARGEST_SHIFT:
        raise InputError(
            f"an atom lies {largest:.0f} cells from the image of another, at most "
            f"{LARGEST_SHIFT} can be counted: wrap the positions, or check the cell"
        )
