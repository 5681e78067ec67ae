"""EGNN: an E(n)-equivariant network on coordinates that move.

Satorras, Hoogeboom & Welling, "E(n) Equivariant Graph Neural Networks", ICML 2021, arXiv
2102.09844 (eqs. 3–6, and 8 for the gate). For an edge s→d with relative vector v_sd = x_s − x_d,

    m_sd = φ_e(h_s, h_d, |v_sd|²),              x′_d = x_d − mean_s v̂_sd φ_x(m_sd),
    m_d = Σ_s g(m_sd) m_sd,  g = sigmoid,       h′_d = h_d + φ_h(h_d, BN(m_d)).

In a periodic structure an atom has many images and no single coordinate, so coordinates are kept
as displacements u from where the atoms are: v_sd is the edge's vector + u_s − u_d. Displacements
turn with the structure, features stay as they are.

Width, depth, gate, residual and v̂ = v/|v| in place of v are those of the code published with arXiv
2401.08627. What differs from it: coordinates that moved are read by the next layer (there the
original distances are, so that coordinate updates have no effect), h is added once to its update
(there twice), lengths are in units of the cutoff, the last coordinate update, which nothing reads,
is left out, the graph's cutoff is the same as for other models, and sums of messages are normalised
(BN), without which hundreds of steps teach next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mgsym.graph import Graph
from mgsym.models.node_inputs import InputModel, InputOptions, check_range
from mgsym.nn.layers import Dropout, decoder, encoder
from mgsym.nn.messages import AtomNorm
from mgsym.nn.scatter import segment_mean, segment_sum


@dataclass(frozen=True)
class EGNNOptions(InputOptions):
    """Options of EGNN beside InputOptions.

    Attributes:
        layers: of message passing.
        dropout: after each, on features.
        decoder_layers: hidden layers of the decoder.
        gate: weigh messages by a sigmoid of theirs (eq. 8).
        move: update coordinates; without, only the distances of the structure count.
    """

    layers: int = 4
    dropout: float = 0.0
    decoder_layers: int = 3
    gate: bool = True
    move: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "layers", 1)
        check_range(self, "dropout", 0, 1)


class EGNN(InputModel):
    """Messages along edges update features and, equivariantly, coordinates."""

    source = "Satorras et al. 2021 (arXiv 2102.09844)"

    def __init__(self, species: tuple[str, ...], cutoff: float, options: EGNNOptions) -> None:
        super().__init__(species, cutoff, options, layers=options.layers)
        width = options.width
        self.node_encoder = encoder(self.first_layer(), width, norm=False)
        last = options.layers - 1
        self.layers = nn.ModuleList(
            EGNNLayer(width, cutoff, options.gate, options.move and i < last)
            for i in range(options.layers)
        )
        self.dropout = Dropout(options.dropout)
        self.decoder = decoder(width, options.decoder_layers, norm=False, activation=nn.SiLU)

    def standardised(self, graph: Graph, edge_weight: Tensor | None) -> Tensor:
        return self.decoder(self.features(graph, edge_weight)[0]).squeeze(-1)

    def features(self, graph: Graph, edge_weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What the layers make of a graph whose species are the model's.

        Returns:
            Features [n, width], which are invariant, and displacements [n, 3] in Å, which turn
            with the structure.
        """
        nodes = self.node_encoder(self.node_input(graph, edge_weight))
        moved = graph.edge_vector.new_zeros(graph.num_nodes, 3)
        for layer in self.layers:
            nodes, moved = layer(nodes, moved, graph, edge_weight)
            nodes = self.dropout(nodes)
        return nodes, moved


class EGNNLayer(nn.Module):
    """One layer.

    Args:
        width: of features and messages.
        cutoff: Å, the unit of lengths inside.
        gate: weigh messages by g(m) (eq. 8).
        move: update coordinates.
    """

    def __init__(self, width: int, cutoff: float, gate: bool, move: bool) -> None:
        super().__init__()
        self.cutoff = cutoff
        # the first layer of φ_e in parts: those of the atoms are computed once an atom
        self.sender = nn.Linear(width, width, bias=False)
        self.receiver = nn.Linear(width, width, bias=False)
        self.distance = nn.Linear(1, width)
        self.message = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.gate = nn.Sequential(nn.Linear(width, 1), nn.Sigmoid()) if gate else None
        self.norm = AtomNorm(width)
        self.update = nn.Sequential(
            nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width)
        )  # φ_h
        self.step: nn.Sequential | None = None  # φ_x, whose first steps are small
        if move:
            final = nn.Linear(width, 1, bias=False)
            nn.init.xavier_uniform_(final.weight, gain=1e-3)
            self.step = nn.Sequential(nn.Linear(width, width), nn.SiLU(), final)

    def forward(
        self, nodes: Tensor, moved: Tensor, graph: Graph, edge_weight: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """New features [n, width] and displacements [n, 3] in Å.

        Args:
            nodes: [n, width].
            moved: [n, 3] Å, the displacements so far.
            graph: gives the edges and their vectors.
            edge_weight: [e]; sums and means count an edge so many times.
        """
        source, target, count = graph.source, graph.destination, graph.num_nodes
        vector = (graph.edge_vector + moved[source] - moved[target]) / self.cutoff  # [e, 3]
        square = vector.square().sum(1, keepdim=True)
        ends = self.sender(nodes)[source] + self.receiver(nodes)[target]
        message = self.message(ends + self.distance(square))  # [e, width]
        if self.step is not None:
            # rounded at zero, where a direction has no gradient
            pull = vector / (square + 1e-6).sqrt() * self.step(message) * self.cutoff
            moved = moved - segment_mean(pull, target, count, edge_weight)
        if self.gate is not None:
            message = message * self.gate(message)
        if edge_weight is not None:
            message = message * edge_weight[:, None]
        total = segment_sum(message, target, count)
        return nodes + self.update(torch.cat([nodes, self.norm(total)], dim=1)), moved
