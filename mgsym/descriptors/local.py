"""Inputs of an atom from its environment and from a potential, averaged over its surroundings.

The inputs x of an atom are its species, named node features (`physical`) and descriptors of its
environment (`power_spectrum`). Its features are x and Gaussian averages of x over its surroundings
(`neighborhoods`). They are found from positions and cell; edges play no part.

    f = (x, A₁ x, A₂ x, …)      so that      f · w = x · w₀ + A₁ (x · w₁) + A₂ (x · w₂) + …

and a projection of f averages as many numbers as it has, not as many as x has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from mgsym.descriptors.gaussian_sums import GaussianSums
from mgsym.descriptors.neighborhoods import (
    GAUSSIAN_REACH,
    Neighborhoods,
    Slab,
    gaussian_mean,
    neighbors_of,
    slabs,
)
from mgsym.descriptors.physical import PhysicalInputs, available_inputs, input_names
from mgsym.descriptors.power_spectrum import Environment
from mgsym.errors import UsageError
from mgsym.graph import Graph
from mgsym.graph.prepared import Owner
from mgsym.utils.progress import Progress
from mgsym.utils.threads import thread_map

DESCRIPTORS = "descriptors"  # what is prepared of a graph
_ROWS = 256  # atoms whose inputs are multiplied at once: they fit the cache


@dataclass(frozen=True)
class LocalOptions:
    """Options of models that take these inputs.

    Attributes:
        descriptor_cutoff: Å, of the power spectrum.
        radial: Gaussians between 1.5 Å and that cutoff, per species.
        l_max: highest degree of the power spectrum.
        wide_cutoff: Å, of radial densities beside them.
        wide_radial: their Gaussians, per species; 0 for none.
        smoothing: Å; species and descriptors are averaged with Gaussians of these lengths.
        physical_inputs: node features that join the descriptors, standardised per species;
            None for those of `physical` that all training graphs have (see `named_inputs`).
        physical_smoothing: Å; these are averaged with Gaussians of these lengths.
    """

    descriptor_cutoff: float = 5.0
    radial: int = 6
    l_max: int = 6
    wide_cutoff: float = 9.0
    wide_radial: int = 24
    smoothing: tuple[float, ...] = (1.5, 2.5)
    physical_inputs: tuple[str, ...] | None = None
    physical_smoothing: tuple[float, ...] = (1.5, 2.5, 4.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "physical_inputs", input_names(self.physical_inputs))
        for name in ("smoothing", "physical_smoothing"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("smoothing", "physical_smoothing"):
            values = getattr(self, name)
            if any(not value > 0 for value in values) or len(set(values)) < len(values):
                raise UsageError(f"model.{name} is {values}, expected distinct lengths above 0 Å")
        for name, least in (("radial", 2), ("l_max", 0), ("wide_radial", 0)):
            if getattr(self, name) < least:
                raise UsageError(
                    f"model.{name} is {getattr(self, name)}, expected at least {least}"
                )
        if self.wide_radial == 1:
            raise UsageError("model.wide_radial is 1, expected 0 or at least 2")
        for name in ("descriptor_cutoff", "wide_cutoff"):
            if not getattr(self, name) > 1.5:
                raise UsageError(f"model.{name} is {getattr(self, name)}, expected above 1.5 Å")

    @property
    def environment(self) -> Environment:
        """The descriptors."""
        return Environment(
            self.descriptor_cutoff,
            self.radial,
            self.l_max,
            self.wide_cutoff,
            self.wide_radial,
        )

    @property
    def named_inputs(self) -> tuple[str, ...]:
        """Names of the physical inputs; a model made without training graphs has those named."""
        return available_inputs(self.physical_inputs)

    @property
    def lengths(self) -> tuple[float, ...]:
        """Å, every length that something is averaged with."""
        physical = self.physical_smoothing if self.named_inputs else ()
        return tuple(sorted({*self.smoothing, *physical}))

    @property
    def reach(self) -> float:
        """Å; nothing farther from an atom changes its features."""
        return self.environment.reach + GAUSSIAN_REACH * max(self.lengths, default=0.0)


class LocalInputs(nn.Module):
    """The inputs of atoms, standardised, and their features.

    Args:
        options: which inputs.
        species: how many.
    """

    mean: Tensor
    scale: Tensor
    used: Tensor

    def __init__(self, options: LocalOptions, species: int) -> None:
        super().__init__()
        self.options, self.species = options, species
        self.environment = options.environment
        names = options.named_inputs
        self.physical = PhysicalInputs(names, (), species) if names else None
        described = self.environment.count(species)
        self.count = species + len(names) + described
        self.register_buffer("mean", torch.zeros(self.count))
        self.register_buffer("scale", torch.ones(self.count))
        # which inputs are averaged with each length; the first row is the atom itself
        used = torch.ones(1 + len(options.lengths), self.count, dtype=torch.bool)
        physical = slice(species, species + len(names))
        for row, length in zip(used[1:], options.lengths, strict=True):
            row[:] = length in options.smoothing
            row[physical] = length in options.physical_smoothing
        self.register_buffer("used", used, persistent=False)

    @property
    def owner(self) -> Owner:
        """All that descriptors depend on beside the graph."""
        return (LocalInputs, self.environment, self.species)

    def described(self, graph: Graph) -> dict[str, Tensor]:
        """What can be prepared of a graph: the descriptors of its atoms, [n, count]."""
        descriptors = graph.edge_vector.new_empty(
            graph.num_nodes, self.environment.count(self.species)
        )
        for nodes, described in self.environment.describe(graph):
            descriptors[nodes] = described.to(descriptors)
        return {DESCRIPTORS: descriptors}

    def fit(self, graphs: Sequence[Graph]) -> None:
        """Take mean and standard deviation of each input from training structures.

        Raises:
            InputError: a graph lacks a physical input.
        """
        if self.physical is not None:
            self.physical.fit(graphs)
        count, total = 0, torch.zeros_like(self.mean).double()
        square = torch.zeros_like(total)
        self.mean.zero_()
        self.scale.fill_(1.0)
        for graph in graphs:
            for _, x in self.inputs(graph):
                count, total = count + len(x), total + x.double().sum(0)
                square = square + x.double().square().sum(0)
        mean = total / count
        spread = (square / count - mean.square()).clamp(min=0).sqrt()
        self.mean.copy_(mean)
        # an input that is the same everywhere says nothing
        self.scale.copy_(torch.where(spread > 1e-6 * (1 + mean.abs()), spread, 1.0))

    def inputs(self, graph: Graph) -> Iterator[tuple[Tensor, Tensor]]:
        """Some atoms [m] and their standardised inputs x [m, count], until all had their turn."""
        first = self._first(graph)
        parts = self.environment.describe(graph)
        if (prepared := self._prepared(graph)) is not None:
            parts = iter([(torch.arange(graph.num_nodes, device=graph.types.device), prepared)])
        for nodes, described in parts:
            yield nodes, self._standardised(first[nodes], described)

    def _first(self, graph: Graph) -> Tensor:
        """[n, …] inputs beside the descriptors: species and physical inputs."""
        own = [one_hot(graph.types, self.species).to(self.mean)]
        if self.physical is not None:
            own.append(self.physical(graph))
        return torch.cat(own, dim=1)

    def _prepared(self, graph: Graph) -> Tensor | None:
        """[n, count] descriptors that were prepared."""
        prepared = graph.prepared_for(self.owner)
        return None if prepared is None else prepared.from_positions[DESCRIPTORS]

    def _standardised(self, first: Tensor, described: Tensor) -> Tensor:
        """[m, count] inputs."""
        return (torch.cat([first, described.to(first)], dim=1) - self.mean) / self.scale

    def features(self, graph: Graph) -> Tensor:
        """f [n, features]."""
        return torch.cat(list(self.blocks(graph)), dim=1)

    def blocks(self, graph: Graph) -> Iterator[Tensor]:
        """f in parts: x [n, count], then its averages of each length."""
        x = self.mean.new_empty(graph.num_nodes, self.count)
        for nodes, part in self.inputs(graph):
            x[nodes] = part
        yield x
        for row, length in zip(self.used[1:], self.options.lengths, strict=True):
            yield gaussian_mean(graph, x[:, row], length)

    @property
    def num_features(self) -> int:
        """How many features an atom has."""
        return int(self.used.sum())

    def project(self, graph: Graph, weight: Tensor, progress: Progress | None = None) -> Tensor:
        """f · weight.

        Args:
            graph: one structure or a batch.
            weight: [features, q].
            progress: called with the atoms done and in all.

        Returns:
            [n, q].
        """
        rows, q = len(self.used), weight.shape[1]
        full = weight.new_zeros(rows, self.count, q)
        full[self.used] = weight
        wide = full.transpose(0, 1).flatten(1)  # [count, rows · q]
        own = weight.new_empty(graph.num_nodes, q)
        around = GaussianSums(graph, self.options.lengths, own)
        first, prepared, done = self._first(graph), self._prepared(graph), 0
        reach = max(around.reach, self.environment.reach)

        def projected(slab: Slab) -> tuple[Neighborhoods, Tensor]:
            """Neighbours of its atoms, and these atoms' x · weight for each average."""
            near = neighbors_of(graph, slab, reach)
            described = (
                self.environment.of_many(graph, near) if prepared is None else prepared[near.nodes]
            )
            pieces = zip(first[near.nodes].split(_ROWS), described.split(_ROWS), strict=True)
            parts = [self._standardised(*piece).to(weight) @ wide for piece in pieces]
            return near, torch.cat(parts).view(-1, rows, q)

        for near, parts in thread_map(projected, slabs(graph, reach), graph.positions.device):
            own[near.nodes], *others = parts.unbind(1)
            around.add(near, others)
            done += len(near.nodes)
            if progress is not None:
                progress(done, graph.num_nodes)
        for mean in around.means():
            own = own + mean
        return own
