"""Tables of per-atom values for spreadsheets and scripts: written only.

Columns are id, element, x [A], y [A], z [A] and the structure's own, each with its unit in
brackets; `mgsym.data_tools.formats.label_table.with_labels` reads labels back from such a table.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import BinaryIO

from mgsym.data_tools.formats.columns import scalar_columns, texts
from mgsym.data_tools.formats.source import Format
from mgsym.structure import Structure


def matches(head: bytes) -> bool:
    """Never: a table holds no cell, so it is no structure."""
    return False


def header(name: str, unit: str) -> str:
    """A column's heading, such as ``barrier [eV]``; Å is spelt A, which every program reads."""
    return f"{name} [{unit.replace('Å', 'A')}]" if unit else name


def write(structures: Sequence[Structure], file: BinaryIO) -> None:
    """Write one row per atom in the structure's order."""
    structure = structures[0]
    columns = list(scalar_columns(structure, ("id", "element", "x", "y", "z")))
    names = ["id", "element", *(header(axis, "Å") for axis in "xyz")]
    names += [header(name, column.unit) for name, column in columns]
    values = [texts(structure.ids.numpy()), structure.symbols]
    values += [texts(axis) for axis in structure.positions.numpy().T]
    values += [texts(column.values.numpy()) for _, column in columns]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(zip(*values, strict=True))
    file.write(text.getvalue().encode())


FORMAT = Format(
    name="csv",
    suffixes=(".csv",),
    matches=matches,
    write=write,
    many=False,
    loses="cell, name, glass and split",
)
