"""Compositions such as Cu64Zr36, and numbers of atoms that come nearest to them."""

from __future__ import annotations

import re

from mgsym.elements import ATOMIC_NUMBER
from mgsym.errors import UsageError

_PART = re.compile(r"([A-Z][a-z]?)(\d+(?:\.\d+)?|\.\d+)?")


def parse_composition(text: str) -> dict[str, float]:
    """``Cu64Zr36`` or ``Cu0.64Zr0.36`` as shares that add up to one, in order of atomic number.

    Raises:
        UsageError: it is not elements, each with an amount that is not zero.
    """
    amounts: dict[str, float] = {}
    for symbol, amount in _parts(text.strip()):
        if symbol not in ATOMIC_NUMBER:
            raise UsageError(f"composition {text!r}: {symbol!r} is not an element")
        if symbol in amounts:
            raise UsageError(f"composition {text!r}: {symbol} is given twice")
        amounts[symbol] = float(amount) if amount else 1.0
        if amounts[symbol] == 0:
            raise UsageError(f"composition {text!r}: leave out {symbol}, of which there is none")
    total = sum(amounts.values())
    return {s: amounts[s] / total for s in sorted(amounts, key=ATOMIC_NUMBER.__getitem__)}


def _parts(text: str) -> list[tuple[str, str]]:
    found = _PART.findall(text)
    if not found or "".join(symbol + amount for symbol, amount in found) != text:
        raise UsageError(f"composition {text!r}: expected elements and amounts such as Cu64Zr36")
    return found


def atom_counts(composition: dict[str, float], atoms: int) -> dict[str, int]:
    """Whole numbers of atoms that add up to `atoms`: rounded down, the largest remainders up.

    Raises:
        UsageError: there are too few atoms for one of each element.
    """
    exact = {symbol: share * atoms for symbol, share in composition.items()}
    counts = {symbol: int(number + 1e-9) for symbol, number in exact.items()}
    remainders = sorted(exact, key=lambda s: counts[s] - exact[s])
    for symbol in remainders[: atoms - sum(counts.values())]:
        counts[symbol] += 1
    missing = [symbol for symbol, count in counts.items() if count == 0]
    if missing:
        raise UsageError(
            f"{atoms} atoms are too few for one of {missing[0]}: take more atoms, or leave it out"
        )
    return counts
