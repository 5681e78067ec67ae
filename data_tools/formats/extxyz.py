"""Extended XYZ, any number of frames: https://github.com/libAtoms/extxyz.

The comment line holds key=value pairs: Lattice (nine numbers, rows are the cell vectors),
Properties (name:kind:width of each column), pbc, Origin, and mgsym's own name, glass, split,
energy_unit and column_units ("name=unit …"). Atoms keep the file's order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import BinaryIO, NamedTuple

import numpy as np
import torch

from mgsym.data_tools.formats.columns import column, named_columns, rows, texts
from mgsym.data_tools.formats.source import (
    MOST_COLUMNS,
    REAL,
    WHOLE,
    WORD,
    Array,
    Format,
    Frame,
    Lines,
    Mark,
    Source,
    shown,
)
from mgsym.data_tools.formats.species import (
    Species,
    by_atomic_number,
    by_symbol,
    whole_numbers,
)
from mgsym.errors import InputError
from mgsym.structure import Column, Structure

KINDS = {"R": REAL, "I": WHOLE, "S": WORD, "L": WORD}
TRUE, FALSE = {"T", "True", "true", "TRUE", "1"}, {"F", "False", "false", "FALSE", "0"}
LABELS = ("name", "glass", "split")
SPECIES_NAMES = ("species", "element", "Z", "numbers")
LENGTH_UNITS = {"A", "Å", "Ang", "angstrom", "Angstrom", "ang"}

# Each alternative ends where it cannot go on and gives nothing back, so that a line is read in a
# time in proportion to its length: a quote that is not closed goes to the end of the line, braces
# hold no others. A value follows its = at once, or after blanks if it is not itself a key.
_QUOTED = r'"(?:\\.|[^"\\]++)*+(?:"|$)'
_BRACKETS = r"\[(?:[^\[\]]++|\[[^\[\]]*+\])*+\]"
_VALUE = rf"""{_QUOTED}|'[^']*+'|\{{[^{{}}]*+\}}|{_BRACKETS}"""
_PAIR = re.compile(
    rf"""(?P<key>{_QUOTED}|[^\s="]++)\s*+
    (?P<given>=(?:(?P<value>{_VALUE}|\S++)|\s++(?P<later>{_VALUE}|(?![^\s="]++\s*+=)\S++))?+)?+""",
    re.VERBOSE,
)


class Header(NamedTuple):
    """The first two lines of a frame, and where its atoms begin."""

    atoms: int
    info: Mapping[str, str]
    start: Mark


class Property(NamedTuple):
    """One entry of Properties: a name, a kind of value (R, I, S, L) and how many there are."""

    name: str
    kind: str
    width: int


def matches(head: bytes) -> bool:
    """Whether a file with these first bytes is of this format."""
    lines = head.decode("utf-8", errors="replace").splitlines()
    if len(lines) < 2 or not lines[0].strip().isdigit():
        return False
    first_atom = lines[2].split() if len(lines) > 2 else []
    return "=" in lines[1] or (len(first_atom) >= 4 and first_atom[0].isalpha())


def read(source: Source) -> Iterator[Frame]:
    """The frames of the file; passing over one does not parse its atoms."""
    lines = Lines(source)
    while (header := _header(lines)) is not None:
        yield partial(_frame, lines, header)
        lines.go(header.start)
        lines.skip(header.atoms)


def _header(lines: Lines) -> Header | None:
    first = lines.read()
    while first is not None and not first.strip():
        first = lines.read()
    if first is None:
        return None
    atoms = lines.whole(first.strip(), "number of atoms")
    return Header(atoms, parse_info(lines.expect("the comment line with Lattice")), lines.mark())


def parse_info(text: str) -> dict[str, str]:
    """The key=value pairs of a comment line; a key alone has the value T, ``key=`` an empty one."""
    info = {}
    for match in _PAIR.finditer(text):
        value = match["value"] or match["later"] or ""
        info[_bare(match["key"])] = _bare(value) if match["given"] else "T"
    return info


