"""What to make: a composition, a size, a temperature programme, and which glasses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, NamedTuple

from mgsym.errors import UsageError
from mgsym.structure.elements import ATOMIC_NUMBER
from mgsym.utils.seeds import derived_seed

FEWEST = 50  # atoms; a smaller box is a few coordination shells of itself


class GlassName(NamedTuple):
    """One glass of a batch: how fast it is cooled, K/s, and the seed of its start."""

    name: str
    rate: float
    seed: int

    @property
    def generator_seed(self) -> int:
        """Glasses of one seed but of different rates start from different melts."""
        return derived_seed(self.seed, "quench", f"{self.rate:g}")


@dataclass(frozen=True)
class Recipe:
    """Melt at a high temperature, then cool linearly, at constant pressure.

    Attributes:
        composition: such as ``Cu64Zr36``.
        atoms: in each glass.
        rates: K/s, cooling rates.
        seeds: a glass is made for every rate and seed.
        melt: ps at `temperature`.
        temperature, final: K, where cooling starts and ends.
        timestep: fs.
        pressure: GPa.
        density: g/cm³, at the start; 0 takes it from the potential's crystals.
        thermostat, barostat: ps, damping times.

    Raises:
        UsageError: a number is out of range, or the composition is none.
    """

    composition: str = "Cu64Zr36"
    atoms: int = 500
    rates: tuple[float, ...] = (1e13,)
    seeds: tuple[int, ...] = (0,)
    melt: float = 50.0
    temperature: float = 2000.0
    final: float = 1.0
    timestep: float = 1.0
    pressure: float = 0.0
    density: float = 0.0
    thermostat: float = 0.1
    barostat: float = 1.0

    def __post_init__(self) -> None:
        atom_counts(parse_composition(self.composition), self.atoms)
        if self.atoms < FEWEST:
            raise UsageError(
                f"{self.atoms} atoms are too few for a glass: take at least {FEWEST} "
                "(500 or more keep an atom from feeling itself across the box)"
            )
        if not 0 < self.final < self.temperature:
            raise UsageError(
                f"cooling from {self.temperature:g} K to {self.final:g} K: the final temperature "
                "must be above zero and below the melt's"
            )
        for name in ("timestep", "thermostat", "barostat"):
            _check(name, getattr(self, name), getattr(self, name) > 0)
        for name in ("melt", "density"):
            _check(name, getattr(self, name), getattr(self, name) >= 0)
        _check("pressure", self.pressure, abs(self.pressure) < 1e3)
        for rate in self.rates:
            _check("rate", rate, rate > 0)
            self._check_steps(rate)
        names = [glass.name for glass in self.glasses]
        if not names or len(set(names)) < len(names):
            raise UsageError("give at least one rate and one seed, and none of them twice")

    def _check_steps(self, rate: float) -> None:
        if self.quench_steps(rate) < 100:
            raise UsageError(
                f"cooling at {rate:g} K/s takes {self.quench_steps(rate)} steps of "
                f"{self.timestep:g} fs: lower the rate (1e14 K/s is fast)"
            )

    @property
    def counts(self) -> Mapping[str, int]:
        """How many atoms of each element a glass has."""
        return atom_counts(parse_composition(self.composition), self.atoms)

    @property
    def glasses(self) -> list[GlassName]:
        """All glasses, those of one rate together."""
        formula = self.composition.strip()
        return [
            GlassName(f"{formula}_{_short(rate)}_seed{seed}", rate, seed)
            for rate, seed in product(self.rates, self.seeds)
        ]

    @property
    def melt_steps(self) -> int:
        """Time steps at the high temperature."""
        return round(self.melt * 1000 / self.timestep)

    def quench_steps(self, rate: float) -> int:
        """Time steps of the cooling."""
        seconds = (self.temperature - self.final) / rate
        return round(seconds * 1e15 / self.timestep)

    def changes(self, saved: Mapping[str, Any]) -> list[str]:
        """Names of the settings that differ from those saved by ``asdict``."""
        return [k for k, v in asdict(self).items() if saved.get(k) != v]


def _check(name: str, value: float, right: bool) -> None:
    if not right or not abs(value) < float("inf"):
        raise UsageError(f"{name} is {value:g}: out of range")


def _short(rate: float) -> str:
    return f"{rate:g}".replace("+", "")


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
    parts = _PART.findall(text)
    if not parts or "".join(symbol + amount for symbol, amount in parts) != text:
        raise UsageError(f"composition {text!r}: expected elements and amounts such as Cu64Zr36")
    return parts


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
