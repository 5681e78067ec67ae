"""Saddle searches in lockstep: every step is one force call for all slots, then a small update of
each slot by its own phase.

The steps and their order follow Mousseau & Barkema, Phys. Rev. E 57, 2419 (1998) and Malek &
Mousseau, Phys. Rev. E 62, 7723 (2000): push out of the basin until a mode of negative curvature
appears, climb along the mode while relaxing across it, stop where the force vanishes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from mgsym.data_tools.simulation.saddle_search.events import FOUND
from mgsym.data_tools.simulation.saddle_search.fire_across import PerpendicularFire
from mgsym.data_tools.simulation.saddle_search.lanczos import Advance, Lanczos
from mgsym.data_tools.simulation.saddle_search.settings import ArtnSettings
from mgsym.utils.devices import brought, sent


class FreeAtoms(Protocol):
    """What a search has to know of a region: `Region` and `CalculatorRegion` tell it."""

    @property
    def atoms(self) -> Tensor:
        """[a] the atoms that move, ascending."""

    @property
    def start(self) -> Tensor:
        """[a, 3] where they are in the minimum, Å from the centre."""


class RegionForces(Protocol):
    """Regions in slots, and the forces in all of them: see `RegionGroups`."""

    slots: int
    rows: int
    device: torch.device
    dtype: torch.dtype

    def insert(self, slot: int, region: Any) -> None: ...
    def refresh(self, x: Tensor) -> None: ...
    def forces(self, x: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]: ...
    def keep_busy(self, busy: Sequence[bool]) -> list[int]: ...


class Kind(Enum):
    """What the states of a batch do."""

    CLIMB = "climb"  # leave the basin and climb to a saddle
    REFINE = "refine"  # converge a saddle again with more atoms free
    DESCEND = "descend"  # relax to a minimum


IDLE, START, RELAX, CURVE = range(4)  # what a slot asks of the next force call
LEAVING_FORCE = 0.05  # eV/Å; across the push, where relaxing stops
END_SHARE = 0.04  # of a saddle's force; a minimum's is smaller
ACROSS_SHARE = 0.5  # of a saddle's force; relaxing across the mode goes no further
LEAVING_RELAX = 3  # steps across the push, and where the curvature is positive
MOST_RELAX = 16  # steps across the mode
REFINING_RELAX = 40  # in a larger region, where the mode is known already
END_RELAX = 2000  # down to an end
FIRST_RELAX = {
    Kind.CLIMB: LEAVING_RELAX,
    Kind.REFINE: REFINING_RELAX,
    Kind.DESCEND: END_RELAX,
}
# Lanczos vectors at least and at most, and relative tolerance
CURVE_LEAVING, CURVE_CLIMBING = (6, 15, 0.01), (4, 12, 0.01)


@dataclass(eq=False)
class SearchState:
    """One search at one radius.

    Attributes:
        region: around its centre.
        start: [3, a] where it sets out, Å from the centre.
        axis: [3, a] the push, or the mode to be refined, of length 1; zero for a descent.
        tag: whatever the caller wants back.
        status: how it ended.
        barrier, highest: eV above the minimum.
        eigenvalue: eV/Å².
        force: eV/Å, over all free coordinates.
        calls_leave, calls_climb: force calls.
        end, mode: [3, a] where it ended, and along what.
    """

    region: FreeAtoms
    start: Tensor
    axis: Tensor
    tag: Any = None
    status: str = ""
    barrier: float = float("nan")
    highest: float = float("nan")
    eigenvalue: float = float("nan")
    force: float = float("nan")
    calls_leave: int = 0
    calls_climb: int = 0
    end: Tensor = field(default_factory=lambda: torch.empty(3, 0))
    mode: Tensor = field(default_factory=lambda: torch.empty(3, 0))


class Across(NamedTuple):
    """Forces, taken apart along and across an axis.

    Attributes:
        parallel: [c] along the axis, eV/Å.
        size, whole: [c] length of what is across, and of the whole, eV/Å.
        across: [c, 3, a] eV/Å.
    """

    parallel: Tensor
    size: Tensor
    whole: Tensor
    across: Tensor


class SearchBatch:
    """Walks in slots.

    Positions, forces and modes are on the device; phases, counters, energies and whatever else
    decides are on the CPU. In a step the host waits for the device a few times, however many
    slots there are: for the neighbour lists that are stale, for what decides, and for the ends of
    states.

    Args:
        regions: empty, with as many slots as states go on at once.
        settings: of the search.
        kind: what these states are.
    """

    def __init__(self, regions: RegionForces, settings: ArtnSettings, kind: Kind) -> None:
        self.regions, self.settings, self.kind = regions, settings, kind
        self.refining = kind is Kind.REFINE
        self.finished: list[SearchState] = []
        slots, rows, device = regions.slots, regions.rows, regions.device
        real = regions.dtype
        self.states: list[SearchState | None] = [None] * slots

        def vectors() -> Tensor:
            return torch.zeros(slots, 3, rows, dtype=real, device=device)

        def numbers(dtype: torch.dtype) -> Tensor:
            return torch.zeros(slots, dtype=dtype)

        self.device = device
        # minimum, present point, axis to relax across, present mode, force at the present point
        self.origin, self.x, self.axis, self.mode, self.force = (vectors() for _ in range(5))
        self.phase = numbers(torch.int64)
        self.energy_0, self.energy, self.highest = (numbers(torch.float64) for _ in range(3))
        self.curvature, self.size = numbers(real), numbers(real)  # size: of the force
        self.leaving = numbers(torch.bool)
        self.relax_steps, self.relax_limit = numbers(torch.int64), numbers(torch.int64)
        self.pushes, self.climbs, self.lost = (numbers(torch.int64) for _ in range(3))
        self.calls, self.calls_leave = numbers(torch.int64), numbers(torch.int64)
        self.fire = PerpendicularFire(slots, rows, device, real)
        self.lanczos = Lanczos(slots, 3 * rows, CURVE_LEAVING[1], device, real)
        # by slot, those that have ended in this step
        self._ended: dict[int, SearchState] = {}

    @property
    def free(self) -> int:
        """How many slots are empty."""
        return sum(state is None for state in self.states)

    @property
    def busy(self) -> int:
        """How many states go on."""
        return len(self.states) - self.free

    def insert(self, state: SearchState) -> None:
        """Begin a state in an empty slot."""
        slot = self.states.index(None)
        self.states[slot] = state
        self.regions.insert(slot, state.region)
        atoms = len(state.region.atoms)
        for array, values in (
            (self.origin, state.region.start.T),
            (self.x, state.start),
            (self.axis, state.axis),
        ):
            array[slot] = 0.0
            array[slot, :, :atoms] = sent(values.to(array.dtype), self.device)
        self.mode[slot] = self.axis[slot]
        for counter in (self.pushes, self.climbs, self.lost, self.calls, self.calls_leave):
            counter[slot] = 0
        self.phase[slot] = START
        self.leaving[slot] = self.kind is Kind.CLIMB
        self.curvature[slot] = self.size[slot] = torch.nan
        self.highest[slot] = 0.0

    def step(self) -> None:
        """One force call, and what each slot makes of it; `finished` gets the states that end."""
        starting, relaxing, curving = (self._in_phase(p) for p in (START, RELAX, CURVE))
        at = self.x
        if len(starting):
            first = self._there(self.phase == START)
            at = torch.where(first[:, None, None], self.origin, self.x)
        self.regions.refresh(at)
        probe = at
        if len(curving):
            shape = (len(curving), 3, self.regions.rows)
            probe = at.clone()
            asked = self.lanczos.asked(curving).view(shape)
            probe[self._there(curving)] += self.settings.difference * asked
        busy = self.phase != IDLE
        energy, force = self.regions.forces(probe, busy)
        self.calls += busy
        self.calls_leave += busy & self.leaving

        across = self._across(relaxing, force) if len(relaxing) else None
        curve = self._advance(curving, force) if len(curving) else None
        numbers = [energy, force.isfinite().all(2).all(1)]
        numbers += [] if across is None else [across.parallel, across.size, across.whole]
        numbers += [] if curve is None else [curve.value, curve.remainder]
        energy, finite, *others = brought(*numbers)

        broken = busy & ~(energy.isfinite() & finite)
        self._finish(broken, "not-finite")
        if across is not None:
            self._relax(relaxing, energy[relaxing], across, *others[:3])
        if curve is not None:
            self._curve(curving, curve, *others[-2:])
        starting = starting[~broken[starting]]
        if len(starting):
            self.energy_0[starting] = energy[starting]
            self._start_relaxing(starting, torch.full_like(starting, FIRST_RELAX[self.kind]))
        exhausted = (self.phase != IDLE) & (self.calls >= self._call_limit())
        self._finish(exhausted, "call-limit")
        self._hand_over()

    def _in_phase(self, phase: int) -> Tensor:
        return (self.phase == phase).nonzero().squeeze(1)

    def _there(self, tensor: Tensor) -> Tensor:
        """Slots, or numbers of them, on the device."""
        return sent(tensor, self.device)

    def _call_limit(self) -> int:
        if self.kind is Kind.DESCEND:
            return END_RELAX + 10  # its steps end it
        settings = self.settings
        return settings.call_limit if self.kind is Kind.CLIMB else settings.refine_call_limit

    # --- relaxing across the axis ----------------------------------------------------------------

    def _start_relaxing(self, slots: Tensor, limit: Tensor) -> None:
        self.phase[slots] = RELAX
        self.relax_steps[slots] = 0
        self.relax_limit[slots] = limit
        self.fire.start(self._there(slots))

    def _across(self, slots: Tensor, force: Tensor) -> Across:
        """The forces of some slots, taken apart."""
        there = self._there(slots)
        force, axis = force[there], self.axis[there]
        self.force[there] = force
        parallel = (force * axis).sum((1, 2))
        across = force - parallel[:, None, None] * axis
        return Across(parallel, _length(across), _length(force), across)

    def _relax(
        self,
        slots: Tensor,
        energy: Tensor,
        force: Across,
        parallel: Tensor,
        across: Tensor,
        size: Tensor,
    ) -> None:
        """A step across the axis, or the end of relaxing; numbers [c] are on the CPU."""
        self.energy[slots], self.size[slots] = energy, size
        rise = energy - self.energy_0[slots]
        self.highest[slots] = torch.maximum(self.highest[slots], rise)
        share = END_SHARE if self.kind is Kind.DESCEND else ACROSS_SHARE
        least = share * self.settings.force
        enough = torch.where(self.leaving[slots], LEAVING_FORCE, parallel.abs().clamp(min=least))
        alive = self.phase[slots] == RELAX  # not those that broke
        settled = across < enough
        done = settled | (self.relax_steps[slots] >= self.relax_limit[slots])
        on = (alive & ~done).nonzero().squeeze(1)
        if len(on):
            going = self._there(slots[on])
            self.x[going] += self.fire.move(going, force.across[self._there(on)])
            self.relax_steps[slots[on]] += 1
        ended = slots[alive & done]
        if self.kind is Kind.DESCEND:
            self._finish_some(slots[alive & settled], FOUND)
            self._finish_some(slots[alive & done & ~settled], "climb-limit")
        elif len(ended):
            self.phase[ended] = CURVE
            self.lanczos.start(ended, self.mode[self._there(ended)].flatten(1))
        too_high = torch.zeros_like(self.leaving)
        too_high[slots] = rise > self.settings.energy_limit
        self._finish(too_high, "energy-limit")

    # --- the lowest mode -------------------------------------------------------------------------

    def _advance(self, slots: Tensor, force: Tensor) -> Advance:
        """Give the recursions of some slots their products."""
        there = self._there(slots)
        product = (self.force[there] - force[there]).flatten(1) / self.settings.difference
        # no eigenvalues come from what is not finite; those states end anyway
        return self.lanczos.advance(slots, torch.where(product.isfinite(), product, 0.0))

    def _curve(self, slots: Tensor, curve: Advance, value: Tensor, remainder: Tensor) -> None:
        """Let recursions go on, or use the modes they have found; numbers [c] are on the CPU."""
        leaving = self.leaving[slots]
        least, most, tolerance = (
            torch.where(leaving, a, b) for a, b in zip(CURVE_LEAVING, CURVE_CLIMBING, strict=True)
        )
        done = self.lanczos.decide(slots, curve, value, remainder, least, most, tolerance)
        done &= self.phase[slots] == CURVE  # not those that broke
        which = done.nonzero().squeeze(1)
        ended = slots[which]
        if len(ended) == 0:
            return
        mode = curve.mode[self._there(which)]
        self.mode[self._there(ended)] = mode.view(len(ended), 3, -1)
        self.curvature[ended] = self.lanczos.value[ended].to(self.curvature.dtype)
        out = ended[self.leaving[ended]]
        if len(out):
            self._leave(out)
        up = ended[~self.leaving[ended]]
        if len(up):
            self._test(up)

    def _leave(self, slots: Tensor) -> None:
        """Out of the basin, or push on."""
        settings = self.settings
        left = self.curvature[slots] < settings.leave_curvature
        self.pushes[slots] += 1
        given_up = ~left & (self.pushes[slots] >= settings.leave_steps)
        self._finish_some(slots[given_up], "no-mode")
        pushed = slots[~left & ~given_up]
        there = self._there(pushed)
        self.x[there] += settings.leave_step * self.axis[there]
        self._start_relaxing(pushed, torch.full_like(pushed, LEAVING_RELAX))
        out = slots[left]
        self.leaving[out] = False
        self._climb(out)

    # --- climbing --------------------------------------------------------------------------------

    def _test(self, slots: Tensor) -> None:
        """After each climbing step and its relaxation."""
        settings = self.settings
        value, size = self.curvature[slots], self.size[slots]
        found = (size < settings.force) & (value < 0)
        self.lost[slots] = torch.where(value > 0, self.lost[slots] + 1, 0)
        bearable = 0 if self.refining else settings.lost_steps
        lost = self.lost[slots] > bearable
        over = ~found & ~lost & (self.climbs[slots] >= settings.climb_steps)
        self._finish_some(slots[found], FOUND)
        self._finish_some(slots[lost], "refinement" if self.refining else "lost-mode")
        self._finish_some(slots[over], "climb-limit")
        self._climb(slots[~found & ~lost & ~over])

    def _climb(self, slots: Tensor) -> None:
        """One step along the mode against the force, then relax across it."""
        if len(slots) == 0:
            return
        settings, there, convex = self.settings, self._there(slots), self.curvature[slots] > 0
        mode, value = self.mode[there], self._there(self.curvature[slots])
        parallel = (self.force[there] * mode).sum((1, 2))
        outwards = ((self.x[there] - self.origin[there]) * mode).sum((1, 2))
        length = parallel.abs() / value.abs().clamp(min=settings.stiffest)
        uphill = -parallel.sign() * length.clamp(max=settings.climb_step)
        along = torch.where(value > 0, outwards.sign() * settings.climb_step, uphill)
        self.x[there] += along[:, None, None] * mode
        self.axis[there] = mode
        limit = (4 * (self.climbs[slots] + 1)).clamp(max=MOST_RELAX)
        if self.refining:
            limit = torch.full_like(limit, REFINING_RELAX)
        self.climbs[slots] += 1
        self._start_relaxing(slots, torch.where(convex, LEAVING_RELAX, limit))

    # --- ends ------------------------------------------------------------------------------------

    def _finish(self, which: Tensor, status: str) -> None:
        if bool(which.any()):
            self._finish_some(which.nonzero().squeeze(1), status)

    def _finish_some(self, slots: Tensor, status: str) -> None:
        """Note how states ended; `_hand_over` fetches where."""
        for slot in slots.tolist():
            state = self.states[slot]
            if state is None or slot in self._ended:
                continue
            state.status = status
            state.barrier = float(self.energy[slot] - self.energy_0[slot])
            state.highest = float(self.highest[slot])
            state.eigenvalue = float(self.curvature[slot])
            state.force = float(self.size[slot])
            state.calls_leave = int(self.calls_leave[slot])
            state.calls_climb = int(self.calls[slot]) - state.calls_leave
            self.phase[slot] = IDLE
            self._ended[slot] = state

    def _hand_over(self) -> None:
        """Empty the slots of states that ended in this step, which stand where they ended."""
        if not self._ended:
            return
        there = self._there(torch.tensor(list(self._ended)))
        # copies: the slots go to other states, and states keep no memory of a GPU
        ends, modes = brought(self.x[there].double(), self.mode[there].double())
        for (slot, state), end, mode in zip(self._ended.items(), ends, modes, strict=True):
            atoms = len(state.region.atoms)
            state.end, state.mode = end[:, :atoms].clone(), mode[:, :atoms].clone()
            self.states[slot] = None
            self.finished.append(state)
        self._ended = {}

    def shrink(self) -> None:
        """Drop slots that are empty, for when no more states come."""
        kept = self.regions.keep_busy([state is not None for state in self.states])
        if len(kept) == len(self.states):
            return
        self.states = [self.states[slot] for slot in kept]
        slots = torch.tensor(kept)
        there = self._there(slots)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                here = value.device.type == "cpu"
                setattr(self, name, value[slots if here else there].clone())
        self.fire.keep(there)
        self.lanczos.keep(slots)


def _length(vectors: Tensor) -> Tensor:
    """[c] of [c, 3, a]."""
    return vectors.square().sum((1, 2)).sqrt()
