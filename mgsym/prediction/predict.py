"""Predictions of trained models: one structure or many, one model or several, of any size."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol, overload

import torch
from torch import Tensor

from mgsym.graph import Graph, match_species
from mgsym.graph.operations import System, as_graph, narrowed
from mgsym.graph.prepared import Prepared, same_owner
from mgsym.models.base import BarrierModel, device_of, evaluating
from mgsym.prediction.ensemble import Ensemble, Member, merge, read_ensemble
from mgsym.prediction.parts import pieces
from mgsym.prediction.sweep import Layered, Sweep
from mgsym.structure import Structure
from mgsym.training.runs import TrainedRun, only_checkpoint
from mgsym.utils.devices import resolve_device
from mgsym.utils.progress import Progress, part

OneModel = BarrierModel | TrainedRun | Ensemble | str | Path
Models = OneModel | Sequence[OneModel]

MAX_EDGES = 2_000_000  # in one piece; about 60,000 atoms of a metallic glass


class SavedPredictions(Protocol):
    """Where predictions of one structure are kept while they are made, to go on from.

    `key` numbers models that predict together.
    """

    def predictions(self, key: int) -> Tensor | None:
        """What was kept: [models, n] eV, NaN where nothing is known yet."""
        ...

    def prepared(self, key: int) -> dict[str, Tensor] | None:
        """What was kept of `Prepared.from_positions`."""
        ...

    def keep(self, key: int, predictions: Tensor) -> None:
        """Called after each step; it need not write each time."""
        ...

    def keep_prepared(self, key: int, values: Mapping[str, Tensor]) -> None:
        """Called once."""
        ...


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
    progress: Progress | None = None,
    saved: SavedPredictions | None = None,
) -> list[Prediction]:
    """As `predict`, with the standard deviation between the models.

    Args:
        systems, models, device, max_edges: as for `predict`.
        progress: called within each system with the steps done and in all.
        saved: keeps what is predicted of one large system, and gives what was kept before.
    """
    ensemble = load_ensemble(models, device)
    results = []
    for system in systems:
        graph = as_graph(system, ensemble.cutoff, device_of(ensemble.models[0]))
        each = _predict_each(ensemble.models, graph, max_edges, progress, saved)
        results.append(Prediction(*ensemble.combined(each)))
    return results


def _predict_each(
    models: Sequence[BarrierModel],
    graph: Graph,
    max_edges: int,
    progress: Progress | None,
    saved: SavedPredictions | None,
) -> Tensor:
    """What each model predicts, [models, n]; those of the same inputs compute these once."""
    barriers = torch.empty(len(models), graph.num_nodes)
    groups = _alike(models)
    for i, rows in enumerate(groups):
        step = part(progress, i, len(groups))
        together, own = [models[row] for row in rows], narrowed(graph, models[rows[0]].cutoff)
        if own.num_edges > max_edges and isinstance(together[0], Layered):
            barriers[rows] = _predict_by_slabs(together, own, max_edges, step, saved, i)
            continue
        for n, model in enumerate(together):
            own = model.prepare_whole(own.to(device_of(model)))
            barriers[rows[n]] = predict_graph(model, own, max_edges)
            if step is not None:
                step(n + 1, len(together))
    return barriers


def _alike(models: Sequence[BarrierModel]) -> list[list[int]]:
    """Which models have cutoff, species and whatever can be prepared in common."""
    groups: list[list[int]] = []
    for i, model in enumerate(models):
        for group in groups:
            first = models[group[0]]
            same = (model.cutoff, model.species) == (first.cutoff, first.species)
            if same and type(model) is type(first) and same_owner(model.owner(), first.owner()):
                group.append(i)
                break
        else:
            groups.append([i])
    return groups


def _predict_by_slabs(
    models: Sequence[BarrierModel],
    graph: Graph,
    max_edges: int,
    progress: Progress | None = None,
    saved: SavedPredictions | None = None,
    key: int = 0,
) -> Tensor:
    """What models that are alike predict, layer by layer: [models, n] eV."""
    device, first = device_of(models[0]), models[0]
    kept = None if saved is None else saved.predictions(key)
    barriers = torch.full((len(models), graph.num_nodes), torch.nan) if kept is None else kept
    remaining = barriers[0].isnan()
    # preparing takes about as long as the layers
    preparing, passing = part(progress, 0, 2), part(progress, 1, 2)

    def step(done: float, total: float | None = None, **info: object) -> None:
        if saved is not None:
            saved.keep(key, barriers)
        if passing is not None:
            passing(done, total, **info)

    def fill(nodes: Tensor, values: Tensor) -> None:
        barriers[:, nodes] = values

    with ExitStack() as stack, torch.no_grad():
        for model in models:
            stack.enter_context(evaluating(model))
        graph = match_species(graph.to(device), first.species)
        if saved is not None and (before := saved.prepared(key)) is not None:
            before = {name: values.to(device) for name, values in before.items()}
            graph = graph.replace(prepared=Prepared(first.owner(), before))
        graph = first.prepare_whole(graph, preparing)
        if saved is not None and graph.prepared is not None:
            saved.keep_prepared(key, graph.prepared.from_positions)
        if bool(remaining.any()):
            layered = [model for model in models if isinstance(model, Layered)]
            Sweep(layered, graph, -(-max_edges // 3), remaining.to(device)).run(fill, step)
    return barriers


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

    With more than `max_edges` edges, the atoms are divided in space, which gives the same numbers
    to rounding: a model that can go layer by layer does (mgsym.prediction.sweep), others predict
    each part within its receptive field.
    """
    device = device_of(model)
    if graph.num_edges > max_edges and isinstance(model, Layered):
        return _predict_by_slabs([model], graph, max_edges)[0]
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
