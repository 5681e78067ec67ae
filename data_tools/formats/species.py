"""Which element each atom is: the one place where the hints of a file and the user's meet.

A file may give type numbers, names, atomic numbers and masses, and the user ``--types``. Atoms
with the same hints are one `Kind`, whose element is decided by `element_of`:

1. the user's element of its type number, where that is given; a mass that is another element's
   refuses it;
2. a name that is an element's, or an atomic number, within `TOLERANCE` of the mass where there is
   one;
3. the element of the mass.

Contradictions that are settled are said with an `InputWarning`, others are refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mgsym.data_tools.formats.source import Array, Types
from mgsym.errors import InputError, InputWarning
from mgsym.structure import Structure, index_species
from mgsym.structure.elements import ATOMIC_NUMBER, MASS, SYMBOLS, element_of_mass

# element symbols, and [n] int64 indices into them
Species: TypeAlias = tuple[tuple[str, ...], Tensor]

TOLERANCE = 1.0  # amu, between the mass of a name and the mass given
SHOWN = 3  # contradictions of a file that are shown one by one
MASSES = ("mass", "masses", "Mass")  # what columns of masses are called
ADVICE = "add --types 1=Cu,2=Zr"


class Kind(NamedTuple):
    """What a file says of some of its atoms.

    Attributes:
        number: of their type.
        names: symbols or other names, the better one first.
        mass: amu.
    """

    number: int | None = None
    names: tuple[str, ...] = ()
    mass: float | None = None

    def __str__(self) -> str:
        atoms = f"type {self.number}" if self.number is not None else "an atom"
        return f"{atoms} called {' and '.join(self.names)}" if self.names else atoms


def element_of(kind: Kind, types: Types | None, say: Callable[[str], None]) -> str:
    """The element of a kind of atoms.

    Args:
        kind: what the file says.
        types: what the user says of type numbers.
        say: called with each contradiction that is settled.

    Raises:
        InputError: nothing tells, or what tells contradicts itself.
    """
    symbols = list(dict.fromkeys(name for name in kind.names if name in ATOMIC_NUMBER))
    of_mass = None if kind.mass is None else element_of_mass(kind.mass)
    user_symbol = (types or {}).get(kind.number) if kind.number is not None else None
    if user_symbol is not None:
        return _element_of_user(kind, user_symbol, symbols, of_mass, say)
    if kind.mass is None:
        return _by_name(kind, symbols)
    fitting = [symbol for symbol in symbols if abs(MASS[symbol] - kind.mass) <= TOLERANCE]
    if fitting:
        return fitting[0]
    if of_mass is None:
        raise InputError(_no_element_of_mass(kind, symbols))
    if symbols:
        say(f"{kind} has a mass of {kind.mass:g} amu, which is {of_mass}: taken for {of_mass}")
    return of_mass


def _element_of_user(
    kind: Kind, symbol: str, symbols: Sequence[str], of_mass: str | None, say: Callable[[str], None]
) -> str:
    """The user's element, unless a mass is another's."""
    far = kind.mass is not None and abs(MASS[symbol] - kind.mass) > TOLERANCE
    if far and of_mass is not None:
        raise InputError(
            f"{kind} has a mass of {kind.mass:g} amu, which is {of_mass}, but --types says "
            f"{symbol} ({MASS[symbol]:g} amu): correct --types, or the mass in the file"
        )
    if far:
        say(f"{kind} has a mass of {kind.mass:g} amu, no element's: {symbol}, as --types says")
    elif symbols and symbol not in symbols:
        say(f"{kind} is taken for {symbol}, as --types says")
    return symbol


def _by_name(kind: Kind, symbols: Sequence[str]) -> str:
    if len(symbols) > 1:
        raise InputError(f"{kind} has two elements, {' and '.join(symbols)}: {ADVICE}")
    if symbols:
        return symbols[0]
    if kind.number is not None:
        raise InputError(f"{kind} has no element: {ADVICE}")
    name = kind.names[0] if kind.names else ""
    raise InputError(f"{name!r} is not an element symbol such as Cu or Zr")


def _no_element_of_mass(kind: Kind, symbols: Sequence[str]) -> str:
    if symbols:
        wrong = f"{symbols[0]} has {MASS[symbols[0]]:g}, and no element has this mass"
        advice = ADVICE if kind.number is not None else "correct the mass or the name"
        return f"{kind} has a mass of {kind.mass:g} amu, but {wrong}: {advice}"
    if kind.number is not None:
        return f"{kind} has no element: {ADVICE}"
    return f"{kind} has a mass of {kind.mass:g} amu, which is no element's"


def species_of(
    types: Types | None,
    path: Path,
    numbers: Array | None = None,
    names: Sequence[Array] = (),
    masses: Array | None = None,
) -> Species:
    """Species of atoms from all that a file says of them.

    Args:
        types: element of each type number, where the user gave them; never dropped unsaid.
        path: the file, for warnings.
        numbers: [n] type numbers.
        names: columns [n] of words, the best first; a word of digits is a type number.
        masses: [n] amu.

    Raises:
        InputError: an atom has no element, or its hints contradict each other.
    """
    columns = [] if numbers is None else [whole_numbers(numbers, "type")]
    columns += [distinct(words)[1] for words in names]
    if masses is not None:
        columns.append(np.unique(masses, return_inverse=True)[1].reshape(-1))
    _, first, index = np.unique(
        np.stack(columns, axis=1), axis=0, return_index=True, return_inverse=True
    )
    kinds = [_kind(int(row), numbers, names, masses) for row in first]
    with said(path) as say:
        symbols = [element_of(kind, types, say) for kind in kinds]
        idle = bool(types) and not any(kind.number is not None for kind in kinds)
        if idle and not _postponed(path, symbols):
            say(unused(symbols))
    return _indexed(symbols, index)


def _kind(row: int, numbers: Array | None, names: Sequence[Array], masses: Array | None) -> Kind:
    """What a file says of one atom."""
    number = None if numbers is None else int(numbers[row])
    words = []
    for column in names:
        word = str(column[row])
        if word.isdecimal() and number is None:
            number = int(word)
        elif word and not word.isdecimal():
            words.append(word)
    mass = None if masses is None else float(masses[row])
    # a mass of 0 is one that nobody gave
    return Kind(number, tuple(words), mass if mass and np.isfinite(mass) else None)


# files of one command that named their elements themselves, with the symbols; None outside
_IDLE: ContextVar[dict[Path, Sequence[str]] | None] = ContextVar("_IDLE", default=None)


@contextmanager
def types_of_several(types: Types | None, files: Sequence[Path]) -> Iterator[None]:
    """Say that ``--types`` was not used only where none of several files used it."""
    idle: dict[Path, Sequence[str]] = {}
    token = _IDLE.set(idle)
    try:
        yield
    finally:
        _IDLE.reset(token)
    if len(idle) == len(set(files)):
        for path, symbols in idle.items():
            warn_unused_types(types, path, symbols)


def _postponed(path: Path, symbols: Sequence[str]) -> bool:
    """Whether `types_of_several` will say that a file did not use the types."""
    idle = _IDLE.get()
    if idle is not None:
        idle[path] = symbols
    return idle is not None


@contextmanager
def said(path: Path) -> Iterator[Callable[[str], None]]:
    """Gather what is to be said of a file; a few lines of it become warnings at the end."""
    lines: dict[str, None] = {}
    yield lambda line: lines.update({line: None})
    shown = list(lines)[:SHOWN]
    if len(lines) > SHOWN:
        shown.append(f"{len(lines) - SHOWN} more contradictions like this")
    for line in shown:
        warnings.warn(f"{path}: {line}", InputWarning, stacklevel=4)


def unused(symbols: Sequence[str]) -> str:
    """What is said where ``--types`` has no numbers to speak of."""
    elements = ", ".join(dict.fromkeys(symbols))
    return f"it names its elements itself ({elements}) and has no type numbers: --types is not used"


def warn_unused_types(types: Types | None, path: str | Path, symbols: Sequence[str] = ()) -> None:
    """Say that ``--types`` was not used for something that names its elements itself."""
    if types:
        text = unused(symbols) if symbols else "--types is not used"
        warnings.warn(f"{path}: {text}", InputWarning, stacklevel=3)


def checked_species(structure: Structure, types: Types | None, path: Path) -> Structure:
    """A structure that names its elements, held against its columns of masses and types.

    Raises:
        InputError: they contradict each other.
    """
    columns = {name: column.values.numpy() for name, column in structure.columns.items()}
    masses = next((columns[name] for name in MASSES if name in columns), None)
    numbers = columns.get("type", columns.get("types")) if types else None
    if masses is not None and (masses.ndim != 1 or masses.dtype.kind not in "fiu"):
        masses = None
    if numbers is not None and numbers.ndim != 1:
        numbers = None
    names = np.array(structure.species, dtype=np.str_)[structure.types.numpy()]
    species, index = species_of(types, path, numbers, [names], masses)
    if species == structure.species:
        return structure if torch.equal(index, structure.types) else structure.replace(types=index)
    return structure.replace(species=species, types=index)


def whole_numbers(values: Array, name: str) -> NDArray[np.int64]:
    """Values of a column that must be whole, such as ids.

    Raises:
        InputError: one is not.
    """
    bad = ~np.isfinite(values) | (values != np.floor(values)) | (np.abs(values) >= 2**63)
    if bad.any():
        raise InputError(f"{name} {values[bad][0]:g} is not a whole number")
    return values.astype(np.int64)


def symbols_of_numbers(values: Array, name: str) -> NDArray[np.str_]:
    """Element symbols of atomic numbers [n].

    Raises:
        InputError: one is not an element's.
    """
    numbers, index = np.unique(whole_numbers(values, name), return_inverse=True)
    wrong = [z for z in numbers.tolist() if not 1 <= z <= len(SYMBOLS)]
    if wrong:
        raise InputError(f"{wrong[0]} is not an atomic number")
    return np.array([SYMBOLS[z - 1] for z in numbers.tolist()])[index.reshape(-1)]


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
