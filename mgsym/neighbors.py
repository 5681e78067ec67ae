"""Pairs of atoms within a cutoff.

Both methods work on the same explicit periodic images and end in the same float64 test, so they
return the same pairs bit for bit; they differ in how they propose candidates. `brute` compares
every atom with every image. `cells` is a linked-cell search (Allen & Tildesley, Computer
Simulation of Liquids, sec. 5.3.2) whose cells are square columns of the cutoff's width: along the
third axis atoms are sorted, a few consecutive ones form a block, and a block is compared at once
with the stretches of its nine columns that can reach it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mgsym.errors import InputError, UsageError

METHODS = ("auto", "brute", "cells")
# an image is counted by a 16-bit integer along each cell vector
LARGEST_SHIFT = 32767
# more images than this need tens of gigabytes
MOST_IMAGES = 2**28
# below this many atom-image pairs comparing all of them is the quicker way
FEW_PAIRS = 2**19
# candidates may be this much further than the cutoff (relative); rounding is far smaller
SLACK = 1e-9
# atoms compared at once with their common candidates
BLOCK = 8


class Pairs(NamedTuple):
    """Directed pairs of atoms within a cutoff.

    Attributes:
        edge_index: [2, e] int64; row 0 source, row 1 target; sorted by target, then source,
            then shift.
        shift: [e, 3] int16, the periodic image of the source.
        vector: [e, 3] float32, Å: positions[source] + shift · cell − positions[target].
    """

    edge_index: Tensor
    shift: Tensor
    vector: Tensor


class _Images(NamedTuple):
    """Every image of an atom that may be within the cutoff of an atom of the cell.

    Sorted by atom, then shift, so that sorted image numbers are sorted edges.

    Attributes:
        wrapped: [3, n] float64, Å, the atoms brought into the cell.
        offset: [n, 3] int16, the cell each atom was brought from.
        home: [n] int32, the image that is the wrapped atom itself.
        atom: [m] int32, the atom this is an image of.
        shift: [m, 3] int16, its image relative to the position as given.
        translation: [3, m] float64, Å, the image minus the wrapped atom.
    """

    wrapped: Tensor
    offset: Tensor
    home: Tensor
    atom: Tensor
    shift: Tensor
    translation: Tensor

    @property
    def place(self) -> Tensor:
        """[3, m] float64, Å, where the images are."""
        return self.wrapped.index_select(1, self.atom) + self.translation


class _Found(NamedTuple):
    """Candidates of some atoms: the images of `counts[0]` belong to `target[0]`, and so on.

    Attributes:
        target: [r] int64.
        counts: [r] int64.
        image: [sum of counts] int32, ascending for each target.
    """

    target: Tensor
    counts: Tensor
    image: Tensor


def neighbor_pairs(
    positions: Tensor,
    cell: Tensor,
    periodic: tuple[bool, bool, bool],
    cutoff: float,
    *,
    method: str = "auto",
    device: str | torch.device = "cpu",
) -> Pairs:
    """Find all pairs of atoms closer than a cutoff, both ways.

    In a cell smaller than the cutoff an atom may be paired with several images of another one,
    and with images of itself. Distances are differences in float64; a pair exactly at the cutoff
    is left out.

    Args:
        positions: [n, 3] float64, Å; atoms may lie outside the cell.
        cell: [3, 3] float64, Å; rows are the cell vectors; those that are not periodic are not
            looked at.
        periodic: whether the cell repeats along each of its vectors.
        cutoff: Å.
        method: ``brute`` (all pairs, in chunks), ``cells`` (linked cells) or ``auto``.
        device: where to search; the result is on the CPU.

    Raises:
        InputError: the cutoff is not a positive number, a coordinate is not finite, the periodic
            cell vectors have no volume, or the cutoff takes in too many images.
        UsageError: there is no such method.
    """
    if method not in METHODS:
        raise UsageError(f"no neighbour search {method!r}: choose one of {', '.join(METHODS)}")
    cutoff = float(cutoff)
    if not 0 < cutoff < float("inf"):
        raise InputError(f"the cutoff is {cutoff:g} Å, expected a positive, finite number")
    positions = positions.detach().to(device=device, dtype=torch.float64)
    if positions.dim() != 2 or positions.shape[1] != 3 or tuple(cell.shape) != (3, 3):
        raise InputError(
            f"positions are {list(positions.shape)} and the cell is {list(cell.shape)}, "
            "expected [n, 3] and [3, 3]"
        )
    if not (torch.isfinite(positions).all() and torch.isfinite(cell).all()):
        raise InputError("positions or cell have NaN or infinite numbers")
    if len(positions) == 0:
        return _empty(0)
    images = _periodic_images(positions, cell.detach().cpu().double().numpy(), periodic, cutoff)
    if method == "auto":
        few = images.wrapped.shape[1] * len(images.atom) <= FEW_PAIRS
        method = "brute" if few else "cells"
    search = _all_pairs if method == "brute" else _columns
    return _decide(images, list(search(images, cutoff)), cutoff)


def _empty(edges: int) -> Pairs:
    return Pairs(
        torch.empty(2, edges, dtype=torch.int64),
        torch.empty(edges, 3, dtype=torch.int16),
        torch.empty(edges, 3, dtype=torch.float32),
    )


# --- periodic images -------------------------------------------------------------------------


def _periodic_images(
    positions: Tensor, cell: np.ndarray, periodic: tuple[bool, bool, bool], cutoff: float
) -> _Images:
    axes = [axis for axis in range(3) if periodic[axis]]
    combination = _short_vectors(cell[axes])
    # integer combinations of the cell vectors, made of products and sums in a fixed order
    vectors = combination @ cell[axes]
    normals = np.linalg.qr(vectors.T, mode="complete")[0][:, len(axes) :]
    inverse = np.linalg.inv(np.concatenate([vectors, normals.T]))[:, : len(axes)]
    to_fraction = positions.new_tensor(inverse)

    offset = (positions @ to_fraction).floor()
    wrapped = (positions - _translation(offset, vectors)).T.contiguous()
    reach = positions.new_tensor(cutoff * np.linalg.norm(inverse, axis=0) * (1 + SLACK) + SLACK)
    atom, steps = _images_within(wrapped.T @ to_fraction, reach)
    translation = _translation(steps, vectors).T.contiguous()

    # from steps along the short vectors to steps along the cell's
    to_cell = np.zeros((len(axes), 3))
    to_cell[:, axes] = combination
    offset, steps = _translation(offset, to_cell), _translation(steps, to_cell)
    _refuse_far_images(offset, steps)
    if not np.array_equal(combination, np.eye(len(axes))):
        order = torch.arange(len(atom), device=atom.device)
        for key in (steps[:, 2], steps[:, 1], steps[:, 0], atom):
            order = order[key[order].argsort(stable=True)]
        atom, steps, translation = atom[order], steps[order], translation[:, order]
    shift = (steps - offset[atom]).to(torch.int16)
    home = (steps == 0).all(dim=1).nonzero().squeeze(1)
    return _Images(wrapped, offset.to(torch.int16), home.int(), atom.int(), shift, translation)


def _short_vectors(vectors: np.ndarray) -> np.ndarray:
    """The integer combinations of up to three vectors that make them as short as can be.

    The cells of a skewed lattice are long and thin, and many of them touch a sphere; a
    Minkowski-reduced basis (Nguyen & Stehlé, ACM Trans. Algorithms 5, 46 (2009)) spans compact
    ones. Only speed depends on it.

    Args:
        vectors: [d, 3] float64, Å.

    Returns:
        [d, d] whole numbers (as float64), determinant ±1.
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
    steps = np.stack(np.meshgrid(*[[-1.0, 0.0, 1.0]] * d), -1).reshape(-1, d) if d else np.eye(0)
    unchanged, i = 0, 0
    while unchanged < d:
        basis = combination @ vectors
        nearest = np.diag(-np.round(basis @ basis[i] / (basis**2).sum(axis=1)))
        tries = np.concatenate([steps, nearest])
        tries[:, i] = 1
        squares = ((tries @ basis) ** 2).sum(axis=1)
        shorter = squares.min() < (basis[i] ** 2).sum() * (1 - SLACK)
        if shorter:
            combination[i] = tries[squares.argmin()] @ combination
        unchanged = 0 if shorter else unchanged + 1
        i = (i + 1) % d
    return combination


