"""One barrier search: what is asked of the search engine, and what is recorded of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NAN = float("nan")
FOUND = "found"
# how a search ends; all but the first are failures
STATUSES = (
    FOUND,
    "no-mode",  # no mode of negative curvature within the pushes allowed
    "lost-mode",  # the curvature stayed positive on the way up
    "climb-limit",  # too many climbing steps
    "call-limit",  # too many force calls
    "energy-limit",  # the energy rose too far above the minimum
    "not-finite",  # an energy or a force is not a number
    "refinement",  # the saddle was lost once all atoms were free
)


class Search(NamedTuple):
    """A search to be made.

    Attributes:
        atom: its centre, the row in the structure.
        attempt: 0, 1, 2, … of this atom; each starts with another push.
    """

    atom: int
    attempt: int


class Event(NamedTuple):
    """A finished search.

    Attributes:
        atom: the centre's row in the structure.
        id: the centre's id in the structure's file.
        attempt: 0, 1, 2, … of this atom.
        seed: of the run; with the id and the attempt it decides the push.
        status: one of STATUSES.
        barrier: E(saddle) − E(minimum) with every atom free, eV; NaN unless found.
        barrier_local: the same at the saddle with the boundary frozen, eV; NaN where it was
            not reached.
        eigenvalue: the lowest curvature at the last point, eV/Å².
        max_force: norm of the force over all coordinates that were free at the last point, eV/Å.
        calls_leave: force calls to leave the basin.
        calls_climb: force calls to climb to the saddle.
        calls_refine: force calls to refine it, with more atoms than before.
        highest_energy: largest E − E(minimum) on the way, eV.
        displacement: norm of all atoms' displacements from the minimum, Å.
        displacement_centre: how far the centre moved, Å.
        displacement_largest: how far the atom moved that moved most, Å.
        distance_largest: how far that atom is from the centre, Å.
        participation: about how many atoms moved: (Σ d²)² / Σ d⁴ of displacements d.
        connected: whether one end minimum is the start: 1 yes, 0 no, −1 not asked.
        barrier_back: E(saddle) − E(other end minimum), eV; NaN where not asked.
    """

    atom: int
    id: int
    attempt: int
    seed: int
    status: str
    barrier: float = NAN
    barrier_local: float = NAN
    eigenvalue: float = NAN
    max_force: float = NAN
    calls_leave: int = 0
    calls_climb: int = 0
    calls_refine: int = 0
    highest_energy: float = NAN
    displacement: float = NAN
    displacement_centre: float = NAN
    displacement_largest: float = NAN
    distance_largest: float = NAN
    participation: float = NAN
    connected: int = -1
    barrier_back: float = NAN

    @property
    def found(self) -> bool:
        """Whether the search ended at a saddle."""
        return self.status == FOUND


class SaddleEvent(Event):
    """An event that brings its saddle, which is no column of the table.

    Attributes:
        positions: [n, 3] Å, of all atoms, near those of the minimum and not wrapped.
    """

    positions: NDArray[np.float64]

    @classmethod
    def of(cls, event: Event, positions: NDArray[np.float64]) -> SaddleEvent:
        """The same event with its saddle."""
        found = cls(*event)
        found.positions = positions
        return found


UNITS = {
    **dict.fromkeys(("barrier", "barrier_local", "barrier_back", "highest_energy"), "eV"),
    "eigenvalue": "eV/Å^2",
    "max_force": "eV/Å",
    **dict.fromkeys(
        (
            "displacement",
            "displacement_centre",
            "displacement_largest",
            "distance_largest",
        ),
        "Å",
    ),
}
