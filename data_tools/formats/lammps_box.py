"""LAMMPS boxes as cells, and back.

LAMMPS Howto_triclinic: a box is given by its corner (xlo, ylo, zlo), edges along x, y, z and
tilts xy, xz, yz: a = (lx, 0, 0), b = (xy, ly, 0), c = (xz, yz, lz). Dump files give the bounding
box of the tilted box instead of its own corner. Since 2024 a general box is given by its vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from mgsym.data_tools.formats.source import Array
from mgsym.structure import Structure

Vector: TypeAlias = Sequence[float] | Array  # [3], Å


class Box(NamedTuple):
    """A cell and its corner.

    Attributes:
        cell: [3, 3], Å; rows are the cell vectors.
        origin: [3], Å.
    """

    cell: Array
    origin: Array


def from_edges(low: Vector, high: Vector, tilt: Vector) -> Box:
    """The box between corners `low` and `high` [3], tilted by (xy, xz, yz), all in Å."""
    cell = np.diag(np.subtract(high, low, dtype=np.float64))
    cell[1, 0], cell[2, 0], cell[2, 1] = tilt
    return Box(cell, np.array(low, dtype=np.float64))


def from_bounds(low: Vector, high: Vector, tilt: Vector) -> Box:
    """The box whose bounding box a dump gives: xlo_bound = xlo + min(0, xy, xz, xy + xz), …"""
    xy, xz, yz = tilt
    x = (0.0, xy, xz, xy + xz)
    y = (0.0, yz)
    true_low = (low[0] - min(x), low[1] - min(y), low[2])
    true_high = (high[0] - max(x), high[1] - max(y), high[2])
    return from_edges(true_low, true_high, tilt)


def bounds(box: Box) -> tuple[Array, Array]:
    """Lower and upper corner [3] of the box's bounding box, Å; what `from_bounds` takes."""
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) @ box.cell
    return box.origin + corners.min(axis=0), box.origin + corners.max(axis=0)


def box_of(structure: Structure) -> Box:
    """The structure's cell and origin as NumPy arrays."""
    return Box(structure.cell.numpy(), structure.origin.numpy())


def is_restricted(box: Box) -> bool:
    """Whether LAMMPS can hold the box without turning it: a along +x, b in the xy plane, …"""
    return not np.triu(box.cell, 1).any() and bool((np.diag(box.cell) > 0).all())


def tilt_of(box: Box) -> tuple[float, float, float]:
    """xy, xz, yz of a restricted box, Å."""
    return float(box.cell[1, 0]), float(box.cell[2, 0]), float(box.cell[2, 1])
