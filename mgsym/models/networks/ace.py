"""Message passing with the Atomic Cluster Expansion: an O(3)-equivariant network.

Drautz, "Atomic cluster expansion for accurate and transferable interatomic potentials", PRB 99,
014104 (2019); Batatia, Kovács, Simm, Ortner & Csányi, "MACE", NeurIPS 2022 (arXiv 2206.07697);
Darby et al., "Tensor-reduced atomic density representations", PRL 131, 028001 (2023).

Each layer, with lm the real spherical harmonics up to `degree`:

1. density: A_i[k, lm] = Σ_j R_kl(r_ij, h_j) Y_lm(r̂_ij), where R_kl is bilinear in radial
   Gaussians g_b(r) and in c channels that the neighbour sends, R_kl = Σ_bc W_l[k, bc] g_b s_j[c];
   the receiver scales each k and l by a gate. From the second layer on neighbours may also send
   vectors, coupled to Y_lm by Gaunt coefficients;
2. products: A_i[k] is a function on the sphere, f_k(Ω) = Σ A[k, lm] Y_lm(Ω). Its powers integrate
   to invariants of neighbour pairs, Σ_m A[k, lm]² for every l, and triples, ∫ f_k³; and to the
   vectors ∫ f_k² Y_1m. The integrals are sums over as many points as make them exact, and equal
   the contraction with Gaunt coefficients at a fraction of its cost. With channels mixed freely
   in A, powers of single channels span all products (Darby et al.);
3. update: an MLP of the atom's channels and invariants adds to its channels.

What differs from MACE: channels mix in A instead of after the products, which stay within a
channel; there is no weight per coupling path; tensors travel as vectors only; the readout is one
network of the final channels. Geometry carries no weights, so nothing of the width of an edge is
ever stored for the backward pass (mgsym.nn.density).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from mgsym.graph import Graph
from mgsym.models.node_inputs import check_range
from mgsym.models.with_ridge import NetworkWithRidge, WithRidgeOptions
from mgsym.nn.density import neighbor_density
from mgsym.nn.equivariant import ChannelMix, EquivariantNorm, SphereProducts, VectorCoupling
from mgsym.nn.layers import BatchNorm, Dropout, radial_basis, smooth_cutoff
from mgsym.nn.spherical_harmonics import spherical_harmonics


@dataclass(frozen=True)
class AceOptions(WithRidgeOptions):
    """Options of the network beside WithRidgeOptions.

    Attributes:
        layers: of message passing.
        channels: numbers that an atom sends.
        vectors: vectors that it sends from the second layer on; 0 sends none.
        features: functions on the sphere, k.
        edge_radial: radial Gaussians of the density, b.
        degree: highest l of the density.
        dropout: in each update and the readout.
    """

    width: int = 64
    node_input: str = "descriptors"
    layers: int = 2
    channels: int = 16
    vectors: int = 0
    features: int = 32
    edge_radial: int = 8
    degree: int = 3
    dropout: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("layers", "channels", "features", "degree"):
            check_range(self, name, 1)
        check_range(self, "vectors", 0)
        check_range(self, "edge_radial", 2)
        check_range(self, "dropout", 0, 1)


class Ace(NetworkWithRidge):
    """Two rounds of atomic cluster expansion on descriptors, or other options (AceOptions)."""

    source = "Drautz 2019 (PRB 99, 014104); Batatia et al. 2022 (NeurIPS)"
    options: AceOptions

    def __init__(self, species: tuple[str, ...], cutoff: float, options: AceOptions) -> None:
        super().__init__(species, cutoff, options, options.layers)
        width = options.width
        self.embedding = nn.Sequential(self.first_layer(), BatchNorm(width), nn.SiLU())
        counts = [0] + [options.vectors] * (options.layers - 1) + [0]
        self.layers = nn.ModuleList(
            AceLayer(options, received, sent) for received, sent in pairwise(counts)
        )
        self.decoder = _perceptron(width, width, 1, options.dropout)

    def standardised(self, graph: Graph, edge_weight: Tensor | None) -> Tensor:
        nodes: Tensor = self.embedding(self.node_input(graph, edge_weight))
        radial, harmonics = self._geometry(graph, edge_weight)
        vectors = nodes.new_zeros(len(nodes), 0, 3)
        for layer in self.layers:
            nodes, vectors = layer(graph, radial, harmonics, nodes, vectors)
        return self.with_ridge(self.decoder(nodes).squeeze(-1), graph)

    def _geometry(self, graph: Graph, edge_weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """Radial functions [e, b] and harmonics [e, (degree + 1)²] of each edge."""
        length = graph.edge_length
        # the lowest Gaussians would lie where no atom ever is
        radial = radial_basis(length - 1.5, self.cutoff - 1.5, self.options.edge_radial)
        scale = smooth_cutoff(length, self.cutoff)
        if edge_weight is not None:
            scale = scale * edge_weight
        direction = graph.edge_vector / length[:, None]
        return radial * scale[:, None], spherical_harmonics(direction, self.options.degree)


class AceLayer(nn.Module):
    """One layer: density, products, update.

    Args:
        options: of the network.
        received: vectors that each neighbour sends.
        sent: vectors that each atom sends to the next layer.
    """

    def __init__(self, options: AceOptions, received: int, sent: int) -> None:
        super().__init__()
        width, features, degree = options.width, options.features, options.degree
        self.send = nn.Linear(width, options.channels)
        self.mix = ChannelMix(options.edge_radial * options.channels, features, degree)
        self.mix_vectors = (
            VectorCoupling(options.edge_radial * received, features, degree) if received else None
        )
        self.norm = EquivariantNorm(features, degree)
        self.gate = nn.Linear(width, features * (degree + 1))
        nn.init.zeros_(self.gate.weight)
        nn.init.ones_(self.gate.bias)
        self.products = SphereProducts(degree)
        invariants = features * (degree + 2)
        self.invariant_norm = BatchNorm(invariants)
        self.update = _perceptron(width + invariants, width, width, options.dropout)
        self.send_vectors = nn.Linear(2 * features, sent, bias=False) if sent else None

    def forward(
        self, graph: Graph, radial: Tensor, harmonics: Tensor, nodes: Tensor, vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Atoms' channels [n, width] and sent vectors [n, vectors, 3], before and after."""
        with torch.autocast(nodes.device.type, enabled=False):
            functions = self.density(graph, radial, harmonics, nodes.to(radial.dtype), vectors)
            invariants, moments = self.products(functions, self.send_vectors is not None)
        update = self.update(torch.cat([nodes, self.invariant_norm(invariants)], dim=1))
        if self.send_vectors is not None and moments is not None:
            # [3, n, 2k] → [n, sent, 3]
            vectors = self.send_vectors(moments).permute(1, 2, 0)
        return nodes + update, vectors

    def density(
        self, graph: Graph, radial: Tensor, harmonics: Tensor, nodes: Tensor, vectors: Tensor
    ) -> Tensor:
        """A, [lm, n, k]."""
        scalars = self.send(nodes)
        sent = torch.cat([scalars, vectors.flatten(1)], dim=1)
        widths = [scalars.shape[1], sent.shape[1] - scalars.shape[1]]
        of_scalars, of_vectors = neighbor_density(graph, radial, harmonics, sent).split(widths, -1)
        functions = self.mix(of_scalars)
        if self.mix_vectors is not None:
            functions = functions + self.mix_vectors(of_vectors)
        gates = self.gate(nodes).unflatten(1, (-1, functions.shape[2])).transpose(0, 1)
        return self.norm(functions) * gates[self.norm.degrees]


def _perceptron(inputs: int, width: int, outputs: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width),
        BatchNorm(width),
        nn.SiLU(),
        Dropout(dropout),
        nn.Linear(width, outputs),
    )
