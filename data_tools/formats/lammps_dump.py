"""LAMMPS text dumps (styles atom and custom), any number of frames.

Boxes may be orthogonal, triclinic or general (`BOX BOUNDS abc origin`). Coordinates are read as
they stand (x, xu, xs or xsu, in this order of preference); image flags are not applied. Atoms
keep the file's order. Further numeric columns become columns of the structure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import BinaryIO, NamedTuple

import numpy as np
import torch

from mgsym.data_tools.formats.columns import column, rows, scalar_columns, texts
from mgsym.data_tools.formats.frames import NoAtoms, headers
from mgsym.data_tools.formats.lammps_box import (
    Box,
    bounds,
    box_of,
    from_bounds,
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
    Mark,
    Source,
)
from mgsym.data_tools.formats.species import MASSES, Species, species_of, whole_numbers
from mgsym.errors import InputError
from mgsym.structure import Structure

# the columns that hold x, y, z, and whether they are fractions of the cell
COORDINATES = (
    (("x", "y", "z"), False),
    (("xu", "yu", "zu"), False),
    (("xs", "ys", "zs"), True),
    (("xsu", "ysu", "zsu"), True),
)
NOT_COLUMNS = {"id", "type", "ix", "iy", "iz", *(n for names, _ in COORDINATES for n in names)}
WORDS = ("element", "typelabel")


class Header(NamedTuple):
    """What stands before the atoms of a frame, and where they begin."""

    atoms: int
    box: Box
    periodic: tuple[bool, bool, bool]
    names: list[str]
    start: Mark


def matches(head: bytes) -> bool:
    """Whether a file with these first bytes is of this format."""
    return head.lstrip().startswith(b"ITEM:")


def read(source: Source) -> Iterator[Frame]:
    """The frames of a dump; passing over one does not parse its atoms."""
    lines = Lines(source)
    for header in headers(lines, _header):
        yield partial(_frame, lines, header, source)


def _header(lines: Lines) -> Header | None:
    """The next frame's header, or None at the end of the file."""
    atoms: int | None = None
    box, periodic, begun = None, (True, True, True), False
    while True:
        line = lines.expect("ITEM: ATOMS") if begun else lines.read()
        if line is None:
            return None
        item = line.strip()
        begun = begun or bool(item)
        if item == "ITEM: UNITS":
            _check_units(lines, lines.expect("the units").strip())
        elif item in ("ITEM: TIMESTEP", "ITEM: TIME"):
            lines.expect("the time")
        elif item == "ITEM: NUMBER OF ATOMS":
            atoms = lines.count("number of atoms", least=0)
        elif item.startswith("ITEM: BOX BOUNDS"):
            box, periodic = _box(lines, item.split()[3:])
        elif item.startswith("ITEM: ATOMS"):
            if atoms is None or box is None:
                raise lines.error("ITEM: ATOMS before NUMBER OF ATOMS and BOX BOUNDS")
            return Header(atoms, box, periodic, item.split()[2:], lines.mark())
        elif item:
            raise lines.error(
                f"expected ITEM: TIMESTEP or another header, found {item[:60]!r}: not a dump of "
                "atoms, or the atom count before is wrong"
            )


def _check_units(lines: Lines, units: str) -> None:
    if units != "metal":
        raise lines.error(
            f"units are {units}, expected metal (Å, eV): run LAMMPS with `units metal` "
            "or convert the file"
        )


def _box(lines: Lines, words: list[str]) -> tuple[Box, tuple[bool, bool, bool]]:
    """The box after a line `ITEM: BOX BOUNDS words…`."""
    flags = [w for w in words if len(w) == 2 and set(w) <= set("pfsm")]
    # very old dumps have no flags; their boxes were periodic unless told otherwise
    px, py, pz = (f == "pp" for f in flags) if len(flags) == 3 else (True, True, True)
    if "abc" in words:
        numbers = np.array([lines.numbers(4, "a cell vector and the origin") for _ in range(3)])
        return Box(numbers[:, :3].copy(), numbers[:, 3].copy()), (px, py, pz)
    if "xy" in words:
        numbers = np.array([lines.numbers(3, "lower and upper bound, tilt") for _ in range(3)])
        return from_bounds(numbers[:, 0], numbers[:, 1], tilt=numbers[:, 2]), (px, py, pz)
    numbers = np.array([lines.numbers(2, "lower and upper bound") for _ in range(3)])
    return from_edges(numbers[:, 0], numbers[:, 1], tilt=(0, 0, 0)), (px, py, pz)


