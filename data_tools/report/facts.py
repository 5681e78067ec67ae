"""What a report says of a trained run: its record, its structures, predictions, explanations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mgsym.data_tools.formats.species import warn_unused_types
from mgsym.data_tools.sample import sample_structures
from mgsym.data_tools.shipped_model import shipped_model
from mgsym.data_tools.workflows.explanation_target import ROLES
from mgsym.data_tools.workflows.graphs import read_systems
from mgsym.data_tools.workflows.inspection import inspect
from mgsym.data_tools.workflows.model_inputs import Potential, graph_for, physics_warning
from mgsym.errors import InputError, UsageError
from mgsym.evaluation.metrics import Scores, SplitScores, score, score_graphs
from mgsym.evaluation.splits import refuse_equal_names
from mgsym.explanation import Explanation, explain_nodes, method_settings
from mgsym.explanation.faithfulness import Faithfulness, evaluate_explanations
from mgsym.explanation.statistics import EdgeStatistics, choose_nodes, edge_statistics
from mgsym.graph import Graph
from mgsym.graph.operations import graph_hash, narrowed
from mgsym.prediction import (
    Prediction,
    features_of,
    load_ensemble,
    predict_graph,
    predict_with_spread,
    rotated_predictions,
)
from mgsym.prediction.ensemble import Ensemble
from mgsym.structure import Structure
from mgsym.training.runs import run_checkpoints, run_graphs, run_home, run_seeds
from mgsym.uncertainty.out_of_distribution import OODReport, ood_report
from mgsym.uncertainty.reliability import Reliability, reliability
from mgsym.utils.progress import Progress, part, silent

HELD_OUT = "held out"  # of a model without a record: it did not train it, no more is known
SIZES, DRAWS = (5, 20, 50, 200), 2  # of the curves: fewer than explain-stats, which takes minutes
GROUPED = 3  # atoms from which there are groups of high, middle and low barriers


@dataclass(frozen=True)
class ReportSettings:
    """What a report is made with.

    Attributes:
        nodes: how many atoms are explained: from three on a third each of high, middle and low
            barriers; 0 explains none.
        topk: bonds of each explanation.
        method: which explainer.
        rotations: orientations in which a structure is predicted; at least 2.
        seed: of everything random.
    """

    nodes: int = 6
    topk: int = 50
    method: str = "weakening"
    rotations: int = 4
    seed: int = 0


@dataclass(frozen=True, eq=False)
class ReportedStructure:
    """One structure: `role` in the run, what is predicted, how it scores, how usual it is."""

    graph: Graph
    role: str
    prediction: Prediction
    scores: Scores
    ood: OODReport

    @property
    def name(self) -> str:
        return self.graph.names[0]


@dataclass(frozen=True, eq=False)
class ExplainedNodes:
    """Atoms of one structure explained.

    Attributes:
        graph: with the cutoff of the model that was explained.
        explanations: `topk` edges each, highest barriers first.
        faithfulness: what they are worth, in the same order.
        statistics: of their edges.
    """

    graph: Graph
    explanations: tuple[Explanation, ...]
    faithfulness: Faithfulness
    statistics: EdgeStatistics


@dataclass(frozen=True, eq=False)
class ReportFacts:
    """All that a report is drawn from.

    Attributes:
        run: as it was named.
        ensemble: the models.
        records: by the name of each run, what `workflows.inspection.inspect` tells; empty for
            a file whose run directory is not there.
        structures: test, validation and training structures, in this order.
        rotated: [orientations, n] eV, of the structure `shown`.
        explained: None where nothing was explained.
        settings: what it was made with.
        warnings: why something may not be trusted.
    """

    run: Path
    ensemble: Ensemble
    records: Mapping[str, Mapping[str, Any]]
    structures: tuple[ReportedStructure, ...]
    rotated: Tensor
    explained: ExplainedNodes | None
    settings: ReportSettings
    warnings: tuple[str, ...]

    @property
    def shown(self) -> ReportedStructure:
        """The structure that is mapped, rotated and explained: a test structure if there is one."""
        return self.structures[0]

    @property
    def roles(self) -> dict[str, list[ReportedStructure]]:
        """The structures by role."""
        roles: dict[str, list[ReportedStructure]] = {}
        for structure in self.structures:
            roles.setdefault(structure.role, []).append(structure)
        return roles

    def scores(self) -> dict[str, SplitScores]:
        """By role, of structures with labels."""
        scores = {}
        for role, several in self.roles.items():
            labelled = [s for s in several if s.scores.count]
            if labelled:
                graphs = [s.graph for s in labelled]
                scores[role] = score_graphs([s.prediction.mean for s in labelled], graphs)
        return scores

    def element_scores(self) -> dict[str, dict[str, Scores]]:
        """By role and element, over the atoms of that element in all structures of the role."""
        scores: dict[str, dict[str, Scores]] = {}
        for role, several in self.roles.items():
            symbols = dict.fromkeys(symbol for s in several for symbol in s.graph.species)
            parts = {symbol: _element(several, symbol) for symbol in symbols}
            scores[role] = {symbol: s for symbol, s in parts.items() if s.count}
        return {role: parts for role, parts in scores.items() if parts}

    def reliabilities(self) -> dict[str, Reliability]:
        """By role, of structures that did not train; none where no error is predicted."""
        reliabilities = {}
        for role, several in self.roles.items():
            means, spreads = zip(*(s.prediction for s in several), strict=True)
            graphs = [s.graph for s in several]
            features = [features_of(s.prediction, s.graph, self.ensemble) for s in several]
            fit = self.ensemble.calibration
            measured = reliability(means, spreads, graphs, fit, features=features)
            if measured is not None and role != "train":
                reliabilities[role] = measured
        return reliabilities


def gather(
    run: str | Path,
    paths: Sequence[str | Path] = (),
    settings: ReportSettings | None = None,
    *,
    types: Mapping[int, str] | None = None,
    potential: Potential = None,
    device: str | torch.device = "auto",
    progress: Progress | None = None,
) -> ReportFacts:
    """Predict the structures of a run, rotate one, explain some of its atoms.

    Args:
        run: a run, a folder of seeds, a checkpoint or an ensemble.
        paths: graph files, folders of them, or structure files, that hold the run's structures;
            none takes the folder ``graphs``, and the sample for the model that ships with mgsym.
        settings: what to make.
        types: element of each type number, for structure files that have numbers only.
        potential: for models with physical inputs, where structures are given.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: called with the steps done and in all.

    Raises:
        InputError: the run or its structures are missing or damaged.
        UsageError: so many atoms cannot be explained, or not by this method.
    """
    settings = settings or ReportSettings()
    method_settings(settings.method)  # refuses an unknown one before the work
    ensemble, records = load_ensemble(run, device), run_records(run)
    explains = settings.nodes > 0 and ensemble.models[0].uses_edges
    systems = _systems(run, paths, types)
    graphs = [graph_for(system, ensemble, potential, device) for system in systems]
    refuse_equal_names(graphs)
    chosen, warnings = _roles(Path(run), graphs, records, ensemble)
    if explains and settings.nodes > chosen[0][0].num_nodes:
        raise UsageError(
            f"asked for {settings.nodes} nodes, expected 0 … {chosen[0][0].num_nodes}, the atoms "
            f"of {chosen[0][0].names[0]}"
        )
    progress, last = progress or silent, settings.nodes + 1 if explains else 0
    steps = len(chosen) + 1 + last
    structures = []
    for done, (graph, role) in enumerate(chosen):
        (prediction,) = predict_with_spread([graph], ensemble)
        scores = score(prediction.mean, graph.target, graph.target_stderr)
        ood = ood_report(graph, ensemble.training_set)
        structures.append(ReportedStructure(graph, role, prediction, scores, ood))
        warnings += [*ood.warnings, *physics_warning(graph, ensemble)]
        progress(done + 1, steps)
    generator = torch.Generator().manual_seed(settings.seed)
    rotated = rotated_predictions(ensemble, chosen[0][0], settings.rotations, generator)
    progress(steps - last, steps)
    step = part(progress, steps - last, steps, size=last)
    explained = _explained(ensemble, chosen[0][0], settings, step) if explains else None
    return ReportFacts(
        Path(run), ensemble, records, tuple(structures), rotated, explained, settings,
        tuple(dict.fromkeys(warnings)),
    )  # fmt: skip


def run_records(run: str | Path) -> dict[str, dict[str, Any]]:
    """What the run directory of each model says, by its name; empty where there is none.

    Raises:
        InputError: one is damaged.
    """
    home = run_home(run)
    if home is None:
        return {}
    folders = [home] if (home / "run.json").exists() else []
    if not folders:
        seeds = run_seeds(home)
        folders = [home / f"seed{seed}" for seed in seeds] or [
            path.parent for path in run_checkpoints(home)
        ]
    return {
        folder.resolve().name: inspect(folder)
        for folder in folders
        if (folder / "run.json").exists()
    }


def _systems(
    run: str | Path, paths: Sequence[str | Path], types: Mapping[int, str] | None
) -> list[Structure | Graph]:
    if paths:
        return read_systems(paths, types)
    warn_unused_types(types, run)
    if Path(run) == shipped_model():
        return list(sample_structures())
    folder = run_graphs(run) or Path("graphs")
    if not folder.is_dir():
        raise InputError(
            f"no such folder: name the graphs of {run} with --graphs (a folder, or files of "
            "graphs or structures)",
            path=folder,
        )
    return read_systems([folder])


def _roles(
    run: Path,
    graphs: Sequence[Graph],
    records: Mapping[str, Mapping[str, Any]],
    ensemble: Ensemble,
) -> tuple[list[tuple[Graph, str]], list[str]]:
    """The run's structures with their roles, and warnings; all given ones without a record."""
    if not records:
        metadata = ensemble.metadata
        trained = metadata.training_set.names if metadata is not None else ()
        marked = [(g, "train" if g.names[0] in trained else HELD_OUT) for g in graphs]
        order = {"test": 0, "validation": 1}
        marked.sort(key=lambda pair: (pair[1] == "train", order.get(pair[0].splits[0], 2)))
        return marked, []
    record = next(iter(records.values()))
    by_name = {graph.names[0]: graph for graph in graphs}
    wanted = [(name, role) for role in ROLES for name in record.get("split", {}).get(role, ())]
    if missing := [name for name, _ in wanted if name not in by_name]:
        raise InputError(
            f"its structures {', '.join(missing)} are not among the {len(graphs)} given "
            f"({', '.join(by_name)}): name the graphs that it was trained on with --graphs",
            path=run,
        )
    hashes = record.get("graphs_sha256", {})
    changed = [name for name, _ in wanted if hashes.get(name) != graph_hash(by_name[name])]
    warnings = [f"{', '.join(changed)}: changed since the run {run}"] if changed else []
    return [(by_name[name], role) for name, role in wanted], warnings


