"""Whatever ASE reads (CIF, POSCAR, XDATCAR, .traj, …), with the extra ``mgsym[ase]``.

Tried last, for files of no format of mgsym's own. Columns come without units, since ASE's
arrays carry none.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mgsym.data_tools.formats.source import Format, Frame, Source
from mgsym.data_tools.formats.species import checked_species
from mgsym.errors import InputError, missing_extra
from mgsym.structure import Structure

if TYPE_CHECKING:
    from ase import Atoms

# databases and folders are not structure files
REFUSED = {"db", "mysql", "postgresql", "bundletrajectory"}


def format_in_ase(path: Path) -> str | None:
    """ASE's name for the format of a file; None where it has none, or is not installed."""
    try:
        from ase.io.formats import UnknownFileTypeError, filetype, ioformats
    except ImportError:
        return None
    try:
        name = filetype(str(path))
    except (UnknownFileTypeError, OSError, UnicodeDecodeError, EOFError, zlib.error):
        return None
    readable = name in ioformats and name not in REFUSED and ioformats[name].can_read
    return str(name) if readable else None


def is_installed() -> bool:
    """Whether ASE can be imported."""
    try:
        import ase  # noqa: F401
    except ImportError:
        return False
    return True


def matches(head: bytes) -> bool:
    """Never: ASE is asked only when nothing else fits."""
    return False


def read(source: Source) -> Iterator[Frame]:
    """The frames that ASE finds in the file.

    Raises:
        InputError: ASE knows no such format, or fails to read the file.
        UsageError: ASE is not installed.
    """
    if not is_installed():
        raise missing_extra("ASE", "ase", f"Reading {source.path.name}")
    import ase.io

    name = format_in_ase(source.path)
    if name is None:
        raise InputError("ASE does not know this format either", path=source.path)
    while source.file.read(1 << 20):
        pass  # ASE decompresses for itself, without an eye on how much that is
    with _explained(source.path, name):
        for atoms in ase.io.iread(str(source.path), format=name, do_not_split_by_at_sign=True):
            yield partial(_structure, source, name, atoms)


def _structure(source: Source, name: str, atoms: Atoms) -> Structure:
    """One frame; AtomEye's files name carbon unless told otherwise, and give masses."""
    with _explained(source.path, name):
        return checked_species(Structure.from_ase(atoms), source.types, source.path)


@contextmanager
def _explained(path: Path, name: str) -> Iterator[None]:
    """ASE's readers raise nearly anything on a broken file: tell it in one line."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise InputError(
            f"ASE takes it for {name} and fails ({type(error).__name__}: "
            f"{' '.join(str(error)[:200].split())})",
            path=path,
        ) from error


FORMAT = Format(name="ase", suffixes=(), matches=matches, read=read)
