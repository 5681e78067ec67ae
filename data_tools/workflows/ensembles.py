"""Runs into one predictor file, its spread calibrated on structures that trained none of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mgsym.data_tools.workflows.graphs import read_systems
from mgsym.data_tools.workflows.model_inputs import Potential, graph_for
from mgsym.prediction import calibrated
from mgsym.prediction.ensemble import Ensemble, Member, merge, read_ensemble, save_ensemble
from mgsym.uncertainty.calibration import Calibration
from mgsym.utils.files import holds_output, refuse_existing
from mgsym.utils.progress import Progress


@dataclass(frozen=True)
class MemberSummary:
    """One model of an ensemble: `weight` is its share, of all that add to 1."""

    name: str
    model: str
    weight: float
    parameters: int
    training: tuple[str, ...]


@dataclass(frozen=True)
class EnsembleSummary:
    """What an ensemble holds."""

    path: Path
    members: tuple[MemberSummary, ...]
    calibration: Calibration | None


@holds_output("out")
def merge_runs(
    runs: Sequence[str | Path],
    out: str | Path,
    weights: Sequence[float] | None = None,
    calibrate: Sequence[str | Path] = (),
    noise: float | None = None,
    *,
    types: Mapping[int, str] | None = None,
    potential: Potential = None,
    device: str | torch.device = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> EnsembleSummary:
    """Write the models of several runs as one ensemble file.

    Args:
        runs: runs, folders of seeds, checkpoints or ensembles.
        out: the file.
        weights: one for each run, shared by its models; None weighs all models alike.
        calibrate: labelled structures or graphs, or folders of graphs; each is predicted by the
            models that were not trained on it.
        noise: eV, standard error of their labels; None takes each label's own.
        types: element of each type number, for files that have numbers only.
        potential: for models with physical inputs.
        device: ``auto``, ``cpu`` or ``cuda``.
        overwrite: replace an existing file.
        progress: called with the number of structures done and in all.

    Raises:
        UsageError: `out` exists, or weights do not fit.
        InputError: a run is missing or damaged; a structure trained every model.
    """
    path = refuse_existing(Path(out), overwrite)
    ensemble = merge([read_ensemble(run) for run in runs], weights)
    ensemble = replace(ensemble, members=_distinct(ensemble.members))
    if calibrate:
        systems = read_systems(calibrate, types)
        graphs = [graph_for(system, ensemble, potential, device) for system in systems]
        fitted = calibrated(ensemble, graphs, noise, device, progress)
        ensemble = replace(ensemble, calibration=fitted.calibration)
    save_ensemble(path, ensemble, overwrite)
    return summarise_ensemble(ensemble, path)


def summarise_ensemble(ensemble: Ensemble, path: str | Path) -> EnsembleSummary:
    """What an ensemble holds, for tables."""
    total = sum(member.weight for member in ensemble.members)
    members = []
    for member in ensemble.members:
        metadata = member.metadata
        summary = MemberSummary(
            name=member.name,
            model="" if metadata is None else metadata.model.name,
            weight=member.weight / total,
            parameters=member.model.num_parameters,
            training=() if metadata is None else metadata.training_set.names,
        )
        members.append(summary)
    return EnsembleSummary(Path(path), tuple(members), ensemble.calibration)


def ensemble_summary(content: Mapping[str, Any]) -> EnsembleSummary:
    """The summary that `dataclasses.asdict` made a dict of; other keys are passed over."""
    kept = content["calibration"]
    return EnsembleSummary(
        Path(content["path"]),
        tuple(MemberSummary(**member) for member in content["members"]),
        None if kept is None else Calibration.from_dict(kept),
    )


def _distinct(members: Sequence[Member]) -> tuple[Member, ...]:
    """Models of one name get a number."""
    names = [member.name for member in members]
    return tuple(
        replace(member, name=f"{member.name} ({names[: i + 1].count(member.name)})")
        if names.count(member.name) > 1
        else member
        for i, member in enumerate(members)
    )
