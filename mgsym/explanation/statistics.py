"""What the selected edges of many nodes have in common, against matched edges."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from mgsym.errors import UsageError
from mgsym.explanation.computation_graph import (
    ComputationGraph,
    distance_to_atom,
    frozen_eval,
)
from mgsym.explanation.controls import matched_rows, random_edges
from mgsym.explanation.explain import DEFAULT, explain_nodes
from mgsym.explanation.explanation import Explanation
from mgsym.explanation.faithfulness import part_of, ranked_bonds
from mgsym.graph import Graph
from mgsym.models.base import BarrierModel, device_of
from mgsym.prediction import OneModel, predict_graph
from mgsym.prediction.predict import one_model
from mgsym.utils.progress import Progress

NULLS = ("matched", "random", "shuffled")
GROUPS = ("high", "middle", "low")
RESAMPLES = 2000


@dataclass(frozen=True)
class Effect:
    """One property of selected edges against edges of a null, over nodes.

    Attributes:
        property, unit: what is measured, once per node.
        group: which nodes: ``all``, or ``high``, ``middle`` or ``low`` predicted barriers.
        null: what it is compared with: of edges ``matched`` (as far from the atom), ``random``
            (any of the computation graph) or ``shuffled`` (those found for a model with shuffled
            weights); of neighbours see mgsym.explanation.neighbour_statistics.
        nodes: how many.
        selected, control: means over nodes.
        difference: selected − control, with its 95 % interval `low` … `high` (bootstrap over
            nodes; None of a single node).
        effect: Cohen's d, the difference in standard deviations (pooled over nodes of both); None
            where nothing varies.
    """

    property: str
    unit: str
    group: str
    null: str
    nodes: int
    selected: float
    control: float
    difference: float
    low: float | None
    high: float | None
    effect: float | None


@dataclass(frozen=True)
class EdgeStatistics:
    """Statistics over many nodes.

    Attributes:
        method, k: how edges were selected, and how many of each node.
        nodes: the atoms, by group.
        effects: every property, group and null.
        missing: edges per node, on average, that could not be matched.
        distances, lengths: of all edges, Å, by kind (``selected``, ``matched``, ``random`` and,
            where it was asked for, ``shuffled``).
    """

    method: str
    k: int
    nodes: Mapping[str, tuple[int, ...]]
    effects: tuple[Effect, ...]
    missing: float
    distances: Mapping[str, Tensor]
    lengths: Mapping[str, Tensor]

    def table(self) -> list[dict[str, Any]]:
        """One row per effect, for JSON and CSV."""
        return [asdict(effect) for effect in self.effects]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "method": self.method,
            "k": self.k,
            "nodes": {group: list(nodes) for group, nodes in self.nodes.items()},
            "unmatched_edges_per_node": self.missing,
            "effects": self.table(),
        }


def choose_nodes(predicted: Tensor, count: int) -> dict[str, tuple[int, ...]]:
    """`count` nodes in three groups: of highest, middle and lowest prediction.

    Args:
        predicted: [n] eV.

    Raises:
        UsageError: fewer than three are asked for, or more than there are.
    """
    if not 3 <= count <= len(predicted):
        raise UsageError(f"asked for {count} nodes, expected 3 … {len(predicted)}")
    order = predicted.argsort(descending=True, stable=True).tolist()
    each = [count // 3 + (i < count % 3) for i in range(3)]
    first = (len(order) - each[1]) // 2
    first = min(max(first, each[0]), len(order) - each[1] - each[2])
    return {
        "high": tuple(order[: each[0]]),
        "middle": tuple(order[first : first + each[1]]),
        "low": tuple(order[len(order) - each[2] :]),
    }


def node_groups(
    model: BarrierModel, graph: Graph, nodes: int | Sequence[int]
) -> dict[str, tuple[int, ...]]:
    """`choose_nodes` of a number; named nodes are one group.

    Raises:
        UsageError: there are no such nodes.
    """
    if isinstance(nodes, int):
        return choose_nodes(predict_graph(model, graph), nodes)
    if not nodes:
        raise UsageError("no node was named to explain")
    return {"all": tuple(nodes)}


def edge_statistics(
    graph: Graph,
    model: OneModel,
    nodes: int | Sequence[int] = 30,
    method: str = DEFAULT,
    *,
    k: int = 50,
    draws: int = 3,
    explanations: Sequence[Explanation] | None = None,
    shuffled: Sequence[Explanation] | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: Progress | None = None,
    **settings: Any,
) -> EdgeStatistics:
    """Explain many nodes and compare the k edges of each with edges drawn for it.

    Args:
        graph, model, method, device, seed, settings: as for `explain_nodes`.
        nodes: which, or how many (a third each of highest, middle and lowest prediction).
        draws: how many sets of each null a node's control is the mean of.
        explanations: of the nodes, group by group, by this method, where they are known.
        shuffled: likewise of a model with shuffled weights, to be a null, too.
        progress: called with the nodes done and in all.

    Raises:
        UsageError: there are no such nodes, or as for `explain_nodes`.
    """
    frozen = one_model(model, device)
    graph = frozen.prepare_whole(graph.to(device_of(frozen)))  # once, not for each node
    groups = node_groups(frozen, graph, nodes)
    every = [node for group in groups.values() for node in group]
    generator = torch.Generator().manual_seed(seed)
    made = explain_nodes(graph, frozen, every, method, seed=seed, progress=progress, **settings)
    found = [
        _node(graph, frozen, explanation, control, k, draws, generator)
        for explanation, control in zip(
            made if explanations is None else explanations,
            [None] * len(every) if shuffled is None else shuffled,
            strict=True,
        )
    ]
    nulls = NULLS if shuffled is not None else NULLS[:-1]
    effects: list[Effect] = []
    places = {"all": range(len(every))}
    if len(groups) > 1:
        starts = [0, len(groups["high"]), len(groups["high"]) + len(groups["middle"]), len(every)]
        places |= {g: range(a, b) for g, a, b in zip(GROUPS, starts, starts[1:], strict=False)}
    for group, rows in places.items():
        for null in nulls:
            values = [(found[row]["selected"], found[row][null]) for row in rows]
            effects += effects_of(values, group, null, generator)
    kinds = ("selected", *nulls)
    return EdgeStatistics(
        method,
        k,
        groups,
        tuple(effects),
        sum(node["missing"] for node in found) / len(found),
        {kind: torch.cat([node["edges"][kind][0] for node in found]) for kind in kinds},
        {kind: torch.cat([node["edges"][kind][1] for node in found]) for kind in kinds},
    )


def _node(
    graph: Graph,
    model: BarrierModel,
    explanation: Explanation,
    control: Explanation | None,
    k: int,
    draws: int,
    generator: torch.Generator,
) -> dict[str, Any]:
    """Properties of a node's selected edges and, as means over draws, of the nulls."""
    with frozen_eval(model) as where:
        part = part_of(graph.to(where), model, explanation)
    chosen = ranked_bonds(part, explanation)[:k]
    distance = distance_to_atom(part)
    drawn = [matched_rows(distance, chosen, generator) for _ in range(draws)]
    sets = {
        "selected": [chosen],
        "matched": [d.rows for d in drawn],
        "random": [random_edges(len(distance), chosen, generator) for _ in range(draws)],
    }
    if control is not None:
        sets["shuffled"] = [ranked_bonds(part, control)[:k]]
    lengths = part.graph.edge_length[part.first]
    found: dict[str, Any] = {
        kind: _mean([edge_properties(part, distance, bonds) for bonds in several])
        for kind, several in sets.items()
    }
    found["missing"] = sum(d.missing for d in drawn) / draws
    found["edges"] = {
        kind: (distance[torch.cat(several)].cpu(), lengths[torch.cat(several)].cpu())
        for kind, several in sets.items()
    }
    return found


