"""A ridge regression that goes along with a network, and has a share in its prediction.

An atom's inputs x are its species, radial densities, power spectrum (mgsym.environments) and what
a potential says of it (mgsym.physical). They and their Gaussian averages over its surroundings are
its features; the regression (Hoerl & Kennard, Technometrics 12, 55, 1970) is

    y = x · w₀ + A₁ (x · w₁) + A₂ (x · w₂) + …,   bounded by y ← b tanh(y / b).

It is linear in products of the density, of which networks see the roots (mgsym.descriptors), and
so errs elsewhere: the mean of both is better than either. The network must not know of it. One
that learns what the regression leaves over finds too little there, since the regression fits the
glasses it was found on better than others.

Neighbours are those along the graph's edges, each counted as its edge's weight says, so that an
explanation by deletion reaches the regression too. The bound (b = 4 standard deviations of the
label) does next to nothing to a glass, and keeps a structure with edges taken away, unlike anything
that was trained on, from moving a prediction without limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from mgsym.environments import expansion, piece_size, power_spectrum
from mgsym.glass_moments import glass_moments, strength_for
from mgsym.graph import Graph
from mgsym.moments import Moments, ridge_weights
from mgsym.neighborhoods import of_edges
from mgsym.physical import edge_average

BOUND = 4.0  # standard deviations of the label
_CONSTANT = 1e-6  # relative spread below which an input says nothing


@dataclass(frozen=True)
class CompanionSize:
    """What the regression looks at.

    Attributes:
        radial: Gaussians of the power spectrum, per species.
        l_max: its highest degree.
        lengths: Å, of the averages over surroundings.
    """

    radial: int
    l_max: int
    lengths: tuple[float, ...]

    def hops(self, cutoff: float) -> int:
        """How many edges of at most `cutoff` Å away it sees."""
        return 1 + max((average_rounds(length, cutoff) for length in self.lengths), default=0)


def average_rounds(length: float, cutoff: float) -> int:
    """How often to average over neighbours within `cutoff` for a Gaussian of this length (Å).

    A Gaussian that is still large at the cutoff is put together from narrower ones, whose
    variances add up.
    """
    return max(1, round((3 * length / cutoff) ** 2))


def surroundings_average(
    graph: Graph, values: Tensor, length: float, edge_weight: Tensor | None = None
) -> Tensor:
    """A, the average of values [n, k] over surroundings of this length (Å), along edges."""
    rounds = average_rounds(length, graph.cutoff)
    for _ in range(rounds):
        values = edge_average(graph, values, length / math.sqrt(rounds), edge_weight)
    return values


class Companion(nn.Module):
    """The regression.

    Args:
        size: what it looks at.
        species: how many.
        others: how many other inputs of an atom join the invariants.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    shift: Tensor

    def __init__(self, size: CompanionSize, species: int, others: int) -> None:
        super().__init__()
        self.size, self.species = size, species
        channels = species * size.radial
        pairs = channels * (channels + 1) // 2
        inputs = species + channels + pairs * (size.l_max + 1) + others
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.register_buffer("weight", torch.zeros(1 + len(size.lengths), inputs))
        self.register_buffer("shift", torch.zeros(()))

    def forward(self, graph: Graph, others: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """[n], the label in units of its standard deviation, mean subtracted.

        Args:
            graph: with the model's species.
            others: [n, others], standardised.
            edge_weight: [e]; how much each neighbour counts.
        """
        own, *averaged = (self.inputs(graph, others, edge_weight) @ self.weight.T).split(1, dim=1)
        total = self.shift + own
        for part, length in zip(averaged, self.size.lengths, strict=True):
            total = total + surroundings_average(graph, part, length, edge_weight)
        return BOUND * torch.tanh(total.squeeze(1) / BOUND)

    def inputs(self, graph: Graph, others: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """x [n, inputs], with mean 0 and standard deviation 1 among training atoms."""
        parts = []
        for near in of_edges(graph, edge_weight).pieces(piece_size(graph)):
            c = expansion(graph, near, graph.cutoff, self.size.radial, self.size.l_max)
            parts.append(torch.cat([c[..., 0], power_spectrum(c, self.size.l_max)], dim=1))
        own = one_hot(graph.types, self.species)
        return (torch.cat([own, torch.cat(parts), others], dim=1) - self.mean) / self.scale

    def features(self, graph: Graph, others: Tensor) -> Tensor:
        """[n, (1 + lengths) · inputs]: x and its averages."""
        x = self.inputs(graph, others)
        averages = [surroundings_average(graph, x, length) for length in self.size.lengths]
        return torch.cat([x, *averages], dim=1)

    @torch.no_grad()
    def fit(
        self,
        graphs: Sequence[Graph],
        others: Callable[[Graph], Tensor],
        target: Callable[[Graph], Tensor],
    ) -> None:
        """Find the weights; their penalty is what leaving out the glasses in turn favours.

        Args:
            graphs: one structure each; those without labels are passed over.
            others: what joins the invariants of a graph's atoms, [n, others].
            target: [n], the standardised label.
        """
        graphs = [graph for graph in graphs if bool(graph.labelled.any())]
        self._fit_scale(graphs, others)
        moments = glass_moments(graphs, lambda g: self.features(g, others(g)), target)
        glasses = list(moments.values())
        together = Moments.sum(glasses)
        (weight,) = ridge_weights(together, [strength_for(0.0, glasses)])
        mean, level = together.centre()
        self.weight.copy_(weight.view_as(self.weight))
        self.shift.copy_(level - mean @ weight)

    def _fit_scale(self, graphs: Sequence[Graph], others: Callable[[Graph], Tensor]) -> None:
        """Mean and standard deviation of every input among training atoms."""
        self.mean.zero_()
        self.scale.fill_(1.0)
        count, total = 0, torch.zeros_like(self.mean).double()
        square = torch.zeros_like(total)
        for graph in graphs:
            x = self.inputs(graph, others(graph)).double()
            count, total, square = count + len(x), total + x.sum(0), square + x.square().sum(0)
        mean = total / count
        spread = (square / count - mean.square()).clamp(min=0).sqrt()
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(spread > _CONSTANT * (1 + mean.abs()), spread, 1.0))
