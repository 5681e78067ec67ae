"""SymGNN: symmetrisation over O(3), then message passing with attention on edges.

Li, Zhang, Tang, Bauchy & Sun, "Predicting and Interpreting Energy Barriers of Metallic Glasses
with Graph Neural Networks", arXiv 2401.08627 (sections 4.1–4.2, eqs. 3–5).

Edge vectors are seen under several transforms T of O(3), and averaged (the paper's eq. 5 is a
Monte Carlo estimate of the average over the group). Two readings of where exist:

- ``edge`` (its Figure 1): each edge's encoding is averaged, then one network runs;
- ``output`` (its eqs. 3–5): the network runs once per transform, predictions are averaged.

What differs from the published code: transforms are drawn (not two fixed rotations), reflections
take part, their distributions learn (location and concentration, by implicit gradients),
encodings are averaged (not summed), and there are no self-loops.

Averaged over all of O(3), an edge's encoding can depend on nothing but its length. That limit is
available at once, as ``edge_input="length"``: a radial basis, exactly invariant, no sampling.
``node_input="descriptors"`` starts each atom from invariants of its surroundings
(mgsym.descriptors) in place of its type alone; ``physical_inputs`` adds what a potential says of
it, such as its energy and stiffness (mgsym.physical).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mgsym.descriptors import count_descriptors, local_descriptors
from mgsym.egat import EGATBlock
from mgsym.errors import UsageError
from mgsym.graph import Graph, match_species
from mgsym.layers import EdgeEncoder, radial_basis
from mgsym.models.base import BarrierModel, Invariance
from mgsym.models.linear import NeighborRidge
from mgsym.physical import PhysicalInputs
from mgsym.rotations import Transforms

# what `prepare` adds to a graph
DESCRIPTORS = "symgnn_descriptors"
RIDGE = "symgnn_ridge"


@dataclass(frozen=True)
class SymGNNOptions:
    """Options of SymGNN; the defaults are the paper's.

    Attributes:
        width: channels of nodes and edges.
        heads: of each layer.
        dropout: after each layer.
        decoder_layers: hidden layers of the decoder.
        symmetrisation: ``edge`` or ``output``.
        transforms: where the transforms come from (mgsym.rotations.Transforms).
        samples: K, transforms of each half of O(3) for ``von-mises`` and ``haar``.
        degree: of ``quadrature``.
        seed: of the transforms used in evaluation.
        edge_input: ``vector``, or ``length`` for the exact average over O(3).
        node_input: ``types`` or ``descriptors``.
        radial: Gaussians of the edge length, and of the descriptors.
        l_max: highest degree of the descriptors' power spectrum.
        ridge: where above 0, the network predicts what a ridge regression of this strength on
            the descriptors (mgsym.models.linear) leaves over.
        physical_inputs: node features that join the descriptors, standardised per species.
        smoothing: Å; physical inputs are also given averaged with Gaussians of these lengths.
    """

    width: int = 32
    heads: tuple[int, ...] = (8, 4, 2, 1)
    dropout: float = 0.25
    decoder_layers: int = 4
    symmetrisation: str = "edge"
    transforms: str = "von-mises"
    samples: int = 2
    degree: int = 2
    seed: int = 0
    edge_input: str = "vector"
    node_input: str = "types"
    radial: int = 10
    l_max: int = 6
    ridge: float = 0.0
    physical_inputs: tuple[str, ...] = ()
    smoothing: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("heads", "physical_inputs", "smoothing"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, allowed in (
            ("symmetrisation", ("edge", "output")),
            ("edge_input", ("vector", "length")),
            ("node_input", ("types", "descriptors")),
        ):
            if getattr(self, name) not in allowed:
                raise UsageError(
                    f"symgnn: {name} is {getattr(self, name)!r}, expected {' or '.join(allowed)}"
                )
        for name in ("ridge", "physical_inputs"):
            if getattr(self, name) and self.node_input != "descriptors":
                raise UsageError(f'symgnn: {name} needs node_input = "descriptors"')
        if any(not length > 0 for length in self.smoothing):
            raise UsageError(f"symgnn: smoothing is {self.smoothing}, expected lengths above 0 Å")


class SymGNN(BarrierModel):
    """SymGNN with the paper's options, or others (SymGNNOptions)."""

    # the edge encoder's batch norm comes from moments, whose difference half precision would spoil
    descriptor_mean: Tensor
    descriptor_scale: Tensor

    def __init__(self, species: tuple[str, ...], cutoff: float, options: SymGNNOptions) -> None:
        from_descriptors = options.node_input == "descriptors"
        super().__init__(species, cutoff, hops=len(options.heads) + from_descriptors)
        self.options = options
        self.physical: PhysicalInputs | None = None
        width = options.width
        if from_descriptors:
            if options.physical_inputs:
                self.physical = PhysicalInputs(
                    options.physical_inputs, options.smoothing, len(species)
                )
            inputs = count_descriptors(len(species), options.radial, options.l_max)
            inputs += self.physical.count if self.physical is not None else 0
            self.register_buffer("descriptor_mean", torch.zeros(inputs))
            self.register_buffer("descriptor_scale", torch.ones(inputs))
            embed: nn.Module = nn.Linear(inputs, width)
            rounds = len(options.heads)
            self.ridge = NeighborRidge(inputs, rounds, options.ridge) if options.ridge > 0 else None
        else:
            embed = nn.Embedding(len(species), width)
            self.ridge = None
        self.node_encoder = _encoder(embed, width)
        edge_inputs = 3 if options.edge_input == "vector" else options.radial
        self.edge_encoder = EdgeEncoder(edge_inputs, width)
        self.transforms = (
            Transforms(options.transforms, options.samples, options.degree, options.seed)
            if options.edge_input == "vector"
            else None
        )
        self.layers = nn.ModuleList(
            EGATBlock(width, heads, options.dropout) for heads in options.heads
        )
        self.decoder = _decoder(width, options.decoder_layers)
        if self.ridge is not None:
            # training starts at the ridge regression
            for parameter in self.decoder[-1].parameters():
                nn.init.zeros_(parameter)

    @property
    def invariant(self) -> Invariance:  # type: ignore[override]
        """Lengths and descriptors are invariant; Haar samples are on average; the rest is not."""
        if self.options.edge_input == "length":
            return "yes"
        return "in expectation" if self.options.transforms == "haar" else "no"

    def fit_statistics(self, graphs: Sequence[Graph]) -> None:
        """Label statistics; of the descriptors mean, standard deviation and ridge regression."""
        super().fit_statistics(graphs)
        if self.options.node_input == "types":
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
        if self.options.node_input == "types":
            return graph
        graph = match_species(graph, self.species)
        with torch.no_grad():
            prepared = {DESCRIPTORS: self._scaled(self._descriptors(graph))}
            if self.ridge is not None:
                prepared[RIDGE] = self.ridge(graph, prepared[DESCRIPTORS])
        return graph.replace(node_features={**graph.node_features, **prepared})

    def standardised(
        self, graph: Graph, edge_weight: Tensor | None, attention_scale: Tensor | None
    ) -> Tensor:
        inputs = self._node_input(graph, edge_weight)
        nodes = self.node_encoder(inputs)
        passes = [
            self._message_passing(nodes, edges, graph, edge_weight, attention_scale) * weight
            for edges, weight in self._encoded_edges(graph)
        ]
        predicted = torch.stack(passes).sum(0)
        if self.ridge is None:
            return predicted
        if edge_weight is None and RIDGE in graph.node_features:
            return predicted + graph.node_features[RIDGE]
        return predicted + self.ridge(graph, inputs, edge_weight)

    def _node_input(self, graph: Graph, edge_weight: Tensor | None) -> Tensor:
        if self.options.node_input == "types":
            return graph.types
        # what was prepared is of the whole graph: with weights it must be computed anew
        if edge_weight is None and DESCRIPTORS in graph.node_features:
            return graph.node_features[DESCRIPTORS]
        return self._scaled(self._descriptors(graph, edge_weight))

    def _scaled(self, descriptors: Tensor) -> Tensor:
        return (descriptors - self.descriptor_mean) / self.descriptor_scale

    def _descriptors(self, graph: Graph, edge_weight: Tensor | None = None) -> Tensor:
        own = local_descriptors(graph, self.options.radial, self.options.l_max, edge_weight)
        if self.physical is None:
            return own
        return torch.cat([own, self.physical(graph, edge_weight).to(own.dtype)], dim=1)

    def _encoded_edges(self, graph: Graph) -> list[tuple[Tensor, Tensor]]:
        """Edge encodings [e, width] and the share of the prediction that each makes."""
        if self.transforms is None:
            basis = radial_basis(graph.edge_length, self.cutoff, self.options.radial)
            one = basis.new_ones(1)
            return [(self.edge_encoder(basis, torch.eye(basis.shape[1]).to(basis)[None], one), one)]
        matrices, shares = self.transforms()
        if self.options.symmetrisation == "edge":
            edges = self.edge_encoder(graph.edge_vector, matrices, shares)
            return [(edges, shares.new_ones(1))]
        encoded = self.edge_encoder(graph.edge_vector, matrices, shares, average=False)
        return list(zip(encoded, shares, strict=True))

    def _message_passing(
        self,
        nodes: Tensor,
        edges: Tensor,
        graph: Graph,
        edge_weight: Tensor | None,
        attention_scale: Tensor | None,
    ) -> Tensor:
        final = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            nodes, edges = layer(nodes, edges, graph, edge_weight, attention_scale, last=i == final)
        decoded: Tensor = self.decoder(nodes)
        return decoded.squeeze(-1)


def _encoder(first: nn.Module, width: int) -> nn.Sequential:
    return nn.Sequential(
        first,
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.BatchNorm1d(width),
        nn.ReLU(),
    )


def _decoder(width: int, layers: int) -> nn.Sequential:
    hidden = [
        module
        for _ in range(layers)
        for module in (nn.Linear(width, width), nn.BatchNorm1d(width), nn.PReLU())
    ]
    return nn.Sequential(*hidden, nn.Linear(width, 1))
