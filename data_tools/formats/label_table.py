"""Labels and predictions that come as a table beside the structure."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from mgsym.data_tools.formats.source import opened, shown
from mgsym.errors import InputError
from mgsym.structure import Structure
from mgsym.structure.columns import BARRIER, STDERR


def with_labels(structure: Structure, path: str | Path, target: str = BARRIER) -> Structure:
    """The structure with labels from a CSV file, matched by atom id.

    The header is ``id,barrier`` or ``id,barrier,barrier_stderr``, where the target may be
    called otherwise; a unit may follow in brackets and must be eV. Further columns are ignored.

    Args:
        structure: where the labels belong.
        path: CSV file (or .gz of one), one row per labelled atom, energies in eV.
        target: the label's column.

    Returns:
        A copy with the columns `target` and, if given, ``<target>_stderr`` in eV; atoms that the
        file leaves out have NaN.

    Raises:
        InputError: a column is missing, an id is unknown or comes twice, or a value is not a
            number that float32 holds, or a standard error negative.
    """
    for name, column in atom_table(path, structure.ids, (target,), "stderr").items():
        structure = structure.with_column(name, column, "eV")
    return structure


def is_table(path: str | Path) -> bool:
    """Whether a file is a CSV table (or a .gz of one), by its name."""
    return Path(path).name.lower().endswith((".csv", ".csv.gz"))


def atom_table(
    path: str | Path, ids: Tensor, columns: Sequence[str], error: str
) -> dict[str, Tensor]:
    """Read one column of energies per atom id, and its errors where the table has them.

    Args:
        path: CSV file (or .gz of one), one row per atom, energies in eV.
        ids: [n] int64, the atoms' ids.
        columns: names that the column may have; the first that is there is taken.
        error: what follows the column's name, after ``_``, in that of its errors.

    Returns:
        [n] float64 eV by column name, first the column, then its errors if they are there; NaN for
        atoms that the table leaves out.

    Raises:
        InputError: a column is missing, an id is unknown or comes twice, or a value is not a
            number that float32 holds, or a standard error negative.
    """
    path = Path(path)
    with _rows(path) as rows:
        names = _columns(path, next(rows, []))
        column = next((name for name in columns if name in names), None)
        if column is None or "id" not in names:
            absent = " or ".join(map(repr, columns)) if "id" in names else "'id'"
            raise InputError(
                f"no column {absent}, expected id,{columns[0]}[,{columns[0]}_{error}]; found "
                f"{shown(','.join(names))[1:-1]}",
                path=path,
                where="line 1",
            )
        wanted = [name for name in (column, f"{column}_{error}") if name in names]
        values = _values(ids, path, rows, names, wanted)
    return {name: each.contiguous() for name, each in zip(wanted, values.T, strict=True)}


@contextmanager
def _rows(path: Path) -> Iterator[Iterator[list[str]]]:
    """The cells of each line; what goes wrong as they are read is told with the file's name."""
    with opened(path) as file:
        reader = csv.reader(io.TextIOWrapper(file, "utf-8-sig", newline=""))
        try:
            yield reader
        except UnicodeDecodeError as error:
            raise InputError("is not text (UTF-8), expected a CSV table", path=path) from error
        except csv.Error as error:
            where = f"line {reader.line_num}"
            raise InputError(f"is no CSV table: {error}", path=path, where=where) from error


def _columns(path: Path, header: Sequence[str]) -> list[str]:
    """Column names without their units, which must be eV for energies."""
    names = []
    for cell in header:
        match = re.fullmatch(r"([^\[]*)\[(.*)\]", cell.strip())
        name, unit = (match[1].strip(), match[2]) if match else (cell.strip(), "eV")
        if unit != "eV" and "barrier" in name:
            raise InputError(
                f"{name} is in {unit[:40]}, expected eV: convert it", path=path, where="line 1"
            )
        names.append(name)
    return names


def _values(
    ids: Tensor,
    path: Path,
    lines: Iterator[list[str]],
    names: Sequence[str],
    wanted: Sequence[str],
) -> Tensor:
    """[n, wanted] float64: the values of each atom, NaN where the file has none."""
    rows = {atom: row for row, atom in enumerate(ids.tolist())}
    values = torch.full((len(ids), len(wanted)), math.nan, dtype=torch.float64)
    seen: dict[int, int] = {}
    for number, cells in enumerate(lines, start=2):
        if not any(cell.strip() for cell in cells):
            continue
        where = f"line {number}"
        if len(cells) != len(names):
            raise InputError(
                f"expected {len(names)} values, found {len(cells)}", path=path, where=where
            )
        atom = _atom(cells[names.index("id")], rows, path, where)
        if atom in seen:
            raise InputError(
                f"atom id {atom} again, it came on line {seen[atom]}: keep one",
                path=path,
                where=where,
            )
        seen[atom] = number
        for k, name in enumerate(wanted):
            text = cells[names.index(name)]
            values[rows[atom], k] = _number(text, name, path, where, atom)
    return values


def _atom(text: str, rows: dict[int, int], path: Path, where: str) -> int:
    try:
        atom = int(text)
    except ValueError:
        raise InputError(
            f"id must be a whole number, found {shown(text)}", path=path, where=where
        ) from None
    if atom not in rows:
        raise InputError(
            f"the structure has no atom with id {str(atom)[:40]}: is this another structure's "
            "table?",
            path=path,
            where=where,
        )
    return atom


def _number(text: str, name: str, path: Path, where: str, atom: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if abs(value) > torch.finfo(torch.float32).max:
        raise InputError(
            f"{name} must be a number in eV, found {shown(text)} for atom id {atom}; leave out "
            "atoms without one",
            path=path,
            where=where,
        )
    if name.endswith(STDERR) and value < 0:
        raise InputError(
            f"{name} must be at least 0 eV, found {text.strip()!r} for atom id {atom}",
            path=path,
            where=where,
        )
    return value
