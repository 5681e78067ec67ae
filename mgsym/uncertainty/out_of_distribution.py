"""How far structures and atoms lie from those that a model was trained on.

Of a structure, density and shortest distance are compared. The surroundings of atoms are described
by invariants (mgsym.descriptors.power_spectrum). The distance of an atom from the training atoms of
its own species is Mahalanobis's (Proc. Natl. Inst. Sci. India 2, 49 (1936)):
that from their mean, in units of their standard deviation along each principal axis. Divided by
the root of the number of descriptors, it is 1 for a training atom, in the root mean square.

What is usual is told by the training atoms, each glass measured against the others, so that an
atom of one more such glass is as usual as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mgsym.descriptors.power_spectrum import local_descriptors
from mgsym.graph import Graph, match_species
from mgsym.graph.operations import narrowed
from mgsym.structure import index_species

RADIAL, L_MAX = 5, 4  # of the descriptors
QUANTILES = (0.5, 0.95, 0.99)
_SMALLEST_CUTOFF = 2.0  # Å; the descriptors begin at 1.5 Å
_MOST = 2000  # atoms of a structure that teach; more change nothing
_CONSTANT = 1e-3  # standard deviation of a descriptor below which it says nothing


@dataclass(frozen=True, eq=False)
class MahalanobisReference:
    """Mean and principal axes of the training atoms' surroundings.

    Attributes:
        species: element symbols; the first index of `mean` and `factor`.
        cutoff: Å, of the graphs.
        mean: [species, d] float32.
        factor: [species, d, d] float32; (x − mean) · factor has length 1 in the root mean square.
        quantiles: [3], the distances below which 50, 95 and 99 % of the training atoms lie.
    """

    species: tuple[str, ...]
    cutoff: float
    mean: Tensor
    factor: Tensor
    quantiles: Tensor

    @classmethod
    def of(cls, graphs: Sequence[Graph]) -> MahalanobisReference | None:
        """Of training graphs, one structure each; None where there is too little to tell."""
        species, _ = index_species([s for graph in graphs for s in graph.species])
        if not graphs or graphs[0].cutoff < _SMALLEST_CUTOFF:
            return None
        parts: dict[str, list[_Sample]] = {}
        for graph in graphs:
            sample = _Sample.of_some(match_species(graph, species))
            parts.setdefault(graph.glasses[0] or graph.names[0], []).append(sample)
        folds = [_joined(samples) for samples in parts.values()]
        if len(folds) == 1:
            folds = folds[0].halves()
        own = [
            fold.distances(*_axes([other for other in folds if other is not fold], len(species)))
            for fold in folds
        ]
        together = torch.cat(own)
        together = together[together.isfinite()]
        if len(together) == 0:
            return None
        mean, factor = _axes(folds, len(species))
        levels = torch.tensor(QUANTILES, dtype=together.dtype)
        return cls(species, graphs[0].cutoff, mean, factor, _quantiles(together, levels).float())

    def distance(self, graph: Graph) -> Tensor:
        """[n] float32, without unit; infinite for a species that no training structure has.

        Args:
            graph: one structure or several, with this cutoff.
        """
        species = tuple(dict.fromkeys([*self.species, *graph.species]))
        sample = _Sample.of(match_species(graph, species), len(self.species))
        return sample.distances(self.mean, self.factor)

    def as_dict(self) -> dict[str, Any]:
        """Tensors, numbers and text, for files."""
        return {**vars(self), "species": list(self.species)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> MahalanobisReference:
        """What `as_dict` gave."""
        return cls(**{**content, "species": tuple(content["species"])})


@dataclass(frozen=True)
class _Sample:
    """Descriptors [n, d] of atoms, and their species [n]; −1 for one that is not known."""

    values: Tensor
    types: Tensor

    @classmethod
    def of(cls, graph: Graph, species: int | None = None) -> _Sample:
        """The first `species` of the graph's count as known, and only they are neighbours."""
        count = len(graph.species)
        num_known = count if species is None else species
        if num_known < count:
            graph = graph.with_edges(graph.types[graph.source] < num_known)
            seen = graph.replace(types=graph.types.clamp(max=num_known - 1))
            seen = seen.replace(species=graph.species[:num_known])
        else:
            seen = graph
        with torch.no_grad():
            values = local_descriptors(seen, RADIAL, L_MAX)[:, num_known:]
        return cls(values, torch.where(graph.types < num_known, graph.types, -1))

    @classmethod
    def of_some(cls, graph: Graph) -> _Sample:
        """Of atoms spread evenly over a structure's rows."""
        rows = torch.arange(0, graph.num_nodes, -(-graph.num_nodes // _MOST))
        chosen = torch.zeros(graph.num_nodes, dtype=torch.bool)
        chosen[rows] = True
        sample = cls.of(graph.with_edges(chosen[graph.destination]))
        return cls(sample.values[rows], sample.types[rows])

    def halves(self) -> list[_Sample]:
        """The first and the second half of the atoms."""
        half = len(self.types) // 2
        return [
            _Sample(self.values[part], self.types[part])
            for part in (slice(None, half), slice(half, None))
        ]

    def distances(self, mean: Tensor, factor: Tensor) -> Tensor:
        """[n] float32 from each species' mean along its axes; infinite where there is none."""
        distances = torch.full((len(self.types),), float("inf"))
        for kind in range(len(mean)):
            rows = self.types == kind
            if bool(mean[kind].isfinite().all()):
                distances[rows] = ((self.values[rows] - mean[kind]) @ factor[kind]).norm(dim=1)
        return distances


def _joined(samples: Sequence[_Sample]) -> _Sample:
    return _Sample(torch.cat([s.values for s in samples]), torch.cat([s.types for s in samples]))


def _axes(samples: Sequence[_Sample], species: int) -> tuple[Tensor, Tensor]:
    """Mean [species, d] and factor [species, d, d] of some atoms; NaN for an absent species.

    The correlation matrix is shrunk towards one by d / (n + d), as few atoms tell it badly.
    """
    values = torch.cat([s.values for s in samples]).double()
    types = torch.cat([s.types for s in samples])
    size = values.shape[1]
    means = values.new_full((species, size), float("nan"))
    factors = values.new_zeros(species, size, size)
    for kind in range(species):
        own = values[types == kind]
        if len(own) < 2:
            continue
        means[kind] = own.mean(0)
        scale = own.std(0, correction=0).clamp(min=_CONSTANT)
        standard = (own - means[kind]) / scale
        correlation = standard.T @ standard / len(own)
        shrinkage = size / (len(own) + size)
        correlation = (1 - shrinkage) * correlation + shrinkage * torch.eye(size).double()
        strengths, axes = torch.linalg.eigh(correlation)
        factors[kind] = axes / (scale[:, None] * (size * strengths).sqrt())
    return means.float(), factors.float()


def _quantiles(values: Tensor, levels: Tensor) -> Tensor:
    """As torch.quantile, which takes at most 16 million values."""
    order = values.sort().values
    place = levels * (len(order) - 1)
    low = place.floor().long()
    high = (low + 1).clamp(max=len(order) - 1)
    return order[low] + (order[high] - order[low]) * (place - low)


@dataclass(frozen=True)
class TrainingSet:
    """What the training structures were like: where predictions are on known ground.

    Attributes:
        names: the structures.
        atoms: how many atoms had labels.
        number_density: lowest and highest, atoms per Å³; empty when none is fully periodic.
        shortest_distance: lowest and highest of the shortest distance in a structure, Å.
        neighbors: lowest and highest mean number of neighbours within the cutoff.
        surroundings: what tells usual atoms from others; None in files from before there was any.
    """

    names: tuple[str, ...] = ()
    atoms: int = 0
    number_density: tuple[float, ...] = ()
    shortest_distance: tuple[float, ...] = ()
    neighbors: tuple[float, ...] = ()
    surroundings: MahalanobisReference | None = None

    @classmethod
    def of(cls, graphs: Sequence[Graph]) -> TrainingSet:
        """The facts of training graphs, one structure each."""
        densities = [d for g in graphs if (d := number_density(g)) is not None]
        shortest = [float(g.edge_length.min()) for g in graphs if g.num_edges]
        neighbors = [g.num_edges / g.num_nodes for g in graphs]
        return cls(
            names=tuple(g.names[0] for g in graphs),
            atoms=sum(int(g.labelled.sum()) for g in graphs),
            number_density=_range(densities),
            shortest_distance=_range(shortest),
            neighbors=_range(neighbors),
            surroundings=MahalanobisReference.of(graphs),
        )

    @classmethod
    def union(cls, sets: Sequence[TrainingSet]) -> TrainingSet:
        """Of models that were trained apart: all names, the widest ranges, the first surroundings.

        Atoms are those of the largest set.
        """
        ranges = {
            name: _range([value for s in sets for value in getattr(s, name)])
            for name in ("number_density", "shortest_distance", "neighbors")
        }
        return cls(
            names=tuple(dict.fromkeys(name for s in sets for name in s.names)),
            atoms=max((s.atoms for s in sets), default=0),
            surroundings=next((s.surroundings for s in sets if s.surroundings), None),
            **ranges,
        )

    def as_dict(self) -> dict[str, Any]:
        """Numbers, text and tensors, for files."""
        around = None if self.surroundings is None else self.surroundings.as_dict()
        return {**vars(self), "surroundings": around}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> TrainingSet:
        """What `as_dict` gave.

        Raises:
            TypeError, ValueError, KeyError: it is not.
        """
        around = content.get("surroundings")
        surroundings = None if around is None else MahalanobisReference.from_dict(around)
        return cls(**{**content, "surroundings": surroundings})


def number_density(graph: Graph) -> float | None:
    """Atoms per Å³; None unless every structure is periodic along all three vectors."""
    if not bool(graph.periodic.all()):
        return None
    return graph.num_nodes / float(torch.linalg.det(graph.cell).abs().sum())


def _range(values: Sequence[float]) -> tuple[float, ...]:
    return (min(values), max(values)) if values else ()


DENSITY_TOLERANCE = 0.05  # relative

# Å; shortest distances of relaxed Cu64Zr36 glasses of 500 to 8000 atoms range from 2.15 to 2.25;
# random displacements of 0.1 Å, as at room temperature, take 0.17 to 0.31 off
DISTANCE_TOLERANCE = 0.15

# share of atoms beyond the distance that 95 % of the training atoms keep: 0.05 to 0.07 in other
# relaxed Cu64Zr36 glasses, 0.22 after random displacements of 0.05 Å or 2 % of compression
OOD_FRACTION = 0.15


@dataclass(frozen=True, eq=False)
class OODReport:
    """How one structure compares with the training structures.

    Attributes:
        distance: [n] float32, of each atom's surroundings (a training atom has 1 in the root mean
            square); None where the model does not tell.
        median, upper: of the distances, half and 95 % of the atoms below them.
        ood_fraction: share of atoms farther than 95 % of the training atoms.
        warnings: one sentence for each reason not to trust a prediction.
    """

    distance: Tensor | None = None
    median: float | None = None
    upper: float | None = None
    ood_fraction: float | None = None
    warnings: tuple[str, ...] = ()


def ood_report(graph: Graph, training_set: TrainingSet | None) -> OODReport:
    """Compare a structure with the training set.

    Args:
        graph: one structure, with the model's cutoff or a larger one.
        training_set: what the model was trained on; None gives an empty report.

    Returns:
        With one warning for each of: number density more than 5 % outside the training
        structures' range, shortest distance more than 0.15 Å outside it, more than 15 % of the
        atoms farther than 95 % of the training atoms. (An unknown element is an error.)
    """
    if training_set is None:
        return OODReport()
    name = graph.names[0] or "the structure"
    problems = [_density_warning(graph, training_set), _distance_warning(graph, training_set)]
    around = training_set.surroundings
    if around is None or graph.num_nodes == 0:
        return OODReport(warnings=tuple(f"{name} {text}" for text in problems if text))
    distance = around.distance(narrowed(graph, around.cutoff))
    ordered = distance.sort().values
    median, upper = (float(ordered[int(q * (len(ordered) - 1))]) for q in (0.5, 0.95))
    ood_fraction = float((distance > around.quantiles[1]).double().mean())
    if ood_fraction > OOD_FRACTION:
        problems.append(
            f"has {ood_fraction:.0%} of its atoms in surroundings farther from the training set "
            "than 95 % of the training atoms: predictions may be far off"
        )
    warnings = tuple(f"{name} {text}" for text in problems if text)
    return OODReport(distance, median, upper, ood_fraction, warnings)


def _density_warning(graph: Graph, training_set: TrainingSet) -> str:
    density = number_density(graph)
    if density is None or not training_set.number_density:
        return ""
    low, high = training_set.number_density
    if low * (1 - DENSITY_TOLERANCE) <= density <= high * (1 + DENSITY_TOLERANCE):
        return ""
    return (
        f"has {density:.4f} atoms/Å³, the training structures {low:.4f}–{high:.4f}: predictions "
        "may be far off"
    )


def _distance_warning(graph: Graph, training_set: TrainingSet) -> str:
    if not graph.num_edges or not training_set.shortest_distance:
        return ""
    low, high = training_set.shortest_distance
    shortest = float(graph.edge_length.min())
    if low - DISTANCE_TOLERANCE <= shortest <= high + DISTANCE_TOLERANCE:
        return ""
    return (
        f"has a shortest distance of {shortest:.2f} Å, the training structures "
        f"{low:.2f}–{high:.2f} Å: is it relaxed, with the same potential?"
    )
