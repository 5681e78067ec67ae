"""The atoms next to an explained atom, and which of their edges were selected."""

from __future__ import annotations

from dataclasses import dataclass

import torch

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
            back; None where the edge was not selected.
        selected: how many selected edges start or end at it.
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
    importance = dict(zip(explanation.edges.tolist(), explanation.importance.tolist(), strict=True))
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
