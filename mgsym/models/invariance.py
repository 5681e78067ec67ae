"""Measure how far a model is from invariance under rotation and reflection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mgsym.graph import Graph
from mgsym.graph.operations import transformed
from mgsym.nn.rotations import random_orthogonal


@dataclass(frozen=True)
class RotationSpread:
    """How far a model is from invariance, on one structure.

    Attributes:
        count: random transforms.
        rms, max: of an atom's prediction from its mean over the transforms, over all atoms and
            transforms; eV.
        relative_rms, relative_max: the same in standard deviations of the training labels.
    """

    count: int
    rms: float
    max: float
    relative_rms: float
    relative_max: float


def turned(graph: Graph, count: int, generator: torch.Generator | None = None) -> Iterator[Graph]:
    """Rotate and reflect a structure at random, uniformly on O(3), `count` times.

    Args:
        generator: of the transforms; seeded with 0 when None.
    """
    generator = generator or torch.Generator().manual_seed(0)
    for matrix in random_orthogonal(count, generator):
        yield transformed(graph, matrix)


def spread_of(predictions: Tensor, scale: float) -> RotationSpread:
    """How far predictions lie from their mean over transforms.

    Args:
        predictions: [count, n] eV.
        scale: eV, standard deviation of the training labels.
    """
    deviation = predictions - predictions.mean(0)
    rms, largest = float(deviation.square().mean().sqrt()), float(deviation.abs().max())
    return RotationSpread(len(predictions), rms, largest, rms / scale, largest / scale)
