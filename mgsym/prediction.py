"""Predictions of trained models: one structure or many, one model or several, of any size."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol, overload

import torch
from torch import Tensor

from mgsym.calibration import Calibration
from mgsym.devices import resolve_device
from mgsym.ensemble import Ensemble, Member, merge, read_ensemble
from mgsym.errors import InputError
from mgsym.graph import Graph, build_graph, match_species
from mgsym.models import BarrierModel
from mgsym.prepared import Prepared, same_owner
from mgsym.rotations import random_orthogonal
from mgsym.structure import Structure
from mgsym.sweep import Layered, Sweep, Tell, wrapped_positions
from mgsym.trainer import TrainedRun

System = Structure | Graph
OneModel = BarrierModel | TrainedRun | Ensemble | str | Path
Models = OneModel | Sequence[OneModel]

MAX_EDGES = 2_000_000  # in one piece; about 60,000 atoms of a metallic glass
LARGEST_SURROUNDINGS = 20  # atoms computed for one predicted, in a system taken to pieces


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
    progress: Tell | None = None,
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
    progress: Tell | None,
    saved: SavedPredictions | None,
) -> Tensor:
    """What each model predicts, [models, n]; those of the same inputs compute these once."""
    found = torch.empty(len(models), graph.num_nodes)
    groups = _alike(models)
    for i, rows in enumerate(groups):
        tell = _within(progress, i, len(groups))
        together, part = [models[row] for row in rows], narrowed(graph, models[rows[0]].cutoff)
        if part.num_edges > max_edges and isinstance(together[0], Layered):
            found[rows] = _predict_by_slabs(together, part, max_edges, tell, saved, i)
            continue
        for n, model in enumerate(together):
            part = model.prepare_whole(part.to(device_of(model)))
            found[rows[n]] = predict_graph(model, part, max_edges)
            tell(n + 1, len(together))
    return found


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
    tell: Tell = lambda *_: None,
    saved: SavedPredictions | None = None,
    key: int = 0,
) -> Tensor:
    """What models that are alike predict, layer by layer (mgsym.sweep): [models, n] eV."""
    device, first = device_of(models[0]), models[0]
    known = None if saved is None else saved.predictions(key)
    found = torch.full((len(models), graph.num_nodes), torch.nan) if known is None else known
    remaining = found[0].isnan()

    def step(number: float, total: float) -> None:
        if saved is not None:
            saved.keep(key, found)
        tell(total + number, 2 * total)  # preparing takes about as long as the layers

    def done(nodes: Tensor, values: Tensor) -> None:
        found[:, nodes] = values

    with ExitStack() as stack, torch.no_grad():
        for model in models:
            stack.enter_context(evaluating(model))
        graph = match_species(graph.to(device), first.species)
        if saved is not None and (before := saved.prepared(key)) is not None:
            before = {name: values.to(device) for name, values in before.items()}
            graph = graph.replace(prepared=Prepared(first.owner(), before))
        graph = first.prepare_whole(graph, lambda n, of: tell(n, 2 * of))
        if saved is not None and graph.prepared is not None:
            saved.keep_prepared(key, graph.prepared.from_positions)
        if bool(remaining.any()):
            layered = [model for model in models if isinstance(model, Layered)]
            Sweep(layered, graph, -(-max_edges // 3), remaining.to(device)).run(done, step)
    return found


def _within(progress: Tell | None, part: int, parts: int) -> Tell:
    """Progress of one part of several that take about as long."""

    def tell(done: float, total: float) -> None:
        if progress is not None:
            progress(part + done / total, parts)

    return tell


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

    With more than `max_edges` edges, the atoms are divided in space, which gives the same numbers
    to rounding: a model that can go layer by layer does (mgsym.sweep), others predict each part
    within its receptive field.
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
