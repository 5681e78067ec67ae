"""Extended XYZ, any number of frames: https://github.com/libAtoms/extxyz.

The comment line holds key=value pairs: Lattice (nine numbers, rows are the cell vectors),
Properties (name:kind:width of each column), pbc, Origin, and mgsym's own name, glass, split,
energy_unit and column_units ("name=unit …"). Atoms keep the file's order.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import BinaryIO, NamedTuple

import numpy as np
import torch

from mgsym.data_tools.formats.columns import column, named_columns, rows, texts
from mgsym.data_tools.formats.frames import NoAtoms, headers
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
    MASSES,
    Species,
    species_of,
    symbols_of_numbers,
    whole_numbers,
)
from mgsym.errors import InputError
from mgsym.structure import Column, Structure
from mgsym.structure.columns import BARRIER, BARRIER_STDERR

KINDS = {"R": REAL, "I": WHOLE, "S": WORD, "L": WORD}
TRUE, FALSE = {"T", "True", "true", "TRUE", "1"}, {"F", "False", "false", "FALSE", "0"}
ENERGIES = (BARRIER, BARRIER_STDERR, "energy")
# ASE takes a column `energy` for the energy of the whole, and the one of each atom from `energies`
ENERGY_NAMES = {"energies": "energy"}
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
    for header in headers(lines, _header):
        yield partial(_frame, lines, header, source)


def _header(lines: Lines) -> Header | None:
    first = lines.read()
    while first is not None and not first.strip():
        first = lines.read()
    if first is None:
        return None
    atoms = lines.whole(first.strip(), "number of atoms", least=0)
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


def _frame(lines: Lines, header: Header, source: Source) -> Structure:
    lines.go(header.start)
    if not header.atoms:
        raise NoAtoms("there are no atoms: choose other --frames")
    info = header.info
    cell, origin, periodic = _cell(lines, info)
    energy_unit = _energy_unit(lines, info)
    properties = _properties(lines, info)
    table = _table(lines, header.atoms, properties)
    positions = table.pop("pos")
    species, types = _species(table, source)
    ids = table.pop("id", None)
    units = dict(pair.split("=", 1) for pair in info.get("column_units", "").split() if "=" in pair)
    if energy_unit:
        units = {**dict.fromkeys((*ENERGIES, *ENERGY_NAMES), energy_unit), **units}
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
            (ENERGY_NAMES.get(name, name) if "energy" not in table else name): column(
                name, values, units.get(name)
            )
            for name, values in table.items()
            if values.dtype.kind != "U"
        },
        **{label: info.get(label, "") for label in LABELS},
    )


def _cell(
    lines: Lines, info: Mapping[str, str]
) -> tuple[torch.Tensor, torch.Tensor, tuple[bool, bool, bool]]:
    """Cell, origin and periodic flags from the comment line."""
    texts = {name: _value(info, name) for name in ("Lattice", "Origin", "pbc")}
    if texts["Lattice"] is None:
        raise lines.error(
            "there is no Lattice, but a cell is needed: add "
            'Lattice="ax ay az bx by bz cx cy cz" (Å) to the comment line'
        )
    text = texts["Lattice"].replace(",", " ")
    edges = lines.numbers(3 if len(text.split()) == 3 else 9, "Lattice", text)
    origin = lines.numbers(3, "Origin", (texts["Origin"] or "0 0 0").replace(",", " "))
    cell = torch.tensor(edges, dtype=torch.float64)
    cell = torch.diag(cell) if len(edges) == 3 else cell.reshape(3, 3)
    return cell, torch.tensor(origin, dtype=torch.float64), _periodic(lines, info, texts["pbc"])


def _value(info: Mapping[str, str], key: str) -> str | None:
    """The value of a key, in whatever case it is written."""
    if key in info:
        return info[key]
    return next((value for name, value in info.items() if name.lower() == key.lower()), None)


def _periodic(lines: Lines, info: Mapping[str, str], text: str | None) -> tuple[bool, bool, bool]:
    """Flags as people write them: "T T F", TTF, T for all, t,t,f, "True True False", "1 1 0"."""
    words = ["T"] if text is None else text.replace(",", " ").split()
    if len(words) == 1 and len(words[0]) == 3:
        words = list(words[0])
    flags = [word.strip(".").lower() for word in words]
    if len(flags) not in (1, 3) or not set(flags) <= {flag.lower() for flag in TRUE | FALSE}:
        raise lines.error(f'pbc is {shown(text or "")}, expected three of T and F such as "T T F"')
    if len(flags) == 1 and text is not None and {"T", "F", "t", "f"} & set(info):
        raise lines.error(f'pbc is {text!r} and more flags follow: put quotes, as in pbc="T T F"')
    x, y, z = (flag in {"t", "true", "1"} for flag in (flags if len(flags) == 3 else flags * 3))
    return x, y, z


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
    text = _value(info, "Properties") or "species:S:1:pos:R:3"
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


def _species(table: dict[str, Array], source: Source) -> Species:
    """From the columns of symbols, type numbers, atomic numbers and masses there are.

    OVITO and LAMMPS write type numbers for symbols where types have no names. The columns that
    say it are taken out of the table.
    """
    words = [name for name in SPECIES_NAMES[:2] if name in table][:1]
    atomic = [name for name in SPECIES_NAMES[2:] if name in table][:1]
    numbers = table.get("type")
    if not words and not atomic and numbers is None:
        raise InputError("no column species:S:1 or Z:I:1: add one to Properties")
    names = [table.pop(name).astype(WORD) for name in words]
    names += [
        symbols_of_numbers(table.pop(name) if not words else table[name], name) for name in atomic
    ]
    if any(column.ndim != 1 for column in names) or (numbers is not None and numbers.ndim != 1):
        raise InputError("the column of elements is more than one wide, expected one per atom")
    if source.types is None and names:
        numbers = None  # the file's own numbers tell nothing
    elif numbers is not None and numbers.dtype.kind not in "if":
        numbers = None
    masses = next((table[name] for name in MASSES if name in table), None)
    if masses is not None and (masses.ndim != 1 or masses.dtype.kind not in "if"):
        masses = None
    return species_of(source.types, source.path, numbers, names, masses)


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
        columns = _energies_named(dict(named_columns(structure, (*SPECIES_NAMES, "pos", "id"))))
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


def _energies_named(columns: dict[str, Column]) -> dict[str, Column]:
    """The columns with the energy of each atom under the name that ASE and others expect."""
    if "energies" in columns:
        return columns
    names = {ours: theirs for theirs, ours in ENERGY_NAMES.items()}
    return {names.get(name, name): column for name, column in columns.items()}


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
    total = columns.get("energies")
    if total is not None and total.values.dim() == 1 and bool(total.values.isfinite().all()):
        pairs["energy"] = repr(math.fsum(total.values.tolist()))  # as ASE keeps the whole's
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
