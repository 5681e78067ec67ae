"""What an atom's surroundings say of its barrier, in a few numbers.

An atom's inputs x are its species, radial densities, power spectrum (mgsym.environments) and what
a potential says of it (mgsym.physical). They and their Gaussian averages over its
neighbours make its features. The atom's latent inputs z are what a ridge regression on them
predicts, and scores along the directions that partial least squares finds to matter most for the
barrier (mgsym.moments),

    z = x · w₀ + A₁ (x · w₁) + A₂ (x · w₂) + …,   bounded by z ← b tanh(z / b).

A regression fits the glasses that it was found on better than others. A network that is to learn
what it leaves over must not be shown that, so `forward_training` gives each training glass the
prediction of a regression on the others (stacking: Wolpert, Neural Networks 5, 241, 1992).

Neighbours are those along the graph's edges, each counted as its edge's weight says, so that an
explanation by deletion reaches everything that the atom's inputs rest on. The bound (b = 4
standard deviations) does next to nothing to a glass, and keeps a structure with edges taken away,
unlike anything that was trained on, from moving a prediction without limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from mgsym.environments import expansion, piece_size, power_spectrum
from mgsym.errors import InputError
from mgsym.glass_moments import glass_moments, strength_for
from mgsym.graph import Graph
from mgsym.moments import Moments, latent_directions, ridge_weights
from mgsym.neighborhoods import of_edges
from mgsym.physical import edge_average
from mgsym.splits import glass_of

BOUND = 4.0  # standard deviations of a training atom
_CONSTANT = 1e-6  # relative spread below which an invariant says nothing


@dataclass(frozen=True)
class LatentSize:
    """How much latent inputs look at, and how many there are.

    Attributes:
        count: of latent inputs, the ridge regression's prediction among them.
        radial: Gaussians of the power spectrum, per species.
        l_max: its highest degree.
        lengths: Å, of the averages over neighbours.
    """

    count: int
    radial: int
    l_max: int
    lengths: tuple[float, ...]

    def hops(self, cutoff: float) -> int:
        """How many edges of at most `cutoff` Å away the scores see."""
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


class LatentInputs(nn.Module):
    """The first is a ridge regression's prediction, in standard deviations of the label.

    Args:
        size: how many, of what.
        species: how many.
        others: how many other inputs of an atom join its invariants.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    shift: Tensor

    def __init__(self, size: LatentSize, species: int, others: int) -> None:
        super().__init__()
        self.size, self.species = size, species
        channels = species * size.radial
        pairs = channels * (channels + 1) // 2
        self.invariants = species + channels + pairs * (size.l_max + 1) + others
        self.register_buffer("mean", torch.zeros(self.invariants))
        self.register_buffer("scale", torch.ones(self.invariants))
        rows = 1 + len(size.lengths)
        self.register_buffer("weight", torch.zeros(rows, self.invariants, size.count))
        self.register_buffer("shift", torch.zeros(size.count))
        self.without: dict[
            str, tuple[Tensor, Tensor]
        ] = {}  # by glass left out, until training ends

    def forward(self, graph: Graph, others: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """z, [n, count]; scores have a variance of about 1 among training atoms, and all a bound.

        Args:
            graph: with the model's species.
            others: [n, others], standardised.
            edge_weight: [e]; how much each neighbour counts.
        """
        x = self.standardised(graph, others, edge_weight)
        return self._scores(graph, x, self.weight, self.shift, edge_weight)

    def forward_training(self, graph: Graph, others: Tensor) -> Tensor:
        """As `forward`, but the regression is that of the training glasses but this one."""
        x = self.standardised(graph, others)
        scores = self._scores(graph, x, self.weight, self.shift)
        if (found := self.without.get(glass_of(graph))) is not None:
            weight, shift = (part.to(x.device) for part in found)
            scores = torch.cat([self._scores(graph, x, weight, shift), scores[:, 1:]], dim=1)
        return scores

    def _scores(
        self,
        graph: Graph,
        x: Tensor,
        weights: Tensor,
        shift: Tensor,
        edge_weight: Tensor | None = None,
    ) -> Tensor:
        scores = shift + x @ weights[0]
        for weight, length in zip(weights[1:], self.size.lengths, strict=True):
            scores = scores + surroundings_average(graph, x @ weight, length, edge_weight)
        return BOUND * torch.tanh(scores / BOUND)

    def standardised(
        self, graph: Graph, others: Tensor, edge_weight: Tensor | None = None
    ) -> Tensor:
        """x [n, invariants], with mean 0 and standard deviation 1 among training atoms."""
        parts = []
        for near in of_edges(graph, edge_weight).pieces(piece_size(graph)):
            c = expansion(graph, near, graph.cutoff, self.size.radial, self.size.l_max)
            parts.append(torch.cat([c[..., 0], power_spectrum(c, self.size.l_max)], dim=1))
        own = one_hot(graph.types, self.species)
        return (torch.cat([own, torch.cat(parts), others], dim=1) - self.mean) / self.scale

    def features(self, graph: Graph, others: Tensor) -> Tensor:
        """[n, (1 + lengths) · invariants]: x and its averages."""
        x = self.standardised(graph, others)
        averages = [surroundings_average(graph, x, length) for length in self.size.lengths]
        return torch.cat([x, *averages], dim=1)

    @torch.no_grad()
    def fit(self, graphs: Sequence[Graph], others: Callable[[Graph], Tensor]) -> None:
        """Find the directions on labelled training structures, one each.

        The penalty on the weights is the one that leaving out the training glasses in turn
        favours.

        Args:
            graphs: one structure each.
            others: what joins the invariants of a graph's atoms, [n, others].

        Raises:
            InputError: no atom has a label.
        """
        graphs = [graph for graph in graphs if bool(graph.labelled.any())]
        if not graphs:
            raise InputError("no atom of the training structures has a label")
        self._fit_scale(graphs, others)
        labels = torch.cat([graph.target[graph.labelled] for graph in graphs])
        level, spread = labels.mean(), labels.std(correction=0).clamp(min=1e-6)
        moments = glass_moments(
            graphs,
            lambda graph: self.features(graph, others(graph)),
            lambda graph: (graph.target - level) / spread,
        )
        glasses = list(moments.values())
        together = Moments.sum(glasses)
        strength = strength_for(0.0, glasses)
        self._keep(self._solved(together, strength, self.size.count - 1))
        self.without = {}
        for name in moments if len(moments) > 1 else ():
            rest = Moments.sum([other for glass, other in moments.items() if glass != name])
            self.without[name] = self._solved(rest, strength, 0)

    def _solved(self, moments: Moments, strength: float, scores: int) -> tuple[Tensor, Tensor]:
        """Weights [1 + lengths, invariants, 1 + scores] and shift; the regression comes first."""
        (ridge,) = ridge_weights(moments, [strength])
        found = torch.cat([ridge[:, None], latent_directions(moments, scores, strength)], dim=1)
        mean, level = moments.centre()
        shift = -(mean @ found)
        shift[0] += level
        rows = found.view(len(self.weight), -1, found.shape[1])
        return rows.to(self.weight), shift.to(self.shift)

    def _keep(self, found: tuple[Tensor, Tensor]) -> None:
        """There may be fewer directions than asked for."""
        weight, shift = found
        self.weight.zero_()
        self.shift.zero_()
        self.weight[..., : len(shift)] = weight
        self.shift[: len(shift)] = shift

    def _fit_scale(self, graphs: Sequence[Graph], others: Callable[[Graph], Tensor]) -> None:
        """Mean and standard deviation of every invariant among training atoms."""
        self.mean.zero_()
        self.scale.fill_(1.0)
        count, total = 0, torch.zeros_like(self.mean).double()
        square = torch.zeros_like(total)
        for graph in graphs:
            x = self.standardised(graph, others(graph)).double()
            count, total, square = count + len(x), total + x.sum(0), square + x.square().sum(0)
        mean = total / count
        spread = (square / count - mean.square()).clamp(min=0).sqrt()
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(spread > _CONSTANT * (1 + mean.abs()), spread, 1.0))
