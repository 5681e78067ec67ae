"""Glasses from nothing: random atoms are melted, cooled at a constant rate, and brought to rest.

Many glasses advance in one batch; those cooled faster are done earlier and leave it. Time is cut
into segments. At the start of each the neighbour lists are made anew, so that a run that was
interrupted between two segments goes on to the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mgsym.data_tools.simulation.dynamics.integrator import (
    Dynamics,
    Observables,
    State,
    maxwell_boltzmann,
)
from mgsym.data_tools.simulation.dynamics.packing import push_off, random_packing, starting_edge
from mgsym.data_tools.simulation.dynamics.recipe import GlassName, Recipe
from mgsym.data_tools.simulation.potentials.ase_calculator import ASEForces, require_stress
from mgsym.data_tools.simulation.potentials.eam_forces import EAMForces
from mgsym.data_tools.simulation.potentials.evaluation import (
    Potential,
    force_field,
    potential_hash,
)
from mgsym.data_tools.simulation.units import GPA, GRAMS_PER_CM3
from mgsym.errors import InputError, Interrupted, MgsymError, UsageError
from mgsym.structure import Structure
from mgsym.structure.cell import wrap
from mgsym.utils.files import load_safely, save_safely
from mgsym.utils.progress import Progress

FORMAT, FORMAT_VERSION = "mgsym-quench", 2
SEGMENT = 1000  # steps
SKIN = (
    0.8  # Å: in a melt at 2000 K lists last some 25 steps, and making them costs 15 % of the time
)
SAMPLE = 10  # steps between two looks at temperature and pressure
SAVE_SECONDS = 60.0
MEASURED = 50  # steps from which the time of a quench is foretold: two neighbour lists
# how cells and atoms without a place show when neighbours are searched
UNSTABLE = (InputError, torch.linalg.LinAlgError)  # type: ignore[attr-defined]
HOTTEST = 10.0  # times the melt's temperature: beyond it the run has exploded
SIZES = (0.3, 3.0)  # times the first volume: a box outside has collapsed or evaporated


class LogRow(NamedTuple):
    """A glass on its way; temperature, energy and pressure are means since the row before."""

    glass: str
    time_ps: float
    temperature_K: float
    density_g_cm3: float
    energy_eV_per_atom: float
    pressure_GPa: float


class Quenched(NamedTuple):
    """A glass as it was at the end of the cooling."""

    glass: GlassName
    structure: Structure


def melt_quench(
    recipe: Recipe,
    potential: Potential,
    *,
    device: str | torch.device = "cpu",
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> tuple[list[Quenched], list[LogRow]]:
    """Make glasses.

    Args:
        recipe: which, and how.
        potential: with all elements of the composition.
        device: where to compute.
        checkpoint: where to save now and then; removed by nobody here.
        resume: go on from `checkpoint`.
        progress: called as ``progress(done, total, **info)``, in ps of all glasses.
        should_stop: asked after each segment; when true, the run is saved and Interrupted raised.

    Returns:
        The glasses in the recipe's order, not yet relaxed, and the log of all.

    Raises:
        UsageError: the checkpoint belongs to other settings.
        InputError: the potential lacks an element, or the checkpoint is damaged.
        MgsymError: a glass exploded, collapsed or evaporated.
        Interrupted: `should_stop` said so.
    """
    require_stress(potential, "a quench at constant pressure")
    run = _Run(recipe, potential, torch.device(device), checkpoint)
    if resume:
        run.restore()
    else:
        run.begin()
    saved = time.monotonic()
    while run.active:
        run.segment()
        if progress is not None:
            progress(*run.done(), **run.message())
        stop = should_stop is not None and should_stop()
        if stop or time.monotonic() - saved > SAVE_SECONDS:
            run.save()
            saved = time.monotonic()
        if stop and run.active:
            raise Interrupted(run.interrupted())
    run.save()
    return [run.finished[k] for k in range(len(run.glasses))], run.log


def seconds_a_step(
    recipe: Recipe, potential: Potential, device: str | torch.device = "cpu"
) -> float:
    """Measure how long a step of the melt of all glasses takes, s: over MEASURED steps or 3 s."""
    require_stress(potential, "a quench at constant pressure")
    run = _Run(recipe, potential, torch.device(device), None)
    run.begin()
    return run.timed()


class _Run:
    """The batch on its way.

    Attributes:
        step: time steps done.
        active: indices of the glasses still in the batch.
        state: of these.
        finished: the others.
    """

    def __init__(
        self, recipe: Recipe, potential: Potential, device: torch.device, checkpoint: Path | None
    ) -> None:
        self.recipe, self.potential = recipe, potential
        self.device, self.checkpoint = device, checkpoint
        self.glasses = recipe.glasses
        self.ends = [recipe.melt_steps + recipe.quench_steps(g.rate) for g in self.glasses]
        self.step = 0
        self.active = list(range(len(self.glasses)))
        self.finished: dict[int, Quenched] = {}
        self.log: list[LogRow] = []
        self.species = tuple(recipe.counts)
        self.types = torch.repeat_interleave(torch.tensor(list(recipe.counts.values())))
        self.state: State
        self.first_volume: float

    # ---- the start ----

    def begin(self) -> None:
        """Random atoms with random velocities."""
        generators = [torch.Generator().manual_seed(g.generator_seed) for g in self.glasses]
        edge = starting_edge(self.recipe.counts, self.potential, self.recipe.density)
        starts = [random_packing(self.recipe.counts, edge, g) for g in generators]
        self.first_volume = edge**3
        cell = torch.stack([s.cell for s in starts]).to(self.device)
        positions = torch.cat([s.positions for s in starts]).to(self.device)
        field = force_field(self.potential, starts, device=self.device)
        positions = push_off(field, positions, cell)
        target = torch.full((len(starts),), self.recipe.temperature, dtype=torch.float64)
        velocities = maxwell_boltzmann(
            field.masses, field.system, target.to(self.device), generators
        )
        self.state = self._dynamics(field).start(positions, velocities, cell)

    def _dynamics(self, field: EAMForces | ASEForces) -> Dynamics:
        recipe = self.recipe
        return Dynamics(
            field,
            field.masses,
            timestep=recipe.timestep / 1000,
            thermostat=recipe.thermostat,
            barostat=recipe.barostat,
            reference=recipe.temperature,
            pressure=recipe.pressure / GPA,
        )

    # ---- a segment ----

    def segment(self) -> None:
        """Advance to the next multiple of SEGMENT steps, or to where a glass is done."""
        end = min((self.step // SEGMENT + 1) * SEGMENT, *(self.ends[k] for k in self.active))
        structures = [self._structure(place) for place in range(len(self.active))]
        field = force_field(self.potential, structures, skin=SKIN, device=self.device)
        dynamics = self._dynamics(field)
        state, forces = self.state, dynamics.forces(self.state)
        samples = []
        for step in range(self.step, end):
            try:
                state, forces = dynamics.step(state, forces, self._target(step + 1))
            except UNSTABLE as error:
                hottest = int(dynamics.observe(state, forces).temperature.argmax())
                raise self._unstable(hottest, step + 1, "the atoms flew apart") from error
            if (step + 1) % SAMPLE == 0 or step + 1 == end:
                samples.append(dynamics.observe(state, forces))
                self._check(samples[-1], step + 1)
        self.state, self.step = state, end
        self._record(samples)
        self._retire()

    def timed(self) -> float:
        """Seconds of a step at the start, without the first, which may wait for a compiler."""
        structures = [self._structure(place) for place in range(len(self.active))]
        field = force_field(self.potential, structures, skin=SKIN, device=self.device)
        dynamics, state = self._dynamics(field), self.state
        state, forces = dynamics.step(state, dynamics.forces(state), self._target(1))
        start, steps = time.monotonic(), 0
        while steps < MEASURED and (steps == 0 or time.monotonic() - start < 3):
            state, forces = dynamics.step(state, forces, self._target(1))
            float(state.kinetic.sum())  # a GPU has to be done
            steps += 1
        return (time.monotonic() - start) / steps

    def _target(self, step: int) -> Tensor:
        """[b] K at a time."""
        recipe = self.recipe
        fall = recipe.temperature - recipe.final
        rest = max(0, step - recipe.melt_steps)
        kelvin = [
            recipe.temperature - fall * rest / (self.ends[k] - recipe.melt_steps)
            for k in self.active
        ]
        return torch.tensor(kelvin, dtype=torch.float64, device=self.device)

    def _check(self, seen: Observables, step: int) -> None:
        low, high = (s * self.first_volume for s in SIZES)
        hot = ~(seen.temperature < HOTTEST * self.recipe.temperature)  # true for NaN
        size = ~((seen.volume > low) & (seen.volume < high))
        if not bool((hot | size).any()):
            return
        place = int((hot | size).nonzero()[0])
        if bool(hot[place]):
            failure = f"the temperature became {float(seen.temperature[place]):.3g} K"
        else:
            times = float(seen.volume[place]) / self.first_volume
            failure = f"the volume became {times:.3g} times the first"
        raise self._unstable(place, step, failure)

    def _unstable(self, place: int, step: int, failure: str) -> MgsymError:
        return MgsymError(
            f"{self.glasses[self.active[place]].name}: {failure} at {self._time(step):g} ps: take "
            f"a smaller --timestep than {self.recipe.timestep:g} fs, or look whether the potential "
            f"suits {self.recipe.composition}"
        )

    def _time(self, step: int) -> float:
        """ps."""
        return step * self.recipe.timestep / 1000

    def _record(self, samples: list[Observables]) -> None:
        mean = Observables(
            *(torch.stack(values).mean(dim=0).cpu() for values in zip(*samples, strict=True))
        )
        mass = float(torch.tensor(self.potential.masses)[self._potential_types()].sum())
        for place, k in enumerate(self.active):
            self.log.append(
                LogRow(
                    self.glasses[k].name,
                    self._time(self.step),
                    float(mean.temperature[place]),
                    mass / float(mean.volume[place]) * GRAMS_PER_CM3,
                    float(mean.energy[place]) / self.recipe.atoms,
                    float(mean.pressure[place]) * GPA,
                )
            )

    def _potential_types(self) -> Tensor:
        index = torch.tensor([self.potential.species.index(s) for s in self.species])
        return index[self.types]

    def _structure(self, place: int) -> Structure:
        n = self.recipe.atoms
        return Structure(
            self.state.positions[place * n : (place + 1) * n].cpu(),
            self.state.cell[place].cpu(),
            self.types,
            self.species,
        )

    def _retire(self) -> None:
        """Take the glasses that are done out of the batch."""
        stay = [place for place, k in enumerate(self.active) if self.ends[k] > self.step]
        if len(stay) == len(self.active):
            return
        for place, k in enumerate(self.active):
            if place not in stay:
                name = self.glasses[k].name
                structure = wrapped(self._structure(place)).replace(name=name, glass=name)
                self.finished[k] = Quenched(self.glasses[k], structure)
        self.active = [self.active[place] for place in stay]
        if stay:
            self.state = _take(self.state, stay)

    # ---- what is said and saved ----

    def done(self) -> tuple[float, float]:
        """ps simulated, and in all, over all glasses."""
        steps = sum(min(self.step, end) for end in self.ends)
        return self._time(steps), self._time(sum(self.ends))

    def message(self) -> dict[str, float]:
        """What to show of the glass that takes longest."""
        row = self.log[-1]
        return {
            "K": row.temperature_K,
            "g/cm³": row.density_g_cm3,
            "eV/atom": row.energy_eV_per_atom,
        }

    def interrupted(self) -> str:
        done, total = self.done()
        message = f"the quench was interrupted after {done:g} of {total:g} ps"
        if self.checkpoint is None:
            return f"{message}; nothing was saved, as no checkpoint was given"
        return f"{message}; go on with the same command and --resume"

    def save(self) -> None:
        """Write the checkpoint."""
        if self.checkpoint is None:
            return
        content = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "recipe": asdict(self.recipe),
            "potential": potential_hash(self.potential),
            "step": self.step,
            "first_volume": self.first_volume,
            "active": self.active,
            "state": {name: values.cpu() for name, values in self.state._asdict().items()},
            "finished": {
                k: (q.structure.positions, q.structure.cell) for k, q in self.finished.items()
            },
            "log": [tuple(row) for row in self.log],
        }
        save_safely(self.checkpoint, content)

    def restore(self) -> None:
        """Go back to where `save` was called."""
        if self.checkpoint is None:
            raise UsageError("nothing to resume from: no checkpoint was given")
        saved = load_safely(self.checkpoint, FORMAT, FORMAT_VERSION, "a checkpoint of mgsym quench")
        changes = self.recipe.changes(saved["recipe"])
        if saved["potential"] != potential_hash(self.potential):
            changes.append("potential")
        if changes:
            raise UsageError(
                f"{self.checkpoint} was made with another {' and '.join(changes)}: resume with "
                "the same options, or start again with --overwrite"
            )
        self.step, self.active = saved["step"], saved["active"]
        self.first_volume = saved["first_volume"]
        self.state = State(**{k: v.to(self.device) for k, v in saved["state"].items()})
        self.log = [LogRow(*row) for row in saved["log"]]
        for k, (positions, cell) in saved["finished"].items():
            name = self.glasses[k].name
            structure = Structure(positions, cell, self.types, self.species, name=name, glass=name)
            self.finished[k] = Quenched(self.glasses[k], structure)


def wrapped(structure: Structure) -> Structure:
    """Move all atoms into the cell: in a melt they go far."""
    return structure.replace(positions=wrap(structure.positions, structure.cell, (True,) * 3))


def _take(state: State, stay: list[int]) -> State:
    """The systems at some places, all being of one size."""
    systems = len(state.kinetic)
    keep = torch.tensor(stay, device=state.kinetic.device)

    def atoms(values: Tensor) -> Tensor:
        return values.view(systems, -1, 3)[keep].reshape(-1, 3)

    return State(
        positions=atoms(state.positions),
        velocities=atoms(state.velocities),
        cell=state.cell[keep],
        strain_rate=state.strain_rate[keep],
        chain_rate=state.chain_rate[..., keep],
        chain_place=state.chain_place[..., keep],
        kinetic=state.kinetic[keep],
    )
