"""Energies and forces of rows on a CPU, compiled (eam_rows.cpp) where there is a compiler.

What PyTorch computes in `eam_kernel` comes out here to rounding, in a quarter of the time.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from mgsym.data_tools.simulation.potentials.eam_layout import STRIP, Neighborhood, Tables
from mgsym.utils.compilation import address, compiled_library, structure_fields

_SOURCE = Path(__file__).with_name("eam_rows.cpp")
_SHARE = 2**11  # strips that are worth a thread
_MOST_THREADS = 64


class _Problem(ctypes.Structure):
    _fields_ = structure_fields(
        "rows sites strips of_row boundary pairs species bins densities symmetric threads",
        "types site_types row_strips row embedded neighbor coefficients embedding "
        "boundary_types boundary_fixed pair_place pair_atom weight",
        ("cutoff", ctypes.c_double),
        ("inverse_spacing", ctypes.c_double),
        ("density_spacing", ctypes.c_double),
    )


def library_for(rows: Tensor) -> ctypes.CDLL | None:
    """The compiled passes for rows of this device and precision; None means PyTorch."""
    if rows.device.type != "cpu" or rows.dtype not in (torch.float32, torch.float64):
        return None
    return compiled_library(_SOURCE, STRIP=STRIP, DOUBLE=int(rows.dtype == torch.float64))


def compiled_forces(
    library: ctypes.CDLL,
    tables: Tables,
    where: Neighborhood,
    sites: Tensor,
    rows: Tensor,
    stress: bool,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """What `eam_kernel.row_forces` gives, by `library_for(rows)`."""
    strips, boundary = where.neighbor.shape[1], where.boundary
    at_boundary: tuple[Tensor | None, ...] = (None,) * 5
    if boundary is not None:
        at_boundary = boundary.types, boundary.fixed, boundary.slot, boundary.atom, boundary.weight
    # kept here, since the structure holds addresses only
    held = [
        None if tensor is None else tensor.contiguous()
        for tensor in (
            where.types, where.site_types, where.strips, where.row, where.embedded,
            where.neighbor, tables.coefficients, tables.embedding, *at_boundary,
        )
    ]  # fmt: skip
    species, densities, _ = tables.embedding.shape
    problem = _Problem(
        rows.shape[1],
        sites.shape[1],
        strips,
        where.strips.shape[1],
        0 if boundary is None else len(boundary.types),
        0 if boundary is None else len(boundary.slot),
        species,
        tables.bins,
        densities,
        tables.symmetric,
        max(1, min(torch.get_num_threads(), _MOST_THREADS, strips // _SHARE)),
        *map(address, held),
        float("inf") if tables.cutoff is None else tables.cutoff,
        tables.inverse_spacing,
        tables.density_spacing,
    )
    sites, rows = sites.contiguous(), rows.contiguous()
    energy, forces = rows.new_empty(rows.shape[1]), torch.empty_like(rows)
    virial = rows.new_empty(6, rows.shape[1]) if stress else None
    rest = None if boundary is None else torch.empty_like(boundary.fixed)
    out = (sites, rows, energy, forces, virial, rest)
    library.eam_forces(ctypes.byref(problem), *map(address, out))
    return energy, forces, virial, rest