def _translation(steps: Tensor, vectors: np.ndarray) -> Tensor:
    """[m, 3] float64: steps [m, d] along vectors [d, 3].

    Products and sums in a fixed order, so that opposite steps give exactly opposite vectors.
    """
    total = steps.new_zeros(len(steps), 3)
    for k, vector in enumerate(vectors):
        total += steps[:, k : k + 1] * steps.new_tensor(vector)
    return total


def _images_within(fraction: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
    """The images of atoms that lie no further than `reach` outside the span of the atoms.

    Args:
        fraction: [n, d] float64, coordinates along the periodic vectors.
        reach: [d] float64, the cutoff in the same coordinates.

    Returns:
        The atom of each image [m] int64, ascending, and its steps along the vectors [m, d]
        float64, in lexicographic order for each atom.
    """
    n, d = fraction.shape
    if d == 0:
        return torch.arange(n, device=fraction.device), fraction
    first = (fraction.amin(dim=0) - reach - fraction).ceil()
    last = (fraction.amax(dim=0) + reach - fraction).floor()
    number = last - first + 1
    images = float(number.prod(dim=1).sum())
    if images > MOST_IMAGES or float(number.max()) > LARGEST_SHIFT:
        raise InputError(
            f"the cutoff takes in {images:.3g} periodic images of {n} atoms, at most "
            f"{MOST_IMAGES:.3g} can be searched: take a smaller cutoff, or check the cell"
        )
    number = number.long()
    each = number.prod(dim=1)
    atom = torch.repeat_interleave(each)
    rank = torch.arange(len(atom), device=atom.device) - (each.cumsum(0) - each)[atom]
    steps = torch.empty(len(atom), d, dtype=fraction.dtype, device=fraction.device)
    for k in reversed(range(d)):
        size = number[:, k][atom]
        steps[:, k] = first[:, k][atom] + rank % size
        rank = rank // size
    return atom, steps


def _refuse_far_images(offset: Tensor, steps: Tensor) -> None:
    spread = offset.amax(dim=0) - offset.amin(dim=0) + steps.abs().amax(dim=0)
    largest = max(float(spread.max()), float(offset.abs().max()))
    if largest > LARGEST_SHIFT:
        raise InputError(
            f"an atom lies {largest:.0f} cells from another image of the cell, at most "
            f"{LARGEST_SHIFT} can be counted: wrap the positions, or check the cell"
        )


# --- proposing candidates --------------------------------------------------------------------


def _all_pairs(images: _Images, cutoff: float) -> Iterator[_Found]:
    """Compare every atom with every image, a few atoms at a time."""
    place = images.place.T.contiguous()
    atoms = images.wrapped.T.contiguous()
    limit = cutoff * (1 + SLACK) + SLACK * 1e-3 + 1e-15 * float(place.abs().max())
    for target in torch.arange(len(atoms), device=place.device).split(
        max(1, _chunk(place) // len(place))
    ):
        distance = torch.cdist(atoms[target], place, compute_mode="donot_use_mm_for_euclid_dist")
        near = distance <= limit
        near.scatter_(1, images.home[target].long()[:, None], False)
        row, counts, image = _where(near)
        yield _Found(target, counts, (image - row * len(place)).int())


class _Columns(NamedTuple):
    """Blocks of atoms and the stretches of sorted images that can reach them.

    Attributes:
        atom: [b, BLOCK] int64, the atoms of each block; n fills up a block.
        begin, end: [b, 9] int64, ranges in `image`.
        image: [m + 1] int32, images along the columns; last comes the filler, m.
    """

    atom: Tensor
    begin: Tensor
    end: Tensor
    image: Tensor


def _sort_into_columns(atoms: Tensor, place: Tensor, cutoff: float) -> _Columns:
    """Blocks of neighbouring atoms in columns along the longest axis.

    Args:
        atoms: [3, n] float64, Å.
        place: [3, m] float64, Å.
    """
    device = atoms.device
    low, high = place.amin(dim=1), place.amax(dim=1)
    axes = (high - low).argsort()
    low, extent = low[axes, None], (high - low)[axes, None]
    # columns as wide as the cutoff, finer along them; the numbers fit 62 bits together
    width = extent.new_tensor([[1.0], [1.0], [1 / 16]]) * cutoff * (1 + SLACK)
    width = torch.maximum(width, extent / extent.new_tensor([[2.0**19], [2.0**19], [2.0**21]]))
    rows, layers = ((extent / width).long()[1:] + 3).flatten().tolist()
    reach = int(cutoff * (1 + SLACK) / float(width[2])) + 1

    def sorted_by_place(points: Tensor) -> tuple[Tensor, Tensor]:
        x, y, z = ((points[axes] - low) / width).long()
        key, order = (((x + 1) * rows + y + 1) * layers + z).sort()
        return key, order

    key, image = sorted_by_place(place)
    atom_key, atom = sorted_by_place(atoms)
    column, counts = torch.unique_consecutive(atom_key // layers, return_counts=True)
    blocks = (counts + BLOCK - 1) // BLOCK
    of = torch.repeat_interleave(blocks)
    rank = torch.arange(len(of), device=device) - (blocks.cumsum(0) - blocks)[of]
    first = (counts.cumsum(0) - counts)[of] + rank * BLOCK
    last = torch.minimum(first + BLOCK, counts.cumsum(0)[of]) - 1

    slot = first[:, None] + torch.arange(BLOCK, device=device)
    filled = torch.where(slot <= last[:, None], atom[slot.clamp(max=len(atom) - 1)], len(atom))
    around = torch.tensor([-1, 0, 1], device=device)
    columns = column[of][:, None] + (around[:, None] * rows + around).flatten()
    bottom = (atom_key[first] % layers - reach).clamp(min=0)[:, None]
    top = (atom_key[last] % layers + reach).clamp(max=layers - 1)[:, None]
    begin = torch.searchsorted(key, columns * layers + bottom)
    end = torch.searchsorted(key, columns * layers + top, right=True)
    return _Columns(filled, begin, end, torch.cat([image, image.new_tensor([len(image)])]).int())


def _columns(images: _Images, cutoff: float) -> Iterator[_Found]:
    """Compare blocks of neighbouring atoms with the images in reach of the block."""
    n, m = images.wrapped.shape[1], len(images.atom)
    place = images.place
    columns = _sort_into_columns(images.wrapped, place, cutoff)
    centre = (place.amin(dim=1) + place.amax(dim=1))[:, None] / 2
    place, atoms = place - centre, images.wrapped - centre
    # |a − b|² < r²  ⇔  b² − 2 a·b < r² − a²: a product of matrices passes on whatever rounding
    # could leave in doubt; fillers are never near anything
    squares = (place**2).sum(dim=0)
    doubt = SLACK * cutoff**2 + 1e-14 * float(squares.max())
    right = torch.nn.functional.pad(torch.cat([place, squares[None]]), (0, 1))
    right[3, m] = torch.inf
    left = torch.nn.functional.pad(torch.cat([-2 * atoms, torch.ones_like(atoms[:1])]), (0, 1))
    limit = torch.full((n + 1,), -torch.inf, dtype=torch.float64, device=place.device)
    limit[:n] = cutoff**2 + doubt - (atoms**2).sum(dim=0)
    left = left.T.contiguous()
    home = torch.nn.functional.pad(images.home, (0, 1), value=m)

    widest = int((columns.end - columns.begin).amax())
    for block in torch.arange(len(columns.atom), device=place.device).split(
        max(1, _chunk(place) // (9 * widest * BLOCK))
    ):
        image = _candidates(columns, block)
        atom = columns.atom[block]
        product = torch.bmm(
            left[atom], right.index_select(1, image.flatten()).view(4, *image.shape).transpose(0, 1)
        )
        near = product < limit[atom][:, :, None]
        itself = torch.searchsorted(image, home[atom]).clamp(max=image.shape[1] - 1)
        near.scatter_(2, itself[:, :, None], False)
        row, counts, found = _where(near.flatten(end_dim=1))
        # the rows of a block share its candidates
        found -= (row - row // BLOCK) * image.shape[1]
        real = atom.flatten() < n
        yield _Found(atom.flatten()[real], counts[real], image.flatten()[found])


def _candidates(columns: _Columns, block: Tensor) -> Tensor:
    """[blocks, c] int32: the images in reach of each block, ascending, then fillers."""
    begin, end = columns.begin[block], columns.end[block]
    lengths = end - begin
    at = begin[:, :, None] + torch.arange(int(lengths.max()), device=block.device)
    at = torch.where(at < end[:, :, None], at, len(columns.image) - 1)
    image = columns.image.index_select(0, at.flatten()).view(len(block), -1)
    return _sorted_rows(image)[:, : int(lengths.sum(dim=1).max())].contiguous()


def _where(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where a mask [r, c] is true: the row of each [e], counts by row [r], flat index [e]."""
    # numpy looks eight bytes at a time
    if mask.device.type == "cpu":
        flat = torch.from_numpy(np.flatnonzero(mask.numpy()))
    else:
        flat = mask.flatten().nonzero().squeeze(1)
    edges = torch.arange(mask.shape[0] + 1, device=mask.device) * mask.shape[1]
    counts = torch.searchsorted(flat, edges).diff()
    return torch.repeat_interleave(counts), counts, flat


def _sorted_rows(values: Tensor) -> Tensor:
    # numpy sorts bare integers with vector instructions, torch carries their indices along
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.numpy(), axis=1))
    return values.sort(dim=1).values


def _chunk(like: Tensor) -> int:
    """How many numbers to work on at once: what a core's cache holds, or fills a GPU."""
    return 2**18 if like.device.type == "cpu" else 2**25


# --- deciding --------------------------------------------------------------------------------


def _decide(images: _Images, found: list[_Found], cutoff: float) -> Pairs:
    """Keep the candidates closer than the cutoff, in the order of the atoms."""
    target, counts, image = (torch.cat(parts) for parts in zip(*found, strict=True))
    order = target.argsort()
    begin = (counts.cumsum(0) - counts)[order]
    counts = counts[order]
    end = counts.cumsum(0)
    pairs, size = _empty(int(end[-1])), 0
    last = torch.div(end, _chunk(end) // 4, rounding_mode="floor")
    for target in torch.arange(len(end), device=end.device).split(
        torch.unique_consecutive(last, return_counts=True)[1].tolist()
    ):
        number = counts[target]
        run = begin[target] - (number.cumsum(0) - number)
        at = torch.repeat_interleave(run, number)
        at += torch.arange(len(at), device=at.device)
        size += _write(
            images, torch.repeat_interleave(target, number), image[at], cutoff, pairs, size
        )
    if size == len(pairs.shift):
        return pairs
    return Pairs(
        pairs.edge_index[:, :size].clone(), pairs.shift[:size].clone(), pairs.vector[:size].clone()
    )


def _write(
    images: _Images, target: Tensor, image: Tensor, cutoff: float, pairs: Pairs, start: int
) -> int:
    """Write the pairs among some candidates [e] from row `start` on; how many they are."""
    source = images.atom[image]
    # source − target first: the reverse pair then gets exactly the opposite vector
    x, y, z = (
        at[source] - at[target] + by[image]
        for at, by in zip(images.wrapped, images.translation, strict=True)
    )
    near = x * x + y * y + z * z < cutoff * cutoff
    if not near.all():
        target, image, source = target[near], image[near], source[near]
        x, y, z = x[near], y[near], z[near]
    rows = slice(start, start + len(source))
    pairs.edge_index[0, rows] = source
    pairs.edge_index[1, rows] = target
    pairs.shift[rows] = images.shift[image] + images.offset[target]
    for k, values in enumerate((x, y, z)):
        pairs.vector[rows, k] = values
    return len(source)
