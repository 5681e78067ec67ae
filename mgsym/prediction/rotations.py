"""Measure how far predictions move when structures are rotated and reflected."""

from __future__ import annotations

import torch
from torch import Tensor

from mgsym.graph import Graph
from mgsym.models.base import BarrierModel
from mgsym.models.invariance import RotationSpread, spread_of, turned
from mgsym.prediction.predict import Models, load_ensemble, predict_with_spread


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
    ensemble = load_ensemble(models)
    # one after the other: each has edges of its own
    each = [
        predict_with_spread([rotated], ensemble)[0].mean
        for rotated in turned(graph, count, generator)
    ]
    return torch.stack(each).double()
