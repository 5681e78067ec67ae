"""From a recipe to files: the quench, the relaxation after it, and what is written of both."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from mgsym.data_tools.formats import extxyz, file_stem, output_format
from mgsym.data_tools.formats import write as write_structures
from mgsym.data_tools.simulation.dynamics.glass_structure import (
    coordination,
    density,
    first_peak,
    mean_by_species,
    pair_distribution,
)
from mgsym.data_tools.simulation.dynamics.melt_quench import (
    LogRow,
    Quenched,
    melt_quench,
    seconds_a_step,
)
from mgsym.data_tools.simulation.dynamics.recipe import Recipe
from mgsym.data_tools.simulation.optimizers.minimize import Method
from mgsym.data_tools.simulation.optimizers.relax import Relaxation, relax
from mgsym.data_tools.simulation.potentials.evaluation import Potential
from mgsym.data_tools.simulation.units import GPA
from mgsym.errors import Interrupted, UsageError
from mgsym.structure import Structure
from mgsym.utils.files import atomic_path, holds_output, refuse_existing
from mgsym.utils.progress import Progress
from mgsym.utils.workers import in_processes


@dataclass(frozen=True)
class Glass:
    """A glass at rest and what it is like.

    Attributes:
        name, rate, seed: which of the recipe; rate in K/s.
        structure: at the minimum of its energy, with the column ``energy``.
        relaxed: whether the relaxation converged.
        density: g/cm³.
        energy: eV per atom.
        energy_by_species: eV per atom of each element.
        first_peak: Å, of g(r).
        coordination: mean number of atoms within 3.8 Å, for each element.
    """

    name: str
    rate: float
    seed: int
    structure: Structure
    relaxed: bool
    density: float
    energy: float
    energy_by_species: dict[str, float]
    first_peak: float
    coordination: dict[str, float]

    def facts(self) -> dict[str, Any]:
        """Everything but the atoms."""
        shown = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "structure"}
        return {**shown, "atoms": len(self.structure)}


@holds_output("out")
def quench(
    recipe: Recipe,
    potential: Potential,
    out: str | Path,
    *,
    device: str | torch.device = "cpu",
    jobs: int = 1,
    method: Method = "fire",
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> tuple[list[Glass], list[Path]]:
    """Make glasses and write them.

    Args:
        recipe: which glasses, and how.
        potential: with all elements of the composition.
        out: a structure file for all glasses, or (a name without a suffix) a folder for a file
            of each. The log goes beside it as ``.csv`` or into it.
        device: where to compute.
        jobs: processes on a CPU, each of one thread, that share the glasses; 1 makes all glasses
            in one batch. A glass made alone is that of the batch to rounding, which chaos enlarges.
        method: of the relaxation at the end, ``fire`` or ``cg``; see `relax`.
        resume: go on from the checkpoint that an interrupted run left; begin where there is none.
        overwrite: whether output, or an old checkpoint, may be replaced.
        progress, should_stop: see `melt_quench`.

    Returns:
        The glasses, and the paths written.

    Raises:
        UsageError: output or a checkpoint exists, or does not suit.
        MgsymError, Interrupted, InputError: see `melt_quench`.
    """
    paths = OutputPaths.of(Path(out), recipe)
    for path in (*paths.structures, paths.log):
        refuse_existing(path, overwrite)
    single = [replace(recipe, rates=(g.rate,), seeds=(g.seed,)) for g in recipe.glasses]
    apart = [
        _Alone(own, potential, paths.checkpoint.with_name(f"{paths.checkpoint.name}.{glass.name}"))
        for own, glass in zip(single, recipe.glasses, strict=True)
    ]
    files = [paths.checkpoint, *(glass.checkpoint for glass in apart)]
    if not resume:
        for file in files:
            refuse_existing(file, overwrite)
            file.unlink(missing_ok=True)
    if jobs > 1 and paths.checkpoint.exists():
        raise UsageError(f"{paths.checkpoint} was made without --jobs: go on without it, too")
    if jobs > 1 or any(glass.checkpoint.exists() for glass in apart):
        quenched, log = _in_processes(apart, jobs, progress, should_stop)
    else:
        quenched, log = melt_quench(
            recipe,
            potential,
            device=device,
            checkpoint=paths.checkpoint,
            resume=resume and paths.checkpoint.exists(),
            progress=progress,
            should_stop=should_stop,
        )
    pressure = recipe.pressure / GPA
    atoms = [q.structure for q in quenched]
    rested = relax(
        atoms, potential, method=method, cell="isotropic", pressure=pressure, device=device
    )
    glasses = [described(q, r) for q, r in zip(quenched, rested, strict=True)]
    paths.write(glasses, log, potential.name, overwrite)
    for file in files:
        file.unlink(missing_ok=True)
    return glasses, [*paths.structures, paths.log]


@dataclass(frozen=True)
class _Alone:
    """A recipe of one glass, for a process of its own, and where it saves."""

    recipe: Recipe
    potential: Potential
    checkpoint: Path

    @property
    def steps(self) -> int:
        return _steps(self.recipe)[0]

    def made(
        self, progress: Progress | None = None, should_stop: Callable[[], bool] | None = None
    ) -> tuple[list[Quenched], list[LogRow]]:
        """Make it, or go on; what is finished is read."""
        return melt_quench(
            self.recipe, self.potential, checkpoint=self.checkpoint,
            resume=self.checkpoint.exists(), progress=progress, should_stop=should_stop,
        )  # fmt: skip


def _steps(recipe: Recipe) -> list[int]:
    return [recipe.melt_steps + recipe.quench_steps(glass.rate) for glass in recipe.glasses]


def _dealt(steps: Sequence[int], jobs: int) -> list[list[int]]:
    """Places of the glasses of each process: the longest first, to whoever has least to do."""
    shares: list[list[int]] = [[] for _ in range(min(jobs, len(steps)))]
    for place in sorted(range(len(steps)), key=lambda k: -steps[k]):
        min(shares, key=lambda share: sum(steps[k] for k in share)).append(place)
    return shares


def _in_processes(
    glasses: Sequence[_Alone],
    jobs: int,
    progress: Progress | None,
    should_stop: Callable[[], bool] | None,
) -> tuple[list[Quenched], list[LogRow]]:
    """Make each glass alone, in so many processes."""
    dealt = _dealt([glass.steps for glass in glasses], jobs)
    shares = [[(place, glasses[place]) for place in share] for share in dealt]
    total = sum(glass.steps * glass.recipe.timestep / 1000 for glass in glasses)
    done: dict[int, float] = {}
    with closing(in_processes(_cool, shares, should_stop, "go on with --resume")) as messages:
        for message in messages:
            if message is not None:
                done[message[0]] = message[1]
                if progress is not None:
                    progress(sum(done.values()), total)
    if should_stop is not None and should_stop():
        raise Interrupted(
            f"the quench was interrupted after {sum(done.values()):g} of {total:g} ps; go on with "
            "the same command and --resume"
        )
    results = [glass.made() for glass in glasses]
    rows = [row for _, log in results for row in log]
    return [made[0] for made, _ in results], sorted(rows, key=lambda row: row.time_ps)


def _cool(
    share: Sequence[tuple[int, _Alone]],
    send: Callable[[tuple[int, float]], None],
    stopped: Callable[[], bool],
) -> None:
    """What a process does."""
    for place, glass in share:
        try:
            glass.made(_teller(send, place), stopped)
        except Interrupted:
            return  # it has saved


def _teller(send: Callable[[tuple[int, float]], None], place: int) -> Progress:
    """Send on the ps that are done."""

    def tell(done: float, total: float | None = None, **info: object) -> None:
        send((place, done))

    return tell


def expected_seconds(
    recipe: Recipe, potential: Potential, device: str | torch.device = "cpu", jobs: int = 1
) -> float:
    """How long a quench will take, s, from a few steps of the melt that are measured."""
    steps = _steps(recipe)
    if jobs > 1:
        single = replace(recipe, rates=recipe.rates[:1], seeds=recipe.seeds[:1])
        longest = max(sum(steps[k] for k in share) for share in _dealt(steps, jobs))
        return longest * seconds_a_step(single, potential)
    measured = seconds_a_step(recipe, potential, device)
    on_cpu = torch.device(device).type == "cpu"  # a GPU takes as long for one as for several
    return measured * (sum(steps) / len(steps) if on_cpu else max(steps))


def described(quenched: Quenched, relaxation: Relaxation) -> Glass:
    """What a relaxed glass is like."""
    structure = relaxation.structure
    return Glass(
        *quenched.glass,
        structure,
        relaxation.converged,
        density(structure),
        relaxation.energy_after / len(structure),
        mean_by_species(structure, structure.columns["energy"].values),
        first_peak(pair_distribution(structure)),
        mean_by_species(structure, coordination(structure)),
    )


@dataclass(frozen=True)
class OutputPaths:
    """Where a quench writes.

    Attributes:
        structures: one file, or one for each glass.
        log: a table of temperature, density, energy and pressure in time.
        checkpoint: there while the run is not finished.
    """

    structures: tuple[Path, ...]
    log: Path
    checkpoint: Path

    @classmethod
    def of(cls, out: Path, recipe: Recipe) -> OutputPaths:
        """The paths for `out`, a file or (without a suffix) a folder.

        Raises:
            UsageError: the suffix is of no format that can be written.
        """
        if out.is_dir() or not out.suffix:
            files = tuple(out / f"{glass.name}.xyz" for glass in recipe.glasses)
            return cls(files, out / "quench.csv", out / "quench.checkpoint")
        output_format(out)
        stem = file_stem(out)
        log, checkpoint = (out.with_name(stem + end) for end in (".csv", ".checkpoint"))
        if log == out:
            log = out.with_name(f"{stem}_log.csv")
        return cls((out,), log, checkpoint)

    def write(
        self, glasses: Sequence[Glass], log: Sequence[LogRow], potential: str, overwrite: bool
    ) -> None:
        """Write structures and log."""
        if len(self.structures) == 1:
            _write(glasses, self.structures[0], potential, overwrite)
        else:
            for glass, path in zip(glasses, self.structures, strict=True):
                _write([glass], path, potential, overwrite)
        with atomic_path(self.log, overwrite) as temporary, temporary.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(LogRow._fields)
            for name, *numbers in log:
                table.writerow([name, *(f"{number:.7g}" for number in numbers)])


def _write(glasses: Sequence[Glass], path: Path, potential: str, overwrite: bool) -> None:
    """Extended XYZ tells in its header how each glass was made; other formats cannot."""
    structures = [glass.structure for glass in glasses]
    if output_format(path).name != extxyz.FORMAT.name or path.suffix == ".gz":
        write_structures(structures, path, overwrite)
        return
    made = [
        {"quench_rate": f"{g.rate:g}", "seed": str(g.seed), "potential": potential} for g in glasses
    ]
    with atomic_path(path, overwrite) as temporary, temporary.open("wb") as file:
        extxyz.write(structures, file, made)