def _bare(text: str) -> str:
    """Text without its quotes, braces or brackets."""
    if len(text) >= 2 and text[0] == '"':
        inside = text[1:-1] if text[-1] == '"' else text[1:]
        return re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], inside)
    if len(text) >= 2 and text[0] + text[-1] in ("''", "{}"):
        return text[1:-1]
    if text.startswith("["):
        return re.sub(r"[\[\],]", " ", text).strip()
    return text


def _frame(lines: Lines, header: Header) -> Structure:
    lines.go(header.start)
    info = header.info
    cell, origin, periodic = _cell(lines, info)
    energy_unit = _energy_unit(lines, info)
    properties = _properties(lines, info)
    table = _table(lines, header.atoms, properties)
    positions = table.pop("pos")
    species, types = _species(table)
    ids = table.pop("id", None)
    given = dict(pair.split("=", 1) for pair in info.get("column_units", "").split() if "=" in pair)
    if energy_unit:
        given = {**dict.fromkeys(("barrier", "barrier_stderr", "energy"), energy_unit), **given}
    return Structure(
        positions=torch.from_numpy(positions),
        cell=cell,
        types=types,
        species=species,
        periodic=periodic,
        origin=origin,
        ids=torch.arange(1, header.atoms + 1)
        if ids is None
        else torch.from_numpy(whole_numbers(ids, "id")),
        columns={
            name: column(name, values, given.get(name))
            for name, values in table.items()
            if values.dtype.kind != "U"
        },
        **{label: info.get(label, "") for label in LABELS},
    )


def _cell(
    lines: Lines, info: Mapping[str, str]
) -> tuple[torch.Tensor, torch.Tensor, tuple[bool, bool, bool]]:
    """Cell, origin and periodic flags from the comment line."""
    if "Lattice" not in info:
        raise lines.error(
            "there is no Lattice, but a cell is needed: add "
            'Lattice="ax ay az bx by bz cx cy cz" (Å) to the comment line'
        )
    lattice = lines.numbers(9, "Lattice", info["Lattice"])
    origin = lines.numbers(3, "Origin", info.get("Origin", "0 0 0"))
    flags = info.get("pbc", "T T T").split()
    if len(flags) != 3 or not set(flags) <= TRUE | FALSE:
        raise lines.error(f'pbc is {shown(info["pbc"])}, expected three of T and F such as "T T F"')
    x, y, z = (flag in TRUE for flag in flags)
    cell = torch.tensor(lattice, dtype=torch.float64).reshape(3, 3)
    return cell, torch.tensor(origin, dtype=torch.float64), (x, y, z)


def _energy_unit(lines: Lines, info: Mapping[str, str]) -> str:
    """The unit of energies, eV or none given.

    Raises:
        InputError: energies or lengths are in other units than eV and Å.
    """
    energy, length = info.get("energy_unit", ""), info.get("length_unit", "A")
    if energy not in ("", "eV"):
        raise lines.error(f"energy_unit is {energy[:40]}, expected eV: convert the energies")
    if length not in LENGTH_UNITS:
        raise lines.error(f"length_unit is {length[:40]}, expected A (Å): convert the coordinates")
    return energy


def _properties(lines: Lines, info: Mapping[str, str]) -> list[Property]:
    text = info.get("Properties", "species:S:1:pos:R:3")
    parts = text.split(":")
    properties = [
        Property(name, kind, int(width))
        for name, kind, width in zip(parts[::3], parts[1::3], parts[2::3], strict=False)
        if kind in KINDS and re.fullmatch("[0-9]{1,9}", width) and int(width) > 0
    ]
    if len(parts) != 3 * len(properties):
        raise lines.error(
            f"Properties is {shown(text)}, expected name:kind:width, kind R, I, S or L"
        )
    names = [p.name for p in properties]
    if len(set(names)) < len(names):
        raise lines.error(f"Properties names a column twice: {shown(text)}")
    if Property("pos", "R", 3) not in properties:
        raise lines.error(f"Properties is {shown(text)}, expected pos:R:3 in it")
    if (values := sum(p.width for p in properties)) > MOST_COLUMNS:
        raise lines.error(
            f"Properties asks for {values} values a line, expected at most {MOST_COLUMNS}"
        )
    return properties


