"""What an edge looks like, and a small network that tells from it how much the edge explains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mgsym.explanation.computation_graph import ComputationGraph, distance_to_atom
from mgsym.explanation.methods.masks import HIGHEST, LOWEST, threshold
from mgsym.graph import Graph
from mgsym.graph.operations import receptive_nodes
from mgsym.models.base import BarrierModel, hidden_features
from mgsym.nn.scatter import segment_sum

SHELLS = 6  # of the radial densities, from nothing to the cutoff


@dataclass(frozen=True, eq=False)
class EdgeFeatures:
    """What there is to see of a computation graph.

    Attributes:
        atoms: [n, a], of each atom.
        edges: [b, columns], of each bond.
        start: [b], the logits that slopes of the prediction suggest; zero where none were taken.
    """

    atoms: Tensor
    edges: Tensor
    start: Tensor


def node_features_of(model: BarrierModel, graph: Graph, nodes: Tensor, depth: int | None) -> Tensor:
    """What the model and the graph have of some atoms.

    Element, radial density of each element's neighbours, the prediction, and what enters the
    model's last layer where it has one: the hidden representation.

    Args:
        graph: the whole graph, so that atoms at the boundary of a computation graph have all their
            neighbours.
        nodes: [k] int64, sorted.
        depth: how many hops the model sees; None for all of the structure, then in `nodes`.

    Returns:
        [k, a].
    """
    field = nodes if depth is None else receptive_nodes(graph, nodes, depth)
    around, _ = graph.subgraph(field)
    with torch.no_grad():
        if model.readout is None:
            hidden, predicted = None, model(around)
        else:
            with hidden_features(model) as seen:
                predicted = model(around)
            hidden = torch.stack(seen).float().mean(0)
    seen_of = [one_hot(around.types, around), _radial(around)]
    seen_of.append(((predicted - model.label_mean) / model.label_scale)[:, None])
    if hidden is not None:
        seen_of.append(hidden)
    return torch.cat(seen_of, dim=1)[torch.searchsorted(field, nodes)]


def edge_features_of(
    part: ComputationGraph, slopes: Tensor | None, budget: int
) -> tuple[Tensor, Tensor]:
    """Length, distance and hop of each bond of a computation graph, and what its slope suggests.

    Args:
        slopes: [b] eV, the effect of each bond; None if that is not to be looked at.
        budget: how many edges the logits of slopes should keep.

    Returns:
        [b, columns], and [b] logits.
    """
    graph = part.graph
    far = (distance_to_atom(part) / graph.cutoff).float()
    hop = part.hop[part.first].float()
    columns = [
        _shells(graph)[part.first],
        far[:, None],
        1 / (1 + hop[:, None]),
        (hop[:, None] == 1).float(),
    ]
    start = torch.zeros_like(far)
    if slopes is not None:
        start = slopes.abs().clamp(min=1e-12).log()
        start = (start - threshold(start, budget)).clamp(LOWEST, HIGHEST)
        columns += [start[:, None] / HIGHEST, slopes.sign()[:, None]]
    return torch.cat(columns, dim=1), start


def one_hot(types: Tensor, graph: Graph) -> Tensor:
    """[k, elements]."""
    return nn.functional.one_hot(types, len(graph.species)).float()


def _shells(graph: Graph) -> Tensor:
    """[e, SHELLS], Gaussians of the length of each edge."""
    width = graph.cutoff / SHELLS
    centres = (torch.arange(SHELLS, device=graph.types.device) + 0.5) * width
    return (-(((graph.edge_length[:, None] - centres) / width) ** 2)).exp()


def _radial(graph: Graph) -> Tensor:
    """[n, SHELLS · elements], how many neighbours of each element are about how far away."""
    shells, kinds = _shells(graph), one_hot(graph.types[graph.source], graph)
    each = [shells * kind[:, None] for kind in kinds.T]
    return segment_sum(torch.cat(each, dim=1), graph.destination, graph.num_nodes)


class EdgeScorer(nn.Module):
    """A network of one hidden layer from what an edge looks like to the logit of its mask,

        ω_e = start_e + v · relu(A x_source + B x_target + C x_node + D y_e + b),

    x standardised over the atoms of training. v starts at nothing, so that before training the
    logits are those of the slopes.

    Args:
        looks: of the computation graphs to train on.
        width: of the hidden layer.
        generator: draws the weights.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, looks: Sequence[EdgeFeatures], width: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        atoms = torch.cat([each.atoms for each in looks])
        self.register_buffer("mean", atoms.mean(0))
        self.register_buffer("scale", atoms.std(0, correction=0).clamp(min=1e-6))
        fan = 3 * atoms.shape[1] + looks[0].edges.shape[1]

        def drawn(*shape: int) -> nn.Parameter:
            values = torch.randn(*shape, generator=generator) / math.sqrt(fan)
            return nn.Parameter(values.to(atoms.device))

        self.ends = nn.ParameterList([drawn(atoms.shape[1], width) for _ in range(3)])
        self.edge = drawn(looks[0].edges.shape[1], width)
        self.bias = nn.Parameter(torch.zeros(width, device=atoms.device))
        self.out = nn.Parameter(torch.zeros(width, device=atoms.device))

    def forward(self, looks: EdgeFeatures, part: ComputationGraph) -> Tensor:
        """[b], the logits of a computation graph's bonds."""
        atoms = ((looks.atoms - self.mean) / self.scale).clamp(-5, 5)
        source, target, node = self.ends
        # by atom first, then by edge: an atom has many edges
        far, near = part.graph.edge_index[:, part.first]
        hidden = (atoms @ source)[far] + (atoms @ target)[near]
        hidden = hidden + atoms[part.node] @ node + looks.edges @ self.edge + self.bias
        logits: Tensor = looks.start + hidden.relu() @ self.out
        return logits
