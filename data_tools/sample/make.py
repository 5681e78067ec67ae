"""Gives labelled glasses the names, roles and columns of the sample (make.sh calls it).

    python -m mgsym.data_tools.sample.make FOLDER [OUT]

FOLDER holds labelled_<name>.xyz; OUT is data_tools/sample in the tree unless given.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from mgsym.data_tools.formats import read, write
from mgsym.structure import Structure
from mgsym.structure.columns import BARRIER, BARRIER_STDERR, EVENTS

# name: split and glass
SAMPLE = {
    "train_a": ("train", "train_a"),
    "train_a_again": ("train", "train_a"),
    "train_b": ("train", "train_b"),
    "validation": ("validation", "validation"),
    "test": ("test", "test"),
}
PREFIX = "cu64zr36_500_"  # of the files' names
COLUMNS = (BARRIER, BARRIER_STDERR, EVENTS)
_DECIMALS = 6  # Å and eV; far below what either is known to


def make_sample(folder: Path, out: Path) -> list[Path]:
    """Write ``<out>/cu64zr36_500_<name>.xyz`` for each of the sample; return their paths.

    Args:
        folder: of labelled_<name>.xyz, as `mgsym label` writes them.
        out: where to.
    """
    paths = []
    for name, (split, glass) in SAMPLE.items():
        structure = _trimmed(read(folder / f"labelled_{name}.xyz"))
        path = out / f"{PREFIX}{name}.xyz"
        write(structure.replace(name=name, split=split, glass=glass), path, overwrite=True)
        paths.append(path)
    return paths


def _trimmed(structure: Structure) -> Structure:
    """With the sample's columns alone, in no more digits than mean something."""
    columns = {}
    for name in COLUMNS:
        column = structure.columns.get(name)
        if column is not None:
            columns[name] = column._replace(values=_rounded(column.values))
    return structure.replace(positions=_rounded(structure.positions), columns=columns)


def _rounded(values: torch.Tensor) -> torch.Tensor:
    if not values.is_floating_point():
        return values
    return (values.double() * 10**_DECIMALS).round() / 10**_DECIMALS


if __name__ == "__main__":
    out = sys.argv[2] if len(sys.argv) > 2 else str(Path(__file__).parent)
    make_sample(Path(sys.argv[1]), Path(out))
