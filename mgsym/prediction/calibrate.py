"""Calibrate the spread between the models of an ensemble, and tell errors by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mgsym.errors import InputError
from mgsym.graph import Graph
from mgsym.prediction.ensemble import Ensemble
from mgsym.prediction.predict import Models, Prediction, load_ensemble, predict_with_spread
from mgsym.uncertainty.calibration import Calibration
from mgsym.uncertainty.error_features import Features, error_features
from mgsym.utils.progress import Progress


def calibrated(
    models: Models,
    graphs: Sequence[Graph],
    noise: float | None = None,
    device: str | torch.device = "auto",
    progress: Progress | None = None,
) -> Ensemble:
    """An ensemble with its spread calibrated on labelled structures.

    Each structure is predicted by the members that were not trained on it, so an ensemble whose
    members leave out different structures is calibrated on all of them.

    Args:
        models: as for `predict`.
        graphs: one structure each; those without labels are passed over.
        noise: eV, standard error of the labels; see `Calibration.fit`.
        device: as for `predict`.
        progress: called with the number of structures done and in all.

    Raises:
        InputError: a structure trained every member, or no atom has a label.
    """
    ensemble = load_ensemble(models, device)
    graphs = [graph for graph in graphs if bool(graph.labelled.any())]
    predictions, features = [], []
    for i, graph in enumerate(graphs):
        untrained = ensemble.without(graph.names[0])
        if untrained is None:
            raise InputError(
                f"{graph.names[0]} was trained on, so its errors are too small to calibrate "
                "with: name structures that were not"
            )
        predictions += predict_with_spread([graph], untrained)
        features.append(error_features(graph, predictions[-1].mean, untrained.training_set))
        if progress is not None:
            progress(i + 1, len(graphs))
    means, spreads = [p.mean for p in predictions], [p.std for p in predictions]
    fit = Calibration.fit(means, spreads, graphs, noise, features)
    return replace(ensemble, calibration=fit)


def features_of(prediction: Prediction, graph: Graph, ensemble: Ensemble) -> Features:
    """What the calibration of an ensemble asks of every atom beside the spread.

    Args:
        prediction: the ensemble's, for the graph.
        graph: one structure, with the ensemble's cutoff.
        ensemble: whose.
    """
    calibration = ensemble.calibration
    if calibration is None or not calibration.used:
        return {}
    return error_features(graph, prediction.mean, ensemble.training_set)


def barrier_std(prediction: Prediction, graph: Graph, ensemble: Ensemble) -> Tensor:
    """[n] eV, standard deviation of the true barrier; without a calibration that of the models.

    Args:
        prediction, graph, ensemble: as for `features_of`.

    Raises:
        InputError: the calibration asks for something that is not known of these atoms.
    """
    if ensemble.calibration is None:
        return prediction.std
    try:
        return ensemble.calibration.std(prediction.std, features_of(prediction, graph, ensemble))
    except ValueError as error:
        raise InputError(
            f"{error}, which is not known of {graph.names[0] or 'the structure'}: calibrate with "
            "such structures (mgsym ensemble --calibrate)"
        ) from None
