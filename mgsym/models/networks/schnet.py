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

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from mgsym.graph import Graph
from mgsym.models.node_inputs import InputOptions, NeighborSumModel, check_range
from mgsym.nn.layers import radial_basis, smooth_cutoff
from mgsym.nn.messages import AtomNorm, ShiftedSoftplus, from_source, mlp, xavier


@dataclass(frozen=True)
class SchNetOptions(InputOptions):
    """Options of SchNet, beside InputOptions.

    Attributes:
        layers: interactions.
    """

    width: int = 64
    layers: int = 3
    radial: int = 25

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "layers", 1)
        check_range(self, "radial", 1)


class SchNet(NeighborSumModel):
    """SchNet, read out per atom. Exactly invariant; knows distances and no angle."""

    source = "Schütt et al. 2017 (arXiv 1706.08566)"
    options: SchNetOptions

    def __init__(self, species: tuple[str, ...], cutoff: float, options: SchNetOptions) -> None:
        super().__init__(species, cutoff, options, layers=options.layers)
        width = options.width
        self.embedding = self.first_layer()
        self.layers = nn.ModuleList(
            SchNetInteraction(width, options.radial) for _ in range(options.layers)
        )
        self.decoder = mlp(width, max(width // 2, 1), 1, activation=ShiftedSoftplus)
        xavier(self, last=self.decoder[-1])

    def standardised(self, graph: Graph, edge_weight: Tensor | None) -> Tensor:
        basis = radial_basis(graph.edge_length, self.cutoff, self.options.radial)
        fading = smooth_cutoff(graph.edge_length, self.cutoff)[:, None]
        collect = partial(self.sum, graph=graph, edge_weight=edge_weight)
        nodes = self.embedding(self.node_input(graph, edge_weight))
        for layer in self.layers:
            nodes = layer(nodes, basis, fading, graph, collect)
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
        self.update = mlp(width, width, width, activation=ShiftedSoftplus)

    def forward(
        self,
        nodes: Tensor,
        basis: Tensor,
        fading: Tensor,
        graph: Graph,
        collect: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """New atoms [n, width].

        Args:
            nodes: [n, width].
            basis: [e, radial], Gaussians of the distance.
            fading: [e, 1], the factor of a filter that vanishes at the cutoff.
            graph: gives source and target of each edge.
            collect: sums messages [e, width] over neighbours.
        """
        filters = self.filter(basis) * fading
        arrived = collect(from_source(self.before(nodes), graph) * filters)
        new: Tensor = nodes + self.update(self.norm(arrived))
        return new
