"""How potentials and neighbours lie in memory for the inner loop (`eam_kernel`, `eam_rows`).

An atom with forces is a *row*; its neighbours take up as many strips as they need. Neighbours are
*sites*: every atom or periodic image that any row can see. A site moves with the row that owns it
or, in the frozen boundary of a barrier search, not at all. Sites far away fill up strips.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from mgsym.data_tools.simulation.potentials.eam import EAM

VECTOR = 16  # numbers that a processor works on at once, at most
STRIP = 32  # neighbours in a strip
FAR = 1e15  # Å; where the site that fills up strips is: no atom is near, and float32 can square it


class Tables(NamedTuple):
    """A potential as the kernel reads it.

    Attributes:
        coefficients: [s² (bins + 1), 8], four of the density and four of the pair energy times
            the distance, by species of the neighbour, then of the row; the last bin of a pair
            of species is zero, which is where all distances beyond the cutoff are looked up.
        embedding: [s, rho_bins, 4].
        bins: of the radial tables, without the zero one.
        cutoff: Å, where it cuts the last bin in two; None where that ends with it.
        inverse_spacing: 1/Å.
        density_spacing: of the embedding tables.
        symmetric: whether both atoms of a pair give each other the same density, for all pairs.
    """

    coefficients: Tensor
    embedding: Tensor
    bins: int
    cutoff: float | None
    inverse_spacing: float
    density_spacing: float
    symmetric: bool


class Neighborhood(NamedTuple):
    """Who sees whom.

    Attributes:
        types: [r] species of the rows.
        strips: [r, k] int64, the strips of each row; v where it has fewer.
        row: [v] int64, the row of each strip.
        neighbor: [STRIP, v] int32, sites; v is a multiple of VECTOR.
        site_types: [s] species of the sites.
        embedded: [s] int64, where the embedding slope of a site is: among rows, then boundary
            atoms, then a zero.
        boundary: atoms that stay but feel a changed density; None where every atom is a row.
    """

    types: Tensor
    strips: Tensor
    row: Tensor
    neighbor: Tensor
    site_types: Tensor
    embedded: Tensor
    boundary: Boundary | None = None


class Boundary(NamedTuple):
    """Frozen atoms near enough to rows to feel their density.

    Attributes:
        types: [q] species.
        fixed: [q] the density that frozen atoms give.
        slot: [p] int64, places in the flattened [STRIP, v] where a boundary atom is the neighbour.
        atom: [p] int64, which boundary atom it is; ascending where there are `runs`.
        weight: [s] share of the pair energy that a row counts with this site: a half where the
            site is a row too, all of it where it is frozen.
        runs: [q] int64, places of each boundary atom, which are then summed in a fixed order;
            None on CPUs, which have one anyway.
    """

    types: Tensor
    fixed: Tensor
    slot: Tensor
    atom: Tensor
    weight: Tensor
    runs: Tensor | None = None


def lay_out_tables(potential: EAM, device: str | torch.device, dtype: torch.dtype) -> Tables:
    """Lay out a potential for the kernel, on a device."""
    reach = float(potential.reach.max())
    bins = math.ceil(reach / potential.spacing - 1e-6)
    whole = abs(bins * potential.spacing - reach) < 1e-6 * potential.spacing

    def layout(coefficients: Tensor) -> Tensor:
        rows = coefficients.flatten(0, 1)
        # a table that ends too early holds its last value
        held = pad(rows[:, -1:].sum(dim=-1, keepdim=True), (0, 3))
        held = held.expand(-1, max(0, bins - rows.shape[1]), -1)
        rows = pad(torch.cat((rows[:, :bins], held), dim=1), (0, 0, 0, 1))
        return rows.reshape(-1, 4)

    density = potential.density
    return Tables(
        torch.cat((layout(density), layout(potential.pair)), dim=1).to(device, dtype),
        potential.embedding.to(device, dtype),
        bins,
        None if whole else reach,
        1.0 / potential.spacing,
        potential.density_spacing,
        torch.equal(density, density.transpose(0, 1)),
    )


class Strips(NamedTuple):
    """Where the neighbours of rows are.

    Attributes:
        of_row: [r, k] int64, the strips of each row; v where it has fewer.
        row: [v] int64, the row of each strip.
        rank, strip: [e] int64, the place of each neighbour in [STRIP, v].
    """

    of_row: Tensor
    row: Tensor
    rank: Tensor
    strip: Tensor


def strips_for(degree: Tensor) -> Tensor:
    """How many strips so many neighbours take up."""
    return (degree + (STRIP - 1)) // STRIP


def in_strips(degree: Tensor) -> Strips:
    """Lay out the neighbours of rows, sorted by row, in strips.

    Args:
        degree: [r] neighbours of each row.
    """
    number = strips_for(degree)
    first = number.cumsum(0) - number
    row = torch.repeat_interleave(number)
    step = torch.arange(int(number.max()), device=degree.device)
    of_row = torch.where(step < number[:, None], first[:, None] + step, len(row))
    of_pair = torch.repeat_interleave(degree)
    rank = torch.arange(len(of_pair), device=degree.device) - (degree.cumsum(0) - degree)[of_pair]
    return Strips(of_row, row, rank % STRIP, first[of_pair] + rank // STRIP)


def with_room(number: int) -> int:
    """A size 4 to 13 % above a number, one of a geometric series of whole vectors.

    Whole vectors: sums are then rounded alike everywhere. A series: lists of nearly equal sizes
    share one compiled version, whoever makes them.
    """
    step = math.ceil(math.log(max(1.0, 1.04 * number / VECTOR), 1.08))
    return VECTOR * math.ceil(1.08**step)
