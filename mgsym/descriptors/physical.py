"""Physical inputs of a model: named node features, standardised and smoothed.

What a potential says of an atom (its energy, stress and stiffness, from `mgsym build-graph
--physics`) differs most between elements, which a model knows anyway; so each feature is taken
relative to the atoms of the same element in the training structures.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mgsym.errors import InputError, UsageError
from mgsym.graph import Graph
from mgsym.nn.scatter import segment_sum

# what `mgsym build-graph --physics` makes, see mgsym.data_tools.simulation
STIFFNESS_INPUTS = (
    "energy", "pressure", "von_mises", "compliance_6", "compliance_9",
    "stiffness_1", "stiffness_2", "stiffness_3",
)  # fmt: skip
CAGE_DISTANCES = (0.3, 0.5, 0.7, 1.0, 1.4)  # Å
CAGE_RANKS = (0, 3, 8, 16, 24, 36, 47)  # of 48 directions
CAGE_DEGREES = (1, 2, 3, 4)
CAGE_SOFTNESS = (0.3, 1.0, 3.0)  # eV
CAGE_INPUTS = tuple(
    f"cage_{distance:g}_{kind}_{value:g}"
    for distance in CAGE_DISTANCES
    for kind, values in (
        ("rank", CAGE_RANKS),
        ("degree", CAGE_DEGREES),
        ("soft", CAGE_SOFTNESS),
    )
    for value in values
)
PHYSICAL_INPUTS = STIFFNESS_INPUTS + CAGE_INPUTS
AVAILABLE = "available"  # in settings: all of these that every training graph has


def input_names(option: Sequence[str] | None) -> tuple[str, ...] | None:
    """The option ``physical_inputs`` as settings spell it, checked; None for ``available`` alone.

    Raises:
        UsageError: it is no list of names.
    """
    if option is None:
        return None
    if isinstance(option, str) or any(not isinstance(name, str) for name in option):
        raise UsageError(
            f'model.physical_inputs is {option!r}, expected names, or "available", in a list'
        )
    return None if tuple(option) == (AVAILABLE,) else tuple(option)


def available_inputs(option: Sequence[str] | None, graphs: Sequence[Graph] = ()) -> tuple[str, ...]:
    """Names of a model's physical inputs: the one place where ``available`` becomes names.

    Args:
        option: ``physical_inputs`` of a model; None, or ``available`` among names, stands for all
            of PHYSICAL_INPUTS that every graph has.
        graphs: the training graphs; a model made without any has no more than what is named.
    """
    names = (AVAILABLE,) if option is None else tuple(option)
    common = [n for n in PHYSICAL_INPUTS if graphs and all(n in g.node_features for g in graphs)]
    more = common if AVAILABLE in names else []
    return tuple(dict.fromkeys([*(n for n in names if n != AVAILABLE), *more]))


UNUSUAL = 2.0  # standard deviations of a training atom, by which a structure's mean may be off


class PhysicalInputs(nn.Module):
    """Node features as inputs: standardised per species, then averaged with Gaussian weights.

    The average of length σ over an atom and its neighbours is Σ w x / Σ w, w = exp(−r²/2σ²); it
    ends at the graph's cutoff.

    Args:
        names: of node features [n].
        lengths: Å, each σ.
        species: how many.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, names: Sequence[str], lengths: Sequence[float], species: int) -> None:
        super().__init__()
        self.names, self.lengths = tuple(names), tuple(lengths)
        self.register_buffer("mean", torch.zeros(species, len(self.names)))
        self.register_buffer("scale", torch.ones(species, len(self.names)))

    @property
    def count(self) -> int:
        """How many inputs an atom has."""
        return len(self.names) * (1 + len(self.lengths))

    def fit(self, graphs: Sequence[Graph]) -> None:
        """Take mean and standard deviation of each feature and species from training structures.

        Raises:
            InputError: a graph lacks a feature.
        """
        values = torch.cat([self._features(graph) for graph in graphs]).double()
        types = torch.cat([graph.types for graph in graphs])
        for kind in types.unique().tolist():
            own = values[types == kind]
            spread = own.std(0, correction=0)
            self.mean[kind] = own.mean(0)
            # a feature that is the same everywhere says nothing
            self.scale[kind] = torch.where(spread > 1e-6 * own.abs().amax(0), spread, 1.0)

    def forward(self, graph: Graph, edge_weight: Tensor | None = None) -> Tensor:
        """[n, count]: the features, then their averages by length.

        Raises:
            InputError: the graph lacks a feature.
        """
        own = self.standardised(graph)
        blocks = [own]
        blocks += [edge_average(graph, own, length, edge_weight) for length in self.lengths]
        return torch.cat(blocks, dim=1)

    def standardised(self, graph: Graph) -> Tensor:
        """[n, names], with mean 0 and standard deviation 1 among the atoms of an element.

        Raises:
            InputError: the graph lacks a feature.
        """
        return (self._features(graph) - self.mean[graph.types]) / self.scale[graph.types]

    def unusual(self, graph: Graph) -> list[str]:
        """Names of features whose mean over an element's atoms is far from the training atoms'.

        Another potential than that of the training structures shows so, above all in the energy.

        Args:
            graph: with the model's species.
        """
        own = self.standardised(graph)
        means = [own[graph.types == kind].mean(0).abs() for kind in graph.types.unique()]
        far = torch.stack(means).amax(0) > UNUSUAL
        return [name for name, is_far in zip(self.names, far.tolist(), strict=True) if is_far]

    def _features(self, graph: Graph) -> Tensor:
        """[n, names], as the graph has them."""
        lacking = [name for name in self.names if name not in graph.node_features]
        if lacking:
            raise InputError(
                f"the graph has no node feature {', '.join(lacking)}, which the model takes: "
                "build it with mgsym build-graph --physics",
                path=graph.names[0] or None,
            )
        for name in self.names:
            if graph.node_features[name].shape != (graph.num_nodes,):
                raise InputError(
                    f"node feature {name} is {list(graph.node_features[name].shape)}, expected "
                    f"one number for each of {graph.num_nodes} atoms",
                    path=graph.names[0] or None,
                )
        return torch.stack([graph.node_features[name] for name in self.names], dim=1).to(self.mean)


