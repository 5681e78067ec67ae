"""Whatever ASE reads (CIF, POSCAR, XDATCAR, .traj, …), with the extra ``mgsym[ase]``.

Tried last, for files of no format of mgsym's own. Columns come without units, since ASE's
arrays carry none.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    except (UnknownFileTypeError, OSError, UnicodeDecodeError):
        return None
    known = name in ioformats and name not in REFUSED and ioformats[name].can_read
    return str(name) if known else None


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
    try:
        for atoms in ase.io.iread(str(source.path), format=name, do_not_split_by_at_sign=True):
            yield partial(_structure, atoms, source)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # ASE's readers raise nearly anything on a broken file
        raise InputError(
            f"ASE takes it for {name} and fails ({type(error).__name__}: {error})",
            path=source.path,
        ) from error


def _structure(atoms: Atoms, source: Source) -> Structure:
    """One frame; AtomEye's files name carbon unless told otherwise, and give masses."""
    return checked_species(Structure.from_ase(atoms), source.types, source.path)


FORMAT = Format(name="ase", suffixes=(), matches=matches, read=read)
