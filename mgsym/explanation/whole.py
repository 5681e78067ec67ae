"""What every neighbour adds to the whole prediction for an atom, signed, in eV.

A prediction may be a network's and, with a fixed share, a ridge regression's
(mgsym.models.with_ridge). Both are attributed to pairs of atoms and summed with their shares:

- the regression exactly (mgsym.explanation.ridge_pairs);
- the network by integrated gradients on edge weights, from none to all. What the quadrature
  misses, with the jump at weight 0 that attention makes where its denominator vanishes, is shared
  among the edges in proportion to what they have, and told (`Attribution.shared_out`).

Half of a pair's value goes to each of its atoms; of a pair with the explained atom, all to the
other. The reference is no empty neighbourhood, which no model has seen, but the mean over training
environments of the atom's element (`Reference`): from each neighbour is taken what a typical
neighbour of its element in its shell adds. So the values tell what is unusual about this atom, and

    prediction = reference + own + Σ values.

Expected baselines: Erion et al., Nat. Mach. Intell. 3, 620 (2021); Shapley values: Lundberg & Lee,
NeurIPS 2017.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mgsym.errors import UsageError
from mgsym.explanation.computation_graph import (
    ComputationGraph,
    check_node,
    computation_graph,
    distance_between_atoms,
    full_prediction,
)
from mgsym.explanation.methods.attribution import without_gradient
from mgsym.explanation.ridge_pairs import RidgePairs, on_cpu
from mgsym.graph import Graph, match_species
from mgsym.models.base import BarrierModel
from mgsym.models.regression.ridge import Ridge
from mgsym.models.with_ridge import NetworkWithRidge
from mgsym.utils.progress import Progress

STEPS = 4  # of the integrated gradients
SHELLS = (3.8, 6.2, 8.6, 11.0, 13.4)  # Å; minima of g(r) of Cu-Zr glasses, and as far apart beyond
ENVIRONMENTS = 16  # of each element, behind a reference
NEIGHBOUR_COLUMNS = (
    "rank", "atom", "id", "element", "distance_angstrom", "adds_eV", "network_eV", "regression_eV",
    "spread_eV",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Attribution:
    """What the neighbours of one atom add to its predicted barrier, most first.

    Attributes:
        structure: its name.
        node, node_id, element: the atom explained.
        prediction: eV, of the whole model.
        reference: eV, the mean over training environments of the element.
        environments: how many those are.
        own: eV, what the atom itself adds, and neighbours that it lacks.
        atoms: [m] int64, rows of neighbours; periodic images of one atom count together.
        ids: [m] int64, their ids.
        types: [m] int64, their elements as indices into `species`.
        species: element symbols.
        distance: [m] float64, Å, to the nearest image.
        network: [m] float64, eV: what each adds to the network's share of the prediction.
        regression: [m] float64, eV: to the regression's.
        shared_out: eV, what integrated gradients missed and was shared among the edges.
        models: how many models this is the mean of.
        spread: [m] float64, eV, standard deviation of the values over the models; None of one.
    """

    structure: str
    node: int
    node_id: int
    element: str
    prediction: float
    reference: float
    environments: int
    own: float
    atoms: Tensor
    ids: Tensor
    types: Tensor
    species: tuple[str, ...]
    distance: Tensor
    network: Tensor
    regression: Tensor
    shared_out: float
    models: int = 1
    spread: Tensor | None = None

    def __len__(self) -> int:
        return len(self.atoms)

    @property
    def value(self) -> Tensor:
        """[m] float64, eV: what each neighbour adds; above 0 it raises the barrier."""
        return self.network + self.regression

    @property
    def missing(self) -> float:
        """eV, by which own and values miss prediction − reference; rounding alone."""
        return self.prediction - self.reference - self.own - float(self.value.sum())

    def table(self, count: int | None = None) -> list[dict[str, Any]]:
        """One row per neighbour, those that add or take most first."""
        value = self.value
        return [
            {
                "rank": i + 1,
                "atom": int(self.atoms[i]),
                "id": int(self.ids[i]),
                "element": self.species[int(self.types[i])],
                "distance_angstrom": round(float(self.distance[i]), 6),
                "adds_eV": round(float(value[i]), 9),
                "network_eV": round(float(self.network[i]), 9),
                "regression_eV": round(float(self.regression[i]), 9),
                "spread_eV": None if self.spread is None else round(float(self.spread[i]), 9),
            }
            for i in range(len(self) if count is None else min(count, len(self)))
        ]

    def renumbered(self, rows: Tensor) -> Attribution:
        """Give the atoms the rows [n] that they have in the structure they were cut from."""
        return replace(self, node=int(rows[self.node]), atoms=rows[self.atoms])

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "prediction_eV": self.prediction,
            "reference_eV": self.reference,
            "environments": self.environments,
            "own_eV": self.own,
            "models": self.models,
            "raised_eV": float(self.value.clamp(min=0).sum()),
            "lowered_eV": float(self.value.clamp(max=0).sum()),
            "shared_out_eV": self.shared_out,
            "neighbours": self.table(),
        }


@dataclass(frozen=True, eq=False)
class Reference:
    """What typical neighbours add, by the element of the atom whose neighbours they are.

    Attributes:
        species: element symbols, which the first indices stand for.
        environments: [species] int64, how many atoms stand behind each mean.
        prediction: [species] eV.
        own: [species] eV.
        network, regression: [species, species of the neighbour, shells] eV, together in a shell.
    """

    species: tuple[str, ...]
    environments: Tensor
    prediction: Tensor
    own: Tensor
    network: Tensor
    regression: Tensor

    def as_dict(self) -> dict[str, Any]:
        """Lists and numbers, for files."""
        return {
            name: list(v) if name == "species" else v.tolist() for name, v in vars(self).items()
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Reference:
        """What `as_dict` gave.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        names = ("prediction", "own", "network", "regression")
        values = {name: torch.tensor(content[name], dtype=torch.float64) for name in names}
        species = tuple(content["species"])
        shape = (len(species), len(species), 1 + len(SHELLS))
        if values["network"].shape != shape or values["regression"].shape != shape:
            raise ValueError(f"expected sums of {shape}")
        return cls(species, torch.tensor(content["environments"], dtype=torch.int64), **values)


