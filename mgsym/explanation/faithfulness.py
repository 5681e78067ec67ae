"""Measure how faithful explanations are: does the prediction need these edges, do they suffice?

Edges are weakened, replaced or deleted (mgsym.explanation.perturbations), and the change of the
prediction stands beside that which other edges make:

    evaluate_explanation   one explanation, beside random edges
    evaluate_explanations  of several nodes, beside random edges, edges as far from the atom, and
                           those that explain a model with shuffled weights
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median, pstdev
from typing import Any

import torch
from torch import Tensor

from mgsym.errors import InputError, UsageError
from mgsym.explanation.agreement import rank_agreement
from mgsym.explanation.computation_graph import (
    ComputationGraph,
    distance_to_atom,
    frozen_eval,
    full_prediction,
    model_computation_graph,
)
from mgsym.explanation.controls import matched_rows, random_edges, shuffled_weights
from mgsym.explanation.explain import DEFAULT, explain_nodes
from mgsym.explanation.explanation import Explanation
from mgsym.explanation.perturbations import perturbation_named
from mgsym.graph import Graph
from mgsym.models.base import BarrierModel, device_of
from mgsym.prediction import OneModel
from mgsym.prediction.predict import one_model

SIZES = (10, 20, 50, 100)  # of one explanation
CURVE_SIZES = (5, 10, 20, 50, 100, 200)  # of several
KINDS = ("explanation", "matched", "random", "shuffled")
MEASURES = ("sufficiency", "necessity", "insertion_area", "deletion_area")

Curves = Mapping[str, tuple[float, ...]]  # by kind of edges, one value a size


@dataclass(frozen=True)
class FaithfulnessRow:
    """What k edges of an explanation do, beside k random edges of the same computation graph.

    Attributes:
        k: how many edges.
        sufficiency: |f(these edges alone) − f(all)|; small when they suffice. Alone means that all
            others are weakened, replaced or deleted.
        necessity: |f(all but these) − f(all)|; large when they are needed.
        random_sufficiency, random_sufficiency_sd: of random edges, mean and sd over draws.
        random_necessity, random_necessity_sd: likewise.
    """

    k: int
    sufficiency: float
    necessity: float
    random_sufficiency: float
    random_sufficiency_sd: float
    random_necessity: float
    random_necessity_sd: float


@dataclass(frozen=True)
class NodeFaithfulness:
    """What the edges of one node's explanation do, beside what other edges do.

    Changes of the prediction are in standard deviations of the label, and by kind of edges: those
    of the ``explanation``, ``random`` ones and, where they were asked for, ones as far from the
    atom (``matched``) and those found for a model with ``shuffled`` weights.

    Attributes:
        node: the atom.
        k: how many edges, one of `sizes`, `measures` is about; 0 where none was measured.
        sizes: k of the curves.
        insertion: |f(k edges alone) − f(all)| at each size, means over draws.
        deletion: |f(all but k edges) − f(all)| at each size, likewise.
        insertion_sd, deletion_sd: their standard deviations over draws.
        draws: how many sets of edges the mean of a drawn kind is over.
        label_scale: eV, standard deviation of the labels the model was trained on: the yardstick.
        missing: matched edges per draw that there are not, their bins having run out.
        effective: (Σ I)²/Σ I² of the importances, as a share of the edges: sparsity.
        agreement: between initialisations; None of a method without.
        perturbation: what was done to edges: ``weakened``, ``replaced`` or ``deleted``.
        shuffled_agreement: with the explanation of the shuffled model, where there is one.
        counted: what k counts: ``bonds``, or directed ``edges``.
    """

    node: int
    k: int
    sizes: tuple[int, ...]
    insertion: Curves
    deletion: Curves
    insertion_sd: Curves
    deletion_sd: Curves
    draws: int
    label_scale: float
    missing: float
    effective: float
    agreement: float | None
    shuffled_agreement: float | None
    perturbation: str = "deleted"
    counted: str = "bonds"

    @property
    def rows(self) -> tuple[FaithfulnessRow, ...]:
        """The explanation beside random edges at each size, in eV."""
        return self._rows(self.label_scale)

    def in_label_sd(self) -> tuple[FaithfulnessRow, ...]:
        """The rows in standard deviations of the label."""
        return self._rows(1.0)

    def _rows(self, unit: float) -> tuple[FaithfulnessRow, ...]:
        columns = (
            self.insertion["explanation"], self.deletion["explanation"],
            self.insertion["random"], self.insertion_sd["random"],
            self.deletion["random"], self.deletion_sd["random"],
        )  # fmt: skip
        values = zip(self.sizes, *columns, strict=True)
        return tuple(FaithfulnessRow(k, *(unit * v for v in row)) for k, *row in values)

    def measures(self) -> dict[str, dict[str, float]]:
        """By measure and kind: sufficiency and necessity at k, and areas under both curves."""
        at = self.sizes.index(self.k)
        return {
            "sufficiency": {kind: curve[at] for kind, curve in self.insertion.items()},
            "necessity": {kind: curve[at] for kind, curve in self.deletion.items()},
            "insertion_area": {kind: self._area(c) for kind, c in self.insertion.items()},
            "deletion_area": {kind: self._area(c) for kind, c in self.deletion.items()},
        }

    def _area(self, curve: tuple[float, ...]) -> float:
        """The mean of a curve over log k, by the trapezoidal rule."""
        if len(curve) == 1:
            return curve[0]
        x = [math.log(size) for size in self.sizes]
        pairs = zip(x, x[1:], curve, curve[1:], strict=False)
        return sum((b - a) * (u + v) / 2 for a, b, u, v in pairs) / (x[-1] - x[0])

    def to_dict(self) -> dict[str, Any]:
        """The rows for JSON; energies in eV."""
        rows = [
            {"k": row.k, **{f"{n}_eV": v for n, v in asdict(row).items() if n != "k"}}
            for row in self.rows
        ]
        return {
            "perturbation": self.perturbation,
            "counted": self.counted,
            "label_scale_eV": self.label_scale,
            "draws": self.draws,
            "rows": rows,
        }


@dataclass(frozen=True)
class Faithfulness:
    """How faithful the explanations of several nodes are.

    Attributes:
        method: what explained them.
        nodes: one each.
        label_scale: eV, the yardstick.
        perturbation: what was done to edges.
    """

    method: str
    nodes: tuple[NodeFaithfulness, ...]
    label_scale: float
    perturbation: str = "deleted"

    def medians(self) -> dict[str, dict[str, float]]:
        """By measure and kind, the median over nodes."""
        each = [node.measures() for node in self.nodes]
        return {m: {k: median(one[m][k] for one in each) for k in each[0][m]} for m in MEASURES}

    def ratios(self, control: str = "matched") -> dict[str, list[float]]:
        """How many times better than a control, per node: by sufficiency and by necessity.

        Changes below 0.001 label standard deviations count as that, so no ratio is infinite.
        """
        each = [node.measures() for node in self.nodes]
        tiny = 1e-3
        return {
            "sufficiency": [
                one["sufficiency"][control] / max(one["sufficiency"]["explanation"], tiny)
                for one in each
            ],
            "necessity": [
                one["necessity"]["explanation"] / max(one["necessity"][control], tiny)
                for one in each
            ],
        }

    def agreement(self) -> float | None:
        """The median over nodes of the agreement between initialisations."""
        each = [node.agreement for node in self.nodes if node.agreement is not None]
        return median(each) if each else None

    def to_dict(self) -> dict[str, Any]:
        """For JSON; everything in standard deviations of the label."""
        return {
            "method": self.method,
            "perturbation": self.perturbation,
            "label_scale_eV": self.label_scale,
            "medians": self.medians(),
            "ratios_to_matched": self.ratios(),
            "agreement": self.agreement(),
            "nodes": [{**vars(node), **node.measures()} for node in self.nodes],
        }


def evaluate_explanation(
    graph: Graph,
    model: OneModel,
    explanation: Explanation,
    *,
    sizes: Sequence[int] = SIZES,
    draws: int = 5,
    perturbation: str | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
) -> NodeFaithfulness:
    """Measure sufficiency and necessity of the k most important edges by deleting edges.

    Args:
        graph: the graph that was explained.
        model: what was explained: a model, a run directory or a checkpoint.
        explanation: of any method, with all of the computation graph's edges or only the top ones.
        sizes: the k to measure at; those beyond the explanation's edges are left out.
        draws: how many random sets of k edges to compare with.
        perturbation: what is done to edges (mgsym.explanation.perturbations): ``weakened``,
            ``replaced`` or ``deleted``; None takes what the method has in mind.
        device: ``auto`` (where the model is), ``cpu``, ``cuda`` or ``cuda:N``.
        seed: of the random sets.

    Raises:
        InputError: the explanation is not of this graph and model.
        UsageError: `draws` is less than 1.
    """
    if draws < 1:
        raise UsageError(f"draws is {draws}, expected at least 1")
    frozen = one_model(model, device)
    k = max((size for size in sizes if size <= len(explanation)), default=0)
    name = perturbation or usual_perturbation(explanation.method)
    kinds = ("explanation", "random")
    return _measure(graph, frozen, explanation, kinds, k, sizes, draws, seed, name)


def evaluate_explanations(
    graph: Graph,
    model: OneModel,
    nodes: Sequence[int],
    method: str = DEFAULT,
    *,
    k: int = 50,
    sizes: Sequence[int] = CURVE_SIZES,
    draws: int = 3,
    explanations: Sequence[Explanation] | None = None,
    shuffled: bool | Sequence[Explanation] = True,
    perturbation: str | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: Callable[..., None] | None = None,
    **settings: Any,
) -> Faithfulness:
    """Explain nodes and measure their edges beside three kinds of other edges.

    Args:
        graph, model, nodes, method, device, seed, settings: as for `explain_nodes`.
        k: how many edges of each explanation to take.
        sizes: other k, for the curves.
        draws: how many random and how many matched sets a control is the mean of.
        explanations: of the nodes, all edges of each, by this method, where they are known.
        shuffled: whether to explain the model with shuffled weights, too: half of the work; or
            these explanations, where they are known.
        perturbation: as for `evaluate_explanation`.
        progress: called with the explanations done and in all.

    Raises:
        UsageError: there are no nodes or draws, or as for `explain_nodes`.
    """
    if not nodes:
        raise UsageError("no node was named to explain")
    if draws < 1:
        raise UsageError(f"draws is {draws}, expected at least 1")
    frozen = one_model(model, device)
    graph = frozen.prepare_whole(graph.to(device_of(frozen)))  # once, not for each node
    asked: dict[str, Any] = {"device": "auto", "seed": seed, **settings}
    if explanations is None:
        ours: Iterable[Explanation] = explain_nodes(graph, frozen, nodes, method, **asked)
    else:
        ours = explanations
    theirs: Iterable[Explanation | None] = [None] * len(nodes)
    if not isinstance(shuffled, bool):
        theirs = shuffled
    elif shuffled:
        other = shuffled_weights(frozen, torch.Generator().manual_seed(seed))
        theirs = explain_nodes(graph, other, nodes, method, **asked)
    kinds = KINDS if shuffled else KINDS[:-1]
    name = perturbation or usual_perturbation(method)
    measured = []
    for one, control in zip(ours, theirs, strict=True):
        size = min(k, len(one))
        measured.append(
            _measure(graph, frozen, one, kinds, size, (*sizes, size), draws, seed, name, control)
        )
        if progress is not None:
            progress(len(measured), len(nodes))
    return Faithfulness(method, tuple(measured), float(frozen.label_scale), name)


def _measure(
    graph: Graph,
    model: BarrierModel,
    explanation: Explanation,
    kinds: Sequence[str],
    k: int,
    sizes: Sequence[int],
    draws: int,
    seed: int,
    perturbation: str,
    control: Explanation | None = None,
) -> NodeFaithfulness:
    """Measure one explanation beside the kinds of edges; `control` is of the shuffled model."""
    insertion: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
    deletion: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
    missing = 0.0
    with frozen_eval(model) as where, torch.no_grad():
        part = part_of(graph.to(where), model, explanation)
        full, scale = full_prediction(model, part), float(model.label_scale)
        change = perturbation_named(perturbation)(model, part, full, seed)
        ranked = ranked_bonds(part, explanation)
        shuffled = None if control is None else ranked_bonds(part, control)
        distance = distance_to_atom(part) if "matched" in kinds else None
        generator = torch.Generator().manual_seed(seed)
        at = tuple(sorted({size for size in sizes if 1 <= size <= len(ranked)}))
        for size in at:
            sets, lacking = _other_edges(part, distance, ranked[:size], draws, generator)
            missing = lacking if size == k else missing
            sets["explanation"] = [ranked[:size]]
            if shuffled is not None:
                sets["shuffled"] = [shuffled[:size]]
            for kind in kinds:
                changes = [change(edges) for edges in sets[kind]]
                insertion[kind].append([alone / scale for alone, _ in changes])
                deletion[kind].append([without / scale for _, without in changes])
    weights = explanation.importance.double().abs()
    share = float(weights.sum() ** 2 / weights.square().sum().clamp(min=1e-300)) / len(weights)
    return NodeFaithfulness(
        node=explanation.node,
        k=k,
        sizes=at,
        insertion={kind: tuple(map(fmean, c)) for kind, c in insertion.items()},
        deletion={kind: tuple(map(fmean, c)) for kind, c in deletion.items()},
        insertion_sd={kind: tuple(map(pstdev, c)) for kind, c in insertion.items()},
        deletion_sd={kind: tuple(map(pstdev, c)) for kind, c in deletion.items()},
        draws=draws,
        label_scale=scale,
        missing=missing,
        effective=share,
        agreement=explanation.agreement,
        shuffled_agreement=(
            None
            if control is None
            else rank_agreement(explanation.importance, control.importance, k)
        ),
        perturbation=perturbation,
        counted=explanation.counted,
    )


def usual_perturbation(method: str) -> str:
    """What a method has in mind: that edges are weakened, or that they are deleted."""
    return "weakened" if method == "weakening" else "deleted"


def _other_edges(
    part: ComputationGraph,
    distance: Tensor | None,
    chosen: Tensor,
    draws: int,
    generator: torch.Generator,
) -> tuple[dict[str, list[Tensor]], float]:
    """Draw random edges and, given distances, ones as far away; how many a draw lacks of these."""
    sets: dict[str, list[Tensor]] = {"matched": [], "random": []}
    missing = 0
    for _ in range(draws):
        if distance is not None:
            drawn = matched_rows(distance, chosen, generator)
            sets["matched"].append(drawn.rows)
            missing += drawn.missing
        sets["random"].append(random_edges(part.bonds, chosen, generator))
    return sets, missing / draws


def without_and_alone(
    model: BarrierModel, part: ComputationGraph, full: float, chosen: Tensor
) -> tuple[float, float]:
    """Sufficiency and necessity, eV, of some edges by deletion.

    Args:
        full: eV, the prediction with every edge.
        chosen: [k] int64, bonds of the computation graph.
    """
    return perturbation_named("deleted")(model, part, full, 0)(chosen)


def part_of(graph: Graph, model: BarrierModel, explanation: Explanation) -> ComputationGraph:
    """The computation graph of the node explained; it counts bonds or directed edges likewise."""
    directed = explanation.reverse is None
    return model_computation_graph(graph, model, explanation.node, directed=directed)


def ranked_bonds(part: ComputationGraph, explanation: Explanation) -> Tensor:
    """[b] int64: the explanation's bonds, most important first, as those of `part`."""
    wanted = explanation.edges[explanation.ranking].to(part.edges.device)
    # edges are in the order of the parent's, both being sorted by target, then source
    place = torch.searchsorted(part.edges, wanted).clamp(max=len(part.edges) - 1)
    if not bool((part.edges[place] == wanted).all()):
        raise InputError(
            f"the explanation of node {explanation.node} has edges outside its computation graph: "
            "it was made with another graph or another model"
        )
    return part.bond[place]
