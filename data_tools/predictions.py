"""Predictions for structure files: written beside what the files hold, and scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mgsym.checkpoint import load_checkpoint
from mgsym.data_tools.graphs import read_structures, read_systems
from mgsym.data_tools.outputs import output_paths, write_all
from mgsym.errors import InputError
from mgsym.figures import check_figure, parity_figure
from mgsym.graph import Graph, build_graph, match_species
from mgsym.metrics import SplitScores, score_graphs
from mgsym.models import Invariance
from mgsym.prediction import (
    Prediction,
    RotationSpread,
    as_graph,
    familiarity_warnings,
    load_models,
    predict_with_spread,
    rotation_spread,
)
from mgsym.runs import run_checkpoints
from mgsym.structure import Structure

PREDICTED = "barrier_predicted"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PredictionSummary:
    """What was predicted for one structure.

    Attributes:
        name: of the structure.
        atoms: how many.
        mean, sd, lowest, highest: of the predicted barriers over its atoms, eV.
        models: how many were averaged.
        path: where they were written.
        warnings: how it differs from the training structures.
    """

    name: str
    atoms: int
    mean: float
    sd: float
    lowest: float
    highest: float
    models: int
    path: Path
    warnings: tuple[str, ...]


def predict_files(
    files: Sequence[str | Path],
    run: str | Path,
    out: str | Path,
    types: Mapping[int, str] | None = None,
    frames: str | None = None,
    *,
    device: str | torch.device = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[PredictionSummary]:
    """Predict every atom's barrier and write the structures with it.

    Each gets the column ``barrier_predicted`` (eV) and, of several models,
    ``barrier_predicted_std``; the columns it had are kept.

    Args:
        files: structure files of any known format.
        run: a run, a folder of seeds (their mean), or a checkpoint.
        out: a file, whose suffix chooses the format, for one input file; else a folder, in which
            each structure becomes ``<name>.extxyz``.
        types: element of each type number, for files that have numbers only.
        frames: which frames of each file; None takes the last one.
        device: ``auto``, ``cpu`` or ``cuda``.
        overwrite: replace existing files.
        progress: called with the number of structures done and in all.

    Raises:
        InputError: a file or the run is missing or damaged, or has an unknown element.
        UsageError: `out` exists, or is one file for several inputs.
    """
    checkpoints = run_checkpoints(run)
    models = load_models(run, device)
    structures = read_structures(files, types, frames)
    paths = output_paths(Path(out), structures, len(files), overwrite)
    metadata = load_checkpoint(checkpoints[0])[1]
    predicted, summaries = [], []
    for i, structure in enumerate(structures):
        graph = build_graph(structure, metadata.cutoff)
        (found,) = predict_with_spread([graph], models)
        predicted.append(_with_prediction(structure, found, len(models)))
        warnings = tuple(familiarity_warnings(graph, metadata))
        summaries.append(_summary(structure, found, len(models), paths[i], warnings))
        if progress is not None:
            progress(i + 1, len(structures))
    write_all(predicted, paths, overwrite)
    return summaries


def evaluate_files(
    paths: Sequence[str | Path],
    run: str | Path,
    types: Mapping[int, str] | None = None,
    frames: str | None = None,
    labels: str | Path | None = None,
    *,
    figure: str | Path | None = None,
    overwrite: bool = False,
    device: str | torch.device = "auto",
    progress: Progress | None = None,
) -> SplitScores:
    """Score a run on labelled structures or graphs.

    Args:
        paths: structure files, graph files, or folders of graph files.
        run: a run, a folder of seeds (their mean is scored), or a checkpoint.
        types, frames: as for `predict_files`.
        labels: a table of labels per atom id, for structures without.
        figure: a picture of predictions against labels to write, too.
        overwrite: replace an existing figure.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: called with the number of structures done and in all.

    Raises:
        InputError: a file or the run is missing or damaged, or no atom has a label.
    """
    if figure is not None:
        check_figure(figure, overwrite)
    models = load_models(run, device)
    systems = read_systems(paths, types, frames, labels)
    graphs = _distinct([as_graph(system, models[0].cutoff) for system in systems])
    if not any(bool(g.labelled.any()) for g in graphs):
        raise InputError(
            "no atom has a label to score against: give files with a column barrier (eV), or "
            "--labels TABLE"
        )
    predictions = []
    for i, graph in enumerate(graphs):
        predictions.append(predict_with_spread([graph], models)[0].mean)
        if progress is not None:
            progress(i + 1, len(graphs))
    if figure is not None:
        parity_figure(predictions, graphs, figure)
    return score_graphs(predictions, graphs)


@dataclass(frozen=True)
class RotationCheck:
    """How far one model is from invariance on one structure; `declared` is what it claims."""

    model: str
    structure: str
    declared: Invariance
    spread: RotationSpread


def check_rotations(
    run: str | Path,
    paths: Sequence[str | Path],
    count: int = 16,
    seed: int = 0,
    types: Mapping[int, str] | None = None,
    *,
    device: str | torch.device = "auto",
    progress: Progress | None = None,
) -> list[RotationCheck]:
    """`mgsym.prediction.rotation_spread` of each model of a run on each structure.

    Args:
        run: a run, a folder of seeds, or a checkpoint.
        paths: structure files, graph files, or folders of graph files.
        count: random transforms, at least 2.
        seed: of the transforms; the same for each model and structure.
        types: element of each type number, for files that have numbers only.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: called with the number of checks done and in all.
    """
    names = [path.parent.name or str(path) for path in run_checkpoints(run)]
    models = load_models(run, device)
    systems = read_systems(paths, types)
    checks = []
    for name, model in zip(names, models, strict=True):
        for system in systems:
            graph = match_species(as_graph(system, model.cutoff), model.species)
            spread = rotation_spread(model, graph, count, torch.Generator().manual_seed(seed))
            checks.append(RotationCheck(name, graph.names[0], model.invariant, spread))
            if progress is not None:
                progress(len(checks), len(models) * len(systems))
    return checks


def _with_prediction(structure: Structure, found: Prediction, models: int) -> Structure:
    structure = structure.with_column(PREDICTED, found.mean, "eV")
    if models > 1:
        structure = structure.with_column(f"{PREDICTED}_std", found.std, "eV")
    return structure


def _summary(
    structure: Structure, found: Prediction, models: int, path: Path, warnings: tuple[str, ...]
) -> PredictionSummary:
    values = found.mean.double()
    return PredictionSummary(
        name=structure.name,
        atoms=len(structure),
        mean=float(values.mean()),
        sd=float(values.std(correction=0)),
        lowest=float(values.min()),
        highest=float(values.max()),
        models=models,
        path=path,
        warnings=warnings,
    )


def _distinct(graphs: list[Graph]) -> list[Graph]:
    """Structures of one name get a number, so that none hides another in a table."""
    names = [g.names[0] for g in graphs]
    return [
        g.replace(names=(f"{name} ({names[: i + 1].count(name)})",)) if names.count(name) > 1 else g
        for i, (g, name) in enumerate(zip(graphs, names, strict=True))
    ]
