"""Which searches are still to be made, so that labels do not depend on the order they end in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mgsym.data_tools.simulation.labelling.event_files import Events
from mgsym.data_tools.simulation.saddle_search.events import FOUND, Event, Search
from mgsym.errors import UsageError
from mgsym.evaluation.label_noise import SUCCESS

ATTEMPTS_PER_EVENT = 10  # an atom that takes more is given up


@dataclass(frozen=True)
class Plan:
    """How many searches an atom gets.

    Attributes:
        searches: most attempts.
        events: successes that suffice; None makes all attempts.
    """

    searches: int = 20
    events: int | None = None

    def __str__(self) -> str:
        events = "" if self.events is None else f" --events {self.events}"
        return f"--searches {self.searches}{events}"

    @classmethod
    def of(cls, searches: int | None = None, events: int | None = None) -> Plan:
        """A plan from what a user said: with `events`, 10 attempts each unless told otherwise.

        Raises:
            UsageError: a number below 1, or more events than searches.
        """
        for name, value in (("searches", searches), ("events", events)):
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}, expected at least 1")
        if searches is None:
            searches = 20 if events is None else ATTEMPTS_PER_EVENT * events
        if events is not None and events > searches:
            raise UsageError(f"{events} events cannot come of at most {searches} searches an atom")
        return cls(searches, events)


def used(events: Events, plan: Plan) -> Events:
    """Those searches that a label rests on: an atom's first ones, up to its last event.

    A search that ended early but was started late does not count, so that the choice does not
    depend on how long searches take (short ones may be of low barriers).

    Args:
        events: [searches], sorted by atom and attempt.
        plan: how many of each atom.
    """
    events = events[events["attempt"] < plan.searches]
    if plan.events is None or not len(events):
        return events
    found = (events["status"] == FOUND).astype(np.int64)
    before = found.cumsum() - found
    first = np.flatnonzero(np.diff(events["atom"], prepend=-1))
    sizes = np.diff(first, append=len(events))
    return events[before - np.repeat(before[first], sizes) < plan.events]


class Schedule:
    """What is finished, what is running and what comes next.

    Attributes:
        done: searches finished, or events found where the plan counts them; `total` at the end.
        recorded: searches that finished since this schedule began.

    Args:
        rows: the atoms.
        plan: how many searches each gets.
        events: searches made before; those of other atoms are passed over.
    """

    def __init__(self, rows: Sequence[int], plan: Plan, events: Events | None = None) -> None:
        self.rows, self.plan = list(rows), plan
        self._finished: dict[int, dict[int, bool]] = {row: {} for row in self.rows}
        self._running: dict[int, set[int]] = {row: set() for row in self.rows}
        self._credit = dict.fromkeys(self.rows, 0)
        self.done = self.recorded = 0
        if events is not None:
            found = (events["status"] == FOUND).tolist()
            attempts = zip(events["atom"].tolist(), events["attempt"].tolist(), found, strict=True)
            for atom, attempt, success in attempts:
                if atom in self._finished:
                    self._finished[atom][attempt] = success
        for row in self.rows:
            self._count(row)

    @property
    def total(self) -> int:
        """What `done` will be at the end: searches, or events where the plan counts them."""
        return len(self.rows) * self._goal

    @property
    def _goal(self) -> int:
        return self.plan.events or self.plan.searches

    @property
    def unfinished(self) -> list[int]:
        """Atoms that need more searches."""
        return [row for row in self.rows if self._next(row, certain=True) is not None]

    def part(self, index: int, parts: int) -> Schedule:
        """Every `parts`-th atom from `index` on, for one of several processes."""
        other = Schedule(self.rows[index::parts], self.plan)
        for row in other.rows:
            other._finished[row] = dict(self._finished[row])
            other._count(row)
        return other

    def record(self, event: Event) -> None:
        """A search has finished."""
        self.recorded += 1
        self._running[event.atom].discard(event.attempt)
        self._finished[event.atom][event.attempt] = event.found
        self._count(event.atom)

    def searches(self) -> Iterator[Search]:
        """The searches to make, one attempt of every atom after the other.

        Where events are counted, an attempt begins when those before it are not expected to
        suffice; when it ends and `unfinished` atoms remain, ask again.
        """
        for running in self._running.values():
            running.clear()
        for round_ in range(self.plan.searches):
            needed = False
            for row in self.rows:
                attempt = self._next(row)
                needed = needed or attempt is not None
                # atoms that an interrupted run took further wait for the others
                if attempt is not None and attempt <= round_:
                    self._running[row].add(attempt)
                    yield Search(row, attempt)
            if not needed:
                return

    def _next(self, row: int, certain: bool = False) -> int | None:
        """The first attempt not begun (`certain`: not finished), if it is needed."""
        finished = self._finished[row]
        running = set() if certain else self._running[row]
        successes, attempt = 0.0, 0
        while attempt < self.plan.searches:
            if self.plan.events is not None and successes >= self.plan.events:
                return None
            if attempt in finished:
                successes += finished[attempt]
            elif attempt in running:
                successes += SUCCESS
            else:
                return attempt
            attempt += 1
        return None

    def _count(self, row: int) -> None:
        """Bring `done` up to date with one atom."""
        finished = self._finished[row]
        if self.plan.events is None:
            credit = sum(attempt < self.plan.searches for attempt in finished)
        elif self._next(row, certain=True) is None:
            credit = self._goal
        else:
            credit = min(sum(finished.values()), self._goal - 1)
        self.done += credit - self._credit[row]
        self._credit[row] = credit
