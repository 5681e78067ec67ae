"""Graphs made of graphs: narrower, turned, cut to what a prediction depends on; and their hash."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from mgsym.graph.graph import Graph, build_graph
from mgsym.structure import Structure
from mgsym.structure.cell import fractional, heights, wrap, wrap_fraction

System = Structure | Graph


def as_graph(system: System, cutoff: float, device: str | torch.device = "cpu") -> Graph:
    """A Structure's graph with this cutoff, its neighbours searched there; a Graph as it is."""
    if isinstance(system, Graph):
        return system
    return build_graph(system, cutoff, device=device)


def narrowed(graph: Graph, cutoff: float) -> Graph:
    """The graph with a smaller cutoff: its edges are those of a graph built with it."""
    if graph.cutoff <= cutoff:
        return graph
    cells = graph.cell[graph.structure_index[graph.destination]]
    shift = (graph.edge_shift.double()[:, None] @ cells).squeeze(1)
    place = graph.positions
    length = (place[graph.source] + shift - place[graph.destination]).norm(dim=1)
    return graph.with_edges(length < cutoff).replace(cutoff=cutoff)


def receptive_nodes(graph: Graph, nodes: Tensor, hops: int) -> Tensor:
    """Nodes from which some of `nodes` can be reached in `hops` edges: [m] int64, sorted."""
    reached = torch.zeros(graph.num_nodes, dtype=torch.bool, device=graph.types.device)
    reached[nodes] = True
    for _ in range(hops):
        reached[graph.source[reached[graph.destination]]] = True
    return reached.nonzero().squeeze(1)


def random_block(graph: Graph, side: float, generator: torch.Generator) -> tuple[Graph, Tensor]:
    """Cut a random block out of a structure.

    Args:
        graph: of one structure.
        side: Å, between opposite faces; along a direction that does not repeat, or that is no
            longer than that, the structure stays whole.
        generator: of its place.

    Returns:
        The atoms of the block and the edges between them; and [m] bool, which of these atoms are
        farther than the cutoff from where others were cut off, so that no neighbour is missing.
    """
    cell, device = graph.cell[0], graph.positions.device
    height = heights(cell)
    cut = graph.periodic[0] & (side < height)
    shift = torch.rand(3, generator=generator, dtype=torch.float64).to(device)
    fraction = fractional(graph.positions, cell) - shift
    depth = wrap_fraction(fraction, cut) * height  # Å, from the block's first face
    inside = ((depth < side) | ~cut).all(1).nonzero().squeeze(1)
    complete = ((depth > graph.cutoff) & (depth < side - graph.cutoff) | ~cut).all(1)
    return graph.subgraph(inside)[0], complete[inside]


def wrapped_positions(graph: Graph) -> Tensor:
    """Move positions into the cell, [n, 3] Å, so that near in space is near in numbers."""
    cells = graph.cell[graph.structure_index]
    return wrap(graph.positions, cells, graph.periodic[graph.structure_index])


def transformed(graph: Graph, matrix: Tensor) -> Graph:
    """A graph whose structure is rotated or reflected, v′ = T v.

    Args:
        graph: one structure or a batch.
        matrix: [3, 3] orthogonal, T.
    """
    matrix = matrix.double().to(graph.positions.device)
    return graph.replace(
        edge_vector=(graph.edge_vector.double() @ matrix.T).to(graph.edge_vector.dtype),
        positions=graph.positions @ matrix.T,
        cell=graph.cell @ matrix.T,
    )


def graph_hash(graph: Graph) -> str:
    """SHA-256 of what training sees of a graph: its arrays and names, not how a file packs them."""
    digest = hashlib.sha256(repr((graph.species, graph.cutoff, graph.names)).encode())
    arrays = {
        name: getattr(graph, name)
        for name in ("types", "edge_index", "edge_shift", "edge_vector", "target", "target_stderr")
    }
    for name, values in {**arrays, **dict(sorted(graph.node_features.items()))}.items():
        digest.update(f"{name}{tuple(values.shape)}{values.dtype}".encode())
        digest.update(values.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def glass_of(graph: Graph) -> str:
    """The glass; a structure that names none is a glass of its own."""
    return graph.glasses[0] or graph.names[0] or f"unnamed {id(graph)}"
