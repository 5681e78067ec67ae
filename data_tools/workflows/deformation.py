"""Structure files strained: frames, the stress–strain table, figures, and what foretold them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mgsym.data_tools.formats import extxyz
from mgsym.data_tools.formats import write as write_structures
from mgsym.data_tools.simulation.deformation.batch import Deformed
from mgsym.data_tools.simulation.deformation.plan import Plan
from mgsym.data_tools.simulation.deformation.run import deform, frame_structures
from mgsym.data_tools.simulation.potentials.evaluation import Potential
from mgsym.data_tools.simulation.units import GPA
from mgsym.data_tools.workflows.deformation_figures import (
    d2min_map,
    foretelling_figure,
    stress_strain_figure,
)
from mgsym.data_tools.workflows.graphs import read_structures
from mgsym.data_tools.workflows.plasticity import (
    Foretold,
    Sample,
    check_columns,
    compare,
    scores_of,
    summarise,
)
from mgsym.rendering.figures import check_figure, write_figure
from mgsym.structure import Structure
from mgsym.utils.files import atomic_path, holds_output, refuse_existing

SUFFIXES = {"extxyz": ".xyz", "dump": ".dump"}
COMPONENTS = ("xx", "yy", "zz", "yz", "xz", "xy")
COLUMNS = (
    "structure",
    "direction",
    "strain",
    *(f"stress_{name}_GPa" for name in COMPONENTS),
    "energy_eV",
    "volume_A3",
    "temperature_K",
    "largest_force_eV_A",
    "force_calls",
    "converged",
)


@dataclass(frozen=True)
class StrainedGlass:
    """What straining one glass along one direction did, for tables.

    Attributes:
        structure, direction: which.
        strain: the last one.
        modulus: GPa, slope of the stress that resists at the first step.
        largest_stress: GPa, in size, of that stress less its value at the start.
        at_strain: where that was.
        d2min: Å², mean over the atoms, at the last strain.
        converged: whether every minimisation was.
    """

    structure: str
    direction: str
    strain: float
    modulus: float
    largest_stress: float
    at_strain: float
    d2min: float
    converged: bool


@dataclass(frozen=True)
class Strained:
    """All that was found and written.

    Attributes:
        glasses: one for each structure and direction.
        foretold: how well columns and controls foretell D²min; empty where not asked.
        paths: of the files.
    """

    glasses: list[StrainedGlass]
    foretold: list[Foretold] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)


@holds_output("out")
def deform_files(
    files: Sequence[str | Path],
    potential: Potential,
    plan: Plan,
    out: str | Path,
    types: Mapping[int, str] | None = None,
    frames: str | None = None,
    *,
    format: str = "extxyz",
    figures: bool = False,
    columns: Sequence[str] = (),
    device: str | torch.device = "auto",
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[..., None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Strained:
    """Strain the structures of files and write what happened into a folder.

    There is a trajectory ``<structure>_<direction>`` of each, ``stress_strain.csv`` of all, with
    `columns` ``compared.csv``, and with `figures` ``stress_strain.png``, ``compared.png`` and a map
    of D²min of each.

    Args:
        files: structure files of any known format; none takes the sample that ships with mgsym.
        potential: knows all their elements.
        plan: how they are strained.
        out: the folder.
        types: element of each type number, for files that have numbers only.
        frames: which frames of each file; None takes the last one.
        format: of the trajectories, ``extxyz`` or ``dump``.
        figures: whether to draw (extra ``plot``).
        columns: of the structures, in eV: whether they foretell D²min is compared with controls.
        device: ``auto``, ``cpu`` or ``cuda``.
        resume: go on from the checkpoint that an interrupted run left in `out`; begin where there
            is none.
        overwrite: whether output, or an old checkpoint, may be replaced.
        progress, should_stop: see `deform`.

    Raises:
        UsageError: an output exists, or a setting makes no sense.
        InputError: a file is damaged, lacks a column, or has an element that the potential lacks.
        MgsymError, Interrupted: see `deform`.
    """
    structures = read_structures(files, types, frames)
    check_columns(structures, columns)
    names = [f"{s.name}_{d.name}" for s in structures for d in plan.directions]
    paths = _Paths.of(Path(out), names, format, figures, bool(columns))
    paths.check(resume, overwrite)
    deformed = deform(
        structures,
        potential,
        plan,
        device=device,
        checkpoint=paths.checkpoint,
        resume=resume and paths.checkpoint.exists(),
        progress=progress,
        should_stop=should_stop,
    )
    measured = [frame_structures(glass, plan) for glass in deformed]
    samples = _compared(deformed, measured, columns, potential)
    foretold = summarise(samples) if samples else []
    for glass, shown, path in zip(deformed, measured, paths.trajectories, strict=True):
        _write_frames(glass, _with_columns(glass, shown, columns), path, overwrite)
    _write_table(paths.curves, COLUMNS, _curve_rows(deformed), overwrite)
    if paths.compared is not None:
        _write_table(paths.compared, Sample._fields, samples, overwrite)
    if paths.figure is not None:
        write_figure(stress_strain_figure(deformed), paths.figure)
        for shown, path in zip(measured, paths.maps, strict=True):
            write_figure(d2min_map(shown[-1]), path)
    if paths.foretelling is not None:
        write_figure(foretelling_figure(foretold), paths.foretelling)
    paths.checkpoint.unlink(missing_ok=True)
    summaries = [_summary(*each) for each in zip(deformed, measured, strict=True)]
    return Strained(summaries, foretold, paths.written)


@dataclass(frozen=True)
class _Paths:
    """Where a deformation writes."""

    trajectories: list[Path]
    curves: Path
    compared: Path | None
    figure: Path | None
    foretelling: Path | None
    maps: list[Path]
    checkpoint: Path

    @classmethod
    def of(
        cls, folder: Path, names: Sequence[str], format: str, figures: bool, compared: bool
    ) -> _Paths:
        return cls(
            [folder / f"{name}{SUFFIXES[format]}" for name in names],
            folder / "stress_strain.csv",
            folder / "compared.csv" if compared else None,
            folder / "stress_strain.png" if figures else None,
            folder / "compared.png" if figures and compared else None,
            [folder / f"{name}_d2min.png" for name in names] if figures else [],
            folder / "deform.checkpoint",
        )

    @property
    def written(self) -> list[Path]:
        single = [self.curves, self.compared, self.figure, self.foretelling]
        return [*self.trajectories, *(p for p in single if p is not None), *self.maps]

    def check(self, resume: bool, overwrite: bool) -> None:
        """Refuse, before long work, what exists or cannot be drawn."""
        for path in self.written:
            refuse_existing(path, overwrite)
        if self.figure is not None:
            check_figure(self.figure, overwrite)
        if not resume:
            refuse_existing(self.checkpoint, overwrite)


def _compared(
    deformed: Sequence[Deformed],
    measured: Sequence[Sequence[Structure]],
    columns: Sequence[str],
    potential: Potential,
) -> list[Sample]:
    """Samples of all glasses; the scores of a glass are computed once for all its directions."""
    if not columns:
        return []
    scores: dict[str, Any] = {}
    samples = []
    for glass, frames in zip(deformed, measured, strict=True):
        name = glass.start.name
        if name not in scores:
            scores[name] = scores_of(glass.start, frames[0], columns, potential)
        samples += compare(glass, frames, scores[name])
    return samples


def _with_columns(
    glass: Deformed, frames: Sequence[Structure], columns: Sequence[str]
) -> list[Structure]:
    """Frames with the start's compared columns beside their own."""
    more = {name: glass.start.columns[name] for name in columns}
    return [frame.replace(columns={**more, **frame.columns}) for frame in frames]


