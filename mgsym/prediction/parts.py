"""Cut large structures into parts that are predicted one after another."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from mgsym.graph import Graph
from mgsym.graph.operations import receptive_nodes, wrapped_positions

LARGEST_SURROUNDINGS = 20  # atoms computed for one predicted, in a system taken to pieces


def pieces(graph: Graph, hops: int, max_edges: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Parts of a graph and their receptive fields, each [m] int64 sorted.

    Structures are parted first, since those of a batch overlap in space. Parts are halved along
    their longest side until the field has at most `max_edges` edges, or is so much larger than
    the part that most of the work would be for its surroundings.
    """
    degree = graph.offsets.diff()
    places = wrapped_positions(graph)
    waiting = [
        (graph.structure_index == i).nonzero().squeeze(1) for i in range(graph.num_structures)
    ]
    while waiting:
        nodes = waiting.pop()
        field = receptive_nodes(graph, nodes, hops)
        edges = int(degree[field].sum())
        surrounded = len(nodes) == 1 or len(field) > LARGEST_SURROUNDINGS * len(nodes)
        if edges <= max_edges or surrounded:
            yield nodes, field
            continue
        own = places[nodes]
        axis = int((own.amax(0) - own.amin(0)).argmax())
        order = own[:, axis].argsort(stable=True)
        half = len(nodes) // 2
        waiting += [nodes[part].sort().values for part in (order[:half], order[half:])]
