"""Graph convolutions: on types alone, and with edge features.

GCN is Kipf & Welling, "Semi-Supervised Classification with Graph Convolutional Networks", ICLR
2017, arXiv 1609.02907 (eq. 2). With an edge s→d of weight w_sd and a self-loop of weight 1,

    H′ = ReLU(D^−½ Ã D^−½ H W + b),   Ã_ds = w_sd + δ_ds,   D_dd = 1 + Σ_s w_sd,

so that an edge of weight 0 is deleted from sums and degrees alike. Distances decide only which
atoms are neighbours.

GCN with edge features is the baseline of that name in arXiv 2401.08627, known from its code: a
message reads both ends and the edge, an atom takes the mean,

    m_sd = ReLU(W_m [h_s, f_sd, h_d] + b),  h′_d = h_d + ReLU(W_h [h_d, BN(mean_s m_sd)] + c),
    f′_sd = f_sd + m_sd.

f starts from displacement vectors in a fixed frame, so this model is not invariant under
rotation; with ``edge_input="length"`` it is.

Width, depth and dropout are those of the published code. What differs from it: GCN has the ReLU
between layers that its source has (the code stacks four layers with none) and W as its source
draws it (Glorot); there is one self-loop an atom, of weight 1 (the code's graphs hold one already);
an edge's weight multiplies its message (the code scales what the message is computed from, so that
an edge of weight 0 still sends its bias); means of messages are normalised (BN), as they differ
little from atom to atom: without, hundreds of steps teach next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mgsym.graph import Graph
from mgsym.models.base import Invariance
from mgsym.models.node_inputs import InputModel, InputOptions, check_choices, check_range
from mgsym.nn.layers import Dropout, decoder, encoder, radial_basis
from mgsym.nn.messages import AtomNorm
from mgsym.nn.scatter import segment_mean, segment_sum


@dataclass(frozen=True)
class GCNOptions(InputOptions):
    """Options of GCN beside InputOptions.

    Attributes:
        layers: graph convolutions.
        dropout: after each.
        decoder_layers: hidden layers of the decoder.
    """

    layers: int = 4
    dropout: float = 0.0
    decoder_layers: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "layers", 1)
        check_range(self, "dropout", 0, 1)


class GCN(InputModel):
    """Graph convolutions, normalised by the degrees of both ends.

    The farthest atom heard from brings its degree, so edges count one hop beyond the layers.
    """

    source = "Kipf & Welling 2017 (arXiv 1609.02907)"

    def __init__(self, species: tuple[str, ...], cutoff: float, options: GCNOptions) -> None:
        super().__init__(species, cutoff, options, layers=options.layers + 1)
        width = options.width
        self.node_encoder = encoder(self.first_layer(), width, norm=False)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(options.layers))
        for layer in self.layers:
            nn.init.xavier_uniform_(layer.weight)  # type: ignore[arg-type]
        self.dropout = Dropout(options.dropout)
        self.decoder = decoder(width, options.decoder_layers, norm=False, activation=nn.ReLU)

    def standardised(self, graph: Graph, edge_weight: Tensor | None) -> Tensor:
        nodes = self.node_encoder(self.node_input(graph, edge_weight))  # [n, width]
        scale = inverse_root_degree(graph, edge_weight)
        for layer in self.layers:
            near = propagate(nodes, graph, scale, edge_weight)
            nodes = self.dropout(torch.relu(layer(near)))
        return self.decoder(nodes).squeeze(-1)


def inverse_root_degree(graph: Graph, edge_weight: Tensor | None = None) -> Tensor:
    """(1 + Σ w)^−½ over the edges that arrive at each atom, [n]."""
    weight = graph.edge_vector.new_ones(graph.num_edges) if edge_weight is None else edge_weight
    return (1 + segment_sum(weight, graph.destination, graph.num_nodes)).rsqrt()


def propagate(
    nodes: Tensor, graph: Graph, scale: Tensor, edge_weight: Tensor | None = None
) -> Tensor:
    """D^−½ Ã D^−½ H for nodes H [n, width] and scale D^−½ [n]."""
    scaled = nodes * scale[:, None]
    sent = scaled[graph.source]
    if edge_weight is not None:
        sent = sent * edge_weight[:, None]
    return (scaled + segment_sum(sent, graph.destination, graph.num_nodes)) * scale[:, None]


@dataclass(frozen=True)
class EdgeGCNOptions(GCNOptions):
    """Options of GCN with edge features beside GCNOptions.

    Attributes:
        edge_input: ``vector``, the displacement, or ``length``, a radial basis of its length.
    """

    edge_input: str = "vector"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self, {"edge_input": ("vector", "length")})


class EdgeGCN(InputModel):
    """Means over neighbours of messages that read both atoms and the edge between them."""

    source = "Li et al. 2024 (arXiv 2401.08627)"
    options: EdgeGCNOptions

    def __init__(self, species: tuple[str, ...], cutoff: float, options: EdgeGCNOptions) -> None:
        super().__init__(species, cutoff, options, layers=options.layers)
        width = options.width
        self.node_encoder = encoder(self.first_layer(), width, norm=False)
        edge_inputs = 3 if options.edge_input == "vector" else options.radial
        self.edge_encoder = encoder(nn.Linear(edge_inputs, width), width, norm=False)
        self.layers = nn.ModuleList(_EdgeLayer(width) for _ in range(options.layers))
        self.dropout = Dropout(options.dropout)
        self.decoder = decoder(width, options.decoder_layers, norm=False, activation=nn.ReLU)

    @property
    def invariant(self) -> Invariance:  # type: ignore[override]
        """Only on lengths: vectors are read in a fixed frame."""
        return "yes" if self.options.edge_input == "length" else "no"

    def standardised(self, graph: Graph, edge_weight: Tensor | None) -> Tensor:
        nodes = self.node_encoder(self.node_input(graph, edge_weight))  # [n, width]
        edges = self.edge_encoder(self._edge_input(graph))  # [e, width]
        for layer in self.layers:
            nodes, edges = layer(nodes, edges, graph, edge_weight)
            nodes, edges = self.dropout(nodes), self.dropout(edges)
        return self.decoder(nodes).squeeze(-1)

    def _edge_input(self, graph: Graph) -> Tensor:
        if self.options.edge_input == "vector":
            return graph.edge_vector
        return radial_basis(graph.edge_length, self.cutoff, self.options.radial)


class _EdgeLayer(nn.Module):
    """One layer; W_m comes in three parts, so that an atom's are computed once an atom."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sender = nn.Linear(width, width, bias=False)
        self.receiver = nn.Linear(width, width, bias=False)
        self.edge = nn.Linear(width, width)
        self.norm = AtomNorm(width)
        self.node = nn.Linear(2 * width, width)

    def forward(
        self, nodes: Tensor, edges: Tensor, graph: Graph, edge_weight: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """New nodes [n, width] and edges [e, width]."""
        ends = self.sender(nodes)[graph.source] + self.receiver(nodes)[graph.destination]
        message = torch.relu(ends + self.edge(edges))
        mean = segment_mean(message, graph.destination, graph.num_nodes, edge_weight)
        change = torch.relu(self.node(torch.cat([nodes, self.norm(mean)], dim=1)))
        return nodes + change, edges + message
