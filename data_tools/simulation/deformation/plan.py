"""What to do to each glass: directions, strains, and how the atoms follow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from mgsym.data_tools.simulation.deformation.nonaffine import RADIUS
from mgsym.data_tools.simulation.deformation.strain import MODES, Direction
from mgsym.data_tools.simulation.optimizers.minimize import METHODS, Method
from mgsym.errors import UsageError

MOST_STRAIN = 10.0
LEAST_LENGTH = 0.2  # of the start's, under compression


@dataclass(frozen=True)
class Plan:
    """How glasses are strained.

    Without a rate: athermal and quasistatic (Maeda & Takeuchi, Phys. Status Solidi A 49, 685
    (1978)), each step an affine strain and then a minimisation. With a rate: molecular dynamics
    at a temperature in a box that deforms steadily.

    Attributes:
        directions: each glass is strained along each of them.
        strain: the last one, of the start; may be negative.
        step: between two rows of the stress–strain curve.
        every: steps between two frames; the last one is always kept.
        method, fmax, max_steps: of the minimisations; see `minimize`.
        transverse: GPa, pressure on the faces across a uniaxial strain, whose two lengths then
            follow it; None keeps them.
        rate: 1/s; None strains quasistatically.
        temperature: K, with a rate.
        timestep: fs, at most; made to fit into a step.
        equilibrate: ps at the temperature before the strain begins.
        thermostat: ps, damping time.
        seed: of the velocities.
        radius: Å, of the neighbours that D²min counts.

    Raises:
        UsageError: a setting is out of range, or two do not go together.
    """

    directions: tuple[Direction, ...] = (Direction("shear-xy"),)
    strain: float = 0.1
    step: float = 1e-3
    every: int = 10
    method: Method = "cg"
    fmax: float = 1e-5
    max_steps: int = 10_000
    transverse: float | None = None
    rate: float | None = None
    temperature: float | None = None
    timestep: float = 1.0
    equilibrate: float = 10.0
    thermostat: float = 0.1
    seed: int = 0
    radius: float = RADIUS

    def __post_init__(self) -> None:
        self._check_strains()
        for name in ("fmax", "timestep", "thermostat", "radius"):
            _check(name, getattr(self, name), getattr(self, name) > 0)
        for name in ("every", "max_steps"):
            _check(name, getattr(self, name), getattr(self, name) >= 1)
        _check("equilibrate", self.equilibrate, self.equilibrate >= 0)
        if self.method not in METHODS:
            raise UsageError(f"no method {self.method!r}: choose fire or cg")
        if (self.rate is None) != (self.temperature is None):
            raise UsageError("a rate and a temperature belong together: give both, or neither")
        for value, name in ((self.rate, "rate"), (self.temperature, "temperature")):
            if value is not None:
                _check(name, value, value > 0)
        self._check_transverse()

    def _check_strains(self) -> None:
        if not self.directions or len(set(self.directions)) < len(self.directions):
            raise UsageError("give at least one mode, and none of them twice")
        for direction in self.directions:
            if direction.mode not in MODES:
                raise UsageError(f"no mode {direction.mode!r}: choose {', '.join(MODES)}")
        if not 0 < abs(self.strain) <= MOST_STRAIN:
            raise UsageError(
                f"the strain is {self.strain:g}, expected up to {MOST_STRAIN:g}, not 0"
            )
        if not 0 < self.step <= abs(self.strain) * (1 + 1e-9):
            raise UsageError(
                f"the step is {self.step:g}, expected above 0 and at most the strain, "
                f"{self.strain:g}"
            )
        if abs(self.steps * self.step - abs(self.strain)) > 1e-6 * abs(self.strain):
            raise UsageError(
                f"a strain of {self.strain:g} is no whole number of steps of {self.step:g}: change "
                "one of them"
            )
        shortest = min(1 + d.sign * self.strain * d.uniaxial for d in self.directions)
        if shortest < LEAST_LENGTH:
            raise UsageError(
                f"a length would become {shortest:g} of itself: compress by less than "
                f"{1 - LEAST_LENGTH:g}"
            )

    def _check_transverse(self) -> None:
        if self.transverse is None:
            return
        _check("transverse pressure", self.transverse, abs(self.transverse) < 1e3)
        if self.rate is not None:
            raise UsageError(
                "transverse pressure is controlled at rest only: leave out the rate or the pressure"
            )
        if not any(direction.uniaxial for direction in self.directions):
            raise UsageError("transverse pressure goes with a uniaxial mode: add one")

    @property
    def steps(self) -> int:
        """How many steps lead to the last strain."""
        return round(abs(self.strain) / self.step)

    def strain_at(self, step: float) -> float:
        """The strain after some steps, a whole number of them or not."""
        return self.strain * step / self.steps

    @property
    def times_a_step(self) -> int:
        """Time steps of the dynamics in a step of the strain."""
        assert self.rate is not None
        return max(1, math.ceil(self.step / self.rate * 1e15 / self.timestep - 1e-9))

    @property
    def picoseconds(self) -> float:
        """The time step of the dynamics, which makes the rate exact."""
        assert self.rate is not None
        return abs(self.strain) / self.steps / self.rate * 1e12 / self.times_a_step

    def keeps_frame(self, step: int) -> bool:
        """Whether a frame is kept after a step."""
        return step % self.every == 0 or step == self.steps

    def as_dict(self) -> dict[str, Any]:
        """For checkpoints: plain numbers, text and lists."""
        return {**asdict(self), "directions": [d.name for d in self.directions]}

    def changes(self, saved: Mapping[str, Any]) -> list[str]:
        """Names of the settings that differ from those saved by `as_dict`."""
        return [name for name, value in self.as_dict().items() if saved.get(name) != value]


def _check(name: str, value: float, right: bool) -> None:
    if not right or not abs(value) < float("inf"):
        raise UsageError(f"{name} is {value:g}: out of range")


def directions_of(modes: Sequence[str], reverse: bool = False) -> tuple[Direction, ...]:
    """Return a direction for each mode (none: shear-xy), and for its reverse where asked."""
    signs = (False, True) if reverse else (False,)
    return tuple(Direction(mode, sign) for mode in modes or ("shear-xy",) for sign in signs)


def plan_of(
    directions: tuple[Direction, ...], chosen: Mapping[str, Any]
) -> tuple[Plan, dict[str, Any]]:
    """Split settings by name into a plan and the others; None leaves the default.

    Raises:
        UsageError: see `Plan`.
    """
    own = {f.name for f in fields(Plan)} & set(chosen)
    settings = {name: chosen[name] for name in own if chosen[name] is not None}
    return Plan(directions, **settings), {k: v for k, v in chosen.items() if k not in own}