def _explained(
    ensemble: Ensemble, graph: Graph, settings: ReportSettings, progress: Progress | None
) -> ExplainedNodes:
    """Of the first model. Each atom is explained once: faithfulness and statistics share it."""
    model, method, k = ensemble.models[0], settings.method, settings.topk
    progress = progress or silent
    graph = narrowed(graph, model.cutoff)
    groups = choose_nodes(predict_graph(model, graph), max(settings.nodes, GROUPED))
    nodes = [node for group in groups.values() for node in group][: settings.nodes]
    options: dict[str, Any] = {"budget": k} if "budget" in method_settings(method) else {}
    explanations = []
    for explanation in explain_nodes(graph, model, nodes, method, seed=settings.seed, **options):
        explanations.append(explanation)
        progress(len(explanations), len(nodes) + 1)
    same: dict[str, Any] = {"k": k, "draws": DRAWS, "seed": settings.seed}
    same["explanations"] = explanations
    worth = evaluate_explanations(graph, model, nodes, method, sizes=SIZES, shuffled=False, **same)
    which = settings.nodes if settings.nodes >= GROUPED else nodes
    statistics = edge_statistics(graph, model, which, method, **same)
    progress(1, 1)
    return ExplainedNodes(graph, tuple(e.topk(k) for e in explanations), worth, statistics)


def _element(several: Sequence[ReportedStructure], symbol: str) -> Scores:
    predicted, target = [], []
    for structure in several:
        if symbol in structure.graph.species:
            own = structure.graph.types == structure.graph.species.index(symbol)
            predicted.append(structure.prediction.mean[own])
            target.append(structure.graph.target[own])
    return score(torch.cat(predicted), torch.cat(target))
