"""A small graph, and models whose reasons are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mgsym.graph import Graph
from mgsym.models.base import BarrierModel
from mgsym.nn.egat import attention_scale

NODE = 43  # the atom that the planted edges lead to
SIDE = 6


class Planted(BarrierModel):
    """A model that looks at a few edges only.

    In each of its rounds h′_d = Σ over planted edges s→d of w · strength · (1 + h_s), so a
    planted edge counts when planted edges lead on from it to the node. Edges are known by the
    ids of their atoms, so that the model means the same edges in a subgraph.

    Decoy edges add slope · w (1 − w): the prediction changes with their weight, but neither at
    w = 0 nor at w = 1 are they of any account.
    """

    def __init__(self, planted: Tensor, decoys: Tensor, slope: float = 0.0, hops: int = 3) -> None:
        super().__init__(("Cu", "Zr"), 1.5, hops)
        self.register_buffer("planted", planted)  # [p, 2], ids of source and target
        self.register_buffer("decoys", decoys)
        self.strength = nn.Parameter(torch.tensor(0.6))
        self.dropout = nn.Dropout(0.5)
        self.slope = slope

    def standardised(self, graph: Graph, edge_weight: Tensor | None) -> Tensor:
        weight = torch.ones(graph.num_edges)
        for given in (edge_weight, attention_scale()):
            weight = weight if given is None else weight * given
        pairs = graph.ids[graph.edge_index].T
        planted, decoy = (
            (pairs[:, None] == known[None]).all(-1).any(-1).float()
            for known in (self.planted, self.decoys)
        )
        heard = torch.zeros(graph.num_nodes)
        for _ in range(self.hops):
            sent = self.strength * planted * weight * (1 + heard[graph.source])
            sent = sent + self.slope * decoy * weight * (1 - weight)
            heard = torch.zeros(graph.num_nodes).index_add(0, graph.destination, sent)
        return self.dropout(heard)


@pytest.fixture
def lattice() -> Graph:
    """216 atoms 1 Å apart in a periodic cube, joined to their 18 nearest; ids from 100."""
    grid = torch.cartesian_prod(*[torch.arange(SIDE)] * 3)
    count = len(grid)
    every = torch.cartesian_prod(*[torch.tensor([-1, 0, 1])] * 3)
    sources, targets, shifts = [], [], []
    for step in every[(every.abs().sum(1) > 0) & (every.abs().sum(1) < 3)]:
        place = grid + step
        sources.append((place % SIDE) @ torch.tensor([SIDE * SIDE, SIDE, 1]))
        targets.append(torch.arange(count))
        shifts.append(place.div(SIDE, rounding_mode="floor"))
    source, target, shift = torch.cat(sources), torch.cat(targets), torch.cat(shifts)
    order = (target * count + source).argsort()
    source, target, shift = source[order], target[order], shift[order]
    label = torch.linspace(1, 2, count)
    label[1] = float("nan")
    return Graph(
        types=torch.arange(count) % 2,
        species=("Cu", "Zr"),
        edge_index=torch.stack([source, target]),
        edge_shift=shift.to(torch.int16),
        edge_vector=(grid[source] + shift * SIDE - grid[target]).float(),
        cutoff=1.5,
        positions=grid.double(),
        ids=torch.arange(count) + 100,
        target=label,
        target_stderr=torch.full((count,), float("nan")),
        structure_index=torch.zeros(count, dtype=torch.int64),
        names=("lattice",),
        glasses=("",),
        splits=("",),
        cell=torch.eye(3, dtype=torch.float64)[None] * SIDE,
        periodic=torch.ones(1, 3, dtype=torch.bool),
    )


def draw_tree(graph: Graph, count: int, seed: int) -> list[int]:
    """Edges drawn at random, each with a path of drawn edges to NODE of at most three."""
    generator = torch.Generator().manual_seed(seed)
    depth, chosen = {NODE: 0}, []
    edges = list(enumerate(graph.edge_index.T.tolist()))
    while len(chosen) < count:
        free = [(e, s, d) for e, (s, d) in edges if depth.get(d, 3) < 3 and s not in depth]
        edge, source, target = free[int(torch.randint(len(free), (1,), generator=generator))]
        chosen.append(edge)
        depth[source] = depth[target] + 1
    return chosen


@pytest.fixture
def truth(lattice: Graph) -> set[int]:
    """The 20 edges of `lattice` on which the planted model's prediction for NODE rests."""
    return set(draw_tree(lattice, 20, seed=1))


@pytest.fixture
def planted(lattice: Graph, truth: set[int]) -> Planted:
    """A model that looks at `truth` only."""
    model = Planted(lattice.ids[lattice.edge_index[:, sorted(truth)]].T, torch.zeros(0, 2))
    model.fit_statistics([lattice])
    return model


@pytest.fixture
def misleading(lattice: Graph, truth: set[int]) -> Planted:
    """The same, with 30 decoys whose slopes are steeper than those of any edge that counts."""
    arriving = (lattice.destination == NODE).nonzero().squeeze(1).tolist()
    beyond = (lattice.destination == NODE - 1).nonzero().squeeze(1).tolist()
    decoys = [e for e in arriving + beyond if e not in truth][:30]
    ends = lattice.ids[lattice.edge_index]
    model = Planted(ends[:, sorted(truth)].T, ends[:, decoys].T, slope=20.0)
    model.fit_statistics([lattice])
    return model


@pytest.fixture
def node() -> int:
    """The atom that is explained."""
    return NODE