def _table(lines: Lines, atoms: int, properties: Sequence[Property]) -> dict[str, Array]:
    """Values by property: [n], or [n, width] where it is wider than one."""
    start = lines.number
    fields = [(p.name, KINDS[p.kind]) for p in properties for _ in range(p.width)]
    columns = iter(lines.table(atoms, fields))
    table = {}
    for name, kind, width in properties:
        parts = [next(columns) for _ in range(width)]
        values = parts[0] if width == 1 else np.stack(parts, axis=1)
        if kind == "L":
            wrong = np.flatnonzero(~np.isin(values, sorted(TRUE | FALSE)).reshape(atoms, -1).all(1))
            if len(wrong):
                lines.number = start + int(wrong[0]) + 1
                raise lines.error(f"{name} must be T or F")
            values = np.isin(values, sorted(TRUE))
        table[name] = values
    return table


def _species(table: dict[str, Array]) -> Species:
    """From the column of symbols or of atomic numbers, taken out of the table."""
    for name in SPECIES_NAMES[:2]:
        if name in table:
            return by_symbol(table.pop(name))
    for name in SPECIES_NAMES[2:]:
        if name in table:
            return by_atomic_number(table.pop(name), name)
    raise InputError("no column species:S:1 or Z:I:1: add one to Properties")


def write(
    structures: Sequence[Structure], file: BinaryIO, facts: Sequence[Mapping[str, str]] = ()
) -> None:
    """Write frames with species, position, id and every column, as ASE and OVITO read them.

    Args:
        structures: the frames.
        file: the output.
        facts: more pairs for the comment line of each frame, such as how it was made.
    """
    for frame, structure in enumerate(structures):
        columns = dict(named_columns(structure, (*SPECIES_NAMES, "pos", "id")))
        table = [structure.symbols, *map(texts, structure.positions.numpy().T)]
        table.append(texts(structure.ids.numpy()))
        properties = "species:S:1:pos:R:3:id:I:1"
        for name, (values, _) in columns.items():
            array = values.reshape(len(structure), -1).numpy()
            kind = {"b": "L", "i": "I", "u": "I"}.get(array.dtype.kind, "R")
            properties += f":{name}:{kind}:{array.shape[1]}"
            for part in array.T:
                table.append(["FT"[v] for v in part.tolist()] if kind == "L" else texts(part))
        comment = _comment(structure, properties, columns, facts[frame] if facts else {})
        file.write(f"{len(structure)}\n{comment}\n".encode())
        file.write(rows(table))


def _comment(
    structure: Structure,
    properties: str,
    columns: Mapping[str, Column],
    more: Mapping[str, str],
) -> str:
    def numbers(values: torch.Tensor) -> str:
        return " ".join(map(repr, values.reshape(-1).tolist()))

    pairs = {
        "Lattice": numbers(structure.cell),
        "Properties": properties,
        "pbc": " ".join("FT"[p] for p in structure.periodic),
    }
    if bool(structure.origin.any()):
        pairs["Origin"] = numbers(structure.origin)
    pairs |= {label: getattr(structure, label) for label in LABELS if getattr(structure, label)}
    pairs |= {"energy_unit": "eV", "length_unit": "A"}
    units = " ".join(f"{name}={column.unit}" for name, column in columns.items() if column.unit)
    if units:
        pairs["column_units"] = units
    pairs |= more
    return " ".join(f"{key}={_quoted(value)}" for key, value in pairs.items())


def _quoted(text: str) -> str:
    if re.fullmatch(r"[\w.:+\-]+", text):
        return text
    escaped = text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'"{escaped}"'


FORMAT = Format(
    name="extxyz",
    suffixes=(".xyz", ".extxyz"),
    matches=matches,
    read=read,
    write=write,
)
