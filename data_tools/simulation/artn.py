"""ARTn: saddle points around chosen atoms, many searches at once.

A search pushes an atom and its neighbours, climbs to a saddle with everything further than some
10 Å frozen, and then refines the saddle with more and more atoms free.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

from mgsym.data_tools.simulation.artn_settings import ArtnSettings
from mgsym.data_tools.simulation.eam import EAM
from mgsym.data_tools.simulation.eam_forces import EAMForces
from mgsym.data_tools.simulation.events import FOUND, Event, Search
from mgsym.data_tools.simulation.region_batch import RegionBatch
from mgsym.data_tools.simulation.regions import Region, RegionMaker
from mgsym.data_tools.simulation.search_batch import SearchBatch, Walk
from mgsym.errors import InputError
from mgsym.structure import Structure

DEFAULT_RADIUS = 10.0  # Å
SMALLEST_RADIUS = 6.0  # Å
ROOM = 0.95  # of half the box that a region may take


def run_searches(
    structure: Structure,
    potential: EAM,
    searches: Iterator[Search],
    settings: ArtnSettings | None = None,
    *,
    seed: int = 0,
    slots: int = 64,
    device: str | torch.device = "cpu",
    compile: bool = True,
) -> Iterator[Event]:
    """Make searches and yield them as they end.

    Searches are taken from the iterator as slots get free. What a search finds depends on the
    structure, the potential, the settings, the seed, its atom's id and its attempt, not on the
    searches beside it.

    Args:
        structure: a minimum of the potential.
        potential: with all its elements.
        searches: what to do.
        settings: of the search.
        seed: of the pushes.
        slots: how many searches go on at once.
        device: where to compute.
        compile: whether a compiler may be used, which takes half a minute and then pays.

    Raises:
        InputError: the structure is not at a minimum, or too small for the active region.
    """
    line = _Line(structure, potential, settings or ArtnSettings(), seed, slots, device, compile)
    for last in line.run(searches):
        yield line.event(last)


def barriers_by_radius(
    structure: Structure,
    potential: EAM,
    searches: Iterator[Search],
    settings: ArtnSettings,
    slots: int = 24,
) -> Iterator[list[float]]:
    """The barriers (eV) of each saddle at all radii, the active one and those of refinement.

    Searches that end before the last radius are left out. For what freezing costs; see
    `run_searches`.
    """
    line = _Line(structure, potential, settings, 0, slots, "cpu", True)
    for last in line.run(searches):
        if last.status == FOUND:
            yield [walk.barrier for walk in last.tag[1:]]


def check_minimum(structure: Structure, potential: EAM, largest: float) -> None:
    """Refuse a structure that has a larger force (eV/Å) on any atom.

    Raises:
        InputError: it has; the message names the atom and what to do.
    """
    field = EAMForces(potential, [structure], skin=0.0, compile=False)
    force = field(structure.positions, structure.cell[None]).forces.norm(dim=1)
    worst = int(force.argmax())
    if not float(force[worst]) <= largest:
        raise InputError(
            f"{structure.name or 'the structure'} is not at a minimum: the force on the atom of id "
            f"{int(structure.ids[worst])} is {float(force[worst]):.3g} eV/Å, expected at most "
            f"{largest:g}: relax it first with mgsym relax, with the same potential"
        )


def half_width(structure: Structure) -> float:
    """Half of the smallest distance between opposite faces of a periodic cell, Å."""
    heights = 1.0 / torch.linalg.inv(structure.cell).norm(dim=0)
    widths = [float(h) for h, p in zip(heights, structure.periodic, strict=True) if p]
    return 0.5 * min(widths, default=float("inf"))


def active_radius(structure: Structure, radius: float) -> float:
    """The radius of active regions, Å; 0 asks for 10 Å or what a small box has room for.

    Raises:
        InputError: the box is too small.
    """
    half = half_width(structure)
    if radius == 0.0:
        radius = min(DEFAULT_RADIUS, ROOM * half)
        if radius < SMALLEST_RADIUS:
            raise InputError(
                f"{structure.name or 'the box'} is {2 * half:.1f} Å wide, too small for an active "
                f"region: expected at least {2 * SMALLEST_RADIUS / ROOM:.1f} Å: take a larger "
                "structure"
            )
    elif radius > half:
        raise InputError(
            f"an active region of {radius:g} Å does not fit {structure.name or 'the box'}, which "
            f"is {2 * half:.1f} Å wide: expected at most {half:.2f} Å"
        )
    return radius


class _Stage:
    """Walks at one radius, and those that wait for it."""

    def __init__(
        self,
        structure: Structure,
        potential: EAM,
        settings: ArtnSettings,
        radius: float | None,
        refining: bool,
        slots: int,
        device: str | torch.device,
        compile: bool,
    ) -> None:
        self.maker = RegionMaker(structure, potential, radius, settings.skin)
        self.cut = lru_cache(maxsize=max(16, slots))(self.maker.cut)
        rows = self.maker.rows()
        regions = RegionBatch(
            potential,
            slots,
            rows,
            settings.skin,
            frozen=radius is not None,
            device=device,
            compile=compile,
        )
        self.batch = SearchBatch(regions, settings, refining)
        self.waiting: deque[Walk] = deque()

    def fill(self) -> None:
        while self.waiting and self.batch.free:
            self.batch.insert(self.waiting.popleft())

    @property
    def load(self) -> int:
        return self.batch.busy + len(self.waiting)


class _Line:
    """The assembly line: search, then refine at one radius after the other."""

    def __init__(
        self,
        structure: Structure,
        potential: EAM,
        settings: ArtnSettings,
        seed: int,
        slots: int,
        device: str | torch.device,
        compile: bool,
    ) -> None:
        self.structure, self.settings, self.seed = structure, settings, seed
        check_minimum(structure, potential, settings.start_force)
        radius, half = active_radius(structure, settings.radius), half_width(structure)
        radii: list[float | None] = [radius]
        for wider in settings.refine_radii:
            radii.append(wider if wider <= ROOM * half else None)
            if radii[-1] is None:
                break
        self.radii, self.stages = radii, []
        for index, size in enumerate(radii):
            count = slots if index == 0 else max(1, slots // 4)
            self.stages.append(
                _Stage(structure, potential, settings, size, index > 0, count, device, compile)
            )

    def run(self, searches: Iterator[Search]) -> Iterator[Walk]:
        """Make searches; yields the last walk of each."""
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
                and current.batch.busy * 2 <= len(current.batch.walks)
            ):
                current.batch.shrink()
            current.batch.tick()
            yield from self._pass_on(stage)

    def _next_stage(self, more: bool) -> int | None:
        """The last stage with a full load; with nothing before it, any load is full."""
        for index in reversed(range(len(self.stages))):
            stage = self.stages[index]
            before = sum(s.load for s in self.stages[:index])
            if stage.load >= len(stage.batch.walks) or (stage.load and not before and not more):
                return index
        return 0 if self.stages[0].load else None

    def _begin(self, search: Search) -> Walk:
        region = self.stages[0].cut(search.atom)
        push = self._push(search, region)
        start = region.start.T + self.settings.push * push
        return Walk(region, start, push, False, tag=[search])

    def _push(self, search: Search, region: Region) -> Tensor:
        """A random direction [3, a] of the atoms around the centre."""
        name = f"{self.seed}:{int(self.structure.ids[search.atom])}:{search.attempt}"
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
        near = (region.start.norm(dim=1) < self.settings.push_radius).nonzero().squeeze(1)
        push = torch.zeros(3, len(region.atoms), dtype=torch.float64)
        push[:, near] = torch.randn(3, len(near), generator=generator, dtype=torch.float64)
        return push / push.norm()

    def _pass_on(self, stage: int) -> Iterator[Walk]:
        """Walks that ended go on to the next radius, or leave."""
        ended, batch = self.stages[stage].batch.finished, self.stages[stage].batch
        batch.finished = []
        for walk in ended:
            walk.tag.append(walk)
            if walk.status == FOUND and stage + 1 < len(self.stages):
                self.stages[stage + 1].waiting.append(self._widen(walk, self.stages[stage + 1]))
            else:
                yield walk

    def _widen(self, walk: Walk, stage: _Stage) -> Walk:
        """The same saddle in a larger region."""
        search = walk.tag[0]
        region = stage.cut(search.atom)
        place = torch.searchsorted(region.atoms, walk.region.atoms)
        start, mode = region.start.T.clone(), torch.zeros_like(region.start.T)
        moved = walk.end.cpu() - walk.region.start.T
        start[:, place] += moved
        mode[:, place] = walk.mode.cpu()
        return Walk(region, start, mode / mode.norm(), True, tag=walk.tag)

    def event(self, last: Walk) -> Event:
        """The record of a search."""
        search, walks = last.tag[0], last.tag[1:]
        first = walks[0]
        moved = (last.end.cpu() - last.region.start.T).square().sum(0)
        largest = int(moved.argmax())
        centre = int((last.region.atoms == search.atom).nonzero())
        found = last.status == FOUND
        nan = float("nan")
        return Event(
            atom=search.atom,
            id=int(self.structure.ids[search.atom]),
            attempt=search.attempt,
            seed=self.seed,
            status=last.status if len(walks) == 1 or found else "refinement",
            barrier=self._relaxed(walks) if found else nan,
            barrier_local=first.barrier if first.status == FOUND else nan,
            eigenvalue=last.eigenvalue,
            max_force=last.force,
            calls_leave=first.calls_leave,
            calls_climb=first.calls_climb,
            calls_refine=sum(walk.calls_climb for walk in walks[1:]),
            highest_energy=max(walk.highest for walk in walks),
            displacement=float(moved.sum().sqrt()),
            displacement_centre=float(moved[centre].sqrt()),
            displacement_largest=float(moved[largest].sqrt()),
            distance_largest=float(last.region.start[largest].norm()),
            participation=float(moved.sum() ** 2 / moved.square().sum()),
        )

    def _relaxed(self, walks: list[Walk]) -> float:
        """The barrier with all atoms free, eV: as measured, or from the last two radii."""
        last, radius, exponent = walks[-1], self.radii[-1], self.settings.relaxation_exponent
        if radius is None or len(walks) < 2 or exponent == 0.0:
            return last.barrier
        before = self.radii[-2] or radius
        return last.barrier - (walks[-2].barrier - last.barrier) / (
            (radius / before) ** exponent - 1.0
        )
