"""The assembly line of barrier searches: climb, refine at growing radii, and where asked relax to
both ends."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from mgsym.data_tools.simulation.potentials.ase_calculator import ASEPotential
from mgsym.data_tools.simulation.potentials.eam_layout import Tables, lay_out_tables
from mgsym.data_tools.simulation.potentials.evaluation import Potential
from mgsym.data_tools.simulation.saddle_search.calculator_regions import (
    CalculatorRegionMaker,
    CalculatorRegions,
)
from mgsym.data_tools.simulation.saddle_search.events import FOUND, Event, Search
from mgsym.data_tools.simulation.saddle_search.region_groups import RegionGroups
from mgsym.data_tools.simulation.saddle_search.regions import RegionMaker
from mgsym.data_tools.simulation.saddle_search.search_batch import (
    FreeAtoms,
    Kind,
    RegionForces,
    SearchBatch,
    SearchState,
)
from mgsym.data_tools.simulation.saddle_search.settings import ArtnSettings
from mgsym.structure import Structure

NAN = float("nan")
END_PUSH = 0.3  # Å along the mode, both ways, before relaxing to the ends
# an end is the start where no atom is further away than this, Å, and its energy is that of the
# start, eV: many atoms that are each a little off add up, and minima next to one another differ
SAME, SAME_ENERGY = 0.1, 0.01


@dataclass(eq=False)
class Record:
    """A search and its states so far.

    Attributes:
        search: what was asked.
        states: the climb, then a refinement for each radius.
        ends: the relaxations to both sides of the saddle, where asked.
    """

    search: Search
    states: list[SearchState] = field(default_factory=list)
    ends: list[SearchState] = field(default_factory=list)

    @property
    def found(self) -> bool:
        """Whether the saddle stood at every radius."""
        return self.states[-1].status == FOUND


class Stage:
    """Walks at one radius, and those that wait for it."""

    def __init__(
        self,
        structure: Structure,
        potential: Potential,
        settings: ArtnSettings,
        radius: float | None,
        kind: Kind,
        slots: int,
        device: str | torch.device,
        compile: bool,
        tables: Tables | None,
    ) -> None:
        dtype = getattr(torch, settings.precision)
        self.cut: Callable[[int], FreeAtoms]
        regions: RegionForces
        if isinstance(potential, ASEPotential):
            made = CalculatorRegionMaker(structure, potential, radius)
            regions = CalculatorRegions(potential, slots, made.rows(), dtype)
            self.cut = lru_cache(maxsize=max(16, slots))(made.cut)
        else:
            assert tables is not None
            maker = RegionMaker(structure, potential, radius, settings.skin)
            self.cut = lru_cache(maxsize=max(16, slots))(maker.cut)
            regions = RegionGroups(
                potential,
                slots,
                maker.rows(),
                settings.skin,
                frozen=radius is not None,
                device=device,
                dtype=dtype,
                compile=compile,
                tables=tables,
            )
        self.batch = SearchBatch(regions, settings, kind)
        self.waiting: deque[SearchState] = deque()

    def fill(self) -> None:
        """Begin states that wait, as long as there are empty slots."""
        while self.waiting and self.batch.free:
            self.batch.insert(self.waiting.popleft())

    @property
    def load(self) -> int:
        """Walks here, going on or waiting."""
        return self.batch.busy + len(self.waiting)


class Pipeline:
    """Searches from one station to the next.

    Args:
        structure: a minimum of the potential.
        potential: with all its elements.
        settings: of the search.
        radii: Å, of the active region, then of the refinements; None frees all atoms.
        seed: of the pushes.
        slots: how many climbs go on at once; refinements have a quarter of them.
        device: where to compute.
        compile: whether a compiler may be used.
    """

    def __init__(
        self,
        structure: Structure,
        potential: Potential,
        settings: ArtnSettings,
        radii: list[float | None],
        *,
        seed: int,
        slots: int,
        device: str | torch.device,
        compile: bool,
    ) -> None:
        self.structure, self.settings = structure, settings
        self.radii, self.seed = radii, seed
        kinds = [Kind.CLIMB] + [Kind.REFINE] * (len(radii) - 1)
        sizes = list(radii)
        if settings.connect:
            kinds.append(Kind.DESCEND)
            sizes.append(radii[-1])
        few = max(1, slots // 4)
        # once for all batches: they are sized so that a processor's cache holds what they read
        tables = (
            None
            if isinstance(potential, ASEPotential)
            else lay_out_tables(potential, device, getattr(torch, settings.precision))
        )
        self.stages = [
            Stage(
                structure, potential, settings, size, kind,
                slots if kind is Kind.CLIMB else few, device, compile, tables,
            )
            for size, kind in zip(sizes, kinds, strict=True)
        ]  # fmt: skip

    def run(self, searches: Iterator[Search]) -> Iterator[Record]:
        """Make searches, and yield them as they end."""
        first, more = self.stages[0], True
        while True:
            while more and first.batch.free > len(first.waiting):
                search = next(searches, None)
                more = search is not None
                if search is not None:
                    first.waiting.append(self._begin(search))
            stage = self._next_stage(more)
            if stage is None:
                return
            current = self.stages[stage]
            current.fill()
            upstream_empty = not more and not any(s.load for s in self.stages[:stage])
            if (
                upstream_empty
                and not current.waiting
                and current.batch.busy * 2 <= len(current.batch.states)
            ):
                current.batch.shrink()
            current.batch.step()
            yield from self._pass_on(stage)

    def _next_stage(self, more: bool) -> int | None:
        """The last stage with a full load; with nothing before it, any load is full."""
        for index in reversed(range(len(self.stages))):
            stage = self.stages[index]
            before = sum(s.load for s in self.stages[:index])
            if stage.load >= len(stage.batch.states) or (stage.load and not before and not more):
                return index
        return 0 if self.stages[0].load else None

    def _begin(self, search: Search) -> SearchState:
        region = self.stages[0].cut(search.atom)
        push = self._push(search, region)
        start = region.start.T + self.settings.push * push
        return SearchState(region, start, push, Record(search))

    def _push(self, search: Search, region: FreeAtoms) -> Tensor:
        """A random direction [3, a] of the atoms around the centre."""
        name = f"{self.seed}:{int(self.structure.ids[search.atom])}:{search.attempt}"
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
        near = (region.start.norm(dim=1) < self.settings.push_radius).nonzero().squeeze(1)
        push = torch.zeros(3, len(region.atoms), dtype=torch.float64)
        push[:, near] = torch.randn(3, len(near), generator=generator, dtype=torch.float64)
        return push / push.norm()

    def _pass_on(self, stage: int) -> Iterator[Record]:
        """Walks that ended go to the next station, or leave."""
        batch = self.stages[stage].batch
        ended, batch.finished = batch.finished, []
        for state in ended:
            record: Record = state.tag
            if batch.kind is Kind.DESCEND:
                record.ends.append(state)
                if len(record.ends) == 2:
                    yield record
                continue
            record.states.append(state)
            if state.status != FOUND or stage + 1 == len(self.stages):
                yield record
            elif self.stages[stage + 1].batch.kind is Kind.DESCEND:
                self.stages[stage + 1].waiting.extend(descents(state))
            else:
                self.stages[stage + 1].waiting.append(self._widen(state, self.stages[stage + 1]))

    def _widen(self, state: SearchState, stage: Stage) -> SearchState:
        """The same saddle in a larger region."""
        region = stage.cut(state.tag.search.atom)
        place = torch.searchsorted(region.atoms, state.region.atoms)
        start, mode = region.start.T.clone(), torch.zeros_like(region.start.T)
        moved = state.end - state.region.start.T
        start[:, place] += moved
        mode[:, place] = state.mode
        return SearchState(region, start, mode / mode.norm(), state.tag)

    def event(self, record: Record) -> Event:
        """The record of a search, in numbers."""
        search, states, found = record.search, record.states, record.found
        first, last = states[0], states[-1]
        connected, barrier_back = connection(record, self.radii[-1] is None)
        moved = (last.end - last.region.start.T).square().sum(0)
        largest = int(moved.argmax())
        centre = int((last.region.atoms == search.atom).nonzero())
        return Event(
            atom=search.atom,
            id=int(self.structure.ids[search.atom]),
            attempt=search.attempt,
            seed=self.seed,
            status=last.status if len(states) == 1 or found else "refinement",
            barrier=self._relaxed(states) if found else NAN,
            barrier_local=first.barrier if first.status == FOUND else NAN,
            eigenvalue=last.eigenvalue,
            max_force=last.force,
            calls_leave=first.calls_leave,
            calls_climb=first.calls_climb,
            calls_refine=sum(state.calls_climb for state in states[1:]),
            highest_energy=max(state.highest for state in states),
            displacement=float(moved.sum().sqrt()),
            displacement_centre=float(moved[centre].sqrt()),
            displacement_largest=float(moved[largest].sqrt()),
            distance_largest=float(last.region.start[largest].norm()),
            participation=float(moved.sum() ** 2 / moved.square().sum()),
            connected=connected,
            barrier_back=barrier_back,
        )

    def saddle(self, record: Record) -> Tensor:
        """Positions [n, 3] of all atoms where a search ended, Å."""
        last = record.states[-1]
        positions = self.structure.positions.clone()
        positions[last.region.atoms] += last.end.T - last.region.start
        return positions

    def _relaxed(self, states: list[SearchState]) -> float:
        """The barrier with all atoms free, eV: as measured, or from the last two radii."""
        last, radius, exponent = states[-1], self.radii[-1], self.settings.relaxation_exponent
        if radius is None or len(states) < 2 or exponent == 0.0:
            return last.barrier
        before = self.radii[-2] or radius
        return last.barrier - (states[-2].barrier - last.barrier) / (
            (radius / before) ** exponent - 1.0
        )


def descents(saddle: SearchState) -> list[SearchState]:
    """Walks down both sides of a saddle."""
    nowhere = torch.zeros_like(saddle.end)
    return [
        SearchState(saddle.region, saddle.end + way * END_PUSH * saddle.mode, nowhere, saddle.tag)
        for way in (1.0, -1.0)
    ]


def connection(record: Record, drifts: bool = False) -> tuple[int, float]:
    """Whether one end of a saddle is the start, and the barrier from the other end.

    Args:
        record: of a search with its ends.
        drifts: whether all atoms are free, so that the system as a whole may have moved.

    Returns:
        1 or 0, or −1 where it was not asked; eV, or NaN where it is not known.
    """
    if len(record.ends) < 2:
        return -1, NAN
    away = [_furthest(end, drifts) for end in record.ends]
    (moved, back), (_, other) = sorted(
        zip(away, record.ends, strict=True), key=lambda pair: pair[0]
    )
    if moved > SAME or abs(back.barrier) > SAME_ENERGY or back.status != FOUND:
        return 0, NAN
    risen = record.states[-1].barrier - other.barrier
    return 1, risen if other.status == FOUND else NAN


def _furthest(end: SearchState, drifts: bool) -> float:
    """How far the atom is from where it was that is furthest, Å."""
    moved = end.end - end.region.start.T
    if drifts:
        moved = moved - moved.mean(dim=1, keepdim=True)
    return float(moved.norm(dim=0).max())
