"""A small graph, and a model whose reasons are known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mgsym.graph import Graph
from mgsym.models.base import BarrierModel


class PlantedModel(BarrierModel):
    """A model that looks at a few edges only, and says which.

    Each of its `hops` rounds sends h′_d = Σ over planted edges s→d of w · strength · (1 + h_s),
    so a planted edge counts when a path of planted edges leads from it to the node. Edges are
    known by what their ends are (the ids of the atoms), so that the model means the same edges
    in a subgraph.
    """

    def __init__(self, planted: Tensor, strength: float = 0.3, hops: int = 3) -> None:
        super().__init__(("Cu", "Zr"), 1.5, hops)
        self.register_buffer("planted", planted)  # [p, 2] source id, target id
        self.strength = nn.Parameter(torch.tensor(strength))
        self.dropout = nn.Dropout(0.5)

    def standardised(
        self, graph: Graph, edge_weight: Tensor | None, attention_scale: Tensor | None
    ) -> Tensor:
        pairs = graph.ids[graph.edge_index].T
        known = (pairs[:, None] == self.planted[None]).all(-1).any(-1).float()
        for weight in (edge_weight, attention_scale):
            known = known if weight is None else known * weight
        heard = torch.zeros(graph.num_nodes)
        for _ in range(self.hops):
            sent = self.strength * known * (1 + heard[graph.source])
            heard = torch.zeros(graph.num_nodes).index_add(0, graph.destination, sent)
        return self.dropout(heard)


@pytest.fixture
def lattice() -> Graph:
    """6 × 6 × 6 atoms 1 Å apart in a periodic cell, joined to their 18 nearest; ids from 100."""
    return lattice_graph(6)


def lattice_graph(size: int) -> Graph:
    grid = torch.cartesian_prod(*[torch.arange(size)] * 3)
    count = len(grid)
    steps = [
        s for s in torch.cartesian_prod(*[torch.tensor([-1, 0, 1])] * 3) if 0 < s.abs().sum() < 3
    ]
    edges = []
    for step in steps:
        place = grid + step
        rows = (place % size) @ torch.tensor([size * size, size, 1])
        edges.append(
            torch.stack([rows, torch.arange(count), *place.div(size, rounding_mode="floor").T])
        )
    table = torch.cat(edges, dim=1)
    table = table[:, (table[1] * count + table[0]).argsort()]
    positions = grid.double()
    shift = table[2:].T
    vector = positions[table[0]] + shift * float(size) - positions[table[1]]
    target = torch.linspace(1, 2, count)
    target[1] = float("nan")
    return Graph(
        types=torch.arange(count) % 2,
        species=("Cu", "Zr"),
        edge_index=table[:2],
        edge_shift=shift.to(torch.int16),
        edge_vector=vector.float(),
        cutoff=1.5,
        positions=positions,
        ids=torch.arange(count) + 100,
        target=target,
        target_stderr=torch.full((count,), float("nan")),
        structure_index=torch.zeros(count, dtype=torch.int64),
        names=("lattice",),
        glasses=("",),
        splits=("",),
        cell=torch.eye(3, dtype=torch.float64)[None] * size,
        periodic=torch.ones(1, 3, dtype=torch.bool),
    )


@pytest.fixture
def planted(lattice: Graph) -> tuple[PlantedModel, set[int]]:
    """A model and the 20 edges on which its prediction for node 43 of `lattice` rests."""
    return plant(lattice, node=43, count=20)


def plant(graph: Graph, node: int, count: int) -> tuple[PlantedModel, set[int]]:
    """Draw edges at random so that each has a path of drawn edges to `node`."""
    generator = torch.Generator().manual_seed(1)
    reached, chosen = {node: 0}, []
    while len(chosen) < count:
        open_edges = [
            e
            for e, (s, d) in enumerate(graph.edge_index.T.tolist())
            if e not in chosen and reached.get(d, 3) < 3 and s not in reached
        ]
        edge = open_edges[int(torch.randint(len(open_edges), (1,), generator=generator))]
        source, target = graph.edge_index[:, edge].tolist()
        chosen.append(edge)
        reached[source] = reached[target] + 1
    model = PlantedModel(graph.ids[graph.edge_index[:, chosen]].T)
    model.fit_statistics([graph])
    return model, set(chosen)


@pytest.fixture
def make_planted() -> Callable[[Graph, int, int], tuple[PlantedModel, set[int]]]:
    """`plant`, for tests that need another graph."""
    return plant
