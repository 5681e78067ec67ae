"""Pairs of atoms within a cutoff.

Both methods work on the same explicit periodic images and end in the same float64 test, so they
return the same pairs bit for bit; they differ in how they propose candidates. `brute` compares
every atom with every image. `cells` is a linked-cell search (Allen & Tildesley, Computer
Simulation of Liquids, sec. 5.3.2) whose cells are square columns of the cutoff's width: along a
column atoms are sorted, a few consecutive ones form a block, and a block is compared at once with
the stretches of its nine columns that can reach it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from mgsym.errors import InputError, UsageError
from mgsym.structure.periodic_images import SLACK, Images, periodic_images, take

METHODS = ("auto", "brute", "cells")
# up to this many pairs of an atom and an image comparing all is the quicker way
FEW_PAIRS = 2**19
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


class _Candidates(NamedTuple):
    """Images that may be near some atoms: the first `counts[0]` for `target[0]`, and so on.

    Attributes:
        target: [r] int64, atoms.
        counts: [r] int64.
        image: [sum of counts] int32, ascending for each atom.
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
    targets: Tensor | None = None,
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
        targets: [k] int64 ascending, the atoms at which pairs arrive; None for all.
        method: ``brute`` (all pairs, in chunks), ``cells`` (linked cells) or ``auto``.
        device: where to search; the result is on the CPU.

    Raises:
        InputError: the cutoff is not a positive number, a coordinate is not finite, the periodic
            cell vectors have no volume, or the cutoff takes in too many images.
        UsageError: there is no such method.
    """
    if method not in METHODS:
        raise UsageError(f"no neighbour search {method!r}: choose one of {', '.join(METHODS)}")
    _check(positions, cell, cutoff)
    if len(positions) == 0 or (targets is not None and len(targets) == 0):
        return _empty(0)
    positions = positions.detach().to(device=device, dtype=torch.float64)
    vectors = cell.detach().to(device="cpu", dtype=torch.float64).numpy()
    # candidates may be further than the cutoff by more than rounding can amount to
    reach = cutoff * (1 + SLACK) + 1e-14 * float(positions.abs().max())
    images = periodic_images(positions, vectors, periodic, reach)
    atoms = torch.arange(len(positions)) if targets is None else targets
    atoms = atoms.to(positions.device)
    few = len(atoms) * len(images.atom) <= FEW_PAIRS
    brute = few if method == "auto" else method == "brute"
    candidates = list((_all_pairs if brute else _columns)(images, atoms, reach))
    return _decide(images, candidates, cutoff)


def _check(positions: Tensor, cell: Tensor, cutoff: float) -> None:
    if not 0 < cutoff < float("inf"):
        raise InputError(f"the cutoff is {cutoff:g} Å, expected a positive, finite number")
    if positions.dim() != 2 or positions.shape[1] != 3 or tuple(cell.shape) != (3, 3):
        raise InputError(
            f"positions are {list(positions.shape)} and the cell is {list(cell.shape)}, "
            "expected [n, 3] and [3, 3]"
        )
    if not (torch.isfinite(positions).all() and torch.isfinite(cell).all()):
        raise InputError("positions or cell have NaN or infinite numbers")


def _empty(edges: int) -> Pairs:
    return Pairs(
        torch.empty(2, edges, dtype=torch.int64),
        torch.empty(edges, 3, dtype=torch.int16),
        torch.empty(edges, 3, dtype=torch.float32),
    )


# --- proposing candidates --------------------------------------------------------------------


def _all_pairs(images: Images, targets: Tensor, reach: float) -> Iterator[_Candidates]:
    """Compare every target with every image, a few atoms at a time."""
    atoms, place = images.wrapped.T.contiguous(), images.place.T.contiguous()
    every = torch.arange(len(targets), device=place.device)
    for target in targets.split(max(1, _chunk(place) // len(place))):
        distance = torch.cdist(atoms[target], place, compute_mode="donot_use_mm_for_euclid_dist")
        near = distance <= reach
        near.scatter_(1, images.home[target].long()[:, None], False)
        counts, image = true_in_rows(near)
        image -= torch.repeat_interleave(every[: len(target)] * len(place), counts)
        yield _Candidates(target, counts, image.int())


class _Blocks(NamedTuple):
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


def _blocks(atoms: Tensor, place: Tensor, reach: float) -> _Blocks:
    """Sort into columns along the longest axis and cut the columns into blocks of atoms.

    Args:
        atoms: [3, n] float64, Å.
        place: [3, m] float64, Å.
        reach: Å.
    """
    low, high = place.amin(dim=1, keepdim=True), place.amax(dim=1, keepdim=True)
    axes = (high - low).flatten().argsort()
    # a whole number of columns at least as wide as the reach, and layers 1/16 of it thick; the
    # column and the layer fit into 62 bits together
    parts = low.new_tensor([[1.0], [1.0], [16.0]])
    most = low.new_tensor([[2.0**19], [2.0**19], [2.0**21]])
    start = atoms.amin(dim=1, keepdim=True)[axes]
    span = atoms.amax(dim=1, keepdim=True)[axes] - start
    width = torch.maximum(reach / parts, span / (span * parts / reach).floor().clamp(min=1))
    width = torch.maximum(width, (high - low)[axes] / most) * (1 + SLACK)
    # one column is left empty all around
    start -= ((start - low[axes]) / width).ceil() * width + width
    rows, layers = (((high[axes] - start) / width).long()[1:] + 2).flatten().tolist()

    def sort(points: Tensor) -> tuple[Tensor, Tensor]:
        x, y, z = (((points[i] - s) / w).long() for i, s, w in zip(axes, start, width, strict=True))
        key, order = ((x * rows + y) * layers + z).sort()
        return key, order

    key, image = sort(place)
    atom_key, atom = sort(atoms)
    column = atom_key // layers
    length = torch.unique_consecutive(column, return_counts=True)[1]
    number = (length + BLOCK - 1) // BLOCK
    of = torch.repeat_interleave(number)
    rank = torch.arange(len(of), device=of.device) - (number.cumsum(0) - number)[of]
    first = (length.cumsum(0) - length)[of] + rank * BLOCK
    last = torch.minimum(first + BLOCK, length.cumsum(0)[of]) - 1
    slot = first[:, None] + torch.arange(BLOCK, device=of.device)
    filled = torch.where(slot <= last[:, None], pad(atom, (0, BLOCK))[slot], len(atom))

    thick = int(reach / float(width[2])) + 1
    bottom = (atom_key[first] - column[first] * layers - thick).clamp(min=0)
    top = (atom_key[last] - column[last] * layers + thick).clamp(max=layers - 1)
    around = torch.tensor([-1, 0, 1], device=of.device)
    floor = (column[first][:, None] + (around[:, None] * rows + around).flatten()) * layers
    begin = torch.searchsorted(key, floor + bottom[:, None])
    end = torch.searchsorted(key, floor + top[:, None], right=True)
    return _Blocks(filled, begin, end, pad(image, (0, 1), value=len(image)).int())


def _columns(images: Images, targets: Tensor, reach: float) -> Iterator[_Candidates]:
    """Compare blocks of neighbouring targets with the images in reach of the block."""
    n, m = len(targets), len(images.atom)
    atoms = images.wrapped if n == len(images.home) else take(images.wrapped, targets)
    blocks = _blocks(atoms, images.place, reach)
    # |a − b|² < r²  ⇔  (−2a, 1) · (b, b²) < r² − a²: a product of matrices, with room for its
    # rounding; fillers are near nothing
    centre = (images.place.amin(dim=1) + images.place.amax(dim=1))[:, None] / 2
    place, atoms = images.place - centre, atoms - centre
    squares = (place**2).sum(dim=0, keepdim=True)
    right = pad(torch.cat([place, squares]), (0, 1))
    right[3, m] = torch.inf
    left = pad(torch.cat([-2 * atoms, torch.ones_like(atoms[:1])]), (0, 1)).T.contiguous()
    limit = reach**2 + 1e-14 * float(squares.max()) - (atoms**2).sum(dim=0)
    limit = pad(limit, (0, 1), value=-torch.inf)
    home = pad(images.home[targets], (0, 1), value=m)

    for block in _alike(blocks, _chunk(place)):
        image = _in_reach(blocks, block)
        atom = blocks.atom[block].flatten()
        size = image.shape[1]
        product = torch.bmm(
            left.index_select(0, atom).view(-1, BLOCK, 4),
            take(right, image.flatten()).view(4, -1, size).transpose(0, 1),
        )
        near = product < limit.index_select(0, atom).view(-1, BLOCK, 1)
        itself = torch.searchsorted(image, home.index_select(0, atom).view(-1, BLOCK))
        near.scatter_(2, itself.clamp_(max=size - 1)[:, :, None], False)
        counts, columns = true_in_rows(near.view(-1, size))
        # the rows of a block share its candidates
        row = torch.arange(len(counts), device=place.device)
        columns -= torch.repeat_interleave((row - row // BLOCK) * size, counts)
        real = atom < n
        yield _Candidates(
            targets[atom[real]], counts[real], image.flatten().index_select(0, columns)
        )


def _alike(blocks: _Blocks, chunk: int) -> Iterator[Tensor]:
    """Numbers of blocks with about equally many images in reach, as many as fill a chunk."""
    size, order = (blocks.end - blocks.begin).sum(dim=1).sort(stable=True)
    part = (size * BLOCK).cumsum(0) // chunk
    yield from order.split(torch.unique_consecutive(part, return_counts=True)[1].tolist())


def _in_reach(blocks: _Blocks, block: Tensor) -> Tensor:
    """[blocks, c] int32: the images in reach of each block, ascending, then fillers."""
    begin, end = blocks.begin[block], blocks.end[block]
    length = end - begin
    at = begin[:, :, None] + torch.arange(int(length.max()), device=block.device)
    at = torch.where(at < end[:, :, None], at, len(blocks.image) - 1)
    image = blocks.image.index_select(0, at.flatten()).view(len(block), -1)
    size = int(length.sum(dim=1).max())
    # numpy sorts bare integers with vector instructions, torch carries their indices along
    if image.device.type == "cpu":
        return torch.from_numpy(np.sort(image.numpy(), axis=1)[:, :size]).contiguous()
    return image.sort(dim=1).values[:, :size].contiguous()


def true_in_rows(mask: Tensor) -> tuple[Tensor, Tensor]:
    """How often each row of a mask [r, c] is true [r], and the flat indices where it is [e]."""
    # numpy skips over what is false eight bytes at a time
    if mask.device.type == "cpu":
        flat = torch.from_numpy(np.flatnonzero(mask.numpy()))
    else:
        flat = mask.flatten().nonzero().squeeze(1)
    edges = torch.arange(mask.shape[0] + 1, device=mask.device) * mask.shape[1]
    return torch.searchsorted(flat, edges).diff(), flat


def _chunk(like: Tensor) -> int:
    """How many numbers to work on at once: what a core's cache holds, or what fills a GPU."""
    return 2**18 if like.device.type == "cpu" else 2**25


