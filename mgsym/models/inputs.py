"""What a network's atoms start from: their types, or what surrounds them and a potential says.

A model that lets its user choose takes its options from `InputOptions` and inherits from
`InputModel`, which computes, standardises and encodes the inputs:

- ``node_input="types"``: the species of the atom;
- ``node_input="descriptors"``: invariants of its surroundings (mgsym.descriptors);
- ``physical_inputs``: named node features beside either, such as the energy and stiffness that a
  potential gives an atom (mgsym.physical);
- ``latent``: numbers beside all these that sum up what they say of the barrier, in more detail and
  averaged (mgsym.latent_inputs), found on the training structures before training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgsym.descriptors import count_descriptors, local_descriptors
from mgsym.errors import UsageError
from mgsym.graph import Graph, match_species
from mgsym.latent_inputs import LatentInputs, LatentSize
from mgsym.messages import NeighborSum
from mgsym.models.base import BarrierModel
from mgsym.physical import PhysicalInputs

PREPARED = "prepared_inputs"  # the node feature that `prepare` adds to a graph


@dataclass(frozen=True)
class InputOptions:
    """Options that models with a choice of inputs share.

    Attributes:
        width: channels of an atom.
        node_input: ``types`` or ``descriptors``.
        radial: Gaussians of the descriptors, and of the edge length where a model takes that.
        l_max: highest degree of the descriptors' power spectrum.
        physical_inputs: node features that join the inputs, standardised per species; ``available``
            stands for all of `mgsym.physical.PHYSICAL_INPUTS` that the training graphs have.
        smoothing: Å; physical inputs, and what latent inputs look at, are also averaged with
            Gaussians of these lengths.
        latent: how many latent inputs there are beside these; 0 for none.
        latent_radial: Gaussians of the power spectrum that they look at; its degree is `l_max`.
    """

    width: int = 32
    node_input: str = "types"
    radial: int = 10
    l_max: int = 6
    physical_inputs: tuple[str, ...] = ()
    smoothing: tuple[float, ...] = ()
    latent: int = 0
    latent_radial: int = 6

    def __post_init__(self) -> None:
        for name in ("physical_inputs", "smoothing"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_choices(self, {"node_input": ("types", "descriptors")})
        check_range(self, "width", 1)
        check_range(self, "latent", 0)
        check_range(self, "latent_radial", 2)
        if any(not length > 0 for length in self.smoothing):
            raise UsageError(f"model.smoothing is {self.smoothing}, expected lengths above 0 Å")

    def reach(self, cutoff: float) -> int:
        """How many edges away an atom's inputs see, where edges reach `cutoff` Å."""
        if self.latent:
            return self.latent_size.hops(cutoff)
        smoothed = bool(self.physical_inputs and self.smoothing)
        return int(self.node_input == "descriptors" or smoothed)

    @property
    def latent_size(self) -> LatentSize:
        """How many latent inputs there are, of what."""
        return LatentSize(self.latent, self.latent_radial, self.l_max, self.smoothing)


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
        super().__init__(species, cutoff, hops=layers + options.reach(cutoff))
        self.options = options
        self.physical: PhysicalInputs | None = None
        if options.physical_inputs:
            self.physical = PhysicalInputs(options.physical_inputs, options.smoothing, len(species))
        self.latent: LatentInputs | None = None
        if options.latent:
            self.latent = LatentInputs(
                options.latent_size, len(species), len(options.physical_inputs)
            )
        if not self.types_alone:
            self.register_buffer("descriptor_mean", torch.zeros(self.count_inputs()))
            self.register_buffer("descriptor_scale", torch.ones(self.count_inputs()))

    @property
    def types_alone(self) -> bool:
        """Whether an atom's species is all that it starts from."""
        options = self.options
        return options.node_input == "types" and not options.physical_inputs and not options.latent

    def count_inputs(self) -> int:
        """How many numbers an atom starts from, where they are not its type alone."""
        count = len(self.species)
        if self.options.node_input == "descriptors":
            count = count_descriptors(count, self.options.radial, self.options.l_max)
        count += self.physical.count if self.physical is not None else 0
        return count + self.options.latent

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
        if self.latent is not None:
            self.latent.fit(graphs, self._physical)
        self.fit_inputs(graphs, [self.raw_inputs(g) for g in graphs])

    def fit_inputs(self, graphs: Sequence[Graph], inputs: Sequence[Tensor]) -> None:
        """Take what standardises the inputs [n, k] of the training structures."""
        together = torch.cat(list(inputs))
        self.descriptor_mean.copy_(together.mean(0))
        self.descriptor_scale.copy_(together.std(0).clamp(min=1e-3))

    def prepare(self, graph: Graph) -> Graph:
        """The graph with its standardised inputs, where they are more than types."""
        if self.types_alone:
            return graph
        graph = match_species(graph, self.species)
        with torch.no_grad():
            return _with_inputs(graph, self._standard_inputs(graph))

    def prepare_training(self, graph: Graph) -> Graph:
        """The same, with latent inputs that were not fitted to the graph's own glass."""
        if self.latent is None:
            return self.prepare(graph)
        graph = match_species(graph, self.species)
        with torch.no_grad():
            latent = self.latent.forward_training(graph, self._physical(graph))
            inputs = torch.cat([*self._plain_inputs(graph), latent], dim=1)
            return _with_inputs(graph, self.standardise(inputs))

    def node_input(self, graph: Graph, edge_weight: Tensor | None = None) -> Tensor:
        """What the first layer takes: types [n] int64, or standardised inputs [n, k]."""
        if self.types_alone:
            return graph.types
        # what was prepared is of the whole graph: with weights it must be computed anew
        if edge_weight is None and PREPARED in graph.node_features:
            return graph.node_features[PREPARED]
        return self._standard_inputs(graph, edge_weight)

    def raw_inputs(self, graph: Graph, edge_weight: Tensor | None = None) -> Tensor:
        """[n, count_inputs]: descriptors or species one-hot, physical inputs, latent ones."""
        found = self._plain_inputs(graph, edge_weight)
        if self.latent is not None:
            found.append(self.latent(graph, self._physical(graph), edge_weight))
        return torch.cat(found, dim=1)

    def _plain_inputs(self, graph: Graph, edge_weight: Tensor | None = None) -> list[Tensor]:
        """The same without latent ones."""
        if self.options.node_input == "descriptors":
            own = local_descriptors(graph, self.options.radial, self.options.l_max, edge_weight)
        else:
            own = F.one_hot(graph.types, len(self.species)).to(self.label_mean)
        if self.physical is None:
            return [own]
        return [own, self.physical(graph, edge_weight).to(own.dtype)]

    def linear_start(self, inputs: Tensor) -> Tensor:
        """[n], what the ridge regression among latent inputs predicts, from `node_input`."""
        column = -self.options.latent
        start: Tensor = inputs[:, column] * self.descriptor_scale[column]
        return start + self.descriptor_mean[column]

    def _physical(self, graph: Graph) -> Tensor:
        """[n, physical_inputs], standardised, without averages."""
        if self.physical is None:
            return self.label_mean.new_zeros(graph.num_nodes, 0)
        return self.physical.standardised(graph)

    def standardise(self, inputs: Tensor) -> Tensor:
        """Raw inputs [n, k] with the training set's mean 0 and standard deviation 1."""
        return (inputs - self.descriptor_mean) / self.descriptor_scale

    def _standard_inputs(self, graph: Graph, edge_weight: Tensor | None = None) -> Tensor:
        return self.standardise(self.raw_inputs(graph, edge_weight))


def _with_inputs(graph: Graph, inputs: Tensor) -> Graph:
    return graph.replace(node_features={**graph.node_features, PREPARED: inputs})


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
