"""Predictions of trained models: one structure or many, one model or several, of any size."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, overload

import torch
from torch import Tensor

from mgsym.calibration import Calibration
from mgsym.devices import resolve_device
from mgsym.ensemble import Ensemble, Member, merge, read_ensemble
from mgsym.errors import InputError
from mgsym.graph import Graph, build_graph
from mgsym.models import BarrierModel
from mgsym.rotations import random_orthogonal
from mgsym.structure import Structure
from mgsym.trainer import TrainedRun

System = Structure | Graph
OneModel = BarrierModel | TrainedRun | Ensemble | str | Path
Models = OneModel | Sequence[OneModel]

MAX_EDGES = 2_000_000  # in one piece; about 60,000 atoms of a metallic glass
LARGEST_SURROUNDINGS = 20  # atoms computed for one predicted, in a system taken to pieces


class Prediction(NamedTuple):
    """What several models say of each atom.

    Attributes:
        mean: [n] float32, eV; weighted, where the models have weights.
        std: [n] float32, eV: the standard deviation between models; zero for one model. See
            mgsym.calibration for what it says of the error.
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


def calibrated(
    models: Models,
    graphs: Sequence[Graph],
    noise: float | None = None,
    device: str | torch.device = "auto",
    progress: Callable[[int, int], None] | None = None,
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


def device_of(model: BarrierModel) -> torch.device:
    """Where a model's numbers are."""
    return model.label_mean.device


def as_graph(system: System, cutoff: float, device: str | torch.device = "cpu") -> Graph:
    """A Structure's graph with this cutoff, its neighbours searched there; a Graph as it is."""
    if isinstance(system, Graph):
        return system
    return build_graph(system, cutoff, device=device)


def narrowed(graph: Graph, cutoff: float) -> Graph:
    """The graph with a smaller cutoff: its edges are those of a graph built with it."""
    if graph.cutoff <= cutoff:
        return graph
    cells = graph.cell[graph.structure_index[graph.destination]]
    shift = (graph.edge_shift.double()[:, None] @ cells).squeeze(1)
    place = graph.positions
    length = (place[graph.source] + shift - place[graph.destination]).norm(dim=1)
    return graph.with_edges(length < cutoff).replace(cutoff=cutoff)


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
        for nodes, field in _pieces(graph, model.hops, max_edges):
            part, _ = graph.subgraph(field)
            here = torch.searchsorted(field, nodes)
            result[nodes] = model(part.to(device)).float().cpu()[here]
        return result


@contextmanager
def evaluating(model: BarrierModel) -> Iterator[None]:
    """Have a model in eval mode; its modes and the random state are put back after."""
    modes = [(module, module.training) for module in model.modules()]
    device = device_of(model)
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            model.eval()
            yield
    finally:
        for module, training in modes:
            module.training = training


def _pieces(graph: Graph, hops: int, max_edges: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Parts of a graph and their receptive fields, each [m] int64 sorted.

    Structures are parted first, since those of a batch overlap in space. Parts are halved along
    their longest side until the field has at most `max_edges` edges, or is so much larger than
    the part that most of the work would be for its surroundings.
    """
    degree = graph.offsets.diff()
    places = wrapped_positions(graph)
    waiting = [
        (graph.structure_index == i).nonzero().squeeze(1) for i in range(graph.num_structures)
    ]
    while waiting:
        nodes = waiting.pop()
        field = receptive_nodes(graph, nodes, hops)
        edges = int(degree[field].sum())
        surrounded = len(nodes) == 1 or len(field) > LARGEST_SURROUNDINGS * len(nodes)
        if edges <= max_edges or surrounded:
            yield nodes, field
            continue
        own = places[nodes]
        axis = int((own.amax(0) - own.amin(0)).argmax())
        order = own[:, axis].argsort(stable=True)
        half = len(nodes) // 2
        waiting += [nodes[part].sort().values for part in (order[:half], order[half:])]


def receptive_nodes(graph: Graph, nodes: Tensor, hops: int) -> Tensor:
    """Nodes from which some of `nodes` can be reached in `hops` edges: [m] int64, sorted."""
    reached = torch.zeros(graph.num_nodes, dtype=torch.bool, device=graph.types.device)
    reached[nodes] = True
    for _ in range(hops):
        reached[graph.source[reached[graph.destination]]] = True
    return reached.nonzero().squeeze(1)


def wrapped_positions(graph: Graph) -> Tensor:
    """Positions inside the cell, [n, 3] Å, so that near in space is near in numbers."""
    cells = graph.cell[graph.structure_index]
    fractional = torch.linalg.solve(cells.transpose(1, 2), graph.positions)
    periodic = graph.periodic[graph.structure_index]
    fractional = torch.where(periodic, fractional - fractional.floor(), fractional)
    return (fractional[:, None] @ cells).squeeze(1)


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


def transformed(graph: Graph, matrix: Tensor) -> Graph:
    """A graph whose structure is rotated or reflected, v′ = T v.

    Args:
        graph: one structure or a batch.
        matrix: [3, 3] orthogonal, T.
    """
    matrix = matrix.double().to(graph.positions.device)
    return graph.replace(
        edge_vector=(graph.edge_vector.double() @ matrix.T).to(graph.edge_vector.dtype),
        positions=graph.positions @ matrix.T,
        cell=graph.cell @ matrix.T,
    )