# --- deciding --------------------------------------------------------------------------------


def _decide(images: Images, candidates: list[_Candidates], cutoff: float) -> Pairs:
    """Keep the candidates closer than the cutoff, in the order of the atoms."""
    target, counts, image = (torch.cat(parts) for parts in zip(*candidates, strict=True))
    order = target.argsort()
    begin = (counts.cumsum(0) - counts)[order]
    target, counts = target[order], counts[order]
    end = counts.cumsum(0)
    pairs, size, start = _empty(int(end[-1])), 0, 0
    part = end // (_chunk(end) // 4)
    for length in torch.unique_consecutive(part, return_counts=True)[1].tolist():
        atoms = slice(start, start + length)
        number = counts[atoms]
        # where each atom's run of candidates is, less where it will be
        at = torch.repeat_interleave(begin[atoms] - (number.cumsum(0) - number), number)
        at += torch.arange(len(at), device=at.device)
        row = torch.repeat_interleave(target[atoms], number)
        size += _write(images, row, image.index_select(0, at), cutoff, pairs, size)
        start += length
    if size == len(pairs.shift):
        return pairs
    return Pairs(
        pairs.edge_index[:, :size].clone(), pairs.shift[:size].clone(), pairs.vector[:size].clone()
    )


def _write(
    images: Images, target: Tensor, image: Tensor, cutoff: float, pairs: Pairs, start: int
) -> int:
    """Write the pairs among some candidates [e] from row `start` on; how many they are."""
    source = images.atom.index_select(0, image)
    # source − target first: the reverse pair then gets exactly the opposite vector
    x, y, z = (
        at.index_select(0, source).sub_(at.index_select(0, target)).add_(by.index_select(0, image))
        for at, by in zip(images.wrapped, images.translation, strict=True)
    )
    near = x * x + y * y + z * z < cutoff * cutoff
    if not near.all():
        target, image, source = target[near], image[near], source[near]
        x, y, z = x[near], y[near], z[near]
    rows = slice(start, start + len(source))
    pairs.edge_index[0, rows] = source
    pairs.edge_index[1, rows] = target
    pairs.shift[rows] = images.shift.index_select(0, image)
    if images.offset is not None:
        pairs.shift[rows] += images.offset.index_select(0, target).cpu()
    for k, values in enumerate((x, y, z)):
        pairs.vector[rows, k] = values
    return len(source)
