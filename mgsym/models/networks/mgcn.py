"""MGCN: atoms and pairs with representations of their own, read out from all levels.

Lu, Liu, Wang, Huang, Lin & He, "Molecular Property Prediction: A Multilevel Quantum Interactions
Modeling Perspective", AAAI 2019, arXiv 1906.11081. As written here (∘ elementwise; g Gaussians of
the distance):

    a⁰_i, e⁰_ij  = embeddings of the atom's type and of the unordered pair of types
    m_ij         = tanh(W ((W_a a_j + b_a) ∘ (W_d g(r_ij) + b_d) + W_e e_ij + b_e))
    a_i          ← a_i + U₂ σ(U₁ BN(Σ_j m_ij))
    e_ij         ← η e_ij + (1 − η) W_p (a_i ∘ a_j),    η = 0.8, a as before the update
    barrier      = R₂ σ(R₁ (a⁰_i ⊕ a¹_i ⊕ … ⊕ aᵀ_i))    all levels side by side

with σ(x) = ln(½ eˣ + ½).

What differs from the published code (DGL's MGCN): there an edge is updated from itself alone by a
linear layer and softplus, so that edges never learn of their atoms, and messages have no tanh;
here pairs of atoms update edges and messages pass through tanh, the paper's model. The skip
connection around an atom's update and the layers U are the code's. Edges end at the graph's
cutoff; sums are divided by the training structures' mean number of neighbours and normalised
(BN); embeddings of pairs start small, so that distances are heard; σ is shifted to 0 at 0; the
read-out is per atom, not summed over atoms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from mgsym.errors import UsageError
from mgsym.graph import Graph
from mgsym.models.node_inputs import InputOptions, NeighborSumModel, check_range
from mgsym.nn.layers import radial_basis
from mgsym.nn.messages import AtomNorm, ShiftedSoftplus, from_source, xavier


@dataclass(frozen=True)
class MGCNOptions(InputOptions):
    """Options of MGCN, beside InputOptions.

    Attributes:
        layers: interactions.
        keep: η, the share of a pair's representation that an interaction keeps; 1 never
            updates it.
    """

    width: int = 64
    layers: int = 4
    radial: int = 25
    keep: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "layers", 1)
        check_range(self, "radial", 1)
        if not 0 <= self.keep <= 1:
            raise UsageError(f"model.keep is {self.keep}, expected 0 … 1")


class MGCN(NeighborSumModel):
    """MGCN, read out per atom. Exactly invariant; knows distances and no angle."""

    source = "Lu et al. 2019 (arXiv 1906.11081)"
    options: MGCNOptions

    def __init__(self, species: tuple[str, ...], cutoff: float, options: MGCNOptions) -> None:
        super().__init__(species, cutoff, options, layers=options.layers)
        width = options.width
        kinds = len(species)
        self.atom_embedding = self.first_layer()
        self.pair_embedding = nn.Embedding(kinds * (kinds + 1) // 2, width)
        nn.init.normal_(self.pair_embedding.weight, std=0.1)
        self.layers = nn.ModuleList(
            MGCNInteraction(width, options.radial) for _ in range(options.layers)
        )
        self.pair_updates = nn.ModuleList(
            nn.Linear(width, width, bias=False) for _ in range(options.layers - 1)
        )
        levels = (options.layers + 1) * width
        self.decoder = nn.Sequential(
            nn.Linear(levels, width), ShiftedSoftplus(), nn.Linear(width, 1)
        )
        xavier(self, last=self.decoder[-1])

    def standardised(self, graph: Graph, edge_weight: Tensor | None) -> Tensor:
        basis = radial_basis(graph.edge_length, self.cutoff, self.options.radial)
        nodes = self.atom_embedding(self.node_input(graph, edge_weight))
        edges = self.pair_embedding(unordered_pair(graph))
        collect = partial(self.sum, graph=graph, edge_weight=edge_weight)
        levels = [nodes]
        for i, layer in enumerate(self.layers):
            new = layer(nodes, edges, basis, graph, collect)
            if i < len(self.pair_updates):  # nothing reads the edges after the last layer
                edges = self._updated(edges, nodes, graph, self.pair_updates[i])
            nodes = new
            levels.append(nodes)
        decoded: Tensor = self.decoder(torch.cat(levels, dim=1))
        return decoded.squeeze(-1)

    def _updated(self, edges: Tensor, nodes: Tensor, graph: Graph, update: nn.Module) -> Tensor:
        product = from_source(nodes, graph) * nodes.index_select(0, graph.destination)
        keep = self.options.keep
        new: Tensor = keep * edges + (1 - keep) * update(product)
        return new


def unordered_pair(graph: Graph) -> Tensor:
    """[e] int64: the number of each edge's pair of types, the same both ways round."""
    source, target = graph.types[graph.source], graph.types[graph.destination]
    low, high = torch.minimum(source, target), torch.maximum(source, target)
    return high * (high + 1) // 2 + low


class MGCNInteraction(nn.Module):
    """Messages and the atoms' update of one level.

    Args:
        width: of atoms and pairs.
        radial: Gaussians of the distance.
    """

    def __init__(self, width: int, radial: int) -> None:
        super().__init__()
        self.atom, self.distance = nn.Linear(width, width), nn.Linear(radial, width)
        self.pair, self.mix = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.update = nn.Sequential(
            AtomNorm(width), nn.Linear(width, width), ShiftedSoftplus(), nn.Linear(width, width)
        )

    def forward(
        self,
        nodes: Tensor,
        edges: Tensor,
        basis: Tensor,
        graph: Graph,
        collect: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """New atoms [n, width].

        Args:
            nodes: [n, width].
            edges: [e, width], the pairs.
            basis: [e, radial], Gaussians of the distance.
            graph: gives source and target of each edge.
            collect: sums messages [e, width] over neighbours.
        """
        both = from_source(self.atom(nodes), graph) * self.distance(basis) + self.pair(edges)
        new: Tensor = nodes + self.update(collect(torch.tanh(self.mix(both))))
        return new
