"""Which model to explain, and on which structure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mgsym.data_tools.formats.species import warn_unused_types
from mgsym.data_tools.sample import sample_structures
from mgsym.data_tools.shipped_model import shipped_model
from mgsym.data_tools.workflows.graphs import read_graphs, read_systems
from mgsym.data_tools.workflows.model_inputs import Potential, graph_for
from mgsym.errors import UsageError
from mgsym.explanation import method_settings
from mgsym.graph import Graph
from mgsym.graph.operations import graph_hash
from mgsym.models.base import BarrierModel
from mgsym.prediction.ensemble import Ensemble, read_ensemble
from mgsym.training.checkpoint import Metadata
from mgsym.training.runs import read_run, run_checkpoints, run_graphs
from mgsym.uncertainty.out_of_distribution import TrainingSet
from mgsym.utils.names import file_in
from mgsym.utils.progress import Progress

ROLES = ("test", "validation", "train")


@dataclass(frozen=True)
class Method:
    """How atoms are explained.

    Attributes:
        name: of the method, see `mgsym.explanation.METHODS`.
        settings: of the method.
        topk: how many edges of each atom are kept; methods with a budget get it as that.
        seed: of everything random.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: called with the steps, or atoms, done and in all.
    """

    name: str = "edge-mask"
    settings: Mapping[str, Any] = field(default_factory=dict)
    topk: int = 50
    seed: int = 0
    device: str | torch.device = "auto"
    progress: Progress | None = None

    def all_settings(self) -> dict[str, Any]:
        """The settings with the budget, where the method has one and was given none."""
        budget = {"budget": self.topk} if "budget" in method_settings(self.name) else {}
        return {**budget, **self.settings}


@dataclass(frozen=True)
class ExplainedSystem:
    """A model and the structure on which it is explained.

    Attributes:
        model, metadata: of the first model of the run.
        graph: with the inputs that the model takes.
        home: the folder that output goes to, unless told otherwise.
        checkpoint: the file that the model is from.
        notes: what was chosen for the caller.
        warnings: why the result may not be trusted.
    """

    model: BarrierModel
    metadata: Metadata | None
    graph: Graph
    home: Path
    checkpoint: Path
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def training_set(self) -> TrainingSet | None:
        """What the model was trained on."""
        return None if self.metadata is None else self.metadata.training_set


def explained_system(
    run: str | Path,
    path: str | Path | None,
    *,
    types: Mapping[int, str] | None = None,
    graphs: str | Path | None = None,
    potential: Potential = None,
) -> ExplainedSystem:
    """Load a model and a structure with the inputs that the model takes.

    Args:
        run: a run directory, a checkpoint or an ensemble; of several models the first is taken.
        path: a structure or graph file; None takes the run's (first) test structure, and the
            sample's for the model that ships with mgsym.
        types: element of each type number, for files that have numbers only.
        graphs: where the run's graphs are; None takes the folder it was trained on, or ``graphs``
            where that is gone.
        potential: what computes physical inputs, where the model takes some.

    Raises:
        UsageError: no structure is named and none can be chosen, or a file holds several.
        InputError: a file or the run is missing or damaged, or a potential is missing.
    """
    ensemble = read_ensemble(run)
    member, *others = ensemble.members
    checkpoint = run_checkpoints(run)[0]
    if path is None:
        warn_unused_types(types, run)
    shipped = checkpoint == shipped_model()
    notes: list[str] = []
    warnings: list[str] = []
    if path is not None:
        graph = _one_graph(Path(path), ensemble, types, potential)
    elif shipped:
        structure = next(s for s in sample_structures() if s.split == "test")
        graph = graph_for(structure, ensemble, potential)
        notes.append("No structure given: explaining the sample's test structure")
    else:
        graph, notes, warnings = _own_graph(checkpoint.parent, graphs)
    if others:
        which = checkpoint if Path(run).is_dir() else member.name
        notes.append(f"{run} holds {1 + len(others)} models: explaining {which}")
    if member.model.edges_share < 1:
        notes.append(
            f"Edges make {member.model.edges_share:.0%} of this prediction, which the "
            "table of edges is about; the rest is a regression on positions"
        )
    home = Path() if shipped else checkpoint.parent
    assert member.metadata is not None  # it was read from a file
    graph = member.model.prepare_whole(graph)  # once, not for each atom
    return ExplainedSystem(member.model, member.metadata, graph, home, checkpoint, notes, warnings)


def _one_graph(
    path: Path, ensemble: Ensemble, types: Mapping[int, str] | None, potential: Potential
) -> Graph:
    systems = read_systems([path], types)
    if len(systems) > 1:
        raise UsageError(f"{path} holds {len(systems)} structures: name the file of one")
    return graph_for(systems[0], ensemble, potential)


def _own_graph(run: Path, graphs: str | Path | None) -> tuple[Graph, list[str], list[str]]:
    """A structure of the run's own: a test structure where there is one; notes and warnings."""
    missing = UsageError(f"which structure? {run} does not tell: name a structure or graph file")
    if not (run / "run.json").exists():
        raise missing
    facts = read_run(run)
    known = [(role, name) for role in ROLES for name in facts.get("split", {}).get(role, ())]
    if not known:
        raise missing
    role, name = known[0]
    folder = Path(graphs or run_graphs(run) or "graphs")
    if folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())  # as a person would name it
    file = file_in(folder, str(name), ".npz")
    if not file.exists():
        raise UsageError(f"{file}, the run's {role} structure, is gone: name a structure or graph")
    (graph,) = read_graphs([file])
    warnings = []
    if facts.get("graphs_sha256", {}).get(name) != graph_hash(graph):
        warnings.append(f"{file} has changed since the run {run}")
    return graph, [f"No structure given: explaining {file}, for {role} in {run}"], warnings
