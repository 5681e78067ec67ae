"""Explain the prediction of one atom of a structure or graph file, and keep the explanation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mgsym.atomic import refuse_existing
from mgsym.data_tools.graphs import read_graphs, read_systems
from mgsym.data_tools.models import shipped_model
from mgsym.ensemble import read_ensemble
from mgsym.errors import UsageError
from mgsym.explanation import (
    Explanation,
    Fidelity,
    explain,
    fidelity,
    method_settings,
    node_of_id,
)
from mgsym.explanation.fidelity import SIZES
from mgsym.explanation.receptive import check_node
from mgsym.familiarity import familiarity_warnings
from mgsym.figures import check_figure, explanation_figure
from mgsym.graph import Graph
from mgsym.prediction import as_graph
from mgsym.runs import graph_hash, read_json, run_checkpoints

ROLES = ("test", "validation", "train")


@dataclass(frozen=True)
class Explained:
    """What `explain_atom` found and wrote.

    Attributes:
        explanation: the edges asked for, most important first.
        fidelity: what they are worth.
        paths: the files written.
        notes: what was chosen for the caller.
        warnings: why it may not be trusted.
    """

    explanation: Explanation
    fidelity: Fidelity
    paths: tuple[Path, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The explanation with its fidelity, for JSON."""
        return {**self.explanation.to_dict(), "fidelity": self.fidelity.to_dict()}


def explain_atom(
    run: str | Path,
    path: str | Path | None = None,
    *,
    node: int | None = None,
    atom_id: int | None = None,
    topk: int = 50,
    method: str = "edge-mask",
    settings: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    figure: str | Path | None = None,
    overwrite: bool = False,
    types: Mapping[int, str] | None = None,
    graphs: str | Path = "graphs",
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: Callable[..., None] | None = None,
) -> Explained:
    """Explain one atom, measure what the explanation is worth, and write both.

    Args:
        run: a run directory, a checkpoint or an ensemble; of several models the first is explained.
        path: a structure or graph file; None takes the run's (first) test structure.
        node, atom_id: the atom, by its zero-based row or by its id in the file; one of them.
        topk: how many edges to keep.
        method, settings, seed: as for `mgsym.explanation.explain`.
        out: folder for ``<structure>-node<row>.json`` and ``.csv``; by default ``explanations``
            in the run directory, or here for the shipped model.
        figure: a picture of the edges to write, too.
        overwrite: replace existing files.
        types: element of each type number, for files that have numbers only.
        graphs: where the run's graphs are.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: called with the steps done and in all.

    Raises:
        UsageError: no atom or two are named, there is none such, or output exists.
        InputError: a file or the run is missing or damaged, or has an unknown element.
    """
    if (node is None) == (atom_id is None):
        raise UsageError("name one atom: by its row (--node) or by its id in the file (--id)")
    member, *others = read_ensemble(run).members
    model, metadata, checkpoint = member.model, member.metadata, run_checkpoints(run)[0]
    home = Path() if checkpoint == shipped_model() else checkpoint.parent
    if path is None:
        graph, notes, warnings = _own_graph(checkpoint.parent, Path(graphs))
    else:
        graph, notes, warnings = _one_graph(Path(path), model.cutoff, types), [], []
    if others:
        which = checkpoint if Path(run).is_dir() else member.name
        notes.append(f"{run} holds {1 + len(others)} models: explaining {which}")
    row = node_of_id(graph, atom_id) if atom_id is not None else int(node or 0)
    check_node(graph, row)
    folder = home / "explanations" if out is None else Path(out)
    paths = _outputs(folder / f"{graph.names[0] or 'structure'}-node{row}", figure, overwrite)
    asked: dict[str, Any] = {"device": device, "seed": seed}
    budget = {"budget": topk} if "budget" in method_settings(method) else {}
    chosen = {**budget, **(settings or {})}
    full = explain(graph, model, row, method, progress=progress, **asked, **chosen)
    worth = fidelity(graph, model, full, sizes=(*SIZES, topk), **asked)
    top = full.topk(topk)
    top.save(paths[0], overwrite, fidelity=worth.to_dict())
    top.save(paths[1], overwrite)
    if figure is not None:
        explanation_figure(graph, top, figure)
    warnings += familiarity_warnings(graph, metadata)
    return Explained(top, worth, tuple(paths), tuple(notes), tuple(warnings))


def _outputs(stem: Path, figure: str | Path | None, overwrite: bool) -> list[Path]:
    """The files to write, none of which exists, or may be replaced."""
    files = [stem.with_name(stem.name + end) for end in (".json", ".csv")]
    paths = [refuse_existing(file, overwrite) for file in files]
    return paths if figure is None else [*paths, check_figure(figure, overwrite)]


def _one_graph(path: Path, cutoff: float, types: Mapping[int, str] | None) -> Graph:
    systems = read_systems([path], types)
    if len(systems) > 1:
        raise UsageError(f"{path} holds {len(systems)} structures: name the file of one")
    return as_graph(systems[0], cutoff)


def _own_graph(run: Path, graphs: Path) -> tuple[Graph, list[str], list[str]]:
    """A structure of the run's own: a test structure where there is one; notes and warnings."""
    missing = UsageError(f"which structure? {run} does not tell: name a structure or graph file")
    if not (run / "run.json").exists():
        raise missing
    facts = read_json(run / "run.json")
    known = [(role, name) for role in ROLES for name in facts.get("split", {}).get(role, ())]
    if not known:
        raise missing
    role, name = known[0]
    file = graphs / f"{name}.npz"
    if not file.exists():
        raise UsageError(f"{file}, the run's {role} structure, is gone: name a structure or graph")
    (graph,) = read_graphs([file])
    warnings = []
    if facts.get("graphs_sha256", {}).get(name) != graph_hash(graph):
        warnings.append(f"{file} has changed since the run {run}")
    return graph, [f"No structure given: explaining {file}, for {role} in {run}"], warnings
