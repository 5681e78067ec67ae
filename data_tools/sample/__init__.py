"""The small labelled Cu64Zr36 set that ships with mgsym: four glasses of 500 atoms (README.md)."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from mgsym.data_tools.formats import read
from mgsym.structure import Structure


def sample_files() -> list[Path]:
    """The sample's files, sorted by name; extended XYZ whose headers give split and glass."""
    folder = Path(str(files(__name__)))
    return sorted(folder.glob("*.xyz"))


def sample_structures() -> list[Structure]:
    """The sample's structures with barrier and barrier_stderr in eV; NaN where unlabelled."""
    return [read(path) for path in sample_files()]
