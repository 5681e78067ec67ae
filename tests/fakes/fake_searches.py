"""A search engine that draws its events instead of searching, for tests of what is made of them.

As of the real one, an event depends on seed, atom id and attempt alone, searches are taken lazily,
and they end in an order that depends on how many run at once. It is a module of its own so that
worker processes can import it.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from mgsym.data_tools.simulation.saddle_search.events import Event, SaddleEvent, Search
from mgsym.errors import InputError
from mgsym.structure import Structure


@dataclass(frozen=True)
class FakeSettings:
    """Attributes: radius and radii (Å) as the real ones have; success: the share; fault: what
    goes wrong in every engine: ``input``, ``bug`` or ``death``."""

    radius: float = 10.0
    radii: tuple[float, ...] = (14.0, 18.0)
    success: float = 0.6
    fault: str = ""


def run_searches(
    structure: Structure,
    potential: object,
    searches: Iterator[Search],
    settings: FakeSettings,
    *,
    seed: int,
    slots: int = 64,
    device: str = "cpu",
    compile: bool = True,
    saddles: bool = False,
) -> Iterator[Event]:
    _go_wrong(settings.fault)
    running: list[tuple[float, Event]] = []
    now = 0.0
    while True:
        for search in islice(searches, slots - len(running)):
            event = draw(structure, search, settings, seed)
            running.append((now + _length(event), event))
        if not running:
            return
        running.sort()
        now, event = running.pop(0)
        if pause := os.environ.get("FAKE_PAUSE"):
            time.sleep(float(pause))
        positions = structure.positions + event.displacement  # a saddle of its own, as good as any
        yield SaddleEvent.of(event, positions.numpy()) if saddles and event.found else event


def draw(structure: Structure, search: Search, settings: FakeSettings, seed: int) -> Event:
    """The event of a search: barriers of an atom spread by 0.5 eV about its own mean."""
    atom = int(structure.ids[search.atom])
    chance = random.Random(f"{seed} {atom} {search.attempt}")
    found = chance.random() < settings.success
    barrier = 1.0 + random.Random(atom).random() + 0.5 * chance.gauss(0, 1)
    return Event(
        search.atom,
        atom,
        search.attempt,
        seed,
        status="found" if found else chance.choice(["no-mode", "refinement"]),
        barrier=barrier if found else float("nan"),
        calls_leave=100,
        calls_climb=int(300 * chance.random()),
        displacement=chance.random(),
    )


def _length(event: Event) -> float:
    """Searches of low barriers are short: the bias that a schedule must not pick up."""
    return event.barrier if event.found else 0.5 + event.displacement


def _go_wrong(fault: str) -> None:
    if fault == "input":
        raise InputError("largest force is 0.3 eV/Å at atom id 7", path="glass.xyz")
    if fault == "bug":
        raise ZeroDivisionError("a bug")
    if fault == "death":
        os._exit(9)