UNITS = {
    "length": "Å",
    "distance": "Å",
    "hop": "",
    "angle": "°",
    "right angles": "",
    "coordination": "",
    "triangles": "",
    "cycle rank": "",
}


def edge_properties(part: ComputationGraph, distance: Tensor, bonds: Tensor) -> dict[str, float]:
    """Properties of some bonds of a node's computation graph.

    A bond arrives at its near end.

    Args:
        distance: [b] Å, `distance_to_atom`.
        bonds: [k] int64.

    Returns:
        Means over the edges: ``length``; ``distance`` of the middle to the atom; ``hop``;
        ``angle`` between selected edges that arrive at the same atom, and the share of such pairs
        between 80° and 100° (``right angles``); ``coordination``, neighbours within the cutoff of
        the atom that an edge arrives at; ``triangles``, common neighbours of an edge's two ends;
        ``share of X``, of ends that are element X. And of the edges together, ``cycle rank``: the
        number of independent cycles (E − V + components of the undirected graph, its first Betti
        number).
    """
    graph, edges = part.graph, part.first[bonds]
    ends = graph.edge_index[:, edges]
    angles = _angles(graph, edges)
    found = {
        "length": float(graph.edge_length[edges].mean()),
        "distance": float(distance[bonds].mean()),
        "hop": float(part.hop[edges].double().mean()),
        "angle": float(angles.mean()) if len(angles) else math.nan,
        "right angles": (
            float(((angles - 90).abs() < 10).double().mean()) if len(angles) else math.nan
        ),
        "coordination": float(graph.offsets.diff()[ends[1]].double().mean()),
        "triangles": _common_neighbours(graph, ends),
        "cycle rank": float(cycle_rank(ends)),
    }
    for kind, symbol in enumerate(graph.species):
        found[f"share of {symbol}"] = float((graph.types[ends] == kind).double().mean())
    return found


