"""LAMMPS data files (`read_data`, `write_data`): one structure in `units metal`.

Which element a type is comes from the user's mapping, comments in Masses (`1 63.546 # Cu`), type
labels and the masses (formats.species). A data file does not say what is periodic: every direction
is taken to be. Image flags, velocities, bonds and the like are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO

import numpy as np
import torch

from mgsym.data_tools.formats.columns import rows, texts
from mgsym.data_tools.formats.lammps_box import (
    Box,
    box_of,
    from_edges,
    is_restricted,
    tilt_of,
)
from mgsym.data_tools.formats.source import (
    REAL,
    WORD,
    Array,
    Format,
    Frame,
    Lines,
    Source,
)
from mgsym.data_tools.formats.species import Species, distinct, species_of, whole_numbers
from mgsym.errors import InputError
from mgsym.structure import Structure
from mgsym.structure.elements import MASS

# what stands before image flags on a line of Atoms (LAMMPS read_data); hybrid begins like atomic
_MOLECULE = ["id", "molecule", "type", "x", "y", "z"]
STYLES = {
    "atomic": ["id", "type", "x", "y", "z"],
    "charge": ["id", "type", "q", "x", "y", "z"],
    "molecular": _MOLECULE,
    "bond": _MOLECULE,
    "angle": _MOLECULE,
    "full": ["id", "molecule", "type", "q", "x", "y", "z"],
    "sphere": ["id", "type", "diameter", "density", "x", "y", "z"],
    "dipole": ["id", "type", "q", "x", "y", "z", "mux", "muy", "muz"],
    "spin": ["id", "type", "x", "y", "z", "spx", "spy", "spz", "sp"],
    "electron": ["id", "type", "q", "spin", "radius", "x", "y", "z"],
    "hybrid": ["id", "type", "x", "y", "z"],
}
BOX_WORDS = {
    "xlo xhi": 2,
    "ylo yhi": 2,
    "zlo zhi": 2,
    "xy xz yz": 3,
    "avec": 3,
    "bvec": 3,
    "cvec": 3,
    "abc origin": 3,
}
_HEAD = re.compile(rb"^\s*\d+\s+atoms\b", re.MULTILINE)
_HEAD_BOX = re.compile(rb"xlo\s+xhi|\bavec\b|atom\s+types")
_UNITS = re.compile(r"\bunits\s*=\s*(\w+)")


@dataclass
class _Content:
    """What was gathered from the file so far."""

    atoms: int = 0
    types: int = 0
    box: dict[str, list[float]] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    comments: dict[int, str] = field(default_factory=dict)
    masses: dict[int, float] = field(default_factory=dict)
    table: dict[str, Array] = field(default_factory=dict)


def matches(head: bytes) -> bool:
    """Whether a file with these first bytes is of this format."""
    return bool(_HEAD.search(head) and _HEAD_BOX.search(head))


def read(source: Source) -> Iterator[Frame]:
    """The one structure of a data file."""
    yield partial(_read, source)


def _read(source: Source) -> Structure:
    source.file.seek(0)
    lines = Lines(source)
    _check_units(lines, lines.expect("a title"))
    content = _Content()
    while (line := lines.read()) is not None:
        text, _, comment = line.partition("#")
        words = text.split()
        if not words:
            continue
        section = " ".join(words)
        if section == "Masses":
            _masses(lines, content)
        elif section == "Atom Type Labels":
            _labels(lines, content)
        elif section == "Atoms":
            _atoms(lines, content, comment.strip())
        else:
            _header(lines, content, words)
    if not content.table:
        raise InputError("there is no Atoms section", path=source.path)
    return _structure(lines, content, source)


def _check_units(lines: Lines, title: str) -> None:
    units = _UNITS.search(title)
    if units and units[1] != "metal":
        raise lines.error(
            f"units are {units[1]}, expected metal (Å, eV): write the file in `units metal`"
        )


def _header(lines: Lines, content: _Content, words: list[str]) -> None:
    """Take a header line; lines of sections that are not needed fall through."""
    if not words[-1].isalpha():
        return
    if words[1:] == ["atoms"]:
        content.atoms = lines.whole(words[0], "number of atoms")
    elif words[1:] == ["atom", "types"]:
        content.types = lines.whole(words[0], "number of atom types")
    for name, count in BOX_WORDS.items():
        ending = name.split()
        if words[-len(ending) :] == ending:
            numbers = " ".join(words[: -len(ending)])
            content.box[name] = lines.numbers(count, name, numbers)


def _section(lines: Lines, expected: str) -> str:
    """The first line of a section, after its blank line."""
    line = lines.expect(expected)
    while not line.strip():
        line = lines.expect(expected)
    return line


def _masses(lines: Lines, content: _Content) -> None:
    """Mass of each type, and the first word of the comment beside it, which may be its name."""
    for index in range(content.types):
        line = _section(lines, "masses") if index == 0 else lines.expect("a mass")
        text, _, comment = line.partition("#")
        words = text.split()
        number = content.labels.get(words[0]) if words else None
        if number is None:
            number = lines.whole(words[0] if words else "", "atom type")
        content.masses[number] = lines.numbers(1, "the mass in amu", " ".join(words[1:]))[0]
        if comment.strip():
            content.comments[number] = comment.split()[0]


def _labels(lines: Lines, content: _Content) -> None:
    """Names of the types."""
    for index in range(content.types):
        line = _section(lines, "type labels") if index == 0 else lines.expect("a type label")
        words = line.partition("#")[0].split()
        if len(words) != 2:
            raise lines.error(f"expected a type number and its label, found {line.strip()!r}")
        number = lines.whole(words[0], "atom type")
        content.labels[words[1]] = number


def _atoms(lines: Lines, content: _Content, comment: str) -> None:
    """The Atoms table."""
    if not content.atoms:
        raise lines.error("an Atoms section, but no line `<number> atoms` before it")
    style = comment.split()[0] if comment else ""
    if style and style not in STYLES:
        raise lines.error(
            f"atom style {style!r} is not known, expected one of {', '.join(sorted(STYLES))}"
        )
    before = lines.mark()
    first = _section(lines, "atoms").partition("#")[0].split()
    start = lines.number - 1
    names = _names(lines, style, len(first))
    lines.go(before)
    lines.skip(start - before.number)
    kinds = [WORD if name == "type" and content.labels else REAL for name in names]
    table = lines.table(content.atoms, list(zip(names, kinds, strict=True)), comment=b"#")
    content.table = dict(zip(names, table, strict=True))


def _names(lines: Lines, style: str, width: int) -> list[str]:
    """The names of the columns of Atoms."""
    if not style and width not in (5, 8):
        raise lines.error(
            f"{width} values on a line and no atom style, expected `Atoms # atomic` or another "
            "style after `Atoms`: add it"
        )
    names = STYLES[style or "atomic"]
    extra = width - len(names)
    if extra not in (0, 3) and not (style == "hybrid" and extra > 0):
        raise lines.error(
            f"expected {len(names)} values ({' '.join(names)}) and perhaps 3 image flags, "
            f"found {width}"
        )
    return [*names, *(f"extra {i}" for i in range(extra))]


def _structure(lines: Lines, content: _Content, source: Source) -> Structure:
    box = _box(lines, content.box)
    species, types = _species(content, source)
    positions = np.stack([content.table[axis] for axis in "xyz"], axis=1)
    return Structure(
        positions=torch.from_numpy(positions),
        cell=torch.from_numpy(box.cell),
        types=types,
        species=species,
        origin=torch.from_numpy(box.origin),
        ids=torch.from_numpy(whole_numbers(content.table["id"], "id")),
    )


def _species(content: _Content, source: Source) -> Species:
    """From what Masses, their comments and the type labels say of each type."""
    numbers = whole_numbers(_type_numbers(content), "type")
    present, index = np.unique(numbers, return_inverse=True)
    masses = np.array([content.masses.get(number, 0.0) for number in present.tolist()])
    label = {number: name for name, number in content.labels.items()}
    # a comment is a name only where it can be one: 1 63.546 # 12 atoms
    names = [
        np.array(["" if (name := hints.get(n, "")).isdecimal() else name for n in present.tolist()])
        for hints in (content.comments, label)
    ]
    species, types = species_of(source.types, source.path, present, names, masses)
    return species, types[torch.from_numpy(index.reshape(-1))]


def _type_numbers(content: _Content) -> Array:
    """Type numbers [n], where rows may name a type by its label."""
    values = content.table["type"]
    if not content.labels:
        return values
    words, index = distinct(values)
    numbers = []
    for word in words:
        if word not in content.labels and not word.isdecimal():
            raise InputError(f"type {word!r} is not among the Atom Type Labels")
        numbers.append(content.labels.get(word) or int(word))
    return np.array(numbers)[index]


def _box(lines: Lines, header: dict[str, list[float]]) -> Box:
    if {"avec", "bvec", "cvec"} <= set(header):
        cell = np.array([header["avec"], header["bvec"], header["cvec"]])
        return Box(cell, np.array(header.get("abc origin", [0.0, 0.0, 0.0])))
    missing = [name for name in ("xlo xhi", "ylo yhi", "zlo zhi") if name not in header]
    if missing:
        raise InputError(f"the header has no {missing[0]}: a cell is needed", path=lines.path)
    low, high = zip(*(header[name] for name in ("xlo xhi", "ylo yhi", "zlo zhi")), strict=True)
    return from_edges(low, high, header.get("xy xz yz", [0.0, 0.0, 0.0]))


def write(structures: Sequence[Structure], file: BinaryIO) -> None:
    """Write one structure in style atomic; columns and periodic flags have no place in it.

    A cell that LAMMPS could hold only turned is written as avec, bvec, cvec (LAMMPS ≥ 2024).
    """
    structure = structures[0]
    masses = (f"{i} {MASS[s]} # {s}\n" for i, s in enumerate(structure.species, start=1))
    file.write(
        "LAMMPS data file written by mgsym, units = metal\n\n"
        f"{len(structure)} atoms\n{len(structure.species)} atom types\n\n"
        f"{_box_lines(box_of(structure))}\nMasses\n\n{''.join(masses)}\n"
        "Atoms # atomic\n\n".encode()
    )
    axes = structure.positions.numpy().T
    numbers = [texts(structure.ids.numpy()), texts(structure.types.numpy() + 1)]
    file.write(rows([*numbers, *map(texts, axes)]))


def _box_lines(box: Box) -> str:
    if not is_restricted(box):
        lines = zip([*box.cell, box.origin], ("avec", "bvec", "cvec", "abc origin"), strict=True)
        return "".join(f"{' '.join(map(repr, row.tolist()))} {name}\n" for row, name in lines)
    low, high = box.origin, box.origin + np.diag(box.cell)
    text = "".join(
        f"{low[i].item()!r} {high[i].item()!r} {axis}lo {axis}hi\n" for i, axis in enumerate("xyz")
    )
    tilt = tilt_of(box)
    return text + (" ".join(map(repr, tilt)) + " xy xz yz\n" if any(tilt) else "")


FORMAT = Format(
    name="lammps-data",
    suffixes=(".data", ".lmp"),
    matches=matches,
    read=read,
    write=write,
    many=False,
    loses="columns, periodic flags, name, glass and split",
)
