"""What a network's atoms start from: their types, or what surrounds them and a potential says.

A model that lets its user choose takes its options from `InputOptions` and inherits from
`InputModel`, which computes, standardises and encodes the inputs:

- ``node_input="types"``: the species of the atom;
- ``node_input="descriptors"``: invariants of its surroundings (mgsym.descriptors.power_spectrum);
- ``physical_inputs``: named node features beside either, such as the energy and stiffness that a
  potential gives an atom (mgsym.descriptors.physical).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgsym.descriptors.physical import PhysicalInputs, available_inputs, input_names
from mgsym.descriptors.power_spectrum import count_descriptors, local_descriptors
from mgsym.errors import UsageError
from mgsym.graph import Graph, match_species
from mgsym.graph.prepared import Owner
from mgsym.models.base import BarrierModel
from mgsym.nn.messages import NeighborSum

INPUTS = "inputs"  # what is prepared of a graph: standardised inputs


@dataclass(frozen=True)
class InputOptions:
    """Options that models with a choice of inputs share.

    Attributes:
        width: channels of an atom.
        node_input: ``types`` or ``descriptors``.
        radial: Gaussians of the descriptors, and of the edge length where a model takes that.
        l_max: highest degree of the descriptors' power spectrum.
        physical_inputs: node features that join the inputs, standardised per species; None for
            all of `mgsym.descriptors.physical.PHYSICAL_INPUTS` that the training graphs have.
        physical_smoothing: Å; physical inputs are also averaged with Gaussians of these lengths.
    """

    width: int = 32
    node_input: str = "types"
    radial: int = 10
    l_max: int = 6
    physical_inputs: tuple[str, ...] | None = ()
    physical_smoothing: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "physical_inputs", input_names(self.physical_inputs))
        object.__setattr__(self, "physical_smoothing", tuple(self.physical_smoothing))
        check_choices(self, {"node_input": ("types", "descriptors")})
        check_range(self, "width", 1)
        lengths = self.physical_smoothing
        if any(not length > 0 for length in lengths):
            raise UsageError(f"model.physical_smoothing is {lengths}, expected lengths above 0 Å")

    @property
    def named_inputs(self) -> tuple[str, ...]:
        """Names of the physical inputs; a model made without training graphs has those named."""
        return available_inputs(self.physical_inputs)

    @property
    def reach(self) -> int:
        """How many edges away an atom's inputs see."""
        smoothed = bool(self.named_inputs and self.physical_smoothing)
        return int(self.node_input == "descriptors" or smoothed)


def check_choices(options: Any, choices: Mapping[str, Sequence[str]]) -> None:
    """Refuse options of a model that are none of their choices.

    Raises:
        UsageError: names the option, what it is and what it may be.
    """
    for name, allowed in choices.items():
        if getattr(options, name) not in allowed:
            raise UsageError(
                f"model.{name} is {getattr(options, name)!r}, expected {' or '.join(allowed)}"
            )


def check_range(options: Any, name: str, low: float, below: float = math.inf) -> None:
    """Refuse an option of a model that is less than `low`, or not less than `below`.

    Raises:
        UsageError: names the option, what it is and what it may be.
    """
    value = getattr(options, name)
    if not low <= value < below:
        bound = "" if below == math.inf else f" and less than {below:g}"
        raise UsageError(f"model.{name} is {value}, expected at least {low:g}{bound}")


