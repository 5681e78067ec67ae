"""Proof: how much better an explanation is than its controls, over one node or many."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from mgsym.errors import UsageError
from mgsym.explanation.agreement import rank_agreement
from mgsym.explanation.computation_graph import (
    distance_to_atom,
    frozen_eval,
    full_prediction,
    model_computation_graph,
)
from mgsym.explanation.controls import matched_rows, random_edges, shuffled_weights
from mgsym.explanation.explain import explain_nodes
from mgsym.explanation.explanation import Explanation
from mgsym.explanation.fidelity import in_cone, without_and_alone
from mgsym.graph import Graph
from mgsym.models.base import BarrierModel, device_of
from mgsym.prediction import OneModel
from mgsym.prediction.predict import one_model

SIZES = (5, 10, 20, 50, 100, 200)
KINDS = ("explanation", "matched", "random", "shuffled")
MEASURES = ("sufficiency", "necessity", "insertion_area", "deletion_area")


@dataclass(frozen=True)
class NodeProof:
    """What the edges of one node's explanation do, beside what other edges do.

    Everything is in standard deviations of the label, and by kind of edges: those of the
    ``explanation``, distance-``matched`` and ``random`` ones (means over draws), and, where that
    was asked for, those found for a model with ``shuffled`` weights.

    Attributes:
        node: the atom.
        k: how many edges.
        sizes: k of the curves.
        insertion: |f(k edges alone) − f(all)| at each size.
        deletion: |f(all but k edges) − f(all)| at each size.
        missing: edges per draw that could not be matched, their bins having run out.
        effective: (Σ I)²/Σ I² of the importances, as a share of the edges: sparsity.
        agreement: between initialisations; None of a method without.
        shuffled_agreement: with the explanation of the shuffled model, where there is one.
    """

    node: int
    k: int
    sizes: tuple[int, ...]
    insertion: Mapping[str, tuple[float, ...]]
    deletion: Mapping[str, tuple[float, ...]]
    missing: float
    effective: float
    agreement: float | None
    shuffled_agreement: float | None

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


@dataclass(frozen=True)
class Proof:
    """`NodeProof` of several nodes.

    Attributes:
        method: what explained them.
        nodes: one each.
        label_scale: eV, the yardstick.
    """

    method: str
    nodes: tuple[NodeProof, ...]
    label_scale: float

    def medians(self) -> dict[str, dict[str, float]]:
        """By measure and kind, the median over nodes."""
        found = [node.measures() for node in self.nodes]
        return {m: {k: median(f[m][k] for f in found) for k in found[0][m]} for m in MEASURES}

    def ratios(self, control: str = "matched") -> dict[str, list[float]]:
        """How many times better than a control, per node: by sufficiency and by necessity.

        Changes below 0.001 label standard deviations count as that, so no ratio is infinite.
        """
        found = [node.measures() for node in self.nodes]
        tiny = 1e-3
        return {
            "sufficiency": [
                f["sufficiency"][control] / max(f["sufficiency"]["explanation"], tiny)
                for f in found
            ],
            "necessity": [
                f["necessity"]["explanation"] / max(f["necessity"][control], tiny) for f in found
            ],
        }

    def agreement(self) -> float | None:
        """The median over nodes of the agreement between initialisations."""
        known = [node.agreement for node in self.nodes if node.agreement is not None]
        return median(known) if known else None

    def to_dict(self) -> dict[str, Any]:
        """For JSON; everything in standard deviations of the label."""
        return {
            "method": self.method,
            "label_scale_eV": self.label_scale,
            "medians": self.medians(),
            "ratios_to_matched": self.ratios(),
            "agreement": self.agreement(),
            "nodes": [{**vars(node), **node.measures()} for node in self.nodes],
        }


def prove(
    graph: Graph,
    model: OneModel,
    nodes: Sequence[int],
    method: str = "edge-mask",
    *,
    k: int = 50,
    sizes: Sequence[int] = SIZES,
    draws: int = 3,
    explanations: Sequence[Explanation] | None = None,
    shuffled: bool = True,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: Callable[..., None] | None = None,
    **settings: Any,
) -> Proof:
    """Explain nodes and measure their edges beside three kinds of other edges.

    Args:
        graph, model, nodes, method, device, seed, settings: as for `explain_nodes`.
        k: how many edges of each explanation to take.
        sizes: other k, for the curves.
        draws: how many random and how many matched sets a control is the mean of.
        explanations: of the nodes, all edges of each, by this method, where they are known.
        shuffled: whether to explain the model with shuffled weights, too: half of the work.
        progress: called with the explanations done and in all.

    Raises:
        UsageError: there are no nodes, or as for `explain_nodes`.
    """
    if not nodes:
        raise UsageError("no node was named to explain")
    frozen = one_model(model, device)
    graph = frozen.prepare_whole(graph.to(device_of(frozen)))  # once, not for each node
    asked: dict[str, Any] = {"device": "auto", "seed": seed, **settings}
    known = explain_nodes(graph, frozen, nodes, method, **asked)
    controls: Iterable[Explanation | None] = [None] * len(nodes)
    if shuffled:
        other = shuffled_weights(frozen, torch.Generator().manual_seed(seed))
        controls = explain_nodes(graph, other, nodes, method, **asked)
    found = []
    pairs = zip(known if explanations is None else explanations, controls, strict=True)
    for done, (ours, theirs) in enumerate(pairs, start=1):
        found.append(_node(graph, frozen, ours, theirs, k, sizes, draws, seed))
        if progress is not None:
            progress(done, len(nodes))
    return Proof(method, tuple(found), float(frozen.label_scale))


def _node(
    graph: Graph,
    model: BarrierModel,
    ours: Explanation,
    theirs: Explanation | None,
    k: int,
    sizes: Sequence[int],
    draws: int,
    seed: int,
) -> NodeProof:
    with frozen_eval(model) as where, torch.no_grad():
        part = model_computation_graph(graph.to(where), model, ours.node)
        full, scale = full_prediction(model, part), float(model.label_scale)
        ranked = in_cone(part, ours)
        shuffled = None if theirs is None else in_cone(part, theirs)
        k = min(k, len(ranked))
        at = tuple(sorted({s for s in (*sizes, k) if s <= len(ranked)}))
        generator = torch.Generator().manual_seed(seed)
        distance = distance_to_atom(part)
        kinds = KINDS if shuffled is not None else KINDS[:-1]
        curves: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
        missing = 0.0
        for size in at:
            sets: dict[str, list[Tensor]] = {kind: [] for kind in kinds}
            sets["explanation"] = [ranked[:size]]
            if shuffled is not None:
                sets["shuffled"] = [shuffled[:size]]
            for _ in range(draws):
                drawn = matched_rows(distance, ranked[:size], generator)
                sets["matched"].append(drawn.rows)
                sets["random"].append(random_edges(len(ranked), ranked[:size], generator))
                missing += drawn.missing / draws if size == k else 0.0
            for kind, chosen in sets.items():
                curves[kind].append(_mean(without_and_alone(model, part, full, s) for s in chosen))
    weights = ours.importance.double().abs()
    return NodeProof(
        node=ours.node,
        k=k,
        sizes=at,
        insertion={kind: tuple(c[0] / scale for c in curve) for kind, curve in curves.items()},
        deletion={kind: tuple(c[1] / scale for c in curve) for kind, curve in curves.items()},
        missing=missing,
        effective=float(weights.sum() ** 2 / weights.square().sum().clamp(min=1e-300))
        / len(weights),
        agreement=ours.agreement,
        shuffled_agreement=(
            None if theirs is None else rank_agreement(ours.importance, theirs.importance, k)
        ),
    )


def _mean(values: Iterator[tuple[float, float]]) -> tuple[float, float]:
    first, second = zip(*values, strict=True)
    return sum(first) / len(first), sum(second) / len(second)
