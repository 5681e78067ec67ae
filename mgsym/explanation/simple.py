"""Explainers that cost next to nothing; any other should beat them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mgsym.explanation.explanation import Explanation
from mgsym.explanation.receptive import Cone, full_prediction
from mgsym.models.base import BarrierModel


def slopes(model: BarrierModel, part: Cone) -> Tensor:
    """[m] eV, ∂f/∂w of every edge at w = 1."""
    weight = torch.ones(len(part.edges), device=part.edges.device, requires_grad=True)
    (slope,) = torch.autograd.grad(part.predict(model, weight), weight)
    return slope


def gradient(
    model: BarrierModel,
    part: Cone,
    generator: torch.Generator,
    progress: Callable[..., None] | None,
) -> Explanation:
    """How fast the prediction changes with the weight of each edge, |∂f/∂w| at w = 1, in eV.

    To first order it is what deleting the edge would do (gradient times input).
    """
    importance = slopes(model, part).abs()
    return part.explanation("gradient", importance, prediction=full_prediction(model, part))


def random(
    model: BarrierModel,
    part: Cone,
    generator: torch.Generator,
    progress: Callable[..., None] | None,
) -> Explanation:
    """Every edge drawn at random: what an explanation must be better than."""
    importance = torch.rand(len(part.edges), generator=generator)
    return part.explanation("random", importance, prediction=full_prediction(model, part))
