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

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mgsym.egat import EGATBlock
from mgsym.errors import UsageError
from mgsym.graph import Graph
from mgsym.layers import EdgeEncoder, radial_basis
from mgsym.models.base import Invariance
from mgsym.models.inputs import InputModel, check_inputs
from mgsym.rotations import Transforms

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
        ):
            if getattr(self, name) not in allowed:
                raise UsageError(
                    f"symgnn: {name} is {getattr(self, name)!r}, expected {' or '.join(allowed)}"
                )
        check_inputs("symgnn", self)


class SymGNN(InputModel):
    """SymGNN with the paper's options, or others (SymGNNOptions)."""

    # the edge encoder's batch norm comes from moments, whose difference half precision would spoil
    def __init__(self, species: tuple[str, ...], cutoff: float, options: SymGNNOptions) -> None:
        super().__init__(species, cutoff, len(options.heads), options)
        self.options = options
        width = options.width
        self.node_encoder = _encoder(self.make_embedding(width), width)
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

    def standardised(
        self, graph: Graph, edge_weight: Tensor | None, attention_scale: Tensor | None
    ) -> Tensor:
        inputs = self.node_input(graph, edge_weight)
        nodes = self.node_encoder(inputs)
        passes = [
            self._message_passing(nodes, edges, graph, edge_weight, attention_scale) * weight
            for edges, weight in self._encoded_edges(graph)
        ]
        return self.with_ridge(torch.stack(passes).sum(0), graph, inputs, edge_weight)

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
