"""Potential files: LAMMPS' eam/alloy and eam/fs (DYNAMO setfl).

Three lines of comment, a line ``n symbol ...``, a line ``nrho drho nr dr cutoff``. Then for each
element a line ``number mass lattice-constant structure``, F at ρ = 0, drho, ... and densities at
r = 0, dr, ...: one table in eam/alloy; in eam/fs one per element b, the density that this element
gives at an atom of b. Last r·φ for the pairs (1,1), (2,1), (2,2), (3,1), ... Tables may break into
lines anywhere.

https://docs.lammps.org/pair_eam.html
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mgsym.atomic import atomic_path
from mgsym.data_tools.formats.source import opened, placed, shown
from mgsym.data_tools.simulation.eam import (
    EAM,
    FEWEST_POINTS,
    check_positive,
    check_species,
    knots,
    tabulated,
)
from mgsym.data_tools.simulation.zhou_johnson_wadley import zhou, zhou_cu_zr
from mgsym.elements import ATOMIC_NUMBER
from mgsym.errors import InputError

COMMENT_LINES = 3
ALLOY, FS = "eam/alloy", "eam/fs"
VARIABLE = "MGSYM_POTENTIAL"
ANALYTIC = "zhou:"


def load_potential(path: str | Path | None = None, elements: Sequence[str] = ()) -> EAM:
    """The potential to compute with: a file, else the one MGSYM_POTENTIAL names, else analytic.

    The analytic one is Zhou, Johnson & Wadley's; its `name` says so.

    Args:
        path: a file, or ``zhou:Zr,Cu,Al`` for the analytic potential of these metals.
        elements: what the analytic one has to know where no other is named; none takes Cu-Zr.

    Raises:
        InputError: the file is missing or wrong, or the analytic potential lacks an element.
    """
    chosen = str(path or os.environ.get(VARIABLE) or "")
    if chosen.startswith(ANALYTIC):
        species = [symbol.strip() for symbol in chosen.removeprefix(ANALYTIC).split(",")]
        return zhou([symbol for symbol in species if symbol])
    if chosen:
        return read_potential(chosen)
    return zhou_cu_zr() if set(elements) <= {"Cu", "Zr"} else zhou(elements)


def read_potential(path: str | Path) -> EAM:
    """Read an eam/alloy or eam/fs file, plain or compressed with gzip.

    Which of the two it is shows in the number of values.

    Raises:
        InputError: the file is missing, is neither, or has wrong counts or values; the message
            says where.
    """
    path = Path(path)
    with opened(path) as file:
        lines = file.read().decode("utf-8", errors="replace").split("\n")
        _refuse_funcfl(lines)
        words = _Words(path, lines)
        header = _read_header(words)
        return _read_tables(words, header)


class _Words:
    """The words of a file's lines after the comment, without empty lines.

    Attributes:
        path: the file.
        rows: the words of each line.
        number: the number of each line in the file.
        start: where each line begins among all words; last how many words there are.
    """

    def __init__(self, path: Path, lines: Sequence[str]) -> None:
        body = [line.partition("#")[0].split() for line in lines[COMMENT_LINES:]]
        numbered = [(i, row) for i, row in enumerate(body, start=COMMENT_LINES + 1) if row]
        self.path = path
        self.number = [i for i, _ in numbered]
        self.rows = [row for _, row in numbered]
        self.start = np.cumsum([0, *(len(row) for row in self.rows)])

    def refuse(self, row: int, message: str) -> NoReturn:
        """Raise an error about a line."""
        raise InputError(message, path=self.path, where=f"line {self.number[row]}")

    def placed(self, row: int) -> AbstractContextManager[None]:
        """Errors raised inside are about this line."""
        return placed(self.path, f"line {self.number[row]}")


class _Header(NamedTuple):
    """The file's first two lines after the comment."""

    species: tuple[str, ...]
    densities: int  # points of each embedding table, nrho
    density_spacing: float
    points: int  # of each radial table, nr
    spacing: float
    cutoff: float

    def block(self, style: str) -> int:
        """How many values stand between an element's line and the next one's."""
        return self.densities + self.points * (1 if style == ALLOY else len(self.species))

    @property
    def pairs(self) -> int:
        """How many values the pair tables have."""
        return len(self.species) * (len(self.species) + 1) // 2 * self.points


# --- header ----------------------------------------------------------------------------------


def _refuse_funcfl(lines: Sequence[str]) -> None:
    """Tell setfl's relative of one element, whose sizes stand a line or two higher, by its look."""
    element, sizes = (line.split() for line in (*lines[1:3], "", "")[:2])
    of_five = len(sizes) == 5 and sizes[0].isdecimal() and all(map(_is_number, sizes))
    if of_five and len(element) >= 2 and element[0].isdecimal():
        raise InputError(
            "this is a funcfl file (LAMMPS' pair_style eam, one element), expected setfl: give "
            "an eam/alloy or eam/fs file",
            where="line 3",
        )


def _read_header(words: _Words) -> _Header:
    if len(words.rows) < 2:
        raise InputError(
            "expected three lines of comment, then the elements, then the sizes of the tables; "
            "the file ends before: give an eam/alloy or eam/fs file"
        )
    count, *species = words.rows[0]
    if not count.isdecimal() or int(count) != len(species):
        words.refuse(
            0,
            "expected the number of elements and their symbols, such as 2 Cu Zr, found "
            f"{shown(' '.join(words.rows[0]))}: give an eam/alloy or eam/fs file",
        )
    with words.placed(0):
        check_species(species)
    sizes = words.rows[1]
    whole = len(sizes) == 5 and sizes[0].isdecimal() and sizes[2].isdecimal()
    if not whole or not all(map(_is_number, sizes)):
        words.refuse(
            1,
            "expected nrho drho nr dr cutoff, such as 10000 0.03 10000 0.00076 7.6, found "
            f"{shown(' '.join(sizes))}: give an eam/alloy or eam/fs file",
        )
    densities, points = int(sizes[0]), int(sizes[2])
    header = _Header(
        tuple(species), densities, float(sizes[1]), points, float(sizes[3]), float(sizes[4])
    )
    _check_sizes(words, header)
    return header


