"""Predictions for structure files: written beside what the files hold, and scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mgsym.data_tools.formats.label_table import atom_table
from mgsym.data_tools.workflows.graphs import labelled_structure, read_systems
from mgsym.data_tools.workflows.model_inputs import (
    Potential,
    graph_for,
    physical_names,
    physics_warning,
)
from mgsym.data_tools.workflows.outputs import output_paths, write_all
from mgsym.data_tools.workflows.unfinished_predictions import UnfinishedPrediction
from mgsym.errors import InputError, Interrupted, UsageError
from mgsym.evaluation.label_noise import label_noise
from mgsym.evaluation.metrics import SplitScores, score_graphs
from mgsym.graph import Graph, match_species
from mgsym.graph.operations import as_graph, narrowed
from mgsym.models.base import Invariance
from mgsym.prediction import (
    Prediction,
    RotationSpread,
    barrier_std,
    features_of,
    load_ensemble,
    predict_with_spread,
    rotation_spread,
)
from mgsym.prediction.ensemble import Ensemble
from mgsym.rendering.figures import check_figure, parity_figure
from mgsym.structure import Structure
from mgsym.structure.columns import BARRIER, DISTANCE, PREDICTED, STD
from mgsym.uncertainty.calibration import Calibration
from mgsym.uncertainty.error_features import Features
from mgsym.uncertainty.out_of_distribution import OODReport, ood_report
from mgsym.uncertainty.reliability import Reliability, reliability
from mgsym.utils import processes
from mgsym.utils.files import lock_output
from mgsym.utils.progress import Progress, part, silent


@dataclass(frozen=True)
class PredictionSummary:
    """What was predicted for one structure.

    Attributes:
        name: of the structure.
        atoms: how many.
        mean, sd, lowest, highest: of the predicted barriers over its atoms, eV.
        models: how many were averaged.
        error: root mean square of barrier_predicted_std, eV; None where there is none.
        error_lowest, error_highest: of it over the atoms, eV; None where there is none.
        calibrated: whether that is the standard deviation of the true barrier, or only the spread
            between the models.
        distance, distance_95: of the surroundings from the training atoms', median and 95 % of
            the atoms; 1 is usual (mgsym.uncertainty.out_of_distribution). None where the model does
            not tell.
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
    error: float | None
    error_lowest: float | None
    error_highest: float | None
    calibrated: bool
    distance: float | None
    distance_95: float | None
    path: Path
    warnings: tuple[str, ...]


class _Predicted(NamedTuple):
    """One structure's prediction, with how it compares with the training structures."""

    prediction: Prediction
    ood: OODReport
    summary: PredictionSummary


