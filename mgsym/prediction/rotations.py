"""Measure how far predictions move when structures are rotated and reflected."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mgsym.graph import Graph
from mgsym.graph.operations import transformed
from mgsym.models.base import BarrierModel
from mgsym.nn.rotations import random_orthogonal
from mgsym.prediction.predict import Models, load_ensemble, predict_with_spread


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


def rotation_spread(
    model: BarrierModel,
    graph: Graph,
    count: int = 16,
    generator: torch.Generator | None = None,
) -> RotationSpread:
    """The spread of predictions when a structure is rotated and reflected at random.

    Args:
        model: given back as it was.
        graph: the structure.
        count: transforms, uniform on O(3); at least 2.
        generator: of the transforms; seeded with 0 when None.
    """
    return spread_of(rotated_predictions(model, graph, count, generator), float(model.label_scale))


def rotated_predictions(
    models: Models, graph: Graph, count: int = 16, generator: torch.Generator | None = None
) -> Tensor:
    """What is predicted when a structure is rotated and reflected at random.

    Args:
        models: as for `predict`.
        graph, count, generator: as for `rotation_spread`.

    Returns:
        [count, n] float64, eV.
    """
    generator = generator or torch.Generator().manual_seed(0)
    ensemble = load_ensemble(models)
    turned = (transformed(graph, matrix) for matrix in random_orthogonal(count, generator))
    # one after the other: each has edges of its own
    found = [predict_with_spread([other], ensemble)[0].mean for other in turned]
    return torch.stack(found).double()


def spread_of(predictions: Tensor, scale: float) -> RotationSpread:
    """How far predictions lie from their mean over transforms.

    Args:
        predictions: [count, n] eV.
        scale: eV, standard deviation of the training labels.
    """
    deviation = predictions - predictions.mean(0)
    rms, largest = float(deviation.square().mean().sqrt()), float(deviation.abs().max())
    return RotationSpread(len(predictions), rms, largest, rms / scale, largest / scale)
