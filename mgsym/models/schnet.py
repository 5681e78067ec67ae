"""SchNet: continuous-filter convolutions on interatomic distances.

Schütt, Kindermans, Sauceda, Chmiela, Tkatchenko & Müller, "SchNet: A continuous-filter
convolutional neural network for modeling quantum interactions", NeurIPS 2017, arXiv 1706.08566
(section 4; shifted softplus ssp(x) = ln(½ eˣ + ½)):

    x⁰_i    = embedding of the type
    W(r)    = ssp(A₂ ssp(A₁ g(r)))                 filter of a distance, g Gaussians
    v_i     = Σ_j (L x_j) ∘ W(r_ij)                continuous-filter convolution (eq. 2)
    x_i     ← x_i + B₂ ssp(B₁ BN(v_i))             interaction, repeated
    barrier = C₂ ssp(C₁ x_i)                       per atom, not summed over atoms

What differs from the published code: edges end at the graph's cutoff, and filters go smoothly to
zero there (as in the authors' later code for periodic systems); Gaussians are one step wide (the
paper: 0.1 Å steps, width 0.22 Å); sums are divided by the training structures' mean number of
neighbours and normalised (BN), without which a few dozen steps teach it next to nothing. Layer
sizes are the paper's: width 64, three interactions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from mgsym.graph import Graph
from mgsym.layers import radial_basis, smooth_cutoff
from mgsym.messages import AtomNorm, NeighborSum, ShiftedSoftplus, from_source, mlp, xavier
from mgsym.models.base import BarrierModel, check_counts


@dataclass(frozen=True)
class SchNetOptions:
    """Options of SchNet.

    Attributes:
        width: channels of atoms and filters.
        layers: interactions.
        radial: Gaussians of the distance.
    """

    width: int = 64
    layers: int = 3
    radial: int = 25

    def __post_init__(self) -> None:
        check_counts("schnet", width=self.width, layers=self.layers, radial=self.radial)


class SchNet(BarrierModel):
    """SchNet, read out per atom. Exactly invariant; knows distances and no angle."""

    def __init__(self, species: tuple[str, ...], cutoff: float, options: SchNetOptions) -> None:
        super().__init__(species, cutoff, hops=options.layers)
        self.options, width = options, options.width
        self.embedding = nn.Embedding(len(species), width)
        self.sum = NeighborSum()
        self.layers = nn.ModuleList(
            SchNetInteraction(width, options.radial) for _ in range(options.layers)
        )
        self.decoder = mlp(width, max(width // 2, 1), 1, activation=ShiftedSoftplus)
        xavier(self, last=self.decoder[-1])

    def fit_statistics(self, graphs: Sequence[Graph]) -> None:
        """Label statistics and the mean number of neighbours."""
        super().fit_statistics(graphs)
        self.sum.fit(graphs)

    def standardised(
        self, graph: Graph, edge_weight: Tensor | None, attention_scale: Tensor | None
    ) -> Tensor:
        basis = radial_basis(graph.edge_length, self.cutoff, self.options.radial)
        fading = smooth_cutoff(graph.edge_length, self.cutoff)[:, None]
        nodes = self.embedding(graph.types)
        for layer in self.layers:
            sent = layer.messages(nodes, basis, graph) * fading
            nodes = nodes + layer.update(self.sum(sent, graph, edge_weight))
        decoded: Tensor = self.decoder(nodes)
        return decoded.squeeze(-1)


class SchNetInteraction(nn.Module):
    """One interaction block.

    Args:
        width: of atoms and filters.
        radial: Gaussians of the distance.
    """

    def __init__(self, width: int, radial: int) -> None:
        super().__init__()
        self.filter = mlp(radial, width, width, activation=ShiftedSoftplus, activate_last=True)
        self.before = nn.Linear(width, width, bias=False)
        self.norm = AtomNorm(width)
        self.update = nn.Sequential(self.norm, mlp(width, width, width, activation=ShiftedSoftplus))

    def messages(self, nodes: Tensor, basis: Tensor, graph: Graph) -> Tensor:
        """(L x_j) ∘ W(r_ij), [e, width], of nodes [n, width] and Gaussians [e, radial]."""
        filters: Tensor = self.filter(basis)
        return from_source(self.before(nodes), graph) * filters
