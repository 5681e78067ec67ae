"""What displaced neighbours did to real barriers, in numbers: per atom, and over atoms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mgsym.data_tools.displacement_test.displace import (
    ESCAPED,
    KINDS,
    RETURNED,
    Attempt,
    Displacement,
)

RESAMPLES = 2000
FEWEST = 6  # nodes; of fewer, chance makes all differences agree in sign too often for 95 %
NULL_DRAWS = 4000


@dataclass(frozen=True)
class Searched:
    """What the searches from an atom found.

    Attributes:
        mean, stderr: eV; None without enough successful searches (one, two).
        events: successful searches.
    """

    mean: float | None
    stderr: float | None
    events: int

    @classmethod
    def of(cls, mean: float, stderr: float, events: int) -> Searched:
        """NaN as None."""
        values = [None if math.isnan(x) else x for x in (mean, stderr)]
        return cls(values[0], values[1], events)


@dataclass(frozen=True)
class Change:
    """What one disturbance did to the barrier of its node.

    Attributes:
        disturbance: what was displaced.
        after: the searches there; None unless it led to a new minimum.
        change: eV, mean barrier after − before: 0 without searches where the structure fell back,
            None where searches are missing.
        stderr: eV, √(stderr² before + stderr² after); 0 where the structure fell back.
        predicted_change: eV, as the model predicts it.
    """

    disturbance: Displacement
    after: Searched | None
    change: float | None
    stderr: float | None
    predicted_change: float | None

    @property
    def in_errors(self) -> float | None:
        """The change in units of its standard error."""
        return None if not self.change or not self.stderr else self.change / self.stderr


@dataclass(frozen=True)
class NodeChanges:
    """One atom: its barrier before, and what every disturbance did to it.

    Attributes:
        node, node_id, element: the atom.
        predicted: eV, before.
        before: the searches in the undisturbed structure.
        attempts: how many displacements left the minimum, by length.
        passed_over: of the most important atoms, those not selected, as too few others are as far
            away.
        changes: of every disturbance.
    """

    node: int
    node_id: int
    element: str
    predicted: float
    before: Searched
    attempts: tuple[Attempt, ...]
    passed_over: int
    changes: tuple[Change, ...]

    def measured(self, kind: str) -> list[Change]:
        """The changes of a kind that could be measured."""
        own = [change for change in self.changes if change.disturbance.kind == kind]
        return [change for change in own if change.change is not None]

    def size(self, kind: str) -> float | None:
        """Root mean square of the changes, eV; None where all are missing."""
        return _rms([change.change for change in self.measured(kind)])

    def error(self, kind: str) -> float | None:
        """Root mean square of their standard errors, eV."""
        return _rms([change.stderr for change in self.measured(kind)])

    def exceeds(self, kind: str) -> bool | None:
        """Whether the barrier changed by more than its standard error; None where it is missing."""
        size, error = self.size(kind), self.error(kind)
        return None if size is None or error is None else size > error

    def chance(self, kind: str) -> float:
        """How likely it would have exceeded it with no real change, errors being Gaussian."""
        after = [c.after.stderr for c in self.measured(kind) if c.after is not None]
        if not after or self.before.stderr is None:
            return 0.0
        errors = np.array([self.before.stderr, *after], dtype=np.float64)
        drawn = np.random.default_rng(0).normal(size=(NULL_DRAWS, len(errors))) * errors
        size = ((drawn[:, 1:] - drawn[:, :1]) ** 2).mean(1)
        return float((size > (errors[1:] ** 2 + errors[0] ** 2).mean()).mean())

    def to_dict(self) -> dict[str, Any]:
        """For JSON; energies in eV."""
        return {
            **{k: v for k, v in asdict(self).items() if k != "changes"},
            **{
                f"{kind}_{name}": getattr(self, name)(kind)
                for kind in KINDS
                for name in ("size", "error", "exceeds", "chance")
            },
            "changes": [{**asdict(c), "in_errors": c.in_errors} for c in self.changes],
        }


@dataclass(frozen=True)
class Overall:
    """One kind of displaced atoms over all nodes.

    Attributes:
        displacements, left: how many there were, and how many led to a new minimum.
        nodes: atoms whose change is known.
        exceeding: how many of them changed by more than the standard error.
        by_chance: how many would, on average, if nothing had really changed.
        size: eV, mean over nodes of the root mean square change.
        beyond_errors: eV, root of the mean square change less the mean square standard error
            over displacements: the change that errors do not explain; 0 where they explain it all.
        predicted: eV, root mean square of the changes that the model predicts, 0 where the
            structure fell back.
    """

    displacements: int
    left: int
    nodes: int
    exceeding: int
    by_chance: float
    size: float | None
    beyond_errors: float | None
    predicted: float | None


def overall(nodes: Sequence[NodeChanges], kind: str) -> Overall:
    """The changes of a kind over all nodes."""
    every = [c for node in nodes for c in node.changes if c.disturbance.kind == kind]
    measured = [node for node in nodes if node.size(kind) is not None]
    squares = [
        (c.change or 0.0) ** 2 - (c.stderr or 0.0) ** 2
        for node in measured
        for c in node.measured(kind)
    ]
    return Overall(
        displacements=len(every),
        left=sum(c.disturbance.outcome == ESCAPED for c in every),
        nodes=len(measured),
        exceeding=sum(bool(node.exceeds(kind)) for node in measured),
        by_chance=sum(node.chance(kind) for node in measured),
        size=_mean([node.size(kind) or 0.0 for node in measured]),
        beyond_errors=math.sqrt(max(0.0, sum(squares) / len(squares))) if squares else None,
        predicted=_rms([c.predicted_change for c in every]),
    )


def paired_difference(
    nodes: Sequence[NodeChanges], seed: int = 0
) -> tuple[float | None, float | None, float | None]:
    """Mean over nodes of |Δ selected| − |Δ matched| (eV) and its 95 % interval (bootstrap).

    Returns:
        mean, low and high; None where no node has both, the interval where fewer than 6 have:
        resampling so few finds an interval that is too narrow.
    """
    pairs = [(node.size("selected"), node.size("matched")) for node in nodes]
    differences = np.array([a - b for a, b in pairs if a is not None and b is not None])
    if len(differences) == 0:
        return None, None, None
    if len(differences) < FEWEST:
        return float(differences[0]), None, None
    rows = np.random.default_rng(seed).integers(
        len(differences), size=(RESAMPLES, len(differences))
    )
    low, high = np.quantile(differences[rows].mean(1), [0.025, 0.975])
    return float(differences.mean()), float(low), float(high)


def prediction_agreement(nodes: Sequence[NodeChanges]) -> float | None:
    """Pearson correlation of predicted and found changes over new minima; None of less than 3."""
    pairs = np.array(
        [
            (c.predicted_change, c.change)
            for node in nodes
            for c in node.changes
            if c.after is not None and c.change is not None and c.predicted_change is not None
        ]
    )
    if len(pairs) < 3 or not pairs.std(0).all():
        return None
    return float(np.corrcoef(pairs.T)[0, 1])


def change_of(
    disturbance: Displacement, predicted: float, before: Searched, after: Searched | None
) -> Change:
    """The change that a disturbance made, from the searches before and after."""
    if disturbance.outcome == RETURNED:  # the same minimum has the same barriers
        return Change(disturbance, None, 0.0, 0.0, 0.0)
    change = stderr = None
    if after is not None and before.mean is not None and after.mean is not None:
        change = after.mean - before.mean
        if before.stderr is not None and after.stderr is not None:
            stderr = math.hypot(before.stderr, after.stderr)
    then = disturbance.predicted
    predicted_change = None if then is None else then - predicted
    # a mean of one event has no standard error: nothing can be said against it
    return Change(disturbance, after, None if stderr is None else change, stderr, predicted_change)


def _rms(values: Sequence[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return math.sqrt(sum(v * v for v in numbers) / len(numbers)) if numbers else None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