class Parts(NamedTuple):
    """A prediction taken apart, before anything is compared with a reference; eV.

    Attributes:
        prediction: of the whole model.
        own: what neighbours do not add.
        network, regression: [n], what each atom adds.
        shared_out: what integrated gradients missed.
    """

    prediction: float
    own: float
    network: Tensor
    regression: Tensor
    shared_out: float


class WholePrediction:
    """A model and a structure of which predictions are taken apart.

    Args:
        model: frozen (`frozen_eval`); a network, with or without a regression, or a regression.
        graph: one structure, prepared or not.

    Raises:
        UsageError: the model is fitted to local inputs in another way, and has no pairs.
    """

    def __init__(self, model: BarrierModel, graph: Graph) -> None:
        ridge = model if isinstance(model, Ridge) else None
        self.share = 1.0 if ridge is not None else 0.0
        if isinstance(model, NetworkWithRidge) and model.ridge is not None:
            ridge, self.share = model.ridge, model.options.ridge_share
        if ridge is None and not model.uses_edges:
            raise UsageError("this model sees neither edges nor pairs of atoms to attribute to")
        self.model = model
        self.graph = model.prepare_whole(graph)
        self.scale = float(model.label_scale)
        self.pairs: RidgePairs | None = None
        if ridge is not None:
            own = on_cpu(ridge)
            self.pairs = RidgePairs(own, match_species(graph.to("cpu"), own.species))

    def part(self, node: int) -> ComputationGraph | None:
        """What the network sees of an atom; None without a network or where it has no edges."""
        check_node(self.graph, node)
        if not self.model.uses_edges:
            return None
        finite = self.model.receptive_field < float("inf")
        found = computation_graph(self.graph, node, self.model.hops if finite else None)
        return found if len(found.edges) else None

    def parts(self, node: int) -> Parts:
        """The prediction for an atom taken apart."""
        part, n = self.part(node), self.graph.num_nodes
        network, regression = torch.zeros(2, n, dtype=torch.float64)
        shared_out = 0.0
        if part is None:
            with torch.no_grad():
                own = prediction = float(self.model(self.graph)[node])
        else:
            prediction = full_prediction(self.model, part)
            own, edges = self._network(part, prediction)
            shared_out = prediction - own - float(edges.sum())
            size = edges.abs()
            edges = edges + shared_out * size / size.sum().clamp(min=1e-30)
            ends = part.nodes[part.graph.edge_index].cpu()
            network, alone = to_atoms(ends, edges, node, n)
            own += alone
        if self.pairs is not None:
            values, unit = self.pairs.values(node), self.scale * self.share
            regression, alone = to_atoms(values.ends, unit * values.value, node, n)
            regression.index_add_(0, values.atoms, unit * values.atom_value)
            # the regression was part of `own` as a whole until here
            own += alone + float(regression[node]) + unit * (values.constant - values.prediction)
            regression[node] = 0.0
        return Parts(prediction, own, network, regression, shared_out)

    def _network(self, part: ComputationGraph, prediction: float) -> tuple[float, Tensor]:
        """eV, the prediction without any edge, and what the edges add [m] float64."""
        with torch.no_grad():
            none = part.graph.edge_length.new_zeros(len(part.edges))
            empty = float(part.predict(self.model, none))
        return empty, edge_values(self.model, part)