def _check_sizes(words: _Words, header: _Header) -> None:
    with words.placed(1):
        check_positive(header.density_spacing, "spacing of densities, drho,")
        check_positive(header.spacing, "spacing of distances, dr,")
        check_positive(header.cutoff, "cutoff")
    for name, points in (("nrho", header.densities), ("nr", header.points)):
        if points < FEWEST_POINTS:
            words.refuse(
                1,
                f"{name} is {points}, expected at least {FEWEST_POINTS} points: tabulate the "
                "potential more finely",
            )


# --- tables ----------------------------------------------------------------------------------


def _read_tables(words: _Words, header: _Header) -> EAM:
    for style in (ALLOY, FS):
        heads = _element_lines(words, header, style)
        if heads is not None:
            break
    else:
        _explain_counts(words, header)
    masses = tuple(_mass(words, row) for row in heads)
    values = _values(words, set(heads))
    n = len(header.species)
    elements, pairs = np.split(values, [n * header.block(style)])
    elements = elements.reshape(n, -1)
    density = elements[:, header.densities :].reshape(n, -1, header.points)
    i, j = np.tril_indices(n)
    pair = np.empty((n, n, header.points))
    pair[i, j] = pair[j, i] = pairs.reshape(-1, header.points)
    with words.placed(1):
        return tabulated(
            header.species,
            masses,
            header.cutoff,
            header.spacing,
            header.density_spacing,
            torch.from_numpy(pair),
            torch.from_numpy(density).expand(n, n, header.points),
            torch.from_numpy(elements[:, : header.densities]),
            words.path.name,
        )


def _element_lines(words: _Words, header: _Header, style: str) -> list[int] | None:
    """The rows of the elements' lines if the file has just the values of this style."""
    heads, position = [], int(words.start[2])
    for _ in header.species:
        row = int(np.searchsorted(words.start, position))
        if row >= len(words.rows) or words.start[row] != position:
            return None
        heads.append(row)
        position = int(words.start[row + 1]) + header.block(style)
    return heads if position + header.pairs == words.start[-1] else None


def _mass(words: _Words, row: int) -> float:
    """The mass in an element's line, amu."""
    line = words.rows[row]
    if len(line) < 2 or not line[0].isdecimal() or not _is_number(line[1]):
        words.refuse(
            row,
            "expected atomic number, mass, lattice constant and structure of an element, such as "
            f"29 63.546 3.615 fcc, found {shown(' '.join(line))}: correct the line",
        )
    with words.placed(row):
        check_positive(float(line[1]), "mass")
    return float(line[1])


def _values(words: _Words, heads: set[int]) -> NDArray[np.float64]:
    """All numbers after the header but those in the elements' lines."""
    rows = [r for r in range(2, len(words.rows)) if r not in heads]
    try:
        values = np.array([float(w) for w in chain.from_iterable(words.rows[r] for r in rows)])
    except ValueError:
        values = np.array([np.nan])
    if not np.isfinite(values).all():
        for row in rows:
            _refuse_words(words, row)
    return values


def _refuse_words(words: _Words, row: int) -> None:
    """Complain about a value that is no finite number, if the line has one."""
    for word in words.rows[row]:
        if not _is_number(word) or not np.isfinite(float(word)):
            words.refuse(row, f"expected numbers, found {shown(word)}: write the file again")


def _explain_counts(words: _Words, header: _Header) -> NoReturn:
    """Say what is wrong in a file that has as many values as neither style."""
    rows = range(2, len(words.rows))
    heads = [row for row in rows if _looks_like_element(words.rows[row])]
    for row in rows:
        if row not in heads:
            _refuse_words(words, row)
    sizes = {style: header.block(style) for style in (ALLOY, FS)}
    if len(heads) == len(header.species) and heads[0] == 2:
        ends = [*(int(words.start[head]) for head in heads[1:]), int(words.start[-1])]
        for symbol, head, end in zip(header.species, heads, ends, strict=True):
            pairs = header.pairs if head == heads[-1] else 0
            found = end - int(words.start[head + 1]) - pairs
            if found not in sizes.values():
                _refuse_count(words, head, f"the tables of {symbol}", sizes, found)
    total = {style: len(header.species) * size + header.pairs for style, size in sizes.items()}
    found = sum(len(words.rows[row]) for row in rows if row not in heads)
    _refuse_count(words, 1, "tables for these sizes", total, found)


def _refuse_count(
    words: _Words, row: int, what: str, sizes: dict[str, int], found: int
) -> NoReturn:
    expected = " or ".join(f"{size} ({style})" for style, size in sizes.items())
    words.refuse(
        row,
        f"expected {expected} values in {what}, found {max(found, 0)}: the file was cut short or "
        "its sizes are wrong, copy or write it again",
    )


def _looks_like_element(line: Sequence[str]) -> bool:
    numbers = [_is_number(word) for word in line]
    return 3 <= len(line) <= 5 and numbers[:2] == [True, True] and not numbers[-1]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


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
