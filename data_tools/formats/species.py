"""Elements of atoms, from the type numbers, symbols or atomic numbers that files hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mgsym.data_tools.formats.source import Array, Types
from mgsym.elements import SYMBOLS
from mgsym.errors import InputError
from mgsym.structure import index_species

# element symbols, and [n] int64 indices into them
Species: TypeAlias = tuple[tuple[str, ...], Tensor]


def whole_numbers(values: Array, name: str) -> NDArray[np.int64]:
    """Values of a column that must be whole, such as ids.

    Raises:
        InputError: one is not.
    """
    bad = ~np.isfinite(values) | (values != np.floor(values)) | (np.abs(values) >= 2**63)
    if bad.any():
        raise InputError(f"{name} {values[bad][0]:g} is not a whole number")
    return values.astype(np.int64)


def by_type(values: Array, types: Types | None) -> Species:
    """Species of type numbers [n].

    Raises:
        InputError: a type has no element.
    """
    numbers, index = np.unique(whole_numbers(values, "type"), return_inverse=True)
    unknown = [number for number in numbers.tolist() if number not in (types or {})]
    if types is None or unknown:
        raise InputError(f"type {unknown[0]} has no element: add --types 1=Cu,2=Zr")
    return _indexed([types[number] for number in numbers.tolist()], index)


def by_symbol(words: Array) -> Species:
    """Species of element symbols [n].

    Raises:
        InputError: one is not an element.
    """
    return _indexed(*distinct(words))


def by_atomic_number(values: Array, name: str) -> Species:
    """Species of atomic numbers [n].

    Raises:
        InputError: one is not an element's.
    """
    numbers, index = np.unique(whole_numbers(values, name), return_inverse=True)
    wrong = [z for z in numbers.tolist() if not 1 <= z <= len(SYMBOLS)]
    if wrong:
        raise InputError(f"{wrong[0]} is not an atomic number")
    return _indexed([SYMBOLS[z - 1] for z in numbers.tolist()], index)


def distinct(words: Array) -> tuple[list[str], NDArray[np.int64]]:
    """The different words, and [n] which of them each is; far faster than sorting text."""
    number: dict[str, int] = {}
    index = (number.setdefault(word, len(number)) for word in words.tolist())
    positions = np.fromiter(index, dtype=np.int64, count=len(words))
    return list(number), positions


def _indexed(symbols: Sequence[str], index: NDArray[np.int64]) -> Species:
    """Species of the symbols [k], and the species of each index into them."""
    species, of_symbol = index_species(symbols)
    return species, of_symbol[torch.from_numpy(index.reshape(-1))]
