"""The inner loop: EAM forces on atoms, from their neighbours in strips of equal length.

Two passes over the strips, as the embedding energy asks for: densities, then forces. Everything
is a plain function of tensors, so that it runs eagerly in pieces that a core's cache holds, under
`torch.compile` on a GPU, and under autograd; on a CPU with a C++ compiler, `eam_rows` computes the
same.

Rows, sites and strips: `eam_layout`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mgsym.data_tools.simulation.potentials.compilation import run_compiled
from mgsym.data_tools.simulation.potentials.eam_layout import (
    STRIP,
    Boundary,
    Neighborhood,
    Tables,
)
from mgsym.data_tools.simulation.potentials.eam_rows import compiled_forces, library_for
from mgsym.nn.scatter import run_sums

CHUNK = 2**15  # neighbours worked on at once without a compiler: what a core's cache holds


class RowForces(NamedTuple):
    """What the kernel gives.

    Attributes:
        energy: [r] eV, embedding and the row's share of the pair energy.
        forces: [3, r] eV/Å.
        virial: [6, r] eV (xx, yy, zz, yz, xz, xy), ½ Σ d ⊗ ∂E/∂d over the row's neighbours;
            None unless asked for.
        boundary_energy: [q] eV, embedding energies of the boundary; None without one.
    """

    energy: Tensor
    forces: Tensor
    virial: Tensor | None
    boundary_energy: Tensor | None


class _Bonds(NamedTuple):
    """Rows and their neighbours, after the first pass; each [STRIP, strips]."""

    vector: tuple[Tensor, Tensor, Tensor]  # Å, from row to neighbour
    length: Tensor  # Å
    place: Tensor  # in the bin, 0 to 1
    table: Tensor  # rows of the coefficients
    received: Tensor  # density at the row
    received_back: Tensor  # density at the neighbour
    slope: Tensor  # of `received`, per bin
    slope_back: Tensor  # of `received_back`


def row_forces(
    tables: Tables,
    where: Neighborhood,
    sites: Tensor,
    rows: Tensor,
    *,
    stress: bool = False,
    compile: bool = True,
) -> RowForces:
    """Energies and forces of rows.

    Args:
        tables: of the potential.
        where: neighbours.
        sites: [3, s] Å; the last one is far away.
        rows: [3, r] Å.
        stress: whether to give the virial too.
        compile: use a compiler where there is one (never under autograd).
    """
    if compile and not (sites.requires_grad or rows.requires_grad):
        library = library_for(rows)
        if library is not None:
            return RowForces(*compiled_forces(library, tables, where, sites, rows, stress))
        if rows.device.type != "cpu":
            compiled = run_compiled(_whole, rows.device.type, tables, where, sites, rows, stress)
            if compiled is not None:
                return RowForces(*compiled)
    size = CHUNK if rows.device.type == "cpu" else 2**25
    length, piece = len(where.row), size // STRIP
    parts = [slice(first, min(first + piece, length)) for first in range(0, length, piece)]
    return RowForces(*_in_parts(tables, where, sites, rows, stress, parts))


def _whole(
    tables: Tables, where: Neighborhood, sites: Tensor, rows: Tensor, stress: bool
) -> tuple[Tensor, ...]:
    return _in_parts(tables, where, sites, rows, stress, [slice(0, len(where.row))])


def _in_parts(
    tables: Tables,
    where: Neighborhood,
    sites: Tensor,
    rows: Tensor,
    stress: bool,
    parts: list[slice],
) -> tuple[Any, ...]:
    """Both passes, a few strips at a time."""
    bonds = [_bonds(tables, where, part, sites, rows) for part in parts]
    received = _of_rows(torch.cat([bond.received.sum(0) for bond in bonds])[None], where)[0]
    boundary = where.boundary
    boundary_energy = None
    if boundary is None:
        energy, slope = _embedding(tables, where.types, received)
    else:
        back = torch.cat([bond.received_back for bond in bonds], dim=1).view(-1)
        density = _boundary_density(boundary, back.index_select(0, boundary.slot))
        energies, slope = _embedding(
            tables, torch.cat((where.types, boundary.types)), torch.cat((received, density))
        )
        energy, boundary_energy = energies[: len(received)], energies[len(received) :]
    at_site = torch.cat((slope, slope.new_zeros(1))).index_select(0, where.embedded)
    sums = [
        _sums(tables, where, part, bond, slope, at_site, stress)
        for part, bond in zip(parts, bonds, strict=True)
    ]
    joined = _of_rows(sums[0] if len(sums) == 1 else torch.cat(sums, dim=1), where)
    virial = joined[4:] if stress else None
    return energy + joined[0], joined[1:4], virial, boundary_energy


def _boundary_density(boundary: Boundary, received: Tensor) -> Tensor:
    """The density [q] at boundary atoms, with what rows give them [p]."""
    if boundary.runs is None:
        return boundary.fixed.index_add(0, boundary.atom, received)
    return boundary.fixed + run_sums(received, boundary.runs)


def _bonds(tables: Tables, where: Neighborhood, part: slice, sites: Tensor, rows: Tensor) -> _Bonds:
    """Distances of some strips' rows to their neighbours, and the densities they give."""
    neighbor, row = where.neighbor[:, part], where.row[part]
    x = _gather(sites[0], neighbor) - rows[0].index_select(0, row)
    y = _gather(sites[1], neighbor) - rows[1].index_select(0, row)
    z = _gather(sites[2], neighbor) - rows[2].index_select(0, row)
    length = (x * x + y * y + z * z).sqrt()
    # clamped first: what is very far away has more bins than an int32 counts
    place = (length * tables.inverse_spacing).clamp(max=tables.bins)
    bin = place.detach().to(torch.int32)
    place = place - bin
    if tables.cutoff is not None:
        bin = torch.where(length < tables.cutoff, bin, tables.bins)
    species, length_of_one = tables.embedding.shape[0], tables.bins + 1
    giver = _gather((where.site_types * length_of_one).int(), neighbor)
    receiver = (where.types * length_of_one).int().index_select(0, row)
    table = bin + giver * species + receiver
    density = tables.coefficients[:, :4].unbind(1)
    received, slope = _cubic(density, table, place)
    if tables.symmetric:
        received_back, slope_back = received, slope
    else:
        received_back, slope_back = _cubic(density, bin + receiver * species + giver, place)
    return _Bonds((x, y, z), length, place, table, received, received_back, slope, slope_back)


