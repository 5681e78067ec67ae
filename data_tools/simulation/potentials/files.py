"""Potential files: LAMMPS' eam/alloy and eam/fs (DYNAMO setfl).

Three lines of comment, a line ``n symbol ...``, then ``nrho drho nr dr cutoff``. Then for each
element a line ``number mass lattice-constant structure``, F at ρ = 0, drho, ... and densities at
r = 0, dr, ...: one table in eam/alloy; in eam/fs one per element b, the density that this element
gives at an atom of b. Last r·φ for the pairs (1,1), (2,1), (2,2), (3,1), ...

They are read as LAMMPS reads them: a table begins on a line of its own and ends with its last
value; what else stands on that line, after the five sizes or after the last table is passed over.
Files whose tables follow one another within lines, which LAMMPS cannot read, are read where their
number of values is exact.

https://docs.lammps.org/pair_eam.html
"""

from __future__ import annotations

import gzip
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mgsym.data_tools.formats.source import opened, shown
from mgsym.data_tools.simulation.potentials.ase_calculator import PREFIX
from mgsym.data_tools.simulation.potentials.eam import EAM, check_positive, knots, tabulated
from mgsym.data_tools.simulation.potentials.header import (
    ALLOY,
    FS,
    Header,
    Words,
    is_number,
    looks_like_element,
    read_header,
    refuse_funcfl,
)
from mgsym.data_tools.simulation.potentials.zhou_johnson_wadley import zhou, zhou_cu_zr
from mgsym.errors import InputWarning, UsageError
from mgsym.structure.elements import ATOMIC_NUMBER
from mgsym.utils.files import atomic_path

VARIABLE = "MGSYM_POTENTIAL"
# what editors and web pages make of blanks, minus and plus, read as LAMMPS does (utf8_subst)
_LOOKALIKES = {
    **dict.fromkeys([0xA0, *range(0x2000, 0x200B), 0x202F, 0x2060, 0xFEFF], " "),
    **dict.fromkeys([0x2D7, 0x2212], "-"),
    **dict.fromkeys([0x2D6, 0x2064], "+"),
}
ANALYTIC = "zhou:"


def load_potential(path: str | Path | None = None, elements: Sequence[str] = ()) -> EAM:
    """The potential to compute with: a file, else the one MGSYM_POTENTIAL names, else analytic.

    The analytic one is Zhou, Johnson & Wadley's; its `name` says so.

    Args:
        path: a file, or ``zhou:Zr,Cu,Al`` for the analytic potential of these metals.
        elements: what the analytic one has to know where no other is named; none takes Cu-Zr.

    Raises:
        InputError: the file is missing or wrong, or the analytic potential lacks an element.
        UsageError: the path names a calculator of ASE, see `ase_calculator`.
    """
    chosen = str(path or os.environ.get(VARIABLE) or "")
    if chosen.startswith(PREFIX):
        raise UsageError(
            f"{chosen}: calculators of ASE serve mgsym relax, quench, deform and label; this needs "
            "an EAM file, or zhou:Zr,Cu,Al"
        )
    if chosen.startswith(ANALYTIC):
        species = [symbol.strip() for symbol in chosen.removeprefix(ANALYTIC).split(",")]
        return zhou([symbol for symbol in species if symbol])
    if chosen:
        return read_potential(chosen)
    return zhou_cu_zr() if set(elements) <= {"Cu", "Zr"} else zhou(elements)


def read_potential(path: str | Path) -> EAM:
    """Read an eam/alloy or eam/fs file, plain or compressed with gzip.

    Which of the two it is shows in the number of values. Names that are no elements' are left out
    of the potential. An `InputWarning` says how many values were passed over.

    Raises:
        InputError: the file is missing, is neither, or has wrong counts or values; the message
            says where.
    """
    path = Path(path)
    with opened(path) as file:
        text = file.read().decode("utf-8", errors="replace")
        lines = text.translate(_LOOKALIKES).split("\n")
        refuse_funcfl(lines)
        words = Words(path, lines)
        header = read_header(words)
        return _read_tables(words, header)


# --- tables ----------------------------------------------------------------------------------


class _Tables(NamedTuple):
    """All tables as arrays: embedding [s, nrho], density [s, 1 or s, nr], pair [pairs, nr]."""

    heads: list[int]
    embedding: NDArray[np.float64]
    density: NDArray[np.float64]
    pair: NDArray[np.float64]
    passed: int


