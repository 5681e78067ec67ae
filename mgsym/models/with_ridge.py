"""Networks in whose prediction a ridge regression may have a share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mgsym.graph import Graph, match_species
from mgsym.graph.prepared import Owner
from mgsym.models.node_inputs import InputModel, InputOptions, check_range
from mgsym.models.regression.ridge import Ridge, RidgeOptions
from mgsym.utils.progress import Progress

# standard deviations of the label: beyond what any glass gives, products of a density that was
# never trained on would move a prediction without limit
FARTHEST = 5.0
RIDGE = "ridge"  # what is prepared of a graph: the regression's prediction


@dataclass(frozen=True)
class WithRidgeOptions(InputOptions):
    """Options of such models beside InputOptions.

    Attributes:
        ridge_share: of the prediction that a ridge regression of its own has (below); 0 for none.
    """

    ridge_share: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "ridge_share", 0, 1)


class NetworkWithRidge(InputModel):
    """A model whose prediction is a network's and, if asked for, that of a ridge regression.

    The regression is mgsym.models.regression.ridge: linear in products of the neighbour density, of
    which networks see the roots (mgsym.descriptors.power_spectrum), and so wrong about other atoms.
    The mean of both is better than either, if the network does not know of it: a regression fits
    the glasses it was found on better than others, so a network that learnt what it leaves over
    would learn too little. It looks at positions; deleting edges changes the network's part alone.

    A subclass ends with `with_ridge`.

    Args:
        species, cutoff, options, layers: as for InputModel.
    """

    options: WithRidgeOptions

    def __init__(
        self, species: tuple[str, ...], cutoff: float, options: WithRidgeOptions, layers: int
    ) -> None:
        super().__init__(species, cutoff, options, layers)
        self.edges_share = 1 - options.ridge_share
        self.ridge: Ridge | None = None
        if options.ridge_share > 0:
            inputs = RidgeOptions(physical_inputs=options.physical_inputs)
            self.ridge = Ridge(species, cutoff, inputs)
        self.register_load_state_dict_pre_hook(_with_current_keys)

    @property
    def receptive_field(self) -> float:
        """Å: of the network or of the regression, whichever sees farther."""
        ridge = 0.0 if self.ridge is None else self.ridge.receptive_field
        return max(super().receptive_field, ridge)

    def fit_statistics(self, graphs: Sequence[Graph]) -> None:
        """Take what an InputModel takes; and fit the regression."""
        super().fit_statistics(graphs)
        if self.ridge is not None:
            self.ridge.fit(graphs)

    def owner(self) -> Owner:
        """Name what an InputModel does; and all of the regression."""
        if self.ridge is None:
            return super().owner()
        fitted = self.ridge.buffers()
        return (NetworkWithRidge, self.species, self.options, *super().owner(), *fitted)

    def from_positions(self, graph: Graph, progress: Progress | None = None) -> dict[str, Tensor]:
        """Prepare the regression's prediction, if there is one."""
        return {} if self.ridge is None else {RIDGE: self._ridge_prediction(graph, progress)}

    def with_ridge(self, predicted: Tensor, graph: Graph) -> Tensor:
        """Mix the ridge prediction into the network's, [n]; not in training."""
        own = self.prepared_of(graph)
        if self.ridge is None or self.training:
            return predicted
        ridge = self._ridge_prediction(graph) if own is None else own.from_positions[RIDGE]
        ridge = ridge[: len(predicted)]  # of a part, the first atoms alone are predicted
        return torch.lerp(predicted, ridge.to(predicted.dtype), self.options.ridge_share)

    def _ridge_prediction(self, graph: Graph, progress: Progress | None = None) -> Tensor:
        """[n], what the regression predicts, standardised; within FARTHEST of the mean."""
        assert self.ridge is not None
        predicted = self.ridge.projected(match_species(graph, self.species), progress)
        return predicted.clamp(-FARTHEST, FARTHEST)


def _with_current_keys(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Rename the regression in weights that mgsym 0.1.0 saved."""
    for key in [key for key in state if key.startswith(f"{prefix}companion.")]:
        state[f"{prefix}ridge.{key.removeprefix(f'{prefix}companion.')}"] = state.pop(key)