def _sums(
    tables: Tables,
    where: Neighborhood,
    part: slice,
    bond: _Bonds,
    slope: Tensor,
    at_site: Tensor,
    stress: bool,
) -> Tensor:
    """Sums over some strips: pair energy, force, and virial where asked for.

    Returns:
        [4 or 10, strips].
    """
    x, y, z = bond.vector
    neighbor = where.neighbor[:, part]
    inverse = 1.0 / bond.length
    scaled, scaled_slope = _cubic(tables.coefficients[:, 4:].unbind(1), bond.table, bond.place)
    pair = scaled * inverse
    per_length = (scaled_slope * tables.inverse_spacing - pair) * inverse
    own = slope.index_select(0, where.row[part])
    embedded = own * bond.slope + _gather(at_site, neighbor) * bond.slope_back
    # ∂E/∂d = tension × d
    tension = (per_length + embedded * tables.inverse_spacing) * inverse
    if where.boundary is None:
        shared = pair.sum(0) * 0.5
    else:
        shared = (pair * _gather(where.boundary.weight, neighbor)).sum(0)
    sums = [shared, (tension * x).sum(0), (tension * y).sum(0), (tension * z).sum(0)]
    if stress:
        half = 0.5 * tension
        products = (x * x, y * y, z * z, y * z, x * z, x * y)
        sums += [(half * product).sum(0) for product in products]
    return torch.stack(sums)


def _of_rows(sums: Tensor, where: Neighborhood) -> Tensor:
    """Sums over rows [k, r] from those over their strips [k, v], in a fixed order."""
    padded = torch.cat((sums, sums.new_zeros(len(sums), 1)), dim=1)
    strips = where.strips
    return padded.index_select(1, strips.reshape(-1)).view(len(sums), *strips.shape).sum(2)


def _embedding(tables: Tables, types: Tensor, density: Tensor) -> tuple[Tensor, Tensor]:
    """F(ρ) and F′(ρ); beyond the table the embedding energy goes on straight."""
    last = tables.embedding.shape[1] - 1
    scaled = density / tables.density_spacing
    bin = scaled.detach().long().clamp(0, last)
    place = scaled - bin
    inside = place.clamp(max=1.0)
    c0, c1, c2, c3 = tables.embedding[types, bin].unbind(-1)
    slope = c1 + inside * (2.0 * c2 + 3.0 * inside * c3)
    energy = c0 + inside * (c1 + inside * (c2 + inside * c3)) + (place - inside) * slope
    return energy, slope / tables.density_spacing


def _cubic(coefficients: Sequence[Tensor], table: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Values and slopes per bin, from four coefficients [bins of all pairs of species] each."""
    c0, c1, c2, c3 = (_gather(c, table) for c in coefficients)
    return (
        torch.addcmul(c0, place, torch.addcmul(c1, place, torch.addcmul(c2, place, c3))),
        torch.addcmul(c1, place, 2.0 * c2 + 3.0 * (place * c3)),
    )


def _gather(values: Tensor, index: Tensor) -> Tensor:
    """values[index] for int32 indices of any shape."""
    return values.index_select(0, index.reshape(-1)).view(index.shape)
