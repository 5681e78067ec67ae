"""The pickles of the public SymGNN dataset (Cu64Zr36), read without running anything in them.

Each holds a dict of NumPy arrays: positions [n, 3] Å in a box [3] Å centred on the origin,
types (1 = Cu, 2 = Zr), and per atom the mean ARTn barrier in eV (under the misnomer
`trajectory_start_velocities`), potential energy in eV, pressure and von Mises stress (units not
documented). A pickle is a program; only the few functions that rebuild arrays may be called.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, BinaryIO

import numpy as np
import torch

from mgsym.data_tools.formats.source import (
    Array,
    Format,
    Frame,
    Source,
    Types,
)
from mgsym.data_tools.formats.species import by_type
from mgsym.data_tools.public_dataset import identify
from mgsym.errors import InputError
from mgsym.structure import Column, Structure

ELEMENTS: Types = {1: "Cu", 2: "Zr"}
# key in the file, name here, unit
COLUMNS = (
    ("trajectory_start_velocities", "barrier", "eV"),
    ("pot", "energy", "eV"),
    ("press", "pressure", ""),
    ("von", "von_mises", ""),
)

# what NumPy itself calls to rebuild an array, whatever module it lives in
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_FROM_BUFFER = np.empty(1).__reduce_ex__(5)[0]
ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy.core.numeric", "_frombuffer"): _FROM_BUFFER,
    ("numpy._core.numeric", "_frombuffer"): _FROM_BUFFER,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Loads NumPy arrays and plain containers, refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise InputError(
                f"the pickle asks for {module}.{name}, which arrays do not need, and was not run: "
                "pickles can hold harmful code, ask whoever made it for another format"
            )
        return ALLOWED[module, name]


def matches(head: bytes) -> bool:
    """Whether a file with these first bytes is of this format."""
    return head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")


def read(source: Source) -> Iterator[Frame]:
    """The one structure of a pickle."""
    yield partial(_read, source)


def _read(source: Source) -> Structure:
    data = _load(source.file)
    positions, box = _array(data, "positions"), _array(data, "box")
    if positions.ndim != 2 or positions.shape[1] != 3 or box.shape != (3,):
        raise InputError(
            f"expected positions [n, 3] and box [3], found {list(positions.shape)} "
            f"and {list(box.shape)}"
        )
    species, types = by_type(_array(data, "types").reshape(-1), source.types or ELEMENTS)
    source.file.seek(0)
    known = identify(source.file.read())
    return Structure(
        positions=torch.from_numpy(positions),
        cell=torch.diag(torch.from_numpy(box)),
        types=types,
        species=species,
        origin=torch.from_numpy(-box / 2),
        columns={
            name: Column(torch.from_numpy(_array(data, key).reshape(-1)), unit)
            for key, name, unit in COLUMNS
            if key in data
        },
        glass=known.glass if known else "",
        split=known.split if known else "",
    )


def _load(file: BinaryIO) -> Mapping[str, Any]:
    """The dict in a pickle."""
    file.seek(0)
    try:
        data = _ArrayUnpickler(file).load()
    except InputError:
        raise
    except Exception as error:  # damaged bytes make the unpickler raise nearly anything
        raise InputError(
            f"the pickle is damaged or cut short ({type(error).__name__}): fetch or copy it again"
        ) from error
    if not isinstance(data, dict):
        raise InputError(f"expected a dict of arrays, found {type(data).__name__}")
    return data


def _array(data: Mapping[str, Any], key: str) -> Array:
    """An array of the dict as float64."""
    if key not in data:
        raise InputError(f"the dict has no {key!r}: it is not a SymGNN structure")
    try:
        return np.array(data[key], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{key} is not an array of numbers") from error


FORMAT = Format(
    name="symgnn-pickle",
    suffixes=(".pickle", ".pkl"),
    matches=matches,
    read=read,
    many=False,
)
