"""Ridge regression on an atom's inputs and their averages over its neighbours.

With A the mean over the neighbours of an atom, the prediction is

    y = X w₀ + A X w₁ + A² X w₂ + …  = X w₀ + A (X w₁ + A (X w₂ + …)),

so that a prediction moves one number per edge and round, whatever the width of X. The weights
come in closed form (Hoerl & Kennard, Technometrics 12, 55, 1970).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from mgsym.graph import Graph
from mgsym.scatter import segment_mean


class NeighborRidge(nn.Module):
    """Ridge regression on inputs [n, k] and their averages over 1 … `rounds` neighbourhoods.

    Args:
        inputs: k.
        rounds: how often neighbours are averaged; each reaches one edge farther.
        strength: the penalty on the squared weights of standardised inputs.
    """

    weight: Tensor

    def __init__(self, inputs: int, rounds: int, strength: float) -> None:
        super().__init__()
        self.rounds, self.strength = rounds, strength
        self.register_buffer("weight", torch.zeros(rounds + 1, inputs))

    def fit(self, samples: Sequence[tuple[Graph, Tensor, Tensor]]) -> None:
        """Find the weights.

        Args:
            samples: per structure the graph, its inputs [n, k] and targets [n] with mean zero;
                atoms whose target is NaN are left out. Labels count as much as the graph says
                (mgsym.label_weights).
        """
        count = self.weight.numel()
        moments = torch.zeros(count, count, dtype=torch.float64)
        products = torch.zeros(count, dtype=torch.float64)
        rows = 0
        for graph, inputs, target in samples:
            known = ~torch.isnan(target)
            features = torch.cat(list(self._rounds(graph, inputs)), dim=1)[known].double()
            weight = graph.label_weight
            weighted = features if weight is None else weight[known, None].double() * features
            moments += weighted.T @ features
            products += weighted.T @ target[known].double()
            rows += len(features)
        # inputs have mean zero, and so nearly do their averages: the root mean square is the scale
        scale = (moments.diagonal() / max(rows, 1)).sqrt().clamp(min=1e-6)
        penalty = self.strength * torch.diag(scale**2)
        solved = torch.linalg.solve(moments + penalty, products)
        self.weight.copy_(solved.view_as(self.weight))

    def _rounds(self, graph: Graph, inputs: Tensor) -> Iterator[Tensor]:
        yield inputs
        for _ in range(self.rounds):
            inputs = neighbor_mean(graph, inputs)
            yield inputs

    def forward(self, graph: Graph, inputs: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """[n], the prediction for inputs [n, k]."""
        parts = inputs @ self.weight.T
        total = parts[:, self.rounds]
        for r in reversed(range(self.rounds)):
            total = parts[:, r] + neighbor_mean(graph, total, edge_weight)
        return total


def neighbor_mean(graph: Graph, values: Tensor, edge_weight: Tensor | None = None) -> Tensor:
    """The mean of `values` [n, …] over the neighbours of each atom; zero where it has none."""
    return segment_mean(values[graph.source], graph.destination, graph.num_nodes, edge_weight)
