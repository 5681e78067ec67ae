"""What stands before the tables of a setfl file: its lines as words, and its sizes.

See `mgsym.data_tools.simulation.potentials.files` for the format.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from mgsym.data_tools.formats.source import placed, shown
from mgsym.data_tools.simulation.potentials.eam import FEWEST_POINTS, check_positive, check_species
from mgsym.errors import InputError
from mgsym.structure.elements import ATOMIC_NUMBER

COMMENT_LINES = 3
FARTHEST = 10  # times the length of its tables that a cutoff may be
ALLOY, FS = "eam/alloy", "eam/fs"


class Words:
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


class Header(NamedTuple):
    """What stands before the tables: names, sizes, and the row where the tables begin."""

    species: tuple[str, ...]
    densities: int  # points of each embedding table, nrho
    density_spacing: float
    points: int  # of each radial table, nr
    spacing: float
    cutoff: float
    first: int

    def radial(self, style: str) -> int:
        """How many density tables each element has."""
        return 1 if style == ALLOY else len(self.species)

    def block(self, style: str) -> int:
        """How many values stand between an element's line and the next one's."""
        return self.densities + self.points * self.radial(style)

    @property
    def pairs(self) -> int:
        """How many values the pair tables have."""
        return len(self.species) * (len(self.species) + 1) // 2 * self.points


def refuse_funcfl(lines: Sequence[str]) -> None:
    """Refuse setfl's relative of one element, told by its sizes, which stand a line higher."""
    element, sizes = (line.split() for line in (*lines[1:3], "", "")[:2])
    of_five = len(sizes) == 5 and sizes[0].isdecimal() and all(map(is_number, sizes))
    if of_five and len(element) >= 2 and element[0].isdecimal():
        raise InputError(
            "this is a funcfl file (LAMMPS' pair_style eam, one element), expected setfl: give "
            "an eam/alloy or eam/fs file",
            where="line 3",
        )


def read_header(words: Words) -> Header:
    """Read the names and sizes.

    Raises:
        InputError: they are missing or make no sense.
    """
    if len(words.rows) < 2:
        raise InputError(
            "expected three lines of comment, then the elements, then the sizes of the tables; "
            "the file ends before: give an eam/alloy or eam/fs file"
        )
    count, *species = words.rows[0]
    if not count.isdecimal() or len(count) > 9 or int(count) != len(species):
        words.refuse(
            0,
            "expected the number of elements and their symbols, such as 2 Cu Zr, found "
            f"{shown(' '.join(words.rows[0]))}: give an eam/alloy or eam/fs file",
        )
    with words.placed(0):
        # LAMMPS takes any name; no structure has one that is no element's
        check_species([name for name in species if name in ATOMIC_NUMBER])
    sizes, first = _sizes(words)
    header = Header(
        tuple(species),
        int(sizes[0]),
        float(sizes[1]),
        int(sizes[2]),
        float(sizes[3]),
        float(sizes[4]),
        first,
    )
    _check_sizes(words, header)
    return header


def _sizes(words: Words) -> tuple[list[str], int]:
    """The five sizes, which may break into lines and be followed by words; and the next row."""
    sizes, row = list(words.rows[1]), 2
    while len(sizes) < 5 and row < len(words.rows):
        if len(sizes) == 4 and looks_like_element(words.rows[row]):
            break
        sizes += words.rows[row]
        row += 1
    # a table with a billion points is none
    whole = len(sizes) >= 5 and all(n.isdecimal() and len(n) < 10 for n in sizes[:3:2])
    if not whole or not all(map(is_number, sizes[:5])):
        words.refuse(
            1,
            "expected nrho drho nr dr cutoff, such as 10000 0.03 10000 0.00076 7.6, found "
            f"{shown(' '.join(sizes))}: give an eam/alloy or eam/fs file",
        )
    return sizes[:5], row


def _check_sizes(words: Words, header: Header) -> None:
    for name, points in (("nrho", header.densities), ("nr", header.points)):
        if points < FEWEST_POINTS:
            words.refuse(
                1,
                f"{name} is {points}, expected at least {FEWEST_POINTS} points: tabulate the "
                "potential more finely",
            )
    with words.placed(1):
        check_positive(header.density_spacing, "spacing of densities, drho,")
        check_positive(header.spacing, "spacing of distances, dr,")
        check_positive(header.cutoff, "cutoff")
        # beyond their end tables go on as they are, which takes memory up to the cutoff
        if header.cutoff > FARTHEST * header.points * header.spacing:
            raise InputError(
                f"the cutoff is {header.cutoff:g} Å, but the tables end at "
                f"{header.points * header.spacing:g} Å: correct one of them"
            )


def looks_like_element(line: Sequence[str]) -> bool:
    """Whether a line reads as number, mass, lattice constant and the name of a structure."""
    numbers = [is_number(word) for word in line]
    whole = 3 <= len(line) <= 5 and line[0].isdecimal()
    return whole and numbers[:2] == [True, True] and not numbers[-1]


def is_number(word: str) -> bool:
    """Whether a word can be read as a number, NaN and infinity too."""
    try:
        float(word)
    except ValueError:
        return False
    return True
