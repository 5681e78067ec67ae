"""Make a set of edges suffice by exchanging single edges for others."""

from __future__ import annotations

import torch
from torch import Tensor

from mgsym.explanation.computation_graph import ComputationGraph
from mgsym.graph import Graph, collate
from mgsym.models.base import BarrierModel

OUTSIDE = 100  # edges next in importance that may come in, beside all that arrive at the atom
TRIED = 48  # pairs that are tried each time
COST = 0.02  # label sd of error that a pair must save for each unit of log importance between it


def exchange(
    model: BarrierModel,
    part: ComputationGraph,
    full: float,
    importance: Tensor,
    budget: int,
    limit: int,
    tolerance: float,
) -> Tensor:
    """Exchange the importances of edges until the `budget` most important suffice.

    Each round deletes every edge inside alone and adds every one outside alone, tries the pairs
    that then promise the least error, and keeps the best if it is an improvement. Of equal
    pairs that of most equal importance is taken.

    Args:
        full: eV, the prediction with every edge.
        importance: [m], positive.
        budget: how many edges are inside.
        limit: of rounds.
        tolerance: label sd; below it there is nothing left to do.

    Returns:
        [m], the same importances, some of them exchanged.
    """
    importance = importance.clone()
    scale = float(model.label_scale)
    for _ in range(limit if budget < len(importance) else 0):
        found = _best_pair(model, part, full, importance, budget, scale, tolerance)
        if found is None:
            break
        leaving, entering = found
        importance[[leaving, entering]] = importance[[entering, leaving]]
    return importance


def _best_pair(
    model: BarrierModel,
    part: ComputationGraph,
    full: float,
    importance: Tensor,
    budget: int,
    scale: float,
    tolerance: float,
) -> tuple[int, int] | None:
    """The edges that should leave and enter; None if no pair improves."""
    order = importance.argsort(descending=True, stable=True)
    inside, others = order[:budget], order[budget:]
    near = (torch.arange(len(others), device=others.device) < OUTSIDE) | (
        part.hop[part.first[others]] == 1
    )
    outside = others[near]
    trial = _Trial(model, part, torch.cat([inside, outside]), budget)
    i, o = len(inside), len(outside)
    singles = torch.arange(i + o, device=order.device)[:, None]
    change = (trial.predict(singles) - full) / scale  # of flipping each edge alone
    now = float((trial.predict(singles[:1, :0]) - full) / scale)
    if abs(now) < tolerance:
        return None
    gap = (importance[inside].log()[:, None] - importance[outside].log()[None]).clamp(min=0)
    expected = (change[:i, None] + change[None, i:] - now).abs() + COST * gap
    likely = expected.flatten().argsort(stable=True)[:TRIED]
    pairs = torch.stack([likely // o, i + likely % o], dim=1)
    error = ((trial.predict(pairs) - full) / scale).abs() + COST * gap.flatten()[likely]
    best = int(error.argmin())
    if not float(error[best]) < abs(now):
        return None
    return int(inside[pairs[best, 0]]), int(outside[pairs[best, 1] - i])


class _Trial:
    """Predictions with the edges inside alone, some edges flipped."""

    def __init__(
        self, model: BarrierModel, part: ComputationGraph, bonds: Tensor, inside: int
    ) -> None:
        self.model = model
        edges = part.edges_of(bonds)
        kept = part.graph.with_edges(edges)
        ends = torch.cat([kept.edge_index.flatten(), kept.edge_index.new_tensor([part.node])])
        nodes = ends.unique()
        self.graph, order = kept.subgraph(nodes)
        self.node = int((nodes == part.node).nonzero())
        place = torch.empty_like(part.first)
        place[bonds] = torch.arange(len(bonds), device=bonds.device)
        self.place = place[part.bond[edges[order]]]  # in `bonds`, of each edge of the graph
        self.base = torch.zeros(len(bonds), device=bonds.device)
        self.base[:inside] = 1

    def predict(self, flipped: Tensor) -> Tensor:
        """[choices] eV, with the bonds in each row of `flipped` [choices, any] flipped."""
        count = len(flipped)
        weight = self.base.repeat(count, 1)
        rows = torch.arange(count, device=weight.device)[:, None]
        weight[rows, flipped] = 1 - weight[rows, flipped]
        batch: Graph = collate([self.graph] * count)
        nodes = torch.arange(count, device=weight.device) * self.graph.num_nodes + self.node
        with torch.no_grad():
            found: Tensor = self.model(batch, weight[:, self.place].flatten())[nodes]
        return found
