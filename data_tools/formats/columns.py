"""Columns of text tables: their units, and rows written so that they read back exactly."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from mgsym.data_tools.formats.source import Array
from mgsym.structure import Column, Structure
from mgsym.structure.columns import BARRIER, BARRIER_STDERR

# units of names that mean the same in every file; LAMMPS's own are those of `units metal`
UNITS = {
    BARRIER: "eV",
    BARRIER_STDERR: "eV",
    "energy": "eV",
    "mass": "amu",
    "q": "e",
    **dict.fromkeys(("vx", "vy", "vz"), "Å/ps"),
    **dict.fromkeys(("fx", "fy", "fz"), "eV/Å"),
}


def column(name: str, values: Array, unit: str | None = None) -> Column:
    """A column read from a file, with the unit its name has where none is given."""
    return Column(torch.from_numpy(values), UNITS.get(name, "") if unit is None else unit)


def named_columns(structure: Structure, taken: Iterable[str]) -> Iterator[tuple[str, Column]]:
    """Columns under names that a text file can hold: one word, and none of those `taken`."""
    used = set(taken)
    for name, column in structure.columns.items():
        word = re.sub(r"[\s:=\"]", "_", name) or "_"
        while word in used:
            word += "_"
        used.add(word)
        yield word, column


def scalar_columns(structure: Structure, taken: Iterable[str]) -> Iterator[tuple[str, Column]]:
    """The same, those k wide taken apart as name[1] … name[k], as LAMMPS writes them."""
    for name, (values, unit) in named_columns(structure, taken):
        if values.dim() == 1:
            yield name, Column(values, unit)
            continue
        parts = values.reshape(len(structure), -1)
        for k in range(parts.shape[1]):
            yield f"{name}[{k + 1}]", Column(parts[:, k], unit)


def texts(values: Array) -> list[str]:
    """Each value in the fewest digits that read back as the same number."""
    if values.dtype == np.float64:
        return list(map(repr, values.tolist()))
    if values.dtype.kind == "f":
        # shortest for the type: 0.1 in float32 is not 0.10000000149011612
        return [str(text) for text in values.astype(str)]
    return list(map(str, values.astype(np.int64).tolist()))


def rows(columns: Sequence[list[str]]) -> bytes:
    """A text table, values separated by blanks."""
    lines = map(" ".join, zip(*columns, strict=True))
    return ("\n".join(lines) + "\n").encode()