def _angles(graph: Graph, edges: Tensor) -> Tensor:
    """[pairs] degrees, between every two of the edges that arrive at the same atom."""
    target = graph.destination[edges]
    unit = torch.nn.functional.normalize(graph.edge_vector[edges].double(), dim=1)
    first, second = torch.triu_indices(len(edges), len(edges), 1, device=edges.device)
    same = target[first] == target[second]
    cosine = (unit[first[same]] * unit[second[same]]).sum(1).clamp(-1, 1)
    return cosine.arccos().rad2deg()


def _common_neighbours(graph: Graph, ends: Tensor) -> float:
    """Mean number of atoms with an edge into both ends of an edge."""
    total = 0
    for source, target in ends.T.tolist():
        arriving = [
            graph.source[int(graph.offsets[node]) : int(graph.offsets[node + 1])]
            for node in (source, target)
        ]
        total += int(torch.isin(*arriving).sum())
    return total / max(ends.shape[1], 1)


def cycle_rank(ends: Tensor) -> int:
    """Independent cycles of the undirected graph that edges [2, k] make: E − V + components."""
    pairs = {(min(pair), max(pair)) for pair in ends.T.tolist() if pair[0] != pair[1]}
    parent: dict[int, int] = {}

    def root(node: int) -> int:
        while parent.setdefault(node, node) != node:
            node = parent[node]
        return node

    rank = 0
    for a, b in pairs:
        first, second = root(a), root(b)
        rank += first == second
        parent[first] = second
    return rank


def effects_of(
    values: Sequence[tuple[Mapping[str, float], Mapping[str, float]]],
    group: str,
    null: str,
    generator: torch.Generator,
    units: Mapping[str, str] = UNITS,
) -> Iterable[Effect]:
    """Compare properties of what was selected with those of a control, over nodes.

    Args:
        values: of each node, both by property; NaN where there is none.
        group, null: as of `Effect`.
        generator: of the bootstrap.
        units: of the properties that have one.
    """
    for name in values[0][0]:
        pairs = torch.tensor([(a[name], b[name]) for a, b in values], dtype=torch.float64)
        pairs = pairs[~pairs.isnan().any(1)]
        if len(pairs) == 0:
            continue
        difference = pairs[:, 0] - pairs[:, 1]
        low = high = effect = None
        if len(pairs) > 1:
            rows = torch.randint(len(pairs), (RESAMPLES, len(pairs)), generator=generator)
            means = difference[rows].mean(1)
            low, high = means.quantile(torch.tensor([0.025, 0.975]).double()).tolist()
            spread = float(pairs.var(0).mean().sqrt())
            effect = float(difference.mean()) / spread if spread > 1e-12 else None
        yield Effect(
            name, units.get(name, ""), group, null, len(pairs),
            float(pairs[:, 0].mean()), float(pairs[:, 1].mean()),
            float(difference.mean()), low, high, effect,
        )  # fmt: skip


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
