"""Predictions of trained models: one structure or many, one model or several, of any size."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, overload

import torch
from torch import Tensor

from mgsym.graph import Graph
from mgsym.graph.operations import System, as_graph, narrowed
from mgsym.models.base import BarrierModel, device_of, evaluating
from mgsym.prediction.ensemble import Ensemble, Member, merge, read_ensemble
from mgsym.prediction.parts import pieces
from mgsym.structure import Structure
from mgsym.training.runs import TrainedRun, only_checkpoint
from mgsym.utils.devices import resolve_device

OneModel = BarrierModel | TrainedRun | Ensemble | str | Path
Models = OneModel | Sequence[OneModel]

MAX_EDGES = 2_000_000  # in one piece; about 60,000 atoms of a metallic glass


class Prediction(NamedTuple):
    """What several models say of each atom.

    Attributes:
        mean: [n] float32, eV; weighted, where the models have weights.
        std: [n] float32, eV: the standard deviation between models; zero for one model. See
            mgsym.uncertainty.calibration for what it says of the error.
    """

    mean: Tensor
    std: Tensor


@overload
def predict(
    systems: System, models: Models, device: str | torch.device = ..., max_edges: int = ...
) -> Tensor:
    """One tensor for one system."""
    ...


@overload
def predict(
    systems: Sequence[System],
    models: Models,
    device: str | torch.device = ...,
    max_edges: int = ...,
) -> list[Tensor]:
    """A list of tensors for several systems."""
    ...


def predict(
    systems: System | Sequence[System],
    models: Models,
    device: str | torch.device = "auto",
    max_edges: int = MAX_EDGES,
) -> Tensor | list[Tensor]:
    """The energy barrier around every atom.

    Args:
        systems: a Structure or a Graph, or several. A Structure gets the graph that the model
            was trained on.
        models: a model, what `mgsym.training.train` returned, a run directory, a checkpoint or
            an ensemble (file); of several, or of a folder of seeds, the mean is given. Models are
            given back as they were.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``. A model that is an object stays where
            it is under ``auto``.
        max_edges: systems with more edges are predicted in pieces, so that memory stays bounded.

    Returns:
        [n] float32 on the CPU, eV, in the order of the atoms; a list of them for a list.

    Raises:
        InputError: no such model, or a structure has an element it does not know.
    """
    if isinstance(systems, Structure | Graph):
        return predict_with_spread([systems], models, device, max_edges)[0].mean
    return [p.mean for p in predict_with_spread(systems, models, device, max_edges)]


def predict_with_spread(
    systems: Sequence[System],
    models: Models,
    device: str | torch.device = "auto",
    max_edges: int = MAX_EDGES,
) -> list[Prediction]:
    """As `predict`, with the standard deviation between the models."""
    ensemble = load_ensemble(models, device)
    results = []
    for system in systems:
        graph = as_graph(system, ensemble.cutoff, device_of(ensemble.models[0]))
        graphs = {c: narrowed(graph, c) for c in {model.cutoff for model in ensemble.models}}
        each = [predict_graph(model, graphs[model.cutoff], max_edges) for model in ensemble.models]
        results.append(Prediction(*ensemble.combined(torch.stack(each))))
    return results


def load_ensemble(models: Models, device: str | torch.device = "auto") -> Ensemble:
    """The models meant by `predict`'s argument, on their device, as one ensemble.

    Raises:
        InputError: a run or checkpoint is missing or damaged.
    """
    if isinstance(models, str | Path):
        return read_ensemble(models, resolve_device(device))
    if isinstance(models, Ensemble):
        moved = [replace(m, model=_moved(m.model, device)) for m in models.members]
        return replace(models, members=tuple(moved))
    if isinstance(models, TrainedRun):
        models = models.model
    if isinstance(models, BarrierModel):
        return Ensemble((Member(_moved(models, device)),))
    return merge([load_ensemble(several, device) for several in models])


def load_models(models: Models, device: str | torch.device = "auto") -> list[BarrierModel]:
    """As `load_ensemble`, the models alone."""
    return load_ensemble(models, device).models


def _moved(model: BarrierModel, device: str | torch.device) -> BarrierModel:
    """The model, or a copy of it where it is wanted elsewhere."""
    here = device_of(model)
    place = here if str(device) == "auto" else resolve_device(device)
    return model if place == here else copy.deepcopy(model).to(place)


def predict_graph(model: BarrierModel, graph: Graph, max_edges: int = MAX_EDGES) -> Tensor:
    """One model's prediction, [n] float32 eV on the CPU, on the device that the model is on.

    With more than `max_edges` edges, the atoms are divided in space and each part is predicted
    within its receptive field, which gives the same numbers to rounding.
    """
    device = device_of(model)
    with evaluating(model), torch.no_grad():
        if graph.num_edges <= max_edges or not math.isfinite(model.receptive_field):
            whole: Tensor = model(model.prepare(graph.to(device)))
            return whole.float().cpu()
        if not model.uses_edges:  # it may look at positions, which a part would not have
            alone: Tensor = model(graph.to(device))
            return alone.float().cpu()
        result = torch.empty(graph.num_nodes)
        graph = model.prepare_whole(graph.to(device)).to(graph.positions.device)
        for nodes, field in pieces(graph, model.hops, max_edges):
            part, _ = graph.subgraph(field)
            here = torch.searchsorted(field, nodes)
            result[nodes] = model(part.to(device)).float().cpu()[here]
        return result


def one_model(model: OneModel, device: str | torch.device) -> BarrierModel:
    """The model meant, on its device: loaded from a run or checkpoint, or as it is.

    Raises:
        UsageError: a run holds several models, or the device is not there.
        InputError: a run or checkpoint is missing or damaged.
    """
    path = only_checkpoint(model) if isinstance(model, str | Path) else model
    return load_models(path, device)[0]
