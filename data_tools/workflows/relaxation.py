"""Structure files relaxed, and what the relaxation did, for tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mgsym.data_tools.simulation.optimizers.enthalpy import FreeCell
from mgsym.data_tools.simulation.optimizers.minimize import FMAX, MAX_STEPS, Method
from mgsym.data_tools.simulation.optimizers.relax import Relaxation, relax
from mgsym.data_tools.simulation.potentials.evaluation import Potential
from mgsym.data_tools.simulation.units import GPA
from mgsym.data_tools.workflows.graphs import read_structures
from mgsym.data_tools.workflows.inspection import describe
from mgsym.data_tools.workflows.outputs import output_paths, write_all
from mgsym.errors import MgsymError, UsageError
from mgsym.structure import Structure
from mgsym.utils.files import holds_output
from mgsym.utils.progress import Progress


@dataclass(frozen=True)
class RelaxedFile:
    """One relaxed structure.

    Attributes:
        name: of the structure.
        atoms: how many.
        energy_before, energy_after: eV/atom.
        largest_force: eV/Å.
        pressure: GPa, after.
        density_before, density_after: g/cm³.
        moved: Å, how far an atom went at most, beyond what it followed the cell.
        steps: evaluations of the forces.
        converged: whether it is at a minimum.
        dropped: columns of the input that are not in the output.
        path: where it was written.
    """

    name: str
    atoms: int
    energy_before: float
    energy_after: float
    largest_force: float
    pressure: float
    density_before: float
    density_after: float
    moved: float
    steps: int
    converged: bool
    dropped: tuple[str, ...]
    path: Path


@holds_output("out")
def relax_files(
    files: Sequence[str | Path],
    potential: Potential,
    out: str | Path,
    types: Mapping[int, str] | None = None,
    frames: str | None = None,
    *,
    method: Method = "fire",
    cell: FreeCell | None = None,
    fmax: float = FMAX,
    max_steps: int = MAX_STEPS,
    pressure: float = 0.0,
    device: str | torch.device = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[RelaxedFile]:
    """Relax structures of files and write them, also those that ran out of steps.

    Ids, species, glass and split are kept. Columns are not, since labels and velocities belong
    to the old positions; the energy of each atom (eV) is written instead.

    Args:
        files: structure files of any known format; none takes the sample that ships with mgsym.
        potential: knows all their elements.
        out: a file for one input file, its suffix tells the format; else a folder, in which each
            structure becomes ``<name>.extxyz``.
        types: element of each type number, for files that have numbers only.
        frames: which frames of each file; None takes the last one.
        method, cell, fmax, max_steps: as for `relax`.
        pressure: GPa, on free cells.
        device: ``auto``, ``cpu`` or ``cuda``.
        overwrite: replace existing files.
        progress: called with the number of structures at rest and in all.

    Raises:
        InputError: a file is missing or damaged, has an element that the potential lacks, or
            atoms on one another.
        UsageError: an output exists, or a setting makes no sense.
        MgsymError: the energy became infinite, or a cell exploded.
    """
    if pressure and cell is None:
        raise UsageError(
            f"a pressure of {pressure:g} GPa acts on a free cell only: add --cell isotropic or full"
        )
    structures = read_structures(files, types, frames)
    paths = output_paths(Path(out), structures, len(files), overwrite)
    relaxations = relax(
        structures,
        potential,
        method=method,
        cell=cell,
        fmax=fmax,
        pressure=pressure / GPA,
        max_steps=max_steps,
        device=device,
        progress=progress,
    )
    write_all([relaxation.structure for relaxation in relaxations], paths, overwrite)
    return [_summary(*each) for each in zip(structures, relaxations, paths, strict=True)]


def check_converged(relaxed: Sequence[RelaxedFile]) -> None:
    """Refuse to call it done when a structure is not at a minimum.

    Raises:
        MgsymError: which are not, and what to do.
    """
    restless = [each for each in relaxed if not each.converged]
    if not restless:
        return
    worst = max(restless, key=lambda each: each.largest_force)
    raise MgsymError(
        f"{len(restless)} of {len(relaxed)} structures not at a minimum after {worst.steps} steps "
        f"({worst.name}: largest force {worst.largest_force:.2g} eV/Å, {worst.pressure:.3g} GPa), "
        "written as they stand: relax the output further, with more --max-steps, or ask less "
        "with --fmax"
    )


def _summary(before: Structure, relaxation: Relaxation, path: Path) -> RelaxedFile:
    after = relaxation.structure
    return RelaxedFile(
        name=before.name,
        atoms=len(before),
        energy_before=relaxation.energy_before / len(before),
        energy_after=relaxation.energy_after / len(before),
        largest_force=relaxation.largest_force,
        pressure=relaxation.pressure * GPA,
        density_before=describe(before)["grams_per_cubic_centimetre"],
        density_after=describe(after)["grams_per_cubic_centimetre"],
        moved=relaxation.moved,
        steps=relaxation.steps,
        converged=relaxation.converged,
        dropped=tuple(name for name in before.columns if name != "energy"),
        path=path,
    )
