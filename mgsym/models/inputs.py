"""Models whose atoms start from their types, or from descriptors and physical inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from mgsym.descriptors import count_descriptors, local_descriptors
from mgsym.errors import UsageError
from mgsym.graph import Graph, match_species
from mgsym.models.base import BarrierModel
from mgsym.models.linear import NeighborRidge
from mgsym.physical import PhysicalInputs

# what `prepare` adds to a graph
DESCRIPTORS = "prepared_descriptors"
RIDGE = "prepared_ridge"


class InputOptions(Protocol):
    """The options that decide an atom's inputs; each such model has them among its own.

    Attributes:
        node_input: ``types`` or ``descriptors``.
        radial: Gaussians of the descriptors.
        l_max: highest degree of the descriptors' power spectrum.
        ridge: where above 0, the network predicts what a ridge regression of this strength on
            the descriptors (mgsym.models.linear) leaves over.
        physical_inputs: node features that join the descriptors, standardised per species.
        smoothing: Å; physical inputs are also given averaged with Gaussians of these lengths.
    """

    @property
    def node_input(self) -> str: ...
    @property
    def radial(self) -> int: ...
    @property
    def l_max(self) -> int: ...
    @property
    def ridge(self) -> float: ...
    @property
    def physical_inputs(self) -> tuple[str, ...]: ...
    @property
    def smoothing(self) -> tuple[float, ...]: ...


def check_inputs(model: str, options: InputOptions) -> None:
    """Refuse options that do not go together.

    Raises:
        UsageError: says which.
    """
    if options.node_input not in ("types", "descriptors"):
        raise UsageError(
            f"{model}: node_input is {options.node_input!r}, expected types or descriptors"
        )
    for name in ("ridge", "physical_inputs"):
        if getattr(options, name) and options.node_input != "descriptors":
            raise UsageError(f'{model}: {name} needs node_input = "descriptors"')
    if any(not length > 0 for length in options.smoothing):
        raise UsageError(f"{model}: smoothing is {options.smoothing}, expected lengths above 0 Å")


class InputModel(BarrierModel):
    """What such models share: the inputs, their statistics, and the ridge regression on them.

    Args:
        species: the elements the model knows.
        cutoff: Å.
        layers: how far messages travel, in edges; descriptors reach one farther.
        options: of the inputs.
    """

    descriptor_mean: Tensor
    descriptor_scale: Tensor

    def __init__(
        self, species: tuple[str, ...], cutoff: float, layers: int, options: InputOptions
    ) -> None:
        from_descriptors = options.node_input == "descriptors"
        super().__init__(species, cutoff, hops=layers + from_descriptors)
        self.from_descriptors, self.inputs = from_descriptors, options
        self.physical: PhysicalInputs | None = None
        self.ridge: NeighborRidge | None = None
        if not self.from_descriptors:
            return
        if options.physical_inputs:
            self.physical = PhysicalInputs(options.physical_inputs, options.smoothing, len(species))
        self.register_buffer("descriptor_mean", torch.zeros(self.num_inputs))
        self.register_buffer("descriptor_scale", torch.ones(self.num_inputs))
        if options.ridge > 0:
            self.ridge = NeighborRidge(self.num_inputs, layers, options.ridge)

    @property
    def num_inputs(self) -> int:
        """How many numbers describe an atom."""
        own = count_descriptors(len(self.species), self.inputs.radial, self.inputs.l_max)
        return own + (self.physical.count if self.physical is not None else 0)

    def make_embedding(self, width: int) -> nn.Module:
        """What turns an atom's inputs into `width` channels."""
        if self.from_descriptors:
            return nn.Linear(self.num_inputs, width)
        return nn.Embedding(len(self.species), width)

    def fit_statistics(self, graphs: Sequence[Graph]) -> None:
        """Label statistics; of the descriptors mean, standard deviation and ridge regression."""
        super().fit_statistics(graphs)
        if not self.from_descriptors:
            return
        graphs = [match_species(g, self.species) for g in graphs]
        if self.physical is not None:
            self.physical.fit(graphs)
        found = [self._descriptors(g) for g in graphs]
        together = torch.cat(found)
        self.descriptor_mean.copy_(together.mean(0))
        self.descriptor_scale.copy_(together.std(0).clamp(min=1e-3))
        if self.ridge is not None:
            self.ridge.fit(
                [
                    (g, self._scaled(x), (g.target - self.label_mean) / self.label_scale)
                    for g, x in zip(graphs, found, strict=True)
                ]
            )

    def prepare(self, graph: Graph) -> Graph:
        """The graph with its descriptors and their ridge regression, where the model uses them."""
        if not self.from_descriptors:
            return graph
        graph = match_species(graph, self.species)
        with torch.no_grad():
            prepared = {DESCRIPTORS: self._scaled(self._descriptors(graph))}
            if self.ridge is not None:
                prepared[RIDGE] = self.ridge(graph, prepared[DESCRIPTORS])
        return graph.replace(node_features={**graph.node_features, **prepared})

    def node_input(self, graph: Graph, edge_weight: Tensor | None) -> Tensor:
        """Types [n], or descriptors [n, num_inputs]: what the embedding takes."""
        if not self.from_descriptors:
            return graph.types
        # what was prepared is of the whole graph: with weights it must be computed anew
        if edge_weight is None and DESCRIPTORS in graph.node_features:
            return graph.node_features[DESCRIPTORS]
        return self._scaled(self._descriptors(graph, edge_weight))

    def with_ridge(
        self, predicted: Tensor, graph: Graph, inputs: Tensor, edge_weight: Tensor | None
    ) -> Tensor:
        """[n], the network's prediction and that of the ridge regression, if there is one."""
        if self.ridge is None:
            return predicted
        if edge_weight is None and RIDGE in graph.node_features:
            return predicted + graph.node_features[RIDGE]
        return predicted + self.ridge(graph, inputs, edge_weight)

    def _scaled(self, descriptors: Tensor) -> Tensor:
        return (descriptors - self.descriptor_mean) / self.descriptor_scale

    def _descriptors(self, graph: Graph, edge_weight: Tensor | None = None) -> Tensor:
        own = local_descriptors(graph, self.inputs.radial, self.inputs.l_max, edge_weight)
        if self.physical is None:
            return own
        return torch.cat([own, self.physical(graph, edge_weight).to(own.dtype)], dim=1)
