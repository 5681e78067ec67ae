"""The physics check before its searches: explanations, displaced neighbours, new minima.

What was prepared is kept in a folder, so that searches that were interrupted go on in the very
same structures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from mgsym.data_tools.displacement_test.displace import (
    ESCAPED,
    Attempt,
    Displacement,
    Draw,
    disturb,
    draws_of,
)
from mgsym.data_tools.formats import read, write
from mgsym.data_tools.simulation.labelling.event_files import structure_hash
from mgsym.data_tools.simulation.optimizers.relax import Relaxation, relax
from mgsym.data_tools.simulation.potentials.eam import EAM, potential_hash
from mgsym.data_tools.simulation.saddle_search.artn import active_radius
from mgsym.data_tools.workflows.explanation_target import ExplainedSystem, explained_system
from mgsym.data_tools.workflows.graphs import structure_of
from mgsym.data_tools.workflows.model_inputs import graph_for
from mgsym.errors import InputError, MgsymError, UsageError
from mgsym.explanation import explain_nodes, method_settings
from mgsym.explanation.computation_graph import check_node, distance_between_atoms
from mgsym.explanation.neighbors import atom_importance, ranked_atoms
from mgsym.explanation.statistics import choose_nodes
from mgsym.graph import Graph
from mgsym.prediction import predict_graph
from mgsym.prediction.ensemble import Ensemble, Member
from mgsym.structure import Structure
from mgsym.uncertainty.out_of_distribution import ood_report
from mgsym.utils.devices import resolve_device
from mgsym.utils.files import atomic_path, refuse_existing
from mgsym.utils.names import file_in
from mgsym.utils.progress import Progress, part
from mgsym.utils.settings import differing

PLAN = "plan.json"
START = "start.xyz"
NOTABLE = 0.01  # Å; a relaxation that moves an atom further is told


@dataclass(frozen=True)
class Request:
    """What was asked for; with it everything prepared is decided.

    Attributes:
        nodes: which rows, or how many: a third each of highest, middle and lowest prediction.
        method, settings: of the explanation.
        topk: bonds of each explanation.
        atoms: how many neighbours to displace.
        displace: Å, the first length tried.
        repeats: draws of displacements for each node, and of matched atoms.
        seed: of everything random.
    """

    nodes: int | Sequence[int] = 6
    method: str = "weakening"
    settings: Mapping[str, Any] = field(default_factory=dict)
    topk: int = 50
    atoms: int = 5
    displace: float = 2.0
    repeats: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("topk", "atoms", "displace", "repeats"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} is {getattr(self, name)}, expected more than 0")


@dataclass(frozen=True, eq=False)
class Prepared:
    """What to search in.

    Attributes:
        folder: where it is kept.
        seed: of everything random.
        start: the undisturbed structure, at a minimum.
        nodes: the atoms asked about.
        predicted: eV, of each node, before.
        attempts: of each node, how many displacements left the minimum, by length.
        passed_over: of each node, how many of its most important atoms were not selected, as
            too few others are as far away.
        displacements: of all nodes.
        structures: each new minimum by the name of its file.
        notes: what was chosen for the caller.
        warnings: why the result may not be trusted.
    """

    folder: Path
    seed: int
    start: Structure
    nodes: tuple[int, ...]
    predicted: Mapping[int, float]
    attempts: Mapping[int, tuple[Attempt, ...]]
    passed_over: Mapping[int, int]
    displacements: tuple[Displacement, ...]
    structures: Mapping[str, Structure]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def prepare(
    run: str | Path,
    path: str | Path | None,
    potential: EAM,
    request: Request,
    *,
    out: str | Path | None = None,
    radius: float = 0.0,
    types: Mapping[int, str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> Prepared:
    """Explain atoms, and displace the neighbours that matter and others as far away.

    The structure is relaxed with the potential first, since barriers are those of a minimum, and
    explained and predicted as it is then.

    Args:
        run, path, types: as for `explained_system`.
        potential: of relaxations and searches.
        request: what is asked for.
        out: folder; by default ``explanations/<structure>-physics`` in the run directory.
        radius: Å, of the searches' active region (see `ArtnSettings`), to refuse small boxes early.
        resume: take what the folder holds, if it is what is asked for.
        overwrite: replace it.
        device: where to compute.
        progress: called with the atoms done and in all.

    Raises:
        UsageError: no such atoms, method or setting; the model uses no edges; output exists.
        InputError: a file is wrong, the potential lacks an element, the box is too small, or the
            folder holds what was prepared otherwise.
    """
    system = explained_system(run, path, types=types, potential=potential)
    structure = structure_of(system.graph)
    if not isinstance(request.nodes, int):
        for node in request.nodes:
            check_node(system.graph, node)
    home = system.home / "explanations"
    named = structure.name or "structure"
    folder = file_in(home, named, "-physics") if out is None else Path(out)
    options = {**_flat(request), "run": str(run), "structure": structure_hash(structure)[:12],
             "potential": potential_hash(potential)[:12]}  # fmt: skip
    if resume and (folder / PLAN).exists():
        return _read(folder, options)
    for name in (PLAN, "physics.json"):
        refuse_existing(folder / name, overwrite)
    active_radius(structure, radius)
    prepared = _Preparation(system, structure, potential, request, folder, device, progress).run()
    _save(prepared, options)
    return _read(folder, options)


class _Preparation:
    """One node after the other."""

    def __init__(
        self,
        system: ExplainedSystem,
        structure: Structure,
        potential: EAM,
        request: Request,
        folder: Path,
        device: str,
        progress: Progress | None,
    ) -> None:
        self.system, self.structure, self.request, self.folder = system, structure, request, folder
        self.potential, self.place = potential, resolve_device(device)
        self.progress = progress

    def run(self) -> Prepared:
        system, request = self.system, self.request
        relaxation = self._relaxed()
        start = relaxation.structure
        graph = self._graph(start)
        predicted = predict_graph(system.model, graph)
        nodes = request.nodes
        if isinstance(nodes, int):
            nodes = [n for group in choose_nodes(predicted, nodes).values() for n in group]
        nodes = tuple(dict.fromkeys(nodes))
        attempts, passed_over, structures = {}, {}, {}
        displacements: list[Displacement] = []
        for done, (node, draws) in enumerate(self._draws(graph, nodes)):
            displaced, attempts[node] = disturb(
                start, relaxation.energy_after, node, draws, request.displace,
                self.potential, self.place, part(self.progress, done, len(nodes)),
            )  # fmt: skip
            passed_over[node] = max((d.passed_over for d in draws), default=request.atoms)
            for disturbance, structure in displaced:
                displacement, kept = self._predicted(disturbance, structure)
                displacements.append(displacement)
                structures.update(kept)
            if self.progress is not None:
                self.progress(done + 1, len(nodes))
        return Prepared(
            self.folder,
            request.seed,
            start,
            nodes,
            {node: float(predicted[node]) for node in nodes},
            {node: tuple(tried) for node, tried in attempts.items()},
            passed_over,
            tuple(displacements),
            structures,
            (*system.notes, *self._relaxation_note(relaxation)),
            (*system.warnings, *ood_report(graph, system.training_set).warnings),
        )

    def _relaxed(self) -> Relaxation:
        (relaxation,) = relax(
            [self.structure.replace(columns={})], self.potential, device=self.place, compile=False
        )
        if not relaxation.converged:
            raise MgsymError(
                f"{self.structure.name or 'the structure'} does not come to rest: relax it first, "
                "mgsym relax FILE"
            )
        return relaxation

    def _relaxation_note(self, relaxation: Relaxation) -> list[str]:
        if relaxation.moved < NOTABLE:
            return []
        name = self.structure.name or "The structure"
        return [
            f"{name} was not at a minimum of {self.potential.name}: relaxed first, atoms moved by "
            f"up to {relaxation.moved:.2f} Å"
        ]

    def _graph(self, structure: Structure) -> Graph:
        ensemble = Ensemble((Member(self.system.model),))
        return graph_for(structure, ensemble, self.potential, self.place)

    def _draws(self, graph: Graph, nodes: Sequence[int]) -> list[tuple[int, list[Draw]]]:
        """What to displace around each node."""
        request = self.request
        explanations = explain_nodes(
            graph, self.system.model, nodes, request.method,
            topk=request.topk, device=str(self.place), seed=request.seed, **request.settings,
        )  # fmt: skip
        draws_of_nodes = []
        for explanation in explanations:
            node = explanation.node
            importance = atom_importance(explanation, graph.num_nodes)
            draws = draws_of(
                distance_between_atoms(graph, node), ranked_atoms(importance), request.atoms,
                request.repeats, node, request.seed,
            )  # fmt: skip
            draws_of_nodes.append((node, draws))
        return draws_of_nodes

    def _predicted(
        self, disturbance: Displacement, structure: Structure
    ) -> tuple[Displacement, dict[str, Structure]]:
        """The disturbance with what the model predicts there, and its structure by its file."""
        if disturbance.outcome != ESCAPED:
            return disturbance, {}
        d, start = disturbance, self.structure
        predicted = predict_graph(self.system.model, self._graph(structure))
        file = f"node{d.node}-{d.kind}{d.draw + 1}.xyz"
        completed = Displacement(
            **{**asdict(d), "predicted": float(predicted[d.node]), "file": file}
        )
        displaced = torch.zeros(len(start), dtype=torch.int64)
        displaced[list(d.rows)] = 1
        explained = torch.zeros(len(start), dtype=torch.int64)
        explained[d.node] = 1
        structure = structure.replace(columns={}).with_column("displaced", displaced)
        return completed, {file: structure.with_column("explained", explained)}


def _flat(request: Request) -> dict[str, Any]:
    """By name, as JSON gives it back."""
    settings = method_settings(request.method, request.settings)
    plain = {**asdict(request), "settings": dict(settings)}
    options: dict[str, Any] = json.loads(json.dumps(plain))
    return options


def _save(prepared: Prepared, options: Mapping[str, Any]) -> None:
    """The structures, then the plan that names them: with it there, all is there."""
    folder = prepared.folder
    write(prepared.start.replace(columns={}), folder / START, overwrite=True)
    for name, structure in prepared.structures.items():
        write(structure, folder / name, overwrite=True)
    content = {
        "asked": dict(options),
        "nodes": prepared.nodes,
        "predicted": list(prepared.predicted.values()),
        "attempts": [[asdict(a) for a in prepared.attempts[n]] for n in prepared.nodes],
        "passed_over": list(prepared.passed_over.values()),
        "displacements": [asdict(d) for d in prepared.displacements],
        "notes": prepared.notes,
        "warnings": prepared.warnings,
    }
    with atomic_path(folder / PLAN) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _read(folder: Path, options: Mapping[str, Any]) -> Prepared:
    """What a folder holds.

    Raises:
        InputError: it is damaged, or was prepared for another request.
    """
    path = folder / PLAN
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        before = dict(content["asked"])
        nodes = tuple(content["nodes"])
        displacements = tuple(
            Displacement(**{**d, "rows": tuple(d["rows"])}) for d in content["displacements"]
        )
        attempts = [tuple(Attempt(**a) for a in tried) for tried in content["attempts"]]
        per_node = [content["predicted"], attempts, content["passed_over"]]
        predicted, tried, passed_over = (dict(zip(nodes, v, strict=True)) for v in per_node)
        remarks = tuple(content["notes"]), tuple(content["warnings"])
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"is damaged ({error!r}): begin again, --overwrite", path=path) from error
    if conflicts := differing(before, options):
        raise InputError(
            f"was made for something else ({'; '.join(conflicts)}): resume with what it was begun "
            "with, or begin again with --overwrite",
            path=path,
        )
    names = [d.file for d in displacements if d.outcome == ESCAPED]
    structures = {name: read(folder / name) for name in names}
    start = read(folder / START)
    return Prepared(
        folder, int(options["seed"]), start, nodes, predicted, tried, passed_over, displacements,
        structures, *remarks,
    )  # fmt: skip
