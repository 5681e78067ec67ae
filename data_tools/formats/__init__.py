"""Reading and writing structures.

A format is one file here with a ``FORMAT`` (how to tell it, read it, write it) and a line in
`FORMATS`. A file's format is found by its content first, then by its suffix; ``.gz`` files are
decompressed whatever they are called.
"""

from __future__ import annotations

import gzip
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from mgsym.data_tools.formats import (
    ase_formats,
    csv_table,
    extxyz,
    lammps_data,
    lammps_dump,
    npz,
    symgnn_pickle,
)
from mgsym.data_tools.formats.frames import NoAtoms, choose
from mgsym.data_tools.formats.source import HEAD_BYTES, Format, Source, Types, opened, placed
from mgsym.data_tools.formats.species import types_of_several
from mgsym.errors import InputError, InputWarning, UsageError
from mgsym.structure import Structure
from mgsym.structure.elements import ATOMIC_NUMBER
from mgsym.utils.files import atomic_path, refuse_existing

FORMATS: tuple[Format, ...] = (
    lammps_dump.FORMAT,
    lammps_data.FORMAT,
    extxyz.FORMAT,
    npz.FORMAT,
    symgnn_pickle.FORMAT,
    csv_table.FORMAT,
    ase_formats.FORMAT,
)

# those of ASE's formats that a structure is not called by
OTHER_SUFFIXES = (".cif", ".vasp", ".poscar", ".traj", ".cfg", ".xsf", ".pdb", ".json", ".gen")


def parse_types(text: str) -> dict[int, str]:
    """``"1=Cu,2=Zr"`` as ``{1: "Cu", 2: "Zr"}``.

    Raises:
        UsageError: an entry is not number=element, or a number comes twice.
    """
    types: dict[int, str] = {}
    for entry in text.split(","):
        number, _, symbol = (part.strip() for part in entry.partition("="))
        if not number.isdecimal() or symbol not in ATOMIC_NUMBER:
            raise UsageError(
                f"types {text!r}: {entry.strip()!r} is not number=element; expected 1=Cu,2=Zr"
            )
        if int(number) in types:
            raise UsageError(f"types {text!r}: type {number} is given twice")
        types[int(number)] = symbol
    return types


def detect_format(path: str | Path) -> str:
    """The name of a file's format: by content, else by suffix.

    Raises:
        InputError: it cannot be read, or is of no known format.
    """
    path = Path(path)
    with opened(path) as file:
        return _detect(path, file).name


def read(
    path: str | Path,
    types: Types | None = None,
    frame: int = -1,
    format: str | None = None,
) -> Structure:
    """Read one structure.

    Args:
        path: a structure file of any known format.
        types: element of each type number, such as ``{1: "Cu", 2: "Zr"}``, for files that have
            numbers only.
        frame: which frame of several, from 0; the last unless told otherwise.
        format: the format's name, where content and suffix mislead.

    Raises:
        InputError: the file is missing, damaged or inconsistent; the message says where.
    """
    return read_frames(path, types, str(frame), format)[0]


def read_files(
    files: Sequence[str | Path], types: Types | None = None, frames: str = "-1"
) -> list[Structure]:
    """Read frames of several files; `types` is for those among them that have numbers only.

    Raises:
        InputError, UsageError: as for `read_frames`.
    """
    paths = [Path(file) for file in files]
    with types_of_several(types, paths):
        return [structure for path in paths for structure in read_frames(path, types, frames)]


def read_frames(
    path: str | Path,
    types: Types | None = None,
    frames: str = ":",
    format: str | None = None,
) -> list[Structure]:
    """Read several frames of a file; only those asked for are parsed.

    Of several frames, those without atoms are left out, which an `InputWarning` says.

    Where the file gives no name, a structure is called as the file, without its suffixes; one of
    several frames gets its number after that: ``quench_7``.

    Args:
        path: a structure file of any known format.
        types: element of each type number, for files that have numbers only.
        frames: a number such as ``"0"`` or ``"-1"``, or a slice such as ``"0:10:2"`` or ``":"``.
        format: the format's name, where content and suffix mislead.

    Raises:
        InputError: the file is missing, damaged or inconsistent, or has no such frame.
        UsageError: `frames` or `format` is not a thing that exists.
    """
    path = Path(path)
    with opened(path) as file:
        file_format = _named(format) if format else _detect(path, file)
        if file_format.read is None:
            raise UsageError(f"{file_format.name} files are written only, they hold no structures")
        chosen, several = choose(file_format.read(Source(path, file, types)), frames)
        structures: list[Structure] = []
        empty: list[int] = []
        for number, parse in chosen:
            try:
                with placed(path, f"frame {number}" if several else None):
                    structure = parse()
            except NoAtoms:
                if len(chosen) > 1:
                    empty.append(number)
                    continue
                raise
            stem = file_stem(path)
            name = structure.name or (f"{stem}_{number}" if several else stem)
            structures.append(structure.replace(name=name, source=str(path)))
    if empty and not structures:
        raise InputError(f"none of the {len(empty)} frames has atoms", path=path)
    if empty:
        which = ", ".join(map(str, empty[:5])) + (", …" if len(empty) > 5 else "")
        text = f"{path}: {len(empty)} of {len(chosen)} frames have no atoms and are left out"
        warnings.warn(f"{text} ({which})", InputWarning, stacklevel=2)
    return structures