def _frame(lines: Lines, header: Header, source: Source) -> Structure:
    """The atoms of one frame."""
    lines.go(header.start)
    if not header.atoms:
        raise NoAtoms("there are no atoms: choose other --frames")
    fields = [(name, WORD if name in WORDS else REAL) for name in header.names]
    if len(set(header.names)) < len(header.names):
        raise lines.error(f"ITEM: ATOMS names a column twice: {' '.join(header.names)}")
    finder, fractional = _coordinates(lines, header.names)
    table = dict(zip(header.names, lines.table(header.atoms, fields), strict=True))
    positions = np.stack([table[name] for name in finder], axis=1)
    if fractional:
        positions = header.box.origin + positions @ header.box.cell
    species, indices = _species(table, source)
    return Structure(
        positions=torch.from_numpy(positions),
        cell=torch.from_numpy(header.box.cell),
        types=indices,
        species=species,
        periodic=header.periodic,
        origin=torch.from_numpy(header.box.origin),
        ids=torch.from_numpy(whole_numbers(table["id"], "id"))
        if "id" in table
        else torch.arange(1, header.atoms + 1),
        columns={
            name: column(name, values)
            for name, values in table.items()
            if name not in NOT_COLUMNS and name not in WORDS
        },
    )


def _coordinates(lines: Lines, names: list[str]) -> tuple[tuple[str, ...], bool]:
    for triple, fractional in COORDINATES:
        if set(triple) <= set(names):
            return triple, fractional
    raise lines.error(
        f"no coordinates among the columns {' '.join(names)}, expected x y z, xu yu zu, xs ys zs "
        "or xsu ysu zsu: add them to the dump command"
    )


def _species(table: dict[str, Array], source: Source) -> Species:
    """From type numbers, labels, elements and masses, whichever there are."""
    numbers, label, element = table.get("type"), table.get("typelabel"), table.get("element")
    masses = next((table[name] for name in MASSES if name in table), None)
    if element is not None and bool((element == "C").all()):
        several = len(np.unique(table.get("type", 0))) > 1
        if label is not None or (several and source.types):
            element = None  # better is known than what LAMMPS writes unless told otherwise
        elif several and masses is None:
            raise InputError(
                "every element is C, which LAMMPS writes unless told (dump_modify element), but "
                "there are several types: add --types 1=Cu,2=Zr"
            )
    names = [words for words in (label, element) if words is not None]
    if numbers is None and not names:
        raise InputError(
            "no column type or element: add one of them, or typelabel, to the dump command"
        )
    return species_of(source.types, source.path, numbers, names, masses)


def write(structures: Sequence[Structure], file: BinaryIO) -> None:
    """Write frames with id, type, element, x, y, z and every column (its unit is not kept).

    A cell that LAMMPS could hold only turned is written as a general box, which LAMMPS and OVITO
    read since 2024; positions stay as they are.
    """
    for step, structure in enumerate(structures):
        columns = list(scalar_columns(structure, {*NOT_COLUMNS, *WORDS}))
        names = ["id", "type", "element", "x", "y", "z", *(name for name, _ in columns)]
        file.write(
            f"ITEM: UNITS\nmetal\nITEM: TIMESTEP\n{step}\n"
            f"ITEM: NUMBER OF ATOMS\n{len(structure)}\n{_box_lines(structure)}"
            f"ITEM: ATOMS {' '.join(names)}\n".encode()
        )
        file.write(
            rows(
                [
                    texts(structure.ids.numpy()),
                    texts(structure.types.numpy() + 1),
                    structure.symbols,
                    *(texts(axis) for axis in structure.positions.numpy().T),
                    *(texts(values.numpy()) for _, (values, _) in columns),
                ]
            )
        )


def _box_lines(structure: Structure) -> str:
    """The BOX BOUNDS item of a structure."""
    box = box_of(structure)
    flags = " ".join("pp" if p else "ff" for p in structure.periodic)
    if not is_restricted(box):
        kind = "abc origin "
        values = np.column_stack([box.cell, box.origin])
    else:
        tilt = tilt_of(box)
        kind = "xy xz yz " if any(tilt) else ""
        values = np.stack([*bounds(box), *([tilt] if any(tilt) else [])], axis=1)
    lines = (" ".join(map(repr, row)) + "\n" for row in values.tolist())
    return f"ITEM: BOX BOUNDS {kind}{flags}\n" + "".join(lines)


FORMAT = Format(
    name="lammps-dump",
    suffixes=(".dump", ".lammpstrj"),
    matches=matches,
    read=read,
    write=write,
    loses="units of columns, name, glass and split",
)