def edge_values(model: BarrierModel, part: ComputationGraph, steps: int = STEPS) -> Tensor:
    """[m] float64 eV, ∫ ∂f/∂w dw of every edge, all weights going from 0 to 1 together.

    By Gauss and Legendre in √w, whose points lie close where the prediction bends most: near 0.

    Raises:
        UsageError: the model has no gradient.
    """
    points, shares = np.polynomial.legendre.leggauss(steps)
    total = torch.zeros(len(part.edges), dtype=torch.float64)
    for point, share in zip((points + 1) / 2, shares / 2, strict=True):
        weight = torch.full(
            (len(part.edges),), point**2, device=part.edges.device, requires_grad=True
        )
        prediction = part.predict(model, weight)
        if not prediction.requires_grad:
            raise without_gradient()
        (slope,) = torch.autograd.grad(prediction, weight, allow_unused=True)
        if slope is not None:
            total += 2 * point * share * slope.nan_to_num().double().cpu()
    return total


def to_atoms(ends: Tensor, values: Tensor, node: int, count: int) -> tuple[Tensor, float]:
    """Pairs' values given to atoms [n]: half to each end, all to the other than `node`.

    Also what pairs of the atom with its own periodic image have, which is no neighbour's.
    """
    first, second = ends
    share = torch.full((2, len(values)), 0.5, dtype=torch.float64)
    share[0, second == node], share[1, second == node] = 1.0, 0.0
    share[0, first == node], share[1, first == node] = 0.0, 1.0
    both = (first == node) & (second == node)
    found = torch.zeros(count, dtype=torch.float64)
    for end, part in zip(ends, share, strict=True):
        found.index_add_(0, end[~both], (part * values)[~both])
    return found, float(values[both].sum())


def reference_of(
    model: BarrierModel,
    graphs: Sequence[Graph],
    environments: int = ENVIRONMENTS,
    progress: Progress | None = None,
) -> Reference:
    """Take apart the predictions for training atoms, and keep the means of each element.

    Args:
        model: frozen.
        graphs: training structures, on the model's device.
        environments: of each element; they are spread evenly over its predictions, so that few
            stand for all.
        progress: called with the atoms done and in all.

    Raises:
        UsageError: as for `WholePrediction`.
    """
    species = model.species
    graphs = [match_species(graph, species) for graph in graphs]
    chosen = _typical_atoms(model, graphs, environments)
    size = (len(species), len(species), 1 + len(SHELLS))
    network, regression = torch.zeros(2, *size, dtype=torch.float64)
    prediction, own, number = torch.zeros(3, len(species), dtype=torch.float64)
    done, total = 0, sum(len(rows) for rows in chosen)
    for graph, rows in zip(graphs, chosen, strict=True):
        whole = WholePrediction(model, graph) if rows else None
        for node in rows:
            assert whole is not None
            kind, parts = int(graph.types[node]), whole.parts(node)
            place = _places(graph, node)
            for sums, values in ((network, parts.network), (regression, parts.regression)):
                sums[kind].view(-1).index_add_(0, place, values)
            prediction[kind] += parts.prediction
            own[kind] += parts.own
            number[kind] += 1
            done += 1
            if progress is not None:
                progress(done, total)
    each = number.clamp(min=1)
    return Reference(
        species,
        number.long(),
        prediction / each,
        own / each,
        network / each[:, None, None],
        regression / each[:, None, None],
    )


def _typical_atoms(model: BarrierModel, graphs: Sequence[Graph], each: int) -> list[list[int]]:
    """For each graph some atoms, `each` of an element in all, spread over its predictions."""
    with torch.no_grad():
        predicted = torch.cat([model(model.prepare(graph)).cpu() for graph in graphs])
    types = torch.cat([graph.types.cpu() for graph in graphs])
    graph_of = torch.repeat_interleave(torch.tensor([graph.num_nodes for graph in graphs]))
    first = torch.tensor([0, *(graph.num_nodes for graph in graphs)]).cumsum(0)
    chosen: list[list[int]] = [[] for _ in graphs]
    for kind in types.unique().tolist():
        rows = (types == kind).nonzero().squeeze(1)
        rows = rows[predicted[rows].argsort(stable=True)]
        count = min(each, len(rows))
        middle = ((torch.arange(count) + 0.5) * len(rows) / count).long()
        for row in rows[middle].tolist():
            chosen[int(graph_of[row])].append(row - int(first[graph_of[row]]))
    return chosen


