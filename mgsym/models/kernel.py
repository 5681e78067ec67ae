"""Kernel ridge regression by random Fourier features, on top of a linear one.

y = f · w + φ(z) · v, where z are the scores of the features f along latent directions and
φ(z) = √(2/m) cos(Ω z + b) has, on average, the Gaussian kernel exp(−|z − z′|² / 2ℓ²) for its inner
product (Rahimi & Recht 2007 (NIPS), Algorithm 1). As in universal kriging the linear part is found
first and the kernel fits what it leaves over. ℓ is the median distance between atoms in z, or a
multiple of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mgsym.errors import UsageError
from mgsym.graph import Graph
from mgsym.models.direct import Progress, labels_weigh
from mgsym.models.latent import LatentModel, LatentOptions
from mgsym.moments import Moments, ridge_weights
from mgsym.splits import glass_of

_SAMPLE = 2000  # atoms between which the median distance is found
_STRENGTHS = (100.0, 1e3, 1e4, 1e5, 1e6, 1e7)  # the last all but silences it
_USUAL_STRENGTH = 3e4  # where a single glass trains


@dataclass(frozen=True)
class KernelOptions(LatentOptions):
    """Options of the kernel regression.

    Attributes:
        waves: m, how many random features.
        length: ℓ, in median distances.
        kernel_strength: the penalty on squared weights of the standardised random features; 0
            chooses it with the last of the training glasses left out.
    """

    waves: int = 1000
    length: float = 1.0
    kernel_strength: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("waves", "length"):
            if not getattr(self, name) > 0:
                raise UsageError(f"model.{name} is {getattr(self, name)}, expected above 0")
        if not self.kernel_strength >= 0:
            raise UsageError(
                f"model.kernel_strength is {self.kernel_strength}, expected at least 0"
            )


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
        steps = len(graphs) + 2
        glasses = self.moments(graphs, lambda done: progress(done, steps))
        strength = self.options.kernel_strength or self._chosen(graphs, glasses)
        progress(steps - 1, steps)
        self.fit_linear(list(glasses.values()))
        together = self._wave_moments(graphs, fit_length=True)
        (weight,) = ridge_weights(together, [strength])
        mean, level = together.centre()
        self.wave_weight.copy_(weight)
        self.wave_level.copy_(level - mean @ weight)
        progress(steps, steps)

    def _chosen(self, graphs: Sequence[Graph], glasses: Mapping[str, Moments]) -> float:
        """The strength with which the kernel on the other glasses says most of the last one."""
        if len(glasses) == 1:
            return _USUAL_STRENGTH
        last = list(glasses)[-1]
        self.fit_linear([moments for glass, moments in glasses.items() if glass != last])
        inner = self._wave_moments([g for g in graphs if glass_of(g) != last], fit_length=True)
        outer = self._wave_moments([g for g in graphs if glass_of(g) == last])
        gains = [outer.gain(weight) for weight in ridge_weights(inner, _STRENGTHS)]
        return _STRENGTHS[gains.index(max(gains))]

    def _wave_moments(self, graphs: Sequence[Graph], fit_length: bool = False) -> Moments:
        """Of the waves and what the ridge regression leaves over."""
        projected = [self.project(graph) for graph in graphs]
        if fit_length:
            distance = _median_distance([z for _, z in projected])
            self.wave_length.fill_(self.options.length * distance)
        parts = []
        for graph, (linear, z) in zip(graphs, projected, strict=True):
            known = graph.labelled
            left = (self.standard_target(graph) - linear)[known]
            parts.append(Moments.of(self._waves(z[known]), left, labels_weigh(graph)))
        return Moments.sum(parts)

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