class _Cursor:
    """Takes tables out of a file's rows.

    Args:
        rows: the words of each line.
        row: the first to take.
        flowing: whether a table may begin where another ends on a line; else, as LAMMPS does it,
            the rest of a table's last line is passed over.

    Attributes:
        row: the next one.
        passed: how many numbers were passed over.
    """

    def __init__(self, rows: Sequence[Sequence[str]], row: int, flowing: bool) -> None:
        self.rows, self.row, self.flowing = rows, row, flowing
        self.rest: list[str] = []
        self.passed = 0

    def head(self) -> int | None:
        """The row of an element's line; None where none begins here."""
        if self.rest or self.row >= len(self.rows):
            return None
        self.row += 1
        return self.row - 1

    def table(self, count: int) -> list[float] | None:
        """The next `count` numbers; None where there are not so many finite ones."""
        words, self.rest = self.rest, []  # both lists are this cursor's own
        while len(words) < count and self.row < len(self.rows):
            words += self.rows[self.row]
            self.row += 1
        if self.flowing:
            self.rest = words[count:]
        else:
            self.passed += sum(map(is_number, words[count:]))
        try:
            values = [float(word) for word in words[:count]]
        except ValueError:
            return None
        return values if len(values) == count and np.isfinite(values).all() else None

    def at_end(self) -> bool:
        """Whether every value was taken, where tables flow; LAMMPS reads no further."""
        if not self.flowing:
            self.passed += sum(is_number(w) for row in self.rows[self.row :] for w in row)
            return True
        return not self.rest and self.row == len(self.rows)


def _read_tables(words: Words, header: Header) -> EAM:
    tables = _find_tables(words, header)
    if tables.passed:
        warnings.warn(
            f"{words.path}: {tables.passed} values more than the sizes in line "
            f"{words.number[1]} call for were passed over, as LAMMPS does",
            InputWarning,
            stacklevel=3,
        )
    n = len(header.species)
    i, j = np.tril_indices(n)
    pair = np.empty((n, n, header.points))
    pair[i, j] = pair[j, i] = tables.pair
    density = np.broadcast_to(tables.density, (n, n, header.points))
    elements = [k for k, name in enumerate(header.species) if name in ATOMIC_NUMBER]
    with words.placed(1):
        return tabulated(
            tuple(header.species[k] for k in elements),
            tuple(_mass(words, tables.heads[k]) for k in elements),
            header.cutoff,
            header.spacing,
            header.density_spacing,
            torch.from_numpy(pair[np.ix_(elements, elements)]),
            torch.from_numpy(density[np.ix_(elements, elements)]),
            torch.from_numpy(tables.embedding[elements]),
            words.path.name,
        )


def _find_tables(words: Words, header: Header) -> _Tables:
    """The tables in the style that fits: of as many values as it has, else as LAMMPS takes them."""
    styles = (FS, ALLOY) if ".fs" in words.path.name.lower() else (ALLOY, FS)
    for flowing in (True, False):
        for style in styles:
            tables = _take_tables(words, header, style, flowing)
            if tables is not None:
                return tables
    _explain_counts(words, header)