def predict_files(
    files: Sequence[str | Path],
    run: str | Path,
    out: str | Path,
    types: Mapping[int, str] | None = None,
    frames: str | None = None,
    *,
    potential: Potential = None,
    device: str | torch.device = "auto",
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[PredictionSummary]:
    """Predict every atom's barrier and write the structures with it.

    Of a graph, its atoms and labels are written.

    Each gets the column ``barrier_predicted`` (eV); of several models or a calibrated one,
    ``barrier_predicted_std`` (eV; of the true barrier where it is calibrated, else the spread
    between the models); and where the model tells, ``training_distance`` (1 is usual). The columns
    it had are kept.

    Where torchrun started several processes, each predicts some of the structures, and the first
    writes them all. One structure is not shared: what is prepared of the whole is half of the work,
    and each process would do it.

    Args:
        files: structure files of any known format, graph files, or folders of graph files.
        run: a run, a folder of seeds (their mean), a checkpoint or an ensemble.
        out: a file, whose suffix chooses the format, for one input file; else a folder, in which
            each structure becomes ``<name>.extxyz``.
        types: element of each type number, for files that have numbers only.
        frames: which frames of each file; None takes the last one.
        potential: for models with physical inputs, which are computed with it.
        device: ``auto``, ``cpu`` or ``cuda``.
        overwrite: replace existing files.
        resume: go on where an earlier call was stopped in a large structure.
        progress: called with the number of structures done (or parts of one) and in all.
        should_stop: asked now and then; when it says yes, what is known of a large structure is
            kept and `Interrupted` raised.

    Raises:
        InputError: a file or the run is missing or damaged, or has an unknown element; a model
            needs a potential.
        Interrupted: `should_stop` said so.
        UsageError: `out` exists, or is one file for several inputs.
    """
    first = processes.rank() == 0
    with processes.joined(), lock_output(out) if first else nullcontext():
        ensemble = load_ensemble(run, processes.own_device(device))
        systems = read_systems(files, types, frames)
        _check_processes(len(systems))
        structures = [
            system if isinstance(system, Structure) else labelled_structure(system)
            for system in systems
        ]
        paths = output_paths(Path(out), structures, len(files), overwrite)
        own: dict[int, _Predicted] = {}
        kept = []
        for i in processes.taken(len(systems), "structures"):
            step = _stoppable(part(progress, i, len(systems)), should_stop)
            graph = graph_for(systems[i], ensemble, potential, device, step)
            kept.append(UnfinishedPrediction(paths[i], graph, ensemble, resume))
            own[i] = _predicted(structures[i], graph, ensemble, kept[-1], step, should_stop)
            if progress is not None:
                progress(i + 1, len(systems))
        every: dict[int, _Predicted] = {}
        for others in processes.gathered(own):
            every |= others
        if first:
            write_all(
                [_with_prediction(s, every[i], ensemble) for i, s in enumerate(structures)],
                paths,
                overwrite,
            )
        processes.barrier()
        for unfinished in kept:
            unfinished.remove()
        return [every[i].summary for i in sorted(every)]


def _check_processes(structures: int) -> None:
    if processes.count() > max(1, structures):
        raise UsageError(
            f"{processes.count()} processes, but {structures} structures: start {structures} at "
            "most, since one structure is not shared (more threads, OMP_NUM_THREADS, help it)"
        )


def _predicted(
    structure: Structure,
    graph: Graph,
    ensemble: Ensemble,
    kept: UnfinishedPrediction,
    step: Progress,
    should_stop: Callable[[], bool] | None,
) -> _Predicted:
    """Predict one structure, and keep what is known of it when that is stopped."""
    if physical_names(ensemble):  # computing them was nearly all the work
        step = _stoppable(None, should_stop)
    try:
        (prediction,) = predict_with_spread([graph], ensemble, progress=step, saved=kept)
    except Interrupted:
        kept.write()
        raise
    ood = ood_report(graph, ensemble.training_set)
    prediction = prediction._replace(std=barrier_std(prediction, graph, ensemble))
    warnings = (*ood.warnings, *physics_warning(graph, ensemble))
    return _Predicted(
        prediction, ood, _summary(structure, prediction, ood, ensemble, kept.output, warnings)
    )


def _stoppable(progress: Progress | None, should_stop: Callable[[], bool] | None) -> Progress:
    """Progress that ends in Interrupted when somebody wants to stop."""
    whole = progress or silent

    def tell(done: float, total: float | None = None, **info: object) -> None:
        whole(done, total, **info)
        if should_stop is not None and should_stop():
            raise Interrupted("prediction was interrupted; go on with --resume added")

    return tell


def _tells_error(ensemble: Ensemble) -> bool:
    return len(ensemble) > 1 or ensemble.calibration is not None


@dataclass(frozen=True)
class Evaluation:
    """How a run does on labelled structures; `reliability` is None where no error is predicted."""

    scores: SplitScores
    reliability: Reliability | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the scores, and ``calibration``."""
        honest = None if self.reliability is None else self.reliability.as_dict()
        return {**self.scores.as_dict(), "calibration": honest}


def evaluate_files(
    paths: Sequence[str | Path],
    run: str | Path,
    types: Mapping[int, str] | None = None,
    frames: str | None = None,
    labels: str | Path | None = None,
    *,
    noise: float | None = None,
    potential: Potential = None,
    figure: str | Path | None = None,
    overwrite: bool = False,
    device: str | torch.device = "auto",
    progress: Progress | None = None,
) -> Evaluation:
    """Score a run on labelled structures or graphs.

    Args:
        paths: structure files, graph files, or folders of graph files.
        run: a run, a folder of seeds (their mean is scored), a checkpoint or an ensemble.
        types, frames, potential: as for `predict_files`.
        labels: a table of labels per atom id, for structures without.
        noise: eV, standard error of the labels; see `mgsym.uncertainty.reliability`. The
            ceiling takes it too, else the labels' own, else that of a glass labelled twice
            (mgsym.evaluation.label_noise).
        figure: a picture of predictions against labels to write, too.
        overwrite: replace an existing figure.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: called with the number of structures done and in all.

    Raises:
        InputError: a file or the run is missing or damaged, or no atom has a label.
    """
    if figure is not None:
        check_figure(figure, overwrite)
    ensemble = load_ensemble(run, device)
    systems = _labelled_systems(paths, types, frames, labels)
    graphs, predictions = [], []
    for i, system in enumerate(systems):
        step = part(progress, i, len(systems))
        graphs.append(graph_for(system, ensemble, potential, device, step))
        predictions += predict_with_spread(graphs[-1:], ensemble)
        if progress is not None:
            progress(i + 1, len(systems))
    features = [features_of(*pair, ensemble) for pair in zip(predictions, graphs, strict=True)]
    return _evaluation(predictions, graphs, ensemble.calibration, noise, figure, features)


def evaluate_tables(
    tables: Sequence[str | Path],
    paths: Sequence[str | Path],
    types: Mapping[int, str] | None = None,
    frames: str | None = None,
    labels: str | Path | None = None,
    *,
    noise: float | None = None,
    figure: str | Path | None = None,
    overwrite: bool = False,
) -> Evaluation:
    """Score tables of predictions, whoever made them, on labelled structures or graphs.

    Args:
        tables: CSV files with the columns ``id`` and ``barrier_predicted`` or ``barrier`` (eV),
            one for each structure and in the same order. A column ``…_std`` beside it is the
            predicted standard deviation of the true barrier, and is put to the proof.
        paths, types, frames, labels, noise, figure, overwrite: as for `evaluate_files`.

    Raises:
        InputError: a file is missing or damaged, a table does not fit its structure or lacks a
            labelled atom, or no atom has a label.
        UsageError: there are not as many tables as structures, or the figure exists.
    """
    if figure is not None:
        check_figure(figure, overwrite)
    systems = _labelled_systems(paths, types, frames, labels)
    if len(tables) != len(systems):
        raise UsageError(
            f"tables of predictions: {len(tables)}, structures: {len(systems)}; give one table "
            "for each structure, in the same order"
        )
    graphs = [as_graph(system, cutoff=5.0) for system in systems]  # edges are of no account
    predictions = [_table_prediction(*pair) for pair in zip(tables, graphs, strict=True)]
    has_error = any(bool((prediction.std > 0).any()) for prediction in predictions)
    return _evaluation(predictions, graphs, Calibration() if has_error else None, noise, figure)


def _labelled_systems(
    paths: Sequence[str | Path],
    types: Mapping[int, str] | None,
    frames: str | None,
    labels: str | Path | None,
) -> list[Structure | Graph]:
    systems = read_systems(paths, types, frames, labels)
    if not any(map(_has_labels, systems)):
        raise InputError(
            "no atom has a label to score against: give files with a column barrier (eV), or "
            "--labels TABLE"
        )
    return systems


def _table_prediction(table: str | Path, graph: Graph) -> Prediction:
    """What a table predicts for the atoms of one structure; std is 0 where it tells none."""
    columns = atom_table(table, graph.ids, (PREDICTED, BARRIER), "std")
    mean, *error = (column.float() for column in columns.values())
    missing = graph.ids[graph.labelled & mean.isnan()].tolist()
    if missing:
        raise InputError(
            f"no prediction for {len(missing)} labelled atoms of {graph.names[0]}, the first has "
            f"id {missing[0]}: the table must have them all",
            path=Path(table),
        )
    return Prediction(mean, error[0].nan_to_num() if error else torch.zeros_like(mean))


def _evaluation(
    predictions: Sequence[Prediction],
    graphs: list[Graph],
    calibration: Calibration | None,
    noise: float | None,
    figure: str | Path | None,
    features: Sequence[Features] | None = None,
) -> Evaluation:
    """Scores of one prediction per structure, with the ceiling that the labels' noise sets."""
    graphs = _distinct(graphs)
    means, spreads = [p.mean for p in predictions], [p.std for p in predictions]
    if figure is not None:
        parity_figure(means, graphs, figure)
    measured = reliability(means, spreads, graphs, calibration, noise, features)
    error = label_noise(graphs) if noise is None else noise
    if error is not None:
        graphs = [g.replace(target_stderr=torch.full_like(g.target, error)) for g in graphs]
    return Evaluation(score_graphs(means, graphs), measured)


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
        run: a run, a folder of seeds, a checkpoint or an ensemble.
        paths: structure files, graph files, or folders of graph files.
        count: random transforms, at least 2.
        seed: of the transforms; the same for each model and structure.
        types: element of each type number, for files that have numbers only.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: called with the number of checks done and in all.
    """
    ensemble = load_ensemble(run, device)
    systems = read_systems(paths, types)
    total = len(ensemble) * len(systems)
    checks = []
    for member in ensemble.members:
        model = member.model
        for system in systems:
            graph = narrowed(as_graph(system, model.cutoff), model.cutoff)
            graph = match_species(graph, model.species)
            spread = rotation_spread(model, graph, count, torch.Generator().manual_seed(seed))
            checks.append(RotationCheck(member.name, graph.names[0], model.invariant, spread))
            if progress is not None:
                progress(len(checks), total)
    return checks


def _with_prediction(structure: Structure, predicted: _Predicted, ensemble: Ensemble) -> Structure:
    prediction, distance = predicted.prediction, predicted.ood.distance
    structure = structure.with_column(PREDICTED, prediction.mean, "eV")
    if _tells_error(ensemble):
        structure = structure.with_column(PREDICTED + STD, prediction.std, "eV")
    if distance is not None:
        structure = structure.with_column(DISTANCE, distance)
    return structure


def _summary(
    structure: Structure,
    prediction: Prediction,
    ood: OODReport,
    ensemble: Ensemble,
    path: Path,
    warnings: tuple[str, ...],
) -> PredictionSummary:
    values = prediction.mean.double()
    error = _tells_error(ensemble)
    return PredictionSummary(
        name=structure.name,
        atoms=len(structure),
        mean=float(values.mean()),
        sd=float(values.std(correction=0)),
        lowest=float(values.min()),
        highest=float(values.max()),
        models=len(ensemble),
        error=float(prediction.std.double().square().mean().sqrt()) if error else None,
        error_lowest=float(prediction.std.min()) if error else None,
        error_highest=float(prediction.std.max()) if error else None,
        calibrated=ensemble.calibration is not None,
        distance=ood.median,
        distance_95=ood.upper,
        path=path,
        warnings=warnings,
    )


def _has_labels(system: Structure | Graph) -> bool:
    if isinstance(system, Graph):
        return bool(system.labelled.any())
    column = system.columns.get(BARRIER)
    return column is not None and not bool(column.values.isnan().all())


def _distinct(graphs: list[Graph]) -> list[Graph]:
    """Structures of one name get a number, so that none hides another in a table."""
    names = [g.names[0] for g in graphs]
    return [
        g.replace(names=(f"{name} ({names[: i + 1].count(name)})",)) if names.count(name) > 1 else g
        for i, (g, name) in enumerate(zip(graphs, names, strict=True))
    ]
