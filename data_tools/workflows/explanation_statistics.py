"""Explain many atoms of a structure file, and keep the statistics of their edges."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgsym.data_tools.sample import sample_structures
from mgsym.data_tools.workflows.explanation_target import Method, explained_system
from mgsym.data_tools.workflows.graphs import read_systems
from mgsym.data_tools.workflows.model_inputs import Potential
from mgsym.errors import UsageError
from mgsym.explanation.computation_graph import check_node
from mgsym.explanation.faithfulness import Faithfulness, evaluate_explanations
from mgsym.explanation.statistics import EdgeStatistics, edge_statistics
from mgsym.graph import Graph
from mgsym.graph.operations import as_graph
from mgsym.rendering.explanation_figures import curves_figure, statistics_figure
from mgsym.rendering.figures import check_figure
from mgsym.uncertainty.out_of_distribution import ood_report
from mgsym.utils.files import atomic_path, refuse_existing
from mgsym.utils.names import file_in


@dataclass(frozen=True)
class ExplainedAtoms:
    """What `explain_statistics` found and wrote.

    Attributes:
        statistics: of the selected edges against nulls.
        faithfulness: what the explanations are worth, if that was asked for.
        paths: the files written.
        notes: what was chosen for the caller.
        warnings: why it may not be trusted.
    """

    statistics: EdgeStatistics
    faithfulness: Faithfulness | None
    paths: tuple[Path, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        if self.faithfulness is None:
            return self.statistics.to_dict()
        worth = self.faithfulness.to_dict()
        # "proof" is the old name, for one more release
        return {**self.statistics.to_dict(), "faithfulness": worth, "proof": worth}


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
        "k": method.topk, "device": method.device, "seed": method.seed,
        "progress": method.progress, **method.all_settings(),
    }  # fmt: skip
    found = edge_statistics(graph, model, nodes, method.name, **asked)
    every = [node for group in found.nodes.values() for node in group]
    worth = None
    if faithfulness:
        worth = evaluate_explanations(graph, model, every, method.name, **asked)
    result = ExplainedAtoms(
        found,
        worth,
        tuple(paths.values()),
        tuple(system.notes),
        (*system.warnings, *ood_report(graph, system.training_set).warnings),
    )
    _write(result, paths)
    return result


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
    names = {"json": "statistics.json", "csv": "statistics.csv"}
    if figures:
        names["figure"] = "statistics.png"
    if figures and faithfulness:
        names["curves"] = "curves.png"
    return {
        what: (check_figure if name.endswith(".png") else refuse_existing)(folder / name, overwrite)
        for what, name in names.items()
    }


def _write(found: ExplainedAtoms, paths: Mapping[str, Path]) -> None:
    with atomic_path(paths["json"]) as temporary:
        temporary.write_text(json.dumps(found.to_dict(), indent=1) + "\n", encoding="utf-8")
    rows = found.statistics.table()
    with (
        atomic_path(paths["csv"]) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    if "figure" in paths:
        statistics_figure(found.statistics, paths["figure"])
    if "curves" in paths and found.faithfulness is not None:
        curves_figure(found.faithfulness.nodes, paths["curves"])
