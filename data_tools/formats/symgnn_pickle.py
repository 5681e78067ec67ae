"""The pickles of the public SymGNN dataset (Cu64Zr36), read without running anything in them.

Each holds a dict of NumPy arrays: positions [n, 3] Å in a box [3] Å centred on the origin,
types (1 = Cu, 2 = Zr), and per atom the mean ARTn barrier in eV (under the misnomer
`trajectory_start_velocities`), potential energy in eV, pressure and von Mises stress (units not
documented).

A pickle is a program, and NumPy's own objects can be changed by one until the interpreter fails.
So its instructions are looked through first, and then it meets none of NumPy's objects, but
stand-ins, which take what NumPy writes of an array, check it, and make the array from its bytes.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

import numpy as np
import torch

from mgsym.data_tools.formats.source import (
    Array,
    Format,
    Frame,
    Source,
    Types,
)
from mgsym.data_tools.formats.species import species_of
from mgsym.data_tools.public_dataset import identify
from mgsym.errors import InputError
from mgsym.structure import Column, Structure
from mgsym.structure.columns import BARRIER
from mgsym.utils.pickles import names_asked_for

ELEMENTS: Types = {1: "Cu", 2: "Zr"}
# key in the file, name here, unit
COLUMNS = (
    ("trajectory_start_velocities", BARRIER, "eV"),
    ("pot", "energy", "eV"),
    ("press", "pressure", ""),
    ("von", "von_mises", ""),
)
MOST_INSTRUCTIONS = 10_000  # the public files have fewer than 300
_NUMBERS = re.compile(r"[<>|=]?([fiu][1248]|b1)")
_NDARRAY: Final = "numpy.ndarray"  # stands for the class, which is only passed on


class _NumberType:
    """Stands for a dtype of plain numbers: a code such as f8, then its byte order as a state."""

    __slots__ = ("code", "order")

    def __init__(self, code: str, *_: object) -> None:
        if not (isinstance(code, str) and _NUMBERS.fullmatch(code)):
            raise ValueError(f"an array of {code!r}")
        self.code, self.order = code.lstrip("<>|="), "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, *structured = state
        # names, fields and shape of parts belong to arrays of records
        if order not in ("<", ">", "|", "=") or any(part is not None for part in structured[:3]):
            raise ValueError("an array of records")
        self.order = order

    def of(self, content: object, shape: object, fortran: bool) -> Array:
        """The array that these bytes are.

        Raises:
            ValueError: there are not as many bytes as the shape needs.
        """
        if not isinstance(shape, tuple) or not isinstance(content, bytes | bytearray):
            raise ValueError("an array without a shape or bytes")
        if any(type(n) is not int or n < 0 for n in shape):
            raise ValueError(f"an array of shape {shape!r}")
        values = np.frombuffer(bytes(content), np.dtype(self.order + self.code))
        return values.reshape(shape, order="F" if fortran else "C")


class _Array:
    """Stands for an array: made empty, then given its shape, number type and bytes as a state."""

    __slots__ = ("values",)

    def __init__(self, values: Array | None = None) -> None:
        self.values = values

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, content = state
        if self.values is not None or type(kind) is not _NumberType:
            raise ValueError("an array that is set twice, or of no kind of number")
        self.values = kind.of(content, shape, fortran is True)


class _Maker:
    """A function that a pickle may call but not change."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *arguments: object) -> object:
        return self._function(*arguments)

    def __setstate__(self, state: object) -> None:
        raise ValueError("a function that is changed")


def _reconstruct(kind: object, *_: object) -> _Array:
    if kind is not _NDARRAY:
        raise ValueError("an array of another class")
    return _Array()


def _from_buffer(content: object, kind: object, shape: object, order: object = "C") -> _Array:
    if type(kind) is not _NumberType:
        raise ValueError("an array of no kind of number")
    return _Array(kind.of(content, shape, order == "F"))


def _scalar(kind: object, content: object) -> _Array:
    return _from_buffer(content, kind, ())


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """How bytes are written where pickles knew text only."""
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("text in another encoding")
    return text.encode("latin1")


ALLOWED: Mapping[str, object] = {
    **dict.fromkeys(
        ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
        _Maker(_reconstruct),
    ),
    **dict.fromkeys(
        ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"),
        _Maker(_from_buffer),
    ),
    **dict.fromkeys(
        ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"), _Maker(_scalar)
    ),
    "numpy.ndarray": _NDARRAY,
    "numpy.dtype": _Maker(_NumberType),
    "_codecs.encode": _Maker(_encode),
}


class _ArrayUnpickler(pickle.Unpickler):
    """Loads stand-ins for arrays and plain containers, refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        return _allowed(f"{module}.{name}")


def _allowed(name: str) -> object:
    if name not in ALLOWED:
        raise InputError(
            f"the pickle asks for {name[:80]}, which arrays do not need, and was not run: "
            "pickles can hold harmful code, ask whoever made it for another format"
        )
    return ALLOWED[name]


def matches(head: bytes) -> bool:
    """Whether a file with these first bytes is of this format."""
    return head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")


def read(source: Source) -> Iterator[Frame]:
    """The one structure of a pickle."""
    yield partial(_read, source)


def _read(source: Source) -> Structure:
    source.file.seek(0)
    content = source.file.read()
    data = _load(content)
    positions, box = _array(data, "positions"), _array(data, "box")
    if positions.ndim != 2 or positions.shape[1] != 3 or box.shape != (3,):
        raise InputError(
            f"expected positions [n, 3] and box [3], found {list(positions.shape)} "
            f"and {list(box.shape)}"
        )
    numbers = _array(data, "types").reshape(-1)
    names = np.array([ELEMENTS.get(number, "") for number in numbers.tolist()], dtype=np.str_)
    species, types = species_of(source.types, source.path, numbers, [names])
    original = identify(content)
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
        glass=original.glass if original else "",
        split=original.split if original else "",
    )


def _load(content: bytes) -> Mapping[str, Any]:
    """The dict in a pickle, with stand-ins for its arrays.

    Raises:
        InputError: it is damaged, no dict, or asks for more than arrays do.
    """
    try:
        for name in names_asked_for(content, ("STACK_GLOBAL",), MOST_INSTRUCTIONS):
            _allowed(name)
        data = _ArrayUnpickler(io.BytesIO(content)).load()
    except (InputError, MemoryError):
        raise
    except Exception as error:  # damaged bytes make the unpickler raise nearly anything
        raise InputError(
            f"the pickle is damaged or cut short ({type(error).__name__}): fetch or copy it again"
        ) from error
    if type(data) is not dict:
        raise InputError(f"expected a dict of arrays, found {type(data).__name__.strip('_')}")
    return data


def _array(data: Mapping[str, Any], key: str) -> Array:
    """An array of the dict as float64.

    Raises:
        InputError: it has none under this name.
    """
    if key not in data:
        raise InputError(f"the dict has no {key!r}: it is not a SymGNN structure")
    array = data[key]
    if type(array) is not _Array or array.values is None:
        raise InputError(f"{key} is not an array of numbers")
    return array.values.astype(np.float64)


FORMAT = Format(
    name="symgnn-pickle",
    suffixes=(".pickle", ".pkl"),
    matches=matches,
    read=read,
    many=False,
)