def _take_tables(words: Words, header: Header, style: str, flowing: bool) -> _Tables | None:
    """The tables of this style; None where the file has them not."""
    cursor = _Cursor(words.rows, header.first, flowing)
    heads, embedding, density = [], [], []
    for name in header.species:
        head = cursor.head()
        if head is None or not (flowing or _is_head(words.rows[head], name)):
            return None
        heads.append(head)
        embedding.append(cursor.table(header.densities))
        density += [cursor.table(header.points) for _ in range(header.radial(style))]
        if embedding[-1] is None or density[-1] is None:
            return None
    n = len(header.species)
    pair = [cursor.table(header.points) for _ in range(n * (n + 1) // 2)]
    if None in [*embedding, *density, *pair] or not cursor.at_end():
        return None
    return _Tables(
        heads,
        np.array(embedding, dtype=np.float64),
        np.array(density, dtype=np.float64).reshape(n, -1, header.points),
        np.array(pair, dtype=np.float64),
        cursor.passed,
    )


def _is_head(line: Sequence[str], name: str) -> bool:
    """Whether this can be the line of an element: a whole number and a mass, 0 of no element."""
    if len(line) < 2 or not line[0].isdecimal() or not is_number(line[1]):
        return False
    return float(line[1]) > 0 or name not in ATOMIC_NUMBER


def _mass(words: Words, row: int) -> float:
    """The mass in an element's line, amu."""
    line = words.rows[row]
    if len(line) < 2 or not line[0].isdecimal() or not is_number(line[1]):
        words.refuse(
            row,
            "expected atomic number, mass, lattice constant and structure of an element, such as "
            f"29 63.546 3.615 fcc, found {shown(' '.join(line))}: correct the line",
        )
    with words.placed(row):
        check_positive(float(line[1]), "mass")
    return float(line[1])


def _refuse_words(words: Words, row: int) -> None:
    """Complain about a value that is no finite number, if the line has one."""
    for word in words.rows[row]:
        if not is_number(word) or not np.isfinite(float(word)):
            words.refuse(row, f"expected numbers, found {shown(word)}: write the file again")


def _explain_counts(words: Words, header: Header) -> NoReturn:
    """Say what is wrong in a file that has as many values as neither style."""
    rows = range(header.first, len(words.rows))
    heads = [row for row in rows if looks_like_element(words.rows[row])]
    for row in rows:
        if row not in heads:
            _refuse_words(words, row)
    sizes = {style: header.block(style) for style in (ALLOY, FS)}
    if len(heads) == len(header.species) and heads[0] == header.first:
        ends = [*(int(words.start[head]) for head in heads[1:]), int(words.start[-1])]
        for symbol, head, end in zip(header.species, heads, ends, strict=True):
            pairs = header.pairs if head == heads[-1] else 0
            count = end - int(words.start[head + 1]) - pairs
            if count not in sizes.values():
                _refuse_count(words, head, f"the tables of {symbol}", sizes, count)
    total = {style: len(header.species) * size + header.pairs for style, size in sizes.items()}
    count = sum(len(words.rows[row]) for row in rows if row not in heads)
    _refuse_count(words, 1, "tables for these sizes", total, count)


def _refuse_count(
    words: Words, row: int, place: str, sizes: dict[str, int], count: int
) -> NoReturn:
    expected = " or ".join(f"{size} ({style})" for style, size in sizes.items())
    words.refuse(
        row,
        f"expected {expected} values in {place}, found {max(count, 0)}: the file was cut short or "
        "its sizes are wrong, copy or write it again",
    )


# --- writing ---------------------------------------------------------------------------------


def write_potential(path: str | Path, potential: EAM, overwrite: bool = False) -> str:
    """Write a potential for LAMMPS and others, as eam/alloy where that suffices, else as eam/fs.

    Values keep all their digits. Lattice constants, which nobody computes with, are 0.

    Args:
        path: the output; compressed where it ends in ``.gz``.

    Returns:
        The pair_style, ``eam/alloy`` or ``eam/fs``.

    Raises:
        UsageError: the file exists and may not be replaced.
    """
    density, pair = knots(potential.density), knots(potential.pair)
    embedding = knots(potential.embedding)
    style = ALLOY if torch.equal(density, density[:, :1].expand_as(density)) else FS
    lines = [
        f"{potential.name or 'EAM'}, {style}, written by mgsym",
        "Units: eV, Angstrom, amu",
        "",
        " ".join([str(len(potential.species)), *potential.species]),
        f"{embedding.shape[-1]} {potential.density_spacing!r} {pair.shape[-1]} "
        f"{potential.spacing!r} {potential.cutoff!r}",
    ]
    for a, symbol in enumerate(potential.species):
        lines.append(f"{ATOMIC_NUMBER[symbol]} {potential.masses[a]!r} 0.0 none")
        lines += _rows(embedding[a])
        for table in density[a, :1] if style == ALLOY else density[a]:
            lines += _rows(table)
    for i, j in zip(*np.tril_indices(len(potential.species)), strict=True):
        lines += _rows(pair[i, j])
    text = "\n".join([*lines, ""]).encode()
    with atomic_path(path, overwrite) as temporary:
        zipped = Path(path).suffix.lower() == ".gz"
        temporary.write_bytes(gzip.compress(text, mtime=0) if zipped else text)
    return style


def _rows(table: Tensor) -> list[str]:
    """Five numbers a line."""
    words = [repr(value) for value in table.tolist()]
    return [" ".join(words[i : i + 5]) for i in range(0, len(words), 5)]
