"""Networks that a ridge regression may help: as a companion, or as what they start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mgsym.errors import UsageError
from mgsym.graph import Graph
from mgsym.models.companion import Companion, CompanionSize
from mgsym.models.inputs import PREPARED, InputModel, InputOptions, check_range
from mgsym.models.linear import NeighborRidge

RIDGE, COMPANION = "prepared_ridge", "prepared_companion"  # what `prepare` adds to a graph


@dataclass(frozen=True)
class ResidualOptions(InputOptions):
    """Options of such models beside InputOptions.

    Attributes:
        ridge: where above 0, the network predicts what a ridge regression of this strength on
            the inputs (mgsym.models.linear) leaves over.
        companion: share of the prediction that another ridge regression makes, in evaluation
            (mgsym.models.companion); 0 for none. It averages over lengths of `smoothing`.
        companion_radial: Gaussians of its power spectrum; the degree is `l_max`.
    """

    ridge: float = 0.0
    companion: float = 0.0
    companion_radial: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "companion", 0, 1)
        check_range(self, "companion_radial", 2)
        if self.ridge and self.node_input != "descriptors":
            raise UsageError('model.ridge needs node_input = "descriptors"')
        if self.companion and self.node_input != "descriptors":
            raise UsageError('model.companion needs node_input = "descriptors"')

    @property
    def companion_size(self) -> CompanionSize:
        """What the companion looks at."""
        return CompanionSize(self.companion_radial, self.l_max, self.smoothing)


class ResidualModel(InputModel):
    """A model whose prediction is a network's and, if asked for, that of a ridge regression.

    A subclass ends with `with_ridge` and gives its last layer to `start_at_ridge`.

    Args:
        species, cutoff, options, layers: as for InputModel; neighbours are averaged as often as
            messages travel.
    """

    options: ResidualOptions

    def __init__(
        self, species: tuple[str, ...], cutoff: float, options: ResidualOptions, layers: int
    ) -> None:
        super().__init__(species, cutoff, options, layers)
        self.ridge: NeighborRidge | None = None
        if options.ridge > 0:
            self.ridge = NeighborRidge(self.count_inputs(), layers, options.ridge)
        self.companion: Companion | None = None
        if options.companion > 0:
            size = options.companion_size
            self.companion = Companion(size, len(species), len(options.physical_inputs))
            self.hops = max(self.hops, size.hops(cutoff))

    def start_at_ridge(self, last: nn.Module) -> None:
        """Let the network, of which this is the last layer, begin with zero beside a ridge."""
        if self.ridge is not None:
            for parameter in last.parameters():
                nn.init.zeros_(parameter)

    def fit_inputs(self, graphs: Sequence[Graph], inputs: Sequence[Tensor]) -> None:
        """What standardises the inputs, then the ridge regression on them."""
        super().fit_inputs(graphs, inputs)
        if self.ridge is not None:
            self.ridge.fit(
                [
                    (g, self.standardise(x), (g.target - self.label_mean) / self.label_scale)
                    for g, x in zip(graphs, inputs, strict=True)
                ]
            )
        if self.companion is not None:
            self.companion.fit(
                graphs, self._others, lambda g: (g.target - self.label_mean) / self.label_scale
            )

    def prepare(self, graph: Graph) -> Graph:
        """The graph with its inputs and the regressions on them, where the model uses them."""
        graph = super().prepare(graph)
        found = dict(graph.node_features)
        with torch.no_grad():
            if self.ridge is not None:
                found[RIDGE] = self.ridge(graph, found[PREPARED])
            if self.companion is not None:
                found[COMPANION] = self.companion(graph, self._others(graph))
        return graph.replace(node_features=found)

    def with_ridge(
        self, predicted: Tensor, graph: Graph, inputs: Tensor, edge_weight: Tensor | None
    ) -> Tensor:
        """[n], the network's prediction and what the ridge regressions make of it.

        In training the companion keeps silent.
        """
        whole = edge_weight is None
        if self.ridge is not None:
            known = whole and RIDGE in graph.node_features
            start = graph.node_features[RIDGE] if known else self.ridge(graph, inputs, edge_weight)
            predicted = predicted + start
        if self.companion is None or self.training:
            return predicted
        if whole and COMPANION in graph.node_features:
            beside = graph.node_features[COMPANION]
        else:
            beside = self.companion(graph, self._others(graph), edge_weight)
        return torch.lerp(predicted, beside.to(predicted.dtype), self.options.companion)

    def _others(self, graph: Graph) -> Tensor:
        """[n, physical inputs], standardised: what the companion takes beside the structure."""
        if self.physical is None:
            return self.label_mean.new_zeros(graph.num_nodes, 0)
        return self.physical.standardised(graph)
