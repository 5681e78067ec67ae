"""Predict barriers: with one model or several, of structures of any size."""

from __future__ import annotations

from mgsym.graph.operations import (
    System,
    as_graph,
    narrowed,
    receptive_nodes,
    transformed,
    wrapped_positions,
)
from mgsym.models.base import device_of, evaluating
from mgsym.models.invariance import RotationSpread, spread_of
from mgsym.prediction.calibrate import barrier_std, calibrated, features_of
from mgsym.prediction.parts import LARGEST_SURROUNDINGS
from mgsym.prediction.predict import (
    MAX_EDGES,
    Models,
    OneModel,
    Prediction,
    load_ensemble,
    load_models,
    predict,
    predict_graph,
    predict_with_spread,
)
from mgsym.prediction.rotations import rotated_predictions, rotation_spread

__all__ = [
    "LARGEST_SURROUNDINGS",
    "MAX_EDGES",
    "Models",
    "OneModel",
    "Prediction",
    "RotationSpread",
    "System",
    "as_graph",
    "barrier_std",
    "calibrated",
    "device_of",
    "evaluating",
    "features_of",
    "load_ensemble",
    "load_models",
    "narrowed",
    "predict",
    "predict_graph",
    "predict_with_spread",
    "receptive_nodes",
    "rotated_predictions",
    "rotation_spread",
    "spread_of",
    "transformed",
    "wrapped_positions",
]
