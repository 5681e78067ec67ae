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
``edge_input="polar"`` gives the encoder an edge vector as that basis and its direction, which
alone is transformed: lengths are learnt from the first step, whatever transforms are drawn.
``node_input="descriptors"`` starts each atom from invariants of its surroundings
(mgsym.descriptors.power_spectrum) in place of its type alone; ``physical_inputs`` adds what a
potential says of it, such as its energy and stiffness (mgsym.descriptors.physical).

The registry names three ablations of the paper, which differ in one option each: ``egat`` sees
edge vectors as they are (SymGNN without symmetrisation), ``egat-augmented`` under one random
transform a training step and as they are in evaluation (data augmentation), ``egat-length`` by
their length. (The published code also takes their batch norms away and drops out 0.3.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mgsym.errors import UsageError
from mgsym.graph import Graph
from mgsym.models.base import Invariance
from mgsym.models.node_inputs import check_choices
from mgsym.models.with_ridge import NetworkWithRidge, WithRidgeOptions
from mgsym.nn.egat import EGATBlock
from mgsym.nn.layers import EdgeEncoder, decoder, encoder, radial_basis
from mgsym.nn.rotations import Transforms


@dataclass(frozen=True)
class SymGNNOptions(WithRidgeOptions):
    """Options of SymGNN beside WithRidgeOptions; the defaults are the paper's.

    Attributes:
        width: channels of nodes and edges.
        heads: of each layer.
        attention: of each layer: ``softmax`` over neighbours, or ``softplus`` of each edge by
            itself, which lets a layer count neighbours.
        dropout: after each layer.
        decoder_layers: hidden layers of the decoder.
        symmetrisation: ``edge`` or ``output``.
        transforms: where the transforms come from (mgsym.nn.rotations.Transforms).
        samples: K, transforms of each half of O(3) for ``von-mises`` and ``haar``.
        degree: of ``quadrature``.
        seed: of the transforms used in evaluation.
        edge_input: ``vector`` (x, y, z); ``polar``, the same vector as a radial basis of its length
            and its direction; or ``length`` alone, the exact average over O(3).
    """

    heads: tuple[int, ...] = (8, 4, 2, 1)
    attention: str = "softmax"
    dropout: float = 0.25
    decoder_layers: int = 4
    symmetrisation: str = "edge"
    transforms: str = "von-mises"
    samples: int = 2
    degree: int = 2
    seed: int = 0
    edge_input: str = "vector"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "heads", tuple(self.heads))
        check_choices(
            self,
            {
                "attention": ("softmax", "softplus"),
                "symmetrisation": ("edge", "output"),
                "edge_input": ("vector", "polar", "length"),
            },
        )
        if self.named_inputs and self.node_input != "descriptors":
            raise UsageError('model.physical_inputs needs node_input = "descriptors"')


class SymGNN(NetworkWithRidge):
    """SymGNN with the paper's options, or others (SymGNNOptions)."""

    source = "Li et al. 2024 (arXiv 2401.08627)"
    options: SymGNNOptions

    def __init__(self, species: tuple[str, ...], cutoff: float, options: SymGNNOptions) -> None:
        super().__init__(species, cutoff, options, layers=len(options.heads))
        width = options.width
        self.node_encoder = encoder(self.first_layer(), width)
        edge_inputs = {"vector": 3, "polar": options.radial + 3, "length": options.radial}
        self.edge_encoder = EdgeEncoder(edge_inputs[options.edge_input], width)
        self.transforms = (
            Transforms(options.transforms, options.samples, options.degree, options.seed)
            if options.edge_input != "length"
            else None
        )
        self.layers = nn.ModuleList(
            EGATBlock(width, heads, options.dropout, options.attention) for heads in options.heads
        )
        self.decoder = decoder(width, options.decoder_layers)

    @property
    def invariant(self) -> Invariance:  # type: ignore[override]
        """Lengths and descriptors are invariant; Haar samples are on average; the rest is not."""
        if self.options.edge_input == "length":
            return "yes"
        return "in expectation" if self.options.transforms == "haar" else "no"

    def standardised(self, graph: Graph, edge_weight: Tensor | None) -> Tensor:
        nodes = self.node_encoder(self.node_input(graph, edge_weight))
        passes = [
            self._message_passing(nodes, edges, graph, edge_weight) * weight
            for edges, weight in self._encoded_edges(graph)
        ]
        return self.with_ridge(torch.stack(passes).sum(0), graph)

    # ---- the same layer by layer, on some of the atoms (mgsym.prediction.sweep) ----

    @property
    def num_layers(self) -> int:
        """How many layers pass messages."""
        return len(self.layers)

    def begin(self, part: Graph, count: int) -> tuple[Tensor, list[Tensor]]:
        """Encoded nodes [count, width], and edges [e, width] as each pass sees them."""
        nodes = self.node_encoder(self.node_input(part)[:count])
        return nodes, [edges for edges, _ in self._encoded_edges(part)]

    def advance(
        self, layer: int, nodes: Tensor, edges: Tensor, part: Graph
    ) -> tuple[Tensor, Tensor]:
        """Nodes and edges after a layer."""
        updated: tuple[Tensor, Tensor] = self.layers[layer](
            nodes, edges, part, last=layer == len(self.layers) - 1
        )
        return updated

    def finish(self, passes: Sequence[Tensor], part: Graph) -> Tensor:
        """Barriers in eV of the part's first atoms."""
        shares = [1.0] if len(passes) == 1 else self._shares()
        decoded = [self.decoder(nodes).squeeze(-1) for nodes in passes]
        weighted = [values * share for values, share in zip(decoded, shares, strict=True)]
        own = torch.stack(weighted).sum(0)
        return self.label_mean + self.label_scale * self.with_ridge(own, part)

    def _shares(self) -> list[float]:
        assert self.transforms is not None
        return self.transforms()[1].tolist()

    def _encoded_edges(self, graph: Graph) -> list[tuple[Tensor, Tensor]]:
        """Edge encodings [e, width] and the share of the prediction that each makes."""
        vector = graph.edge_vector
        if self.options.edge_input != "vector":
            basis = radial_basis(graph.edge_length, self.cutoff, self.options.radial)
        if self.transforms is None:
            share, identity = basis.new_ones(1), torch.eye(basis.shape[1]).to(basis)[None]
            return [(self.edge_encoder(basis, identity, share), share)]
        matrices, shares = self.transforms()
        if self.options.edge_input == "polar":
            vector = torch.cat([basis, vector / graph.edge_length[:, None]], dim=1)
            matrices = _on_directions(matrices, basis.shape[1])
        if self.options.symmetrisation == "edge":
            edges = self.edge_encoder(vector, matrices, shares)
            return [(edges, shares.new_ones(1))]
        encoded = self.edge_encoder(vector, matrices, shares, average=False)
        return list(zip(encoded, shares, strict=True))

    def _message_passing(
        self, nodes: Tensor, edges: Tensor, graph: Graph, edge_weight: Tensor | None
    ) -> Tensor:
        final = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            nodes, edges = layer(nodes, edges, graph, edge_weight, last=i == final)
        decoded: Tensor = self.decoder(nodes)
        return decoded.squeeze(-1)


def _on_directions(matrices: Tensor, radial: int) -> Tensor:
    """Transforms [t, 3, 3] of the last three of radial + 3 numbers: [t, radial + 3, radial + 3]."""
    views = torch.eye(radial + 3).to(matrices).repeat(len(matrices), 1, 1)
    views[:, radial:, radial:] = matrices
    return views
