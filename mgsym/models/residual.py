"""Networks that a ridge regression may help: as a companion, or as what they start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mgsym.errors import UsageError
from mgsym.graph import Graph, match_species
from mgsym.models.inputs import INPUTS, InputModel, InputOptions, check_range
from mgsym.models.linear import NeighborRidge
from mgsym.models.ridge import Ridge, RidgeOptions
from mgsym.prepared import Owner

# standard deviations of the label: beyond what any glass gives, products of a density that was
# never trained on would move a prediction without limit
FARTHEST = 5.0
RIDGE, COMPANION = "ridge", "companion"  # what is prepared of a graph: their predictions


@dataclass(frozen=True)
class ResidualOptions(InputOptions):
    """Options of such models beside InputOptions.

    Attributes:
        ridge: where above 0, the network predicts what a ridge regression of this strength on
            the inputs (mgsym.models.linear) leaves over.
        companion: share of the prediction that a ridge regression of its own has (below);
            0 for none.
    """

    ridge: float = 0.0
    companion: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "companion", 0, 1)
        if self.ridge and self.node_input != "descriptors":
            raise UsageError('model.ridge needs node_input = "descriptors"')


class ResidualModel(InputModel):
    """A model whose prediction is a network's and, if asked for, that of a ridge regression.

    The companion is mgsym.models.ridge: linear in products of the neighbour density, of which
    networks see the roots (mgsym.descriptors), and so wrong about other atoms. The mean of both is
    better than either, if the network does not know of it: a regression fits the glasses it was
    found on better than others, so a network that learnt what it leaves over would learn too
    little. It looks at positions; deleting edges changes the network's part alone.

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
        self.edges_share = 1 - options.companion
        self.companion: Ridge | None = None
        if options.companion > 0:
            inputs = RidgeOptions(physical_inputs=options.physical_inputs)
            self.companion = Ridge(species, cutoff, inputs)

    @property
    def receptive_field(self) -> float:
        """Å: of the network or of the companion, whichever sees farther."""
        beside = 0.0 if self.companion is None else self.companion.receptive_field
        return max(super().receptive_field, beside)

    def fit_statistics(self, graphs: Sequence[Graph]) -> None:
        """What an InputModel takes; and the companion, all of it."""
        super().fit_statistics(graphs)
        if self.companion is not None:
            self.companion.fit(graphs)

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

    def owner(self) -> Owner:
        """As of an InputModel; and all of the regressions."""
        parts = [part for part in (self.ridge, self.companion) if part is not None]
        fitted = [values for part in parts for values in part.buffers()]
        if not fitted:
            return super().owner()
        return (ResidualModel, self.species, self.options, *super().owner(), *fitted)

    def from_positions(self, graph: Graph) -> dict[str, Tensor]:
        """The companion's prediction, if there is one."""
        return {} if self.companion is None else {COMPANION: self._beside(graph)}

    def from_edges(self, graph: Graph) -> dict[str, Tensor]:
        """The inputs and the regression on them, as far as the model uses them."""
        found = super().from_edges(graph)
        return found if self.ridge is None else {**found, RIDGE: self.ridge(graph, found[INPUTS])}

    def with_ridge(
        self, predicted: Tensor, graph: Graph, inputs: Tensor, edge_weight: Tensor | None
    ) -> Tensor:
        """[n], the network's prediction and what the ridge regressions make of it.

        In training the companion keeps silent.
        """
        own = self.prepared_of(graph)
        if self.ridge is not None:
            if own is not None and edge_weight is None and RIDGE in own.from_edges:
                predicted = predicted + own.from_edges[RIDGE]
            else:
                predicted = predicted + self.ridge(graph, inputs, edge_weight)
        if self.companion is None or self.training:
            return predicted
        beside = self._beside(graph) if own is None else own.from_positions[COMPANION]
        return torch.lerp(predicted, beside.to(predicted.dtype), self.options.companion)

    def _beside(self, graph: Graph) -> Tensor:
        """[n], the companion's prediction, standardised; no farther from the mean than FARTHEST."""
        assert self.companion is not None
        found = self.companion.standardised(match_species(graph, self.species), None, None)
        return found.clamp(-FARTHEST, FARTHEST)