def count_frames(path: str | Path, format: str | None = None) -> int:
    """How many frames a file has; they are passed over, not parsed.

    Raises:
        InputError: the file is missing, damaged, or of no known format.
        UsageError: `format` does not exist, or is written only.
    """
    path = Path(path)
    with opened(path) as file:
        file_format = _named(format) if format else _detect(path, file)
        if file_format.read is None:
            raise UsageError(f"{file_format.name} files are written only, they hold no structures")
        return sum(1 for _ in file_format.read(Source(path, file)))


def write(
    structures: Structure | Sequence[Structure],
    path: str | Path,
    overwrite: bool = False,
    format: str | None = None,
) -> None:
    """Write structures, whole or not at all; compressed where the name ends in ``.gz``.

    Args:
        structures: one, or the frames of a trajectory.
        path: the output; its suffix chooses the format.
        overwrite: replace an existing file.
        format: the format's name, where the suffix does not tell it.

    Raises:
        UsageError: the file exists, or the format is unknown, read only, or holds one structure.
    """
    path = refuse_existing(path, overwrite)
    frames = [structures] if isinstance(structures, Structure) else list(structures)
    file_format = output_format(path, format)
    save = file_format.write
    if save is None:
        raise UsageError(
            f"{file_format.name} files can be read, but not written: choose another format"
        )
    if not frames:
        raise UsageError(f"{path}: there are no structures to write")
    if len(frames) > 1 and not file_format.many:
        raise UsageError(
            f"{path}: {file_format.name} holds one structure, {len(frames)} given: write several "
            "files, or choose one of --frames"
        )
    with atomic_path(path, overwrite) as temporary, temporary.open("wb") as raw:
        if path.suffix.lower() != ".gz":
            save(frames, raw)
            return
        # no time stamp, so that the same structures give the same bytes
        with gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed:
            save(frames, packed)  # type: ignore[arg-type]


def output_format(path: str | Path, format: str | None = None) -> Format:
    """The format that `write` takes for this name.

    Raises:
        UsageError: no format is called `format`, or none that can be written ends as `path` does.
    """
    if format:
        return _named(format)
    file_format = _by_suffix(Path(path))
    if file_format is None or file_format.write is None:
        writable = ", ".join(s for f in FORMATS if f.write for s in f.suffixes)
        raise UsageError(f"{path}: cannot tell a format to write: end the name in {writable}")
    return file_format


def file_stem(path: Path) -> str:
    """A file's name without ``.gz`` and the suffix of its format; what is not UTF-8 becomes �."""
    name = os.fsencode(path.name).decode("utf-8", "replace")
    name = name[:-3] if name.lower().endswith(".gz") else name
    suffix = Path(name).suffix
    # dump.10000 and glass_1.5 keep what looks like a suffix
    suffixes = {*OTHER_SUFFIXES, *(s for f in FORMATS for s in f.suffixes)}
    return name[: -len(suffix)] if suffix.lower() in suffixes else name


def _detect(path: Path, file: BinaryIO) -> Format:
    head = file.read(HEAD_BYTES)
    file.seek(0)
    file_format = next((f for f in FORMATS if f.matches(head)), None) or _by_suffix(path)
    if file_format is None and ase_formats.format_in_ase(path) is not None:
        file_format = ase_formats.FORMAT
    if file_format is None:
        more = "" if ase_formats.is_installed() else '; pip install "mgsym[ase]" reads more'
        raise InputError(
            f"not a structure file known here, expected one of {', '.join(_names())}{more}",
            path=path,
        )
    return file_format


def _by_suffix(path: Path) -> Format | None:
    name = path.name.lower().removesuffix(".gz")
    return next((f for f in FORMATS if name.endswith(f.suffixes)), None)


def _named(name: str) -> Format:
    file_format = next((f for f in FORMATS if f.name == name), None)
    if file_format is None:
        raise UsageError(f"no format {name!r}, expected one of {', '.join(_names())}")
    return file_format


def _names() -> list[str]:
    return [f.name for f in FORMATS]
