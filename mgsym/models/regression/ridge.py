"""Ridge regression on local descriptors and their averages over an atom's surroundings.

Linear, in closed form (Hoerl & Kennard, Technometrics 12, 55, 1970), fitted in seconds: what any
network has to beat. The inputs and averages are those of mgsym.descriptors.local.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mgsym.descriptors.local import LocalOptions
from mgsym.errors import UsageError
from mgsym.graph import Graph
from mgsym.models.regression.base import DirectModel, strength_for
from mgsym.models.regression.moments import Moments, ridge_weights
from mgsym.utils.progress import Progress


@dataclass(frozen=True)
class RidgeOptions(LocalOptions):
    """Options of the ridge regression.

    Attributes:
        strength: the penalty on squared weights of standardised features; 0 chooses it by
            leaving out the training glasses in turn.
    """

    strength: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.strength >= 0:
            raise UsageError(f"model.strength is {self.strength}, expected at least 0")


class Ridge(DirectModel):
    """Ridge regression with RidgeOptions."""

    source = "Hoerl & Kennard 1970 (Technometrics 12, 55)"
    options: RidgeOptions
    weight: Tensor
    intercept: Tensor
    strength: Tensor

    def __init__(self, species: tuple[str, ...], cutoff: float, options: RidgeOptions) -> None:
        super().__init__(species, cutoff, options)
        self.register_buffer("weight", torch.zeros(self.inputs.num_features))
        self.register_buffer("intercept", torch.zeros(()))
        self.register_buffer("strength", torch.tensor(float(options.strength)))

    def fit_features(self, graphs: Sequence[Graph], progress: Progress) -> None:
        steps = len(graphs) + 1
        glasses = list(self.moments(graphs, lambda done: progress(done, steps)).values())
        self.strength.fill_(strength_for(self.options.strength, glasses))
        together = Moments.sum(glasses)
        (weight,) = ridge_weights(together, [float(self.strength)])
        mean, level = together.centre()
        self.weight.copy_(weight)
        self.intercept.copy_(level - mean @ weight)
        progress(steps, steps)

    def standardised(self, graph: Graph, edge_weight: Tensor | None) -> Tensor:
        return self.projected(graph)

    def projected(self, graph: Graph, progress: Progress | None = None) -> Tensor:
        """[n], as `standardised`; progress is called with the atoms done and in all."""
        return (
            self.inputs.project(graph, self.weight[:, None], progress).squeeze(1) + self.intercept
        )
