"""Networks beside which a ridge regression may predict, as their companion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mgsym.graph import Graph, match_species
from mgsym.models.base import Tell
from mgsym.models.inputs import InputModel, InputOptions, check_range
from mgsym.models.ridge import Ridge, RidgeOptions
from mgsym.prepared import Owner

# standard deviations of the label: beyond what any glass gives, products of a density that was
# never trained on would move a prediction without limit
FARTHEST = 5.0
COMPANION = "companion"  # what is prepared of a graph: its prediction


@dataclass(frozen=True)
class ResidualOptions(InputOptions):
    """Options of such models beside InputOptions.

    Attributes:
        companion: share of the prediction that a ridge regression of its own has (below);
            0 for none.
    """

    companion: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "companion", 0, 1)


class ResidualModel(InputModel):
    """A model whose prediction is a network's and, if asked for, that of a ridge regression.

    The companion is mgsym.models.ridge: linear in products of the neighbour density, of which
    networks see the roots (mgsym.descriptors), and so wrong about other atoms. The mean of both is
    better than either, if the network does not know of it: a regression fits the glasses it was
    found on better than others, so a network that learnt what it leaves over would learn too
    little. It looks at positions; deleting edges changes the network's part alone.

    A subclass ends with `with_ridge`.

    Args:
        species, cutoff, options, layers: as for InputModel.
    """

    options: ResidualOptions

    def __init__(
        self, species: tuple[str, ...], cutoff: float, options: ResidualOptions, layers: int
    ) -> None:
        super().__init__(species, cutoff, options, layers)
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

    def owner(self) -> Owner:
        """As of an InputModel; and all of the companion."""
        if self.companion is None:
            return super().owner()
        fitted = self.companion.buffers()
        return (ResidualModel, self.species, self.options, *super().owner(), *fitted)

    def from_positions(self, graph: Graph, tell: Tell | None = None) -> dict[str, Tensor]:
        """The companion's prediction, if there is one."""
        return {} if self.companion is None else {COMPANION: self._beside(graph, tell)}

    def with_ridge(self, predicted: Tensor, graph: Graph) -> Tensor:
        """[n], the network's prediction and the companion's; in training the latter is silent."""
        own = self.prepared_of(graph)
        if self.companion is None or self.training:
            return predicted
        beside = self._beside(graph) if own is None else own.from_positions[COMPANION]
        beside = beside[: len(predicted)]  # of a part, the first atoms alone are predicted
        return torch.lerp(predicted, beside.to(predicted.dtype), self.options.companion)

    def _beside(self, graph: Graph, tell: Tell | None = None) -> Tensor:
        """[n], the companion's prediction, standardised; no farther from the mean than FARTHEST."""
        assert self.companion is not None
        found = self.companion.projected(match_species(graph, self.species), tell)
        return found.clamp(-FARTHEST, FARTHEST)
