"""Kernel ridge regression by random Fourier features, on top of a linear one.

y = f · w + φ(z) · v, where z are the scores of the features f along latent directions and
φ(z) = √(2/m) cos(Ω z + b) has, on average, the Gaussian kernel exp(−|z − z′|² / 2ℓ²) for its inner
product (Rahimi & Recht 2007 (NIPS), Algorithm 1). As in universal kriging the linear part is found
first and the kernel fits what it leaves over. ℓ is a multiple of the median distance between
atoms in z.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mgsym.errors import UsageError
from mgsym.graph import Graph
from mgsym.models.direct import Progress, labels_weigh
from mgsym.models.latent import LatentModel, LatentOptions
from mgsym.moments import Moments, ridge_weights

_SAMPLE = 2000  # atoms between which the median distance is found


@dataclass(frozen=True)
class KernelOptions(LatentOptions):
    """Options of the kernel regression.

    Attributes:
        waves: m, how many random features.
        length: ℓ, in median distances.
        kernel_strength: the penalty on squared weights of the standardised random features.
    """

    waves: int = 1000
    length: float = 2.0
    kernel_strength: float = 3000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("waves", "length", "kernel_strength"):
            if not getattr(self, name) > 0:
                raise UsageError(f"model.{name} is {getattr(self, name)}, expected above 0")


class Kernel(LatentModel):
    """Kernel ridge regression with KernelOptions."""

    source = "Rahimi & Recht 2007 (NIPS)"
    options: KernelOptions
    frequency: Tensor
    phase: Tensor
    wave_length: Tensor
    wave_weight: Tensor
    wave_level: Tensor

    def __init__(self, species: tuple[str, ...], cutoff: float, options: KernelOptions) -> None:
        super().__init__(species, cutoff, options)
        self.register_buffer("frequency", torch.randn(options.directions, options.waves))
        self.register_buffer("phase", 2 * math.pi * torch.rand(options.waves))
        self.register_buffer("wave_length", torch.ones(()))
        self.register_buffer("wave_weight", torch.zeros(options.waves))
        self.register_buffer("wave_level", torch.zeros(()))

    def fit_features(self, graphs: Sequence[Graph], progress: Progress) -> None:
        steps = 2 * len(graphs) + 1
        glasses = self.moments(graphs, lambda done: progress(done, steps))
        self.fit_linear(list(glasses.values()))
        projected = [self.project(graph) for graph in graphs]
        self.wave_length.fill_(self.options.length * _median_distance([z for _, z in projected]))
        parts = []
        for i, (graph, (linear, z)) in enumerate(zip(graphs, projected, strict=True)):
            known = graph.labelled
            left = (self.standard_target(graph) - linear)[known]
            parts.append(Moments.of(self._waves(z[known]), left, labels_weigh(graph)))
            progress(len(graphs) + 1 + i, steps)
        together = Moments.sum(parts)
        (weight,) = ridge_weights(together, [self.options.kernel_strength])
        mean, level = together.centre()
        self.wave_weight.copy_(weight)
        self.wave_level.copy_(level - mean @ weight)
        progress(steps, steps)

    def standardised(
        self, graph: Graph, edge_weight: Tensor | None, attention_scale: Tensor | None
    ) -> Tensor:
        linear, z = self.project(graph)
        bent = [self._waves(part) @ self.wave_weight for part in z.split(_SAMPLE)]
        return linear + torch.cat(bent) + self.wave_level

    def _waves(self, z: Tensor) -> Tensor:
        """φ, [n, waves]."""
        angle = torch.addmm(self.phase, z, self.frequency / self.wave_length)
        return angle.cos() * math.sqrt(2 / self.options.waves)


def _median_distance(scores: Sequence[Tensor]) -> float:
    """Between atoms at equal steps in the list."""
    together = torch.cat(list(scores))
    some = together[:: max(1, len(together) // _SAMPLE)]
    return float(torch.pdist(some).median()) if len(some) > 1 else 1.0
