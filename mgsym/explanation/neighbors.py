"""The atoms next to an explained atom, and which of their edges were selected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mgsym.explanation.controls import matchable, matched_rows
from mgsym.explanation.explanation import Explanation
from mgsym.graph import Graph

NEAREST = 10


@dataclass(frozen=True)
class NearAtom:
    """A neighbour of the explained atom.

    Attributes:
        node, node_id, element: which atom.
        distance: Å to the explained atom.
        place: Å, from the explained atom to it (its nearest image).
        to_atom, from_atom: importance of the edge from it to the explained atom, and of that
            back; None where the edge was not selected. Of an explanation by bonds both are that
            of the bond.
        selected: how many selected bonds, or edges, start or end at it.
    """

    node: int
    node_id: int
    element: str
    distance: float
    place: tuple[float, float, float]
    to_atom: float | None
    from_atom: float | None
    selected: int


def nearest_atoms(graph: Graph, explanation: Explanation, count: int = NEAREST) -> list[NearAtom]:
    """The nearest neighbours of the explained atom, nearest first.

    Args:
        graph: the graph that was explained.
        explanation: its edges are those that count as selected.
        count: how many neighbours at most; those within the cutoff are known.
    """
    node = explanation.node
    arriving = torch.arange(int(graph.offsets[node]), int(graph.offsets[node + 1]))
    nearest = arriving[graph.edge_length[arriving].argsort(stable=True)][:count]
    several = [explanation.edges] + ([] if explanation.reverse is None else [explanation.reverse])
    values = explanation.importance.tolist()
    importance = {e: v for edges in several for e, v in zip(edges.tolist(), values, strict=True)}
    importance.pop(-1, None)
    touched = torch.bincount(explanation.endpoints.flatten(), minlength=graph.num_nodes)
    return [
        NearAtom(
            node=(other := int(graph.source[edge])),
            node_id=int(graph.ids[other]),
            element=graph.species[int(graph.types[other])],
            distance=float(graph.edge_length[edge]),
            place=tuple(graph.edge_vector[edge].tolist()),
            to_atom=importance.get(edge),
            from_atom=importance.get(_reverse(graph, edge)),
            selected=int(touched[other]),
        )
        for edge in nearest.tolist()
    ]


def _reverse(graph: Graph, edge: int) -> int:
    """The edge back: same pair, opposite image; −1 if the graph lacks it."""
    source, target = graph.edge_index[:, edge].tolist()
    arriving = range(int(graph.offsets[source]), int(graph.offsets[source + 1]))
    for other in arriving:
        if int(graph.source[other]) == target and bool(
            (graph.edge_shift[other] == -graph.edge_shift[edge]).all()
        ):
            return other
    return -1


class AtomSets(NamedTuple):
    """Equally many atoms at equal distances.

    Attributes:
        selected: [k] int64, those that the explanation points at, most important first.
        matched: [k] int64, others.
        passed_over: how many of the k most important are not selected, as too few others are as
            far away.
    """

    selected: Tensor
    matched: Tensor
    passed_over: int


def atom_importance(explanation: Explanation, num_nodes: int) -> Tensor:
    """[n] float64: for each atom the importance of the edges that start or end there, summed.

    The explained atom has 0, since every edge that arrives at it ends there.
    """
    importance = torch.zeros(num_nodes, dtype=torch.float64)
    for ends in explanation.endpoints:
        importance.index_add_(0, ends, explanation.importance.double())
    importance[explanation.node] = 0.0
    return importance


def ranked_atoms(importance: Tensor) -> Tensor:
    """[k] int64: the atoms that have an importance, most important first."""
    order = importance.argsort(descending=True, stable=True)
    return order[importance[order] > 0]


def atom_sets(distance: Tensor, ranked: Tensor, count: int, generator: torch.Generator) -> AtomSets:
    """The most important atoms, and as many others at the same distances, to bins of 0.25 Å.

    At most half of a bin can be selected: its most important atoms. Where that passes over an
    atom among the `count` most important, one further down the ranking takes its place. So both
    sets are equal in number and distance, and no selected atom is less important than one that
    was drawn from its bin.

    Args:
        distance: [n] Å, `distance_between_atoms`.
        ranked: [k] int64, `ranked_atoms`.
        count: how many to select.
        generator: of the draw.
    """
    selected = matchable(distance, ranked, count)
    passed_over = (~torch.isin(ranked[:count], selected)).sum()
    found = matched_rows(distance, selected, generator)
    return AtomSets(selected, found.rows, int(passed_over))
