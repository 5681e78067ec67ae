"""Predictions refined by searches in the structure itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mgsym.data_tools.formats import read_frames, write
from mgsym.data_tools.simulation.labelling.barriers import Labels, SearchRun, label
from mgsym.data_tools.simulation.labelling.schedule import Plan
from mgsym.data_tools.simulation.labelling.selection import parse_rows
from mgsym.data_tools.simulation.potentials.eam import EAM
from mgsym.data_tools.simulation.potentials.files import load_potential
from mgsym.data_tools.simulation.saddle_search.settings import ArtnSettings
from mgsym.data_tools.workflows.graphs import is_graph_file
from mgsym.data_tools.workflows.labelling import artn_settings, events_path
from mgsym.data_tools.workflows.outputs import output_paths
from mgsym.data_tools.workflows.posterior import (
    PredictiveDistribution,
    observed_in,
    predict_with_error,
    share_of,
)
from mgsym.errors import UsageError
from mgsym.structure import Structure
from mgsym.structure.columns import MODEL, PREDICTED, STD
from mgsym.uncertainty.posterior import Posterior
from mgsym.utils import processes
from mgsym.utils.devices import device_for_jobs, resolve_device
from mgsym.utils.files import holds_output, refuse_existing


@dataclass(frozen=True, eq=False)
class Refined:
    """What came out and where it is.

    Attributes:
        structure: with the columns barrier_predicted and its std (eV), barrier_model and its std
            (eV, the prediction alone), and those of the searches.
        searched: atoms with at least one successful search.
        error_before, error_after: root mean square of the standard deviations, eV.
        moved: root mean square change of the prediction, eV.
        labels: of the searches; None where the file had them.
        paths: the files written.
        warnings: what the user should know, a line each.
    """

    structure: Structure
    searched: int
    error_before: float
    error_after: float
    moved: float
    labels: Labels | None
    paths: tuple[Path, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON; energies in eV."""
        return {
            "name": self.structure.name,
            "atoms": len(self.structure),
            "searched": self.searched,
            "error_before": self.error_before,
            "error_after": self.error_after,
            "moved": self.moved,
            "labels": None if self.labels is None else self.labels.to_dict(),
            "files": self.paths,
            "warnings": self.warnings,
        }


@holds_output("out")
def refine_file(
    file: str | Path,
    run: str | Path,
    out: str | Path,
    searches: int,
    potential: EAM | Path | None = None,
    settings: ArtnSettings | None = None,
    *,
    share: float | None = None,
    atoms: str | None = None,
    scale: float = 1.0,
    shift: float = 0.0,
    events: str | Path | None = None,
    types: Mapping[int, str] | None = None,
    frames: str | None = None,
    search_run: SearchRun | None = None,
) -> Refined:
    """Predict a structure, search from its atoms, and combine both (mgsym.uncertainty.posterior).

    Args:
        file: a structure at a minimum of the potential.
        run: a run, a folder of seeds, a checkpoint or an ensemble.
        out: a file, whose suffix chooses the format, or a folder for ``<name>.extxyz``.
        searches: from each atom; 0 makes none and takes the columns barrier, barrier_stderr and
            events that the file has.
        potential: of the searches, and of physical inputs that the model takes; without searches
            its file will do, or None.
        settings: of the search.
        share: of the atoms, those least certain; None takes all.
        atoms: which rows instead, as `selection.parse_rows` reads them.
        scale, shift: what turns a barrier of these searches into one of the labels that the model
            learned: scale times it, plus shift in eV.
        events: where the searches go; default: ``<out without suffix>.events.csv``.
        types, frames: as `formats.read_frames` takes them.
        search_run: how the searches go; by default on any device. Where they resume, an older
            `out` is replaced; the device is the model's, too, and with several jobs, ``auto`` means
            the CPU for searches.

    Raises:
        UsageError: an output exists, or an option makes no sense.
        InputError: a file is wrong, the structure not at a minimum, or the error not known.
        Interrupted: the searches were stopped; the message tells how to go on.
    """
    if processes.count() > 1:
        raise UsageError("--refine takes one process, and --jobs: start it without torchrun")
    _check(searches, share, atoms)
    search_run = search_run or SearchRun(device="auto")
    _refuse_graphs(Path(file))
    structures = read_frames(file, types, frames or "-1")
    if len(structures) != 1:
        raise UsageError(f"one structure is refined at a time, --frames chose {len(structures)}")
    structure = structures[0]
    (out,) = output_paths(Path(out), structures, 1, search_run.overwrite or search_run.resume)
    place = str(resolve_device(search_run.device))
    searched_on = str(device_for_jobs(search_run.device, search_run.jobs))
    distribution = predict_with_error(structure, run, potential, place)
    if searches == 0:
        return _combined(distribution, structure, out, None, (out,), scale, shift)
    path = Path(events) if events is not None else events_path(out)
    if not search_run.resume:
        refuse_existing(path, search_run.overwrite)
    if not isinstance(potential, EAM):
        potential = load_potential(potential)
    labels = label(
        structure, potential, path, settings or artn_settings(), plan=Plan(searches),
        rows=_rows(distribution, searches, share, atoms, search_run.seed),
        run=replace(search_run, device=searched_on),
    )  # fmt: skip
    return _combined(distribution, labels.structure, out, labels, (out, path), scale, shift)


def _refuse_graphs(file: Path) -> None:
    """Searches move atoms, and a graph is made for the places they had."""
    if file.is_dir() or is_graph_file(file):
        raise UsageError(
            f"{file} holds graphs, but --refine searches in a structure: name the structure's file"
        )


def _check(searches: int, share: float | None, atoms: str | None) -> None:
    if share is not None and atoms is not None:
        raise UsageError("--share and --atoms both choose atoms: give one of them")
    if searches < 0:
        raise UsageError(f"{searches} searches an atom, expected at least 0")
    if searches == 0 and (share is not None or atoms is not None):
        raise UsageError("--refine 0 searches from no atom: leave out --share and --atoms")


def _rows(
    distribution: PredictiveDistribution,
    searches: int,
    share: float | None,
    atoms: str | None,
    seed: int,
) -> list[int]:
    count = len(distribution.structure)
    if share is not None:
        return sorted(distribution.least_certain(share_of(count, share), searches).tolist())
    return parse_rows(atoms or "all", count, seed)


def _combined(
    distribution: PredictiveDistribution,
    labelled: Structure,
    out: Path,
    labels: Labels | None,
    paths: tuple[Path, ...],
    scale: float,
    shift: float,
) -> Refined:
    """Fuse and write."""
    observed = observed_in(labelled, scale, shift)
    posterior = distribution.posterior(observed)
    structure = _with_columns(labelled, distribution, posterior)
    write(structure, out, overwrite=True)
    return Refined(
        structure,
        len(observed.rows),
        float(distribution.std.double().square().mean().sqrt()),
        float(posterior.std.square().mean().sqrt()),
        float((posterior.mean - distribution.mean).square().mean().sqrt()),
        labels,
        paths,
        (*distribution.warnings, *(() if labels is None else labels.warnings)),
    )


def _with_columns(
    structure: Structure, distribution: PredictiveDistribution, posterior: Posterior
) -> Structure:
    for name, mean, std in ((PREDICTED, *posterior), (MODEL, distribution.mean, distribution.std)):
        structure = structure.with_column(name, mean.float(), "eV")
        structure = structure.with_column(name + STD, std.float(), "eV")
    return structure
