"""Models that may start from a ridge regression and learn what it leaves over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mgsym.errors import UsageError
from mgsym.graph import Graph
from mgsym.models.inputs import PREPARED, InputModel, InputOptions
from mgsym.models.linear import NeighborRidge

RIDGE = "prepared_ridge"  # what `prepare` adds to a graph


@dataclass(frozen=True)
class ResidualOptions(InputOptions):
    """Options of such models beside InputOptions.

    Attributes:
        ridge: where above 0, the network predicts what a ridge regression of this strength on
            the inputs (mgsym.models.linear) leaves over. Latent inputs bring
            their own regression, whose remainder the network then predicts.
    """

    ridge: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ridge and self.node_input != "descriptors":
            raise UsageError('model.ridge needs node_input = "descriptors"')
        if self.ridge and self.latent:
            raise UsageError("model.ridge and model.latent both start from a regression: take one")


class ResidualModel(InputModel):
    """A model whose prediction is a network's, plus that of a ridge regression if asked for.

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

    def start_at_ridge(self, last: nn.Module) -> None:
        """Let the network, of which this is the last layer, begin with zero beside a ridge."""
        if self.ridge is not None or self.latent is not None:
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

    def prepare(self, graph: Graph) -> Graph:
        """The graph with its inputs and their ridge regression, where the model uses them."""
        graph = super().prepare(graph)
        if self.ridge is None:
            return graph
        with torch.no_grad():
            predicted = self.ridge(graph, graph.node_features[PREPARED])
        return graph.replace(node_features={**graph.node_features, RIDGE: predicted})

    def with_ridge(
        self, predicted: Tensor, graph: Graph, inputs: Tensor, edge_weight: Tensor | None
    ) -> Tensor:
        """[n], the network's prediction and those of the ridge regressions that there are."""
        if self.latent is not None:
            predicted = predicted + self.linear_start(inputs)
        if self.ridge is None:
            return predicted
        if edge_weight is None and RIDGE in graph.node_features:
            return predicted + graph.node_features[RIDGE]
        return predicted + self.ridge(graph, inputs, edge_weight)
