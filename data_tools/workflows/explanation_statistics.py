"""Explain many atoms of a structure file, and keep the statistics of their edges."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from mgsym.data_tools.sample import sample_structures
from mgsym.data_tools.workflows.attribution import find_references
from mgsym.data_tools.workflows.explanation_files import write_rows
from mgsym.data_tools.workflows.explanation_target import (
    ExplainedSystem,
    Method,
    explained_system,
)
from mgsym.data_tools.workflows.graphs import read_systems
from mgsym.data_tools.workflows.model_inputs import Potential
from mgsym.errors import UsageError
from mgsym.explanation import explain_nodes
from mgsym.explanation.computation_graph import check_node
from mgsym.explanation.controls import shuffled_weights
from mgsym.explanation.faithfulness import Faithfulness, evaluate_explanations
from mgsym.explanation.neighbour_statistics import NeighbourStatistics, neighbour_statistics
from mgsym.explanation.statistics import EdgeStatistics, Effect, edge_statistics, node_groups
from mgsym.graph import Graph
from mgsym.graph.operations import as_graph
from mgsym.rendering.explanation_figures import (
    curves_figure,
    neighbours_figure,
    statistics_figure,
)
from mgsym.rendering.figures import check_figure
from mgsym.uncertainty.out_of_distribution import ood_report
from mgsym.utils.files import atomic_path, refuse_existing
from mgsym.utils.names import file_in

EFFECT_COLUMNS = tuple(field.name for field in fields(Effect))


@dataclass(frozen=True)
class ExplainedAtoms:
    """What `explain_statistics` found and wrote.

    Attributes:
        statistics: of the selected edges against nulls.
        neighbours: of what neighbours add to the whole prediction; None where that is not known.
        faithfulness: what the explanations are worth, if that was asked for.
        paths: the files written.
        notes: what was chosen for the caller.
        warnings: why it may not be trusted.
    """

    statistics: EdgeStatistics
    neighbours: NeighbourStatistics | None
    faithfulness: Faithfulness | None
    paths: tuple[Path, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = self.statistics.to_dict()
        if self.neighbours is not None:
            found["neighbours"] = self.neighbours.to_dict()
        if self.faithfulness is not None:
            # "proof" is the old name, for one more release
            found["faithfulness"] = found["proof"] = self.faithfulness.to_dict()
        return found


def explain_statistics(
    run: str | Path,
    path: str | Path | None = None,
    *,
    nodes: int | Sequence[int] = 30,
    method: Method | None = None,
    faithfulness: bool = False,
    figures: bool = True,
    out: str | Path | None = None,
    overwrite: bool = False,
    types: Mapping[int, str] | None = None,
    potential: Potential = None,
) -> ExplainedAtoms:
    """Explain many atoms, compare their edges with matched ones, and write what was found.

    Args:
        run, path, types, potential: as for `explained_system`.
        nodes: which rows, or how many.
        method: how they are explained.
        faithfulness: whether to measure what the explanations are worth, too.
        figures: whether to draw.
        out: folder; by default ``explanations/<structure>-statistics`` in the run directory.
        overwrite: replace existing files.

    Raises:
        UsageError: no such atoms, method or setting, or output exists.
        InputError: a file or the run is missing or damaged.
    """
    method = method or Method()
    system = explained_system(run, path, types=types, potential=potential)
    graph, model = system.graph, system.model
    if not isinstance(nodes, int):
        for node in nodes:
            check_node(graph, node)
    name = graph.names[0] or "structure"
    home = system.home / "explanations"
    folder = file_in(home, name, "-statistics") if out is None else Path(out)
    paths = _outputs(folder, figures, faithfulness, overwrite)
    asked: dict[str, Any] = {
        "device": method.device, "seed": method.seed, "progress": method.progress,
        "directed": method.directed,
        **method.all_settings(),
    }  # fmt: skip
    groups = node_groups(model, graph, nodes)
    every = [node for group in groups.values() for node in group]
    made = list(explain_nodes(graph, model, every, method.name, **asked))
    theirs = None
    if faithfulness:
        other = shuffled_weights(model, torch.Generator().manual_seed(method.seed))
        theirs = list(explain_nodes(graph, other, every, method.name, **asked))
    given = {"k": method.topk, "explanations": made, **asked}
    found = edge_statistics(graph, model, nodes, method.name, shuffled=theirs, **given)
    worth = None
    if theirs is not None:
        worth = evaluate_explanations(graph, model, every, method.name, shuffled=theirs, **given)
    neighbours, notes, kept = _neighbours(system, groups, method, faithfulness)
    if neighbours is None:
        paths = {what: file for what, file in paths.items() if file.stem != "neighbours"}
    result = ExplainedAtoms(
        found,
        neighbours,
        worth,
        (*paths.values(), *kept),
        (*system.notes, *notes),
        (*system.warnings, *ood_report(graph, system.training_set).warnings),
    )
    _write(result, paths)
    return result


def _neighbours(
    system: ExplainedSystem, groups: Mapping[str, Sequence[int]], method: Method, shuffled: bool
) -> tuple[NeighbourStatistics | None, tuple[str, ...], list[Path]]:
    """Statistics of neighbours; notes, and the files written for them."""
    try:
        known = find_references(system, None, method.progress, models=1)
    except UsageError as error:
        return None, (f"What neighbours add to the prediction is not known: {error}",), []
    found = neighbour_statistics(
        system.model, system.graph, groups, known.references[0], shuffled=shuffled,
        seed=method.seed, progress=method.progress,
    )  # fmt: skip
    written = [] if known.path is None else [known.path]
    return found, (*known.notes, *found.missing), written


def planted_graph(
    path: str | Path | None, cutoff: float, types: Mapping[int, str] | None = None
) -> Graph:
    """The structure on which the planted benchmark runs: a file's, or the sample's for testing.

    Raises:
        UsageError: the file holds several structures.
    """
    if path is None:
        return as_graph(next(s for s in sample_structures() if s.split == "test"), cutoff)
    systems = read_systems([Path(path)], types)
    if len(systems) > 1:
        raise UsageError(f"{path} holds {len(systems)} structures: name the file of one")
    return as_graph(systems[0], cutoff)


def _outputs(folder: Path, figures: bool, faithfulness: bool, overwrite: bool) -> dict[str, Path]:
    """The files to write by what they hold, none of which exists, or may be replaced."""
    names = {"json": "statistics.json", "csv": "statistics.csv", "neighbours": "neighbours.csv"}
    if figures:
        names |= {"figure": "statistics.png", "profile": "neighbours.png"}
    if figures and faithfulness:
        names["curves"] = "curves.png"
    return {
        what: (check_figure if name.endswith(".png") else refuse_existing)(folder / name, overwrite)
        for what, name in names.items()
    }


def _write(found: ExplainedAtoms, paths: Mapping[str, Path]) -> None:
    with atomic_path(paths["json"]) as temporary:
        temporary.write_text(json.dumps(found.to_dict(), indent=1) + "\n", encoding="utf-8")
    write_rows(paths["csv"], found.statistics.table(), EFFECT_COLUMNS)
    if found.neighbours is not None:
        write_rows(paths["neighbours"], found.neighbours.table(), EFFECT_COLUMNS)
    if "figure" in paths:
        statistics_figure(found.statistics, paths["figure"])
    if "profile" in paths and found.neighbours is not None:
        neighbours_figure(found.neighbours, paths["profile"])
    if "curves" in paths and found.faithfulness is not None:
        curves_figure(found.faithfulness.nodes, paths["curves"])
