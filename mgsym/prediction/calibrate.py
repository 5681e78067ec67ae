"""Calibrate the spread between the models of an ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from mgsym.errors import InputError
from mgsym.graph import Graph
from mgsym.prediction.ensemble import Ensemble
from mgsym.prediction.predict import Models, load_ensemble, predict_with_spread
from mgsym.uncertainty.calibration import Calibration
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
    found = []
    for i, graph in enumerate(graphs):
        others = ensemble.without(graph.names[0])
        if others is None:
            raise InputError(
                f"{graph.names[0]} was trained on, so its errors are too small to calibrate "
                "with: name structures that were not"
            )
        found += predict_with_spread([graph], others)
        if progress is not None:
            progress(i + 1, len(graphs))
    means, spreads = [one.mean for one in found], [one.std for one in found]
    return replace(ensemble, calibration=Calibration.fit(means, spreads, graphs, noise))