def _write_frames(
    glass: Deformed, frames: Sequence[Structure], path: Path, overwrite: bool
) -> None:
    """Extended XYZ tells the strain in its header; a dump has frame numbers only."""
    if path.suffix != SUFFIXES["extxyz"]:
        write_structures(frames, path, overwrite)
        return
    facts = [
        {"direction": glass.direction.name, "strain": f"{glass.rows[frame.step].strain:.10g}"}
        for frame in glass.frames
    ]
    with atomic_path(path, overwrite) as temporary, temporary.open("wb") as file:
        extxyz.write(frames, file, facts)


def _curve_rows(deformed: Sequence[Deformed]) -> list[list[object]]:
    return [
        [
            glass.start.name,
            glass.direction.name,
            row.strain,
            *(GPA * x for x in row.stress),
            *row[1:2],
            *row[3:],
        ]
        for glass in deformed
        for row in glass.rows
    ]


def _write_table(
    path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]], overwrite: bool
) -> None:
    with atomic_path(path, overwrite) as temporary, temporary.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(columns)
        for row in rows:
            table.writerow(f"{x:.10g}" if isinstance(x, float) else x for x in row)


def _summary(glass: Deformed, frames: Sequence[Structure]) -> StrainedGlass:
    resists = COMPONENTS.index("".join("xyz"[i] for i in glass.direction.component))
    strain = [row.strain for row in glass.rows]
    stress = [GPA * (row.stress[resists] - glass.rows[0].stress[resists]) for row in glass.rows]
    highest = max(range(len(stress)), key=lambda k: abs(stress[k]))
    return StrainedGlass(
        glass.start.name,
        glass.direction.name,
        strain[-1],
        stress[1] / strain[1],
        stress[highest],
        strain[highest],
        float(frames[-1].columns["d2min"].values.mean()),
        all(row.converged for row in glass.rows),
    )
