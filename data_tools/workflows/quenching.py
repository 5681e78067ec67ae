"""From a recipe to files: the quench, the relaxation after it, and what is written of both."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
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
from mgsym.data_tools.simulation.dynamics.melt_quench import LogRow, Quenched, melt_quench
from mgsym.data_tools.simulation.dynamics.recipe import Recipe
from mgsym.data_tools.simulation.optimizers.minimize import Method
from mgsym.data_tools.simulation.optimizers.relax import Relaxation, relax
from mgsym.data_tools.simulation.potentials.evaluation import Potential
from mgsym.data_tools.simulation.units import GPA
from mgsym.structure import Structure
from mgsym.utils.files import atomic_path, holds_output, refuse_existing
from mgsym.utils.progress import Progress


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
    if not resume:
        refuse_existing(paths.checkpoint, overwrite)
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
    paths.checkpoint.unlink(missing_ok=True)
    return glasses, [*paths.structures, paths.log]


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
