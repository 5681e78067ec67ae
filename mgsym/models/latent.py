"""What kernel and boosted regression share: a linear start, and a few directions to bend it along.

Thousands of correlated features are too many for a kernel or for trees, and those that vary most
are not those that matter. Partial least squares finds the directions that matter for the barrier,
and what the nonlinear part fits is what the ridge regression on all features leaves over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mgsym.errors import UsageError
from mgsym.graph import Graph
from mgsym.models.direct import DirectModel, strength_for
from mgsym.models.ridge import RidgeOptions
from mgsym.moments import Moments, latent_directions, ridge_weights


@dataclass(frozen=True)
class LatentOptions(RidgeOptions):
    """Options of models that bend a ridge regression.

    Attributes:
        directions: how many latent directions there are.
    """

    directions: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.directions < 1:
            raise UsageError(f"model.directions is {self.directions}, expected at least 1")


class LatentModel(DirectModel):
    """A ridge regression on all features, and their scores along latent directions.

    A subclass fits the rest in `fit_features`, with `fit_linear`, and implements `standardised`
    with `project`.
    """

    options: LatentOptions
    weight: Tensor
    shift: Tensor

    def __init__(self, species: tuple[str, ...], cutoff: float, options: LatentOptions) -> None:
        super().__init__(species, cutoff, options)
        width = 1 + options.directions
        self.register_buffer("weight", torch.zeros(self.inputs.num_features, width))
        self.register_buffer("shift", torch.zeros(width))

    def fit_linear(self, glasses: Sequence[Moments]) -> None:
        """Find the ridge weights and the latent directions."""
        strength = strength_for(self.options.strength, glasses)
        together = Moments.sum(glasses)
        (ridge,) = ridge_weights(together, [strength])
        directions = latent_directions(together, self.options.directions, strength)
        self.weight.zero_()
        self.weight[:, 0] = ridge
        self.weight[:, 1 : 1 + directions.shape[1]] = directions
        mean, level = together.centre()
        self.shift.copy_(-mean @ self.weight.to(mean))
        self.shift[0] += level

    def project(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """The ridge regression's prediction [n], and scores [n, directions] of variance about 1."""
        found = self.inputs.project(graph, self.weight) + self.shift
        return found[:, 0], found[:, 1:]