def _places(graph: Graph, node: int) -> Tensor:
    """[n] int64, for each atom its element and shell about `node`, as one number."""
    edges = torch.tensor(SHELLS, dtype=torch.float64)
    shell = torch.bucketize(distance_between_atoms(graph, node).cpu(), edges)
    return graph.types.cpu() * (1 + len(SHELLS)) + shell


def attribute(whole: WholePrediction, node: int, reference: Reference) -> Attribution:
    """What every neighbour of an atom adds to its prediction, beyond a typical one.

    Args:
        whole: the model and the structure.
        node: the atom.
        reference: of this model.

    Raises:
        UsageError: there is no such node, or the reference knows no atom of its element.
    """
    parts, graph = whole.parts(node), match_species(whole.graph, reference.species)
    kind = int(graph.types[node])
    if int(reference.environments[kind]) == 0:
        raise UsageError(f"no training environment of {graph.species[kind]} to compare with")
    place, seen = _places(graph, node), (parts.network != 0) | (parts.regression != 0)
    number = torch.bincount(place[seen], minlength=reference.network[kind].numel()).double()
    own = parts.own - float(reference.own[kind])
    values = []
    for mine, typical in (
        (parts.network, reference.network[kind].flatten()),
        (parts.regression, reference.regression[kind].flatten()),
    ):
        values.append(torch.where(seen, mine - (typical / number.clamp(min=1))[place], 0.0))
        own -= float(typical[number == 0].sum())  # of neighbours that it has none of
    network, regression = values
    size = (network + regression).abs()
    order = size.argsort(descending=True, stable=True)
    order = order[seen[order]]
    return Attribution(
        structure=graph.names[int(graph.structure_index[node])],
        node=node,
        node_id=int(graph.ids[node]),
        element=graph.species[kind],
        prediction=parts.prediction,
        reference=float(reference.prediction[kind]),
        environments=int(reference.environments[kind]),
        own=own,
        atoms=order,
        ids=graph.ids.cpu()[order],
        types=graph.types.cpu()[order],
        species=graph.species,
        distance=distance_between_atoms(graph, node).cpu()[order],
        network=network[order],
        regression=regression[order],
        shared_out=parts.shared_out,
    )


def mean_attribution(each: Sequence[Attribution], weights: Sequence[float]) -> Attribution:
    """Average what several models tell of one atom; the sum is their mean prediction.

    Args:
        each: of the same atom, one a model, with references of their own.
        weights: of the models; only ratios matter.
    """
    first = each[0]
    if len(each) == 1:
        return first
    share = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    rows = torch.cat([one.atoms for one in each]).unique()
    parts = torch.zeros(len(each), 2, len(rows), dtype=torch.float64)
    ids, types = torch.zeros(2, len(rows), dtype=torch.int64)
    distance = torch.zeros(len(rows), dtype=torch.float64)
    for mine, one in zip(parts, each, strict=True):
        place = torch.searchsorted(rows, one.atoms)
        mine[0, place], mine[1, place] = one.network, one.regression
        kinds = torch.tensor([first.species.index(symbol) for symbol in one.species])
        ids[place], types[place], distance[place] = one.ids, kinds[one.types], one.distance
    network, regression = torch.einsum("m,mpn->pn", share, parts)
    value = network + regression
    spread = (share @ (parts.sum(1) - value).square()).sqrt()
    order = value.abs().argsort(descending=True, stable=True)

    def mean(name: str) -> float:
        return float(
            share @ torch.tensor([getattr(one, name) for one in each], dtype=torch.float64)
        )

    return replace(
        first,
        prediction=mean("prediction"),
        reference=mean("reference"),
        own=mean("own"),
        shared_out=mean("shared_out"),
        atoms=rows[order],
        ids=ids[order],
        types=types[order],
        distance=distance[order],
        network=network[order],
        regression=regression[order],
        models=len(each),
        spread=spread[order],
    )


def attributions(
    model: BarrierModel,
    graph: Graph,
    nodes: Sequence[int],
    reference: Reference,
    progress: Progress | None = None,
) -> Iterator[Attribution]:
    """`attribute` of many atoms; the model is frozen (`frozen_eval`)."""
    whole = WholePrediction(model, graph)
    for done, node in enumerate(nodes, start=1):
        found = attribute(whole, node, reference)
        if progress is not None:
            progress(done, len(nodes))
        yield found
