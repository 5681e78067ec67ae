"""Which model to explain, and on which structure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mgsym.data_tools.formats.species import warn_unused_types
from mgsym.data_tools.sample import sample_structures
from mgsym.data_tools.shipped_model import shipped_model
from mgsym.data_tools.workflows.graphs import read_graphs, read_systems
from mgsym.data_tools.workflows.model_inputs import Potential, graph_for
from mgsym.errors import UsageError
from mgsym.explanation import method_settings, node_of_id
from mgsym.graph import Graph
from mgsym.graph.operations import graph_hash
from mgsym.models.base import BarrierModel
from mgsym.prediction.ensemble import Member, read_ensemble
from mgsym.structure import Column, Structure
from mgsym.training.checkpoint import Metadata
from mgsym.training.runs import read_run, run_checkpoints, run_graphs
from mgsym.uncertainty.out_of_distribution import TrainingSet
from mgsym.utils.names import file_in
from mgsym.utils.progress import Progress

ROLES = ("test", "validation", "train")
LARGE = 50_000  # atoms; of a larger structure only the surroundings of the atom are looked at
MARGIN = 0.1  # Å, beyond rounding


@dataclass(frozen=True)
class Method:
    """How atoms are explained.

    Attributes:
        name: of the method, see `mgsym.explanation.METHODS`.
        settings: of the method.
        topk: how many bonds of each atom are kept; methods with a budget get it as that.
        seed: of everything random.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: called with the steps, or atoms, done and in all.
        directed: whether each direction of a bond counts by itself.
    """

    name: str = "weakening"
    settings: Mapping[str, Any] = field(default_factory=dict)
    topk: int = 50
    seed: int = 0
    device: str | torch.device = "auto"
    progress: Progress | None = None
    directed: bool = False

    def all_settings(self) -> dict[str, Any]:
        """The settings with the budget, where the method has one and was given none."""
        budget = {"budget": self.topk} if "budget" in method_settings(self.name) else {}
        return {**budget, **self.settings}


@dataclass(frozen=True)
class ExplainedSystem:
    """A model and the structure on which it is explained.

    Attributes:
        model, metadata: of the first model of the run.
        graph: with the inputs that the model takes, prepared for it.
        home: the folder that output goes to, unless told otherwise.
        checkpoint: the file that the model is from.
        members: all models of the run, this one first.
        plain: the graph as it was before it was prepared.
        rows: [n] int64, rows of the graph's atoms in the file; None where the graph is of all.
        notes: what was chosen for the caller.
        warnings: why the result may not be trusted.
    """

    model: BarrierModel
    metadata: Metadata | None
    graph: Graph
    home: Path
    checkpoint: Path
    members: tuple[Member, ...]
    plain: Graph
    rows: Tensor | None = None
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def training_set(self) -> TrainingSet | None:
        """What the model was trained on."""
        return None if self.metadata is None else self.metadata.training_set

    def row_of(self, node: int | None, atom_id: int | None) -> int:
        """The row in the graph of an atom named by its row or its id in the file."""
        if atom_id is not None:
            return node_of_id(self.graph, atom_id)
        if self.rows is None or node is None:
            return node or 0
        return int((self.rows == node).nonzero())

    def in_file(self, row: int) -> int:
        """The row in the file of an atom of the graph."""
        return row if self.rows is None else int(self.rows[row])


def explained_system(
    run: str | Path,
    path: str | Path | None,
    *,
    types: Mapping[int, str] | None = None,
    graphs: str | Path | None = None,
    potential: Potential = None,
    around: tuple[int | None, int | None] = (None, None),
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
        around: the one atom to explain, by its row or by its id. Of a structure of more than LARGE
            atoms, then, only those are taken that can bear on that atom.

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
    rows: Tensor | None = None
    if path is not None:
        system = _one_system(Path(path), types)
        rows = _surroundings(system, around, member.model.receptive_field)
        if rows is not None and isinstance(system, Structure):
            system = _cut(system, rows)
            notes.append(f"Only the {len(rows)} atoms that can bear on this one were looked at")
        graph = graph_for(system, ensemble, potential)
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
            f"The network on edges makes {member.model.edges_share:.0%} of this prediction; the "
            "rest is a regression on positions, which the method weakening alone explains, too"
        )
    home = Path() if shipped else checkpoint.parent
    assert member.metadata is not None  # it was read from a file
    prepared = member.model.prepare_whole(graph)  # once, not for each atom
    return ExplainedSystem(
        member.model, member.metadata, prepared, home, checkpoint, ensemble.members, graph, rows,
        notes, warnings,
    )  # fmt: skip


def _one_system(path: Path, types: Mapping[int, str] | None) -> Structure | Graph:
    systems = read_systems([path], types)
    if len(systems) > 1:
        raise UsageError(f"{path} holds {len(systems)} structures: name the file of one")
    return systems[0]


def _surroundings(
    system: Structure | Graph, around: tuple[int | None, int | None], reach: float
) -> Tensor | None:
    """The rows of the atoms within `reach` (Å) of one, and of a few more; None for all atoms.

    An atom lies farther than `reach` if it does so along a normal of the cell's faces.
    """
    if isinstance(system, Graph) or len(system) <= LARGE or not math.isfinite(reach):
        return None
    node, atom_id = around
    found = [node] if atom_id is None else (system.ids == atom_id).nonzero().flatten().tolist()
    if len(found) != 1 or found[0] is None or not 0 <= found[0] < len(system):
        return None  # whoever looks for the atom tells it
    # as the cell's vectors are given, along directions that do not repeat too
    inverse = torch.linalg.inv(system.cell)
    apart = (system.positions - system.positions[found[0]]) @ inverse
    apart = torch.where(torch.tensor(system.periodic), apart - apart.round(), apart).abs()
    near = (apart <= (reach + MARGIN) * inverse.norm(dim=0)).all(dim=1)
    return near.nonzero().squeeze(1)


def _cut(structure: Structure, rows: Tensor) -> Structure:
    """Some of the atoms, in the same cell."""
    columns = {name: Column(c.values[rows], c.unit) for name, c in structure.columns.items()}
    kept = {name: getattr(structure, name)[rows] for name in ("positions", "types", "ids")}
    return replace(structure, columns=columns, **kept)


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