class InputModel(BarrierModel):
    """A model whose atoms start from the inputs that InputOptions choose.

    A subclass makes its first layer with `first_layer` and gives it `node_input`.

    Args:
        species, cutoff: as for BarrierModel.
        options: of the model.
        layers: how many edges a message travels after the inputs.
    """

    options: InputOptions  # a subclass says which
    descriptor_mean: Tensor
    descriptor_scale: Tensor

    def __init__(
        self, species: tuple[str, ...], cutoff: float, options: InputOptions, layers: int
    ) -> None:
        super().__init__(species, cutoff, hops=layers + options.reach)
        self.options = options
        self.physical: PhysicalInputs | None = None
        if names := options.named_inputs:
            self.physical = PhysicalInputs(names, options.physical_smoothing, len(species))
        if not self.types_alone:
            self.register_buffer("descriptor_mean", torch.zeros(self.count_inputs()))
            self.register_buffer("descriptor_scale", torch.ones(self.count_inputs()))

    @property
    def types_alone(self) -> bool:
        """Whether an atom's species is all that it starts from."""
        return self.options.node_input == "types" and not self.options.named_inputs

    def count_inputs(self) -> int:
        """How many numbers an atom starts from, where they are not its type alone."""
        count = len(self.species)
        if self.options.node_input == "descriptors":
            count = count_descriptors(count, self.options.radial, self.options.l_max)
        return count + (self.physical.count if self.physical is not None else 0)

    def first_layer(self) -> nn.Module:
        """From `node_input` to [n, width]: an embedding of types, else a linear layer."""
        if self.types_alone:
            return nn.Embedding(len(self.species), self.options.width)
        return nn.Linear(self.count_inputs(), self.options.width)

    def fit_statistics(self, graphs: Sequence[Graph]) -> None:
        """Label statistics; mean and standard deviation of the inputs."""
        super().fit_statistics(graphs)
        if self.types_alone:
            return
        graphs = [match_species(g, self.species) for g in graphs]
        if self.physical is not None:
            self.physical.fit(graphs)
        self.fit_inputs(graphs, [self.raw_inputs(g) for g in graphs])

    def fit_inputs(self, graphs: Sequence[Graph], inputs: Sequence[Tensor]) -> None:
        """Take what standardises the inputs [n, k] of the training structures."""
        together = torch.cat(list(inputs))
        self.descriptor_mean.copy_(together.mean(0))
        self.descriptor_scale.copy_(together.std(0).clamp(min=1e-3))

    def owner(self) -> Owner:
        """The options and what standardises the inputs, where they are more than types."""
        if self.types_alone:
            return ()
        statistics = [self.descriptor_mean, self.descriptor_scale]
        if self.physical is not None:
            statistics += [self.physical.mean, self.physical.scale]
        return (InputModel, self.species, self.options, *statistics)

    def from_edges(self, graph: Graph) -> dict[str, Tensor]:
        """The standardised inputs, where they are more than types."""
        return {} if self.types_alone else {INPUTS: self._standard_inputs(graph)}

    def node_input(self, graph: Graph, edge_weight: Tensor | None = None) -> Tensor:
        """Compute what the first layer takes: types [n] int64, or standardised inputs [n, k]."""
        if self.types_alone:
            return graph.types
        # what was prepared is of all edges: with weights it must be computed anew
        own = self.prepared_of(graph) if edge_weight is None else None
        if own is not None and INPUTS in own.from_edges:
            return own.from_edges[INPUTS]
        return self._standard_inputs(graph, edge_weight)

    def raw_inputs(self, graph: Graph, edge_weight: Tensor | None = None) -> Tensor:
        """[n, count_inputs]: descriptors or species one-hot, then physical inputs."""
        if self.options.node_input == "descriptors":
            own = local_descriptors(graph, self.options.radial, self.options.l_max, edge_weight)
        else:
            own = F.one_hot(graph.types, len(self.species)).to(self.label_mean)
        if self.physical is None:
            return own
        return torch.cat([own, self.physical(graph, edge_weight).to(own.dtype)], dim=1)

    def standardise(self, inputs: Tensor) -> Tensor:
        """Raw inputs [n, k] with the training set's mean 0 and standard deviation 1."""
        return (inputs - self.descriptor_mean) / self.descriptor_scale

    def _standard_inputs(self, graph: Graph, edge_weight: Tensor | None = None) -> Tensor:
        return self.standardise(self.raw_inputs(graph, edge_weight))


class NeighborSumModel(InputModel):
    """An InputModel that sums messages over neighbours with ``self.sum``."""

    def __init__(
        self, species: tuple[str, ...], cutoff: float, options: InputOptions, layers: int
    ) -> None:
        super().__init__(species, cutoff, options, layers)
        self.sum = NeighborSum()

    def fit_statistics(self, graphs: Sequence[Graph]) -> None:
        """What an InputModel takes, and the mean number of neighbours."""
        super().fit_statistics(graphs)
        self.sum.fit(graphs)