def edge_average(
    graph: Graph, values: Tensor, length: float, edge_weight: Tensor | None = None
) -> Tensor:
    """The average of values over an atom and its neighbours along edges, with Gaussian weights.

    (v + Σ w v) / (1 + Σ w) with w = exp(−r² / 2 length²), times the edge's own weight.

    Args:
        graph: one structure or a batch.
        values: [n, k].
        length: Å.
        edge_weight: [e].

    Returns:
        [n, k].
    """
    weight = torch.exp(-0.5 * (graph.edge_length / length) ** 2)[:, None]
    if edge_weight is not None:
        weight = weight * edge_weight[:, None]
    near = segment_sum(weight * values[graph.source], graph.destination, graph.num_nodes)
    total = segment_sum(weight, graph.destination, graph.num_nodes)
    return (values + near) / (1 + total)


def physical_inputs_of(model: nn.Module) -> tuple[str, ...]:
    """Names of the node features that a model takes; empty for structure alone."""
    parts = [part for part in model.modules() if isinstance(part, PhysicalInputs)]
    return tuple(dict.fromkeys(name for part in parts for name in part.names))


def unusual_inputs(model: nn.Module, graph: Graph) -> list[str]:
    """Names of a model's physical inputs that are unusual in a graph (`PhysicalInputs.unusual`)."""
    parts = [part for part in model.modules() if isinstance(part, PhysicalInputs)]
    return list(dict.fromkeys(name for part in parts for name in part.unusual(graph)))
