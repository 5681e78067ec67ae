"""MLP: a perceptron on each atom by itself.

The weakest baseline of arXiv 2401.08627: what the type says of a barrier, which is a mean per
element, and with `physical_inputs` or descriptors what those say. The published code gives its
MLP the atom's absolute position beside the type; that changes with the choice of origin, so it is
no input here.

With ``neighbors=True`` the inputs are joined by statistics of the neighbourhood: how many
neighbours there are, and mean and variance of their distances and of their own inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mgsym.graph import Graph
from mgsym.layers import Dropout
from mgsym.models.inputs import InputModel, InputOptions, check_range
from mgsym.scatter import segment_mean, segment_sum


@dataclass(frozen=True)
class MLPOptions(InputOptions):
    """Options of the MLP beside InputOptions.

    Attributes:
        layers: hidden layers.
        dropout: after each.
        neighbors: add statistics of the neighbours.
    """

    layers: int = 3
    dropout: float = 0.0
    neighbors: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "layers", 1)
        check_range(self, "dropout", 0, 1)


class MLP(InputModel):
    """Hidden layers on an atom's inputs; no messages."""

    source = "Li et al. 2024 (arXiv 2401.08627)"
    options: MLPOptions

    def __init__(self, species: tuple[str, ...], cutoff: float, options: MLPOptions) -> None:
        super().__init__(species, cutoff, options, layers=int(options.neighbors))
        modules: list[nn.Module] = [self.first_layer()]
        for i in range(options.layers):
            if i > 0:
                modules.append(nn.Linear(options.width, options.width))
            modules += [nn.ReLU(), Dropout(options.dropout)]
        self.network = nn.Sequential(*modules, nn.Linear(options.width, 1))

    @property
    def uses_edges(self) -> bool:  # type: ignore[override]
        """Where the inputs of an atom depend on its neighbours."""
        return self.hops > 0

    @property
    def types_alone(self) -> bool:
        """Not with neighbours."""
        return super().types_alone and not self.options.neighbors

    def count_inputs(self) -> int:
        """An atom's own, and with neighbours three numbers and mean and variance of each."""
        own = super().count_inputs()
        return 3 + 3 * own if self.options.neighbors else own

    def raw_inputs(self, graph: Graph, edge_weight: Tensor | None = None) -> Tensor:
        """[n, count_inputs]: an atom's own, then the statistics of its neighbours."""
        own = super().raw_inputs(graph, edge_weight)
        if not self.options.neighbors:
            return own
        return torch.cat([own, neighbor_statistics(graph, own, edge_weight)], dim=1)

    def standardised(
        self, graph: Graph, edge_weight: Tensor | None, attention_scale: Tensor | None
    ) -> Tensor:
        return self.network(self.node_input(graph, edge_weight)).squeeze(-1)


def neighbor_statistics(graph: Graph, values: Tensor, edge_weight: Tensor | None = None) -> Tensor:
    """Number, mean and variance over the neighbours of each atom.

    Args:
        graph: gives neighbours and their distances.
        values: [n, k] of every atom.
        edge_weight: [e]; how often each neighbour counts.

    Returns:
        [n, 3 + 2k]: how many neighbours, mean distance (Å) and means of the values, then the
        variances of both in the same order; zero for an atom that has none.
    """
    index, count = graph.destination, graph.num_nodes
    weight = graph.edge_length.new_ones(graph.num_edges) if edge_weight is None else edge_weight
    number = segment_sum(weight, index, count)[:, None]
    known = torch.cat([graph.edge_length[:, None].to(values), values[graph.source]], dim=1)
    mean = segment_mean(known, index, count, edge_weight)
    spread = (known - mean[index]).square()
    variance = segment_mean(spread, index, count, edge_weight)
    return torch.cat([number.to(values), mean, variance], dim=1)
