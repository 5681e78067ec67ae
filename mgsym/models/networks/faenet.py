"""FAENet: an unconstrained network on displacements seen from the structure's own axes.

Duval, Schmidt, Hernández-García, Miret, Malliaros, Bengio & Rolnick, "FAENet: Frame Averaging
Equivariant GNN for Materials Modeling", ICML 2023, arXiv 2305.05577; frame averaging after Puny
et al., ICLR 2022, arXiv 2110.03336. With σ(x) = x / (1 + e⁻ˣ), x_ij the displacement in a frame,
g Gaussians of the distance:

    h_i   = σ(A₂ σ(A₁ embedding of the type))
    e_ij  = σ(B₂ σ(B_x x_ij ⊕ B_r g(r_ij)))
    f_ij  = σ(F (e_ij ⊕ h_i ⊕ h_j))                              filter
    h_i   ← h_i + σ(H σ(GraphNorm(Σ_j h_j ∘ f_ij)))                interaction, repeated
    barrier = C₂ σ(C₁ (h⁰_i ⊕ … ⊕ hᵀ_i))

**Frames.** The paper takes the principal axes of the atoms' positions, with either sign: eight
frames of O(3). Positions in a periodic cell have no centroid, so here the axes are those of the
second moment of the edge vectors, Σ w v vᵀ over a structure's edges: it does not change when
atoms are moved together, relabelled, or a cell is chosen differently. The mean of the prediction
over the eight frames (``full``) is exactly invariant; ``stochastic`` draws one of them per
structure at every training step, as the paper does, at an eighth of the cost. Predictions take
all eight by default, or (``evaluation_frames="stochastic"``) always the same one, in which each
axis has the sign that makes its largest component positive; that one is not invariant.

**Equal moments.** Axes whose moments agree are not defined, and no choice of them is continuous
(Dym et al., arXiv 2402.16077); a crystal of cubic symmetry has no axis at all. Each coordinate is
therefore multiplied by a number between 0 and 1 that vanishes where its moment agrees with
another one, to 10⁻⁵ of their sum. It is 1 in any glass (two moments of 8,000 atoms differ by some
10⁻³); a cubic crystal is seen through its lengths alone. So the prediction is always defined,
continuous and invariant. The published code takes whatever axes the solver returns.

The axes, like GraphNorm, depend on every atom: the receptive field is the whole structure.
GraphNorm takes the mean of a structure away, and with it much of how glasses differ as a whole;
``norm="batch"`` keeps it.

What else differs from the published code: the read-out is per atom, not summed over atoms;
displacements are divided by the cutoff; sums are divided by the training structures' mean number
of neighbours; an element is embedded by its symbol alone, not also by period, group and physical
properties; atoms carry no tag.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mgsym.graph import Graph
from mgsym.models.base import Invariance
from mgsym.models.node_inputs import InputOptions, NeighborSumModel, check_choices, check_range
from mgsym.nn.layers import radial_basis
from mgsym.nn.messages import (
    AtomNorm,
    EdgeLinear,
    GraphNorm,
    from_source,
    mlp,
    transformed_edges,
    xavier,
)
from mgsym.nn.scatter import segment_sum

EQUAL_MOMENTS = 1e-5  # of their sum: axes whose moments are closer than this fade


@dataclass(frozen=True)
class FAENetOptions(InputOptions):
    """Options of FAENet, beside InputOptions.

    Attributes:
        layers: interactions.
        frames: in training: ``stochastic`` (one of the eight per structure and step) or ``full``.
        evaluation_frames: in predictions: ``full``, or ``stochastic`` for always the same one.
        norm: of each sum over neighbours: ``graph`` over the atoms of a structure, as the paper
            does, or ``batch``, which keeps how structures differ as a whole.
    """

    width: int = 64
    layers: int = 4
    radial: int = 25
    frames: str = "stochastic"
    evaluation_frames: str = "full"
    norm: str = "graph"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "layers", 1)
        check_range(self, "radial", 1)
        frames = ("stochastic", "full")
        check_choices(self, {"frames": frames, "evaluation_frames": frames})
        check_choices(self, {"norm": ("graph", "batch")})


class FAENet(NeighborSumModel):
    """FAENet, read out per atom."""

    source = "Duval et al. 2023 (arXiv 2305.05577)"
    options: FAENetOptions

    def __init__(self, species: tuple[str, ...], cutoff: float, options: FAENetOptions) -> None:
        super().__init__(species, cutoff, options, layers=options.layers)
        width = options.width
        self.embedding = self.first_layer()
        self.node_encoder = mlp(width, width, width, activation=nn.SiLU, activate_last=True)
        self.from_vector = nn.Linear(3, width // 2)
        self.from_length = nn.Linear(options.radial, width - width // 2)
        self.edge_encoder = nn.Linear(width, width)
        self.layers = nn.ModuleList(
            FAENetInteraction(width, options.norm) for _ in range(options.layers)
        )
        self.decoder = mlp((options.layers + 1) * width, width, 1, activation=nn.SiLU)
        xavier(self, last=self.decoder[-1])

    @property
    def invariant(self) -> Invariance:  # type: ignore[override]
        """The mean over all frames is invariant, one frame is not."""
        return "yes" if self.options.evaluation_frames == "full" else "no"

    @property
    def receptive_field(self) -> float:
        """Å; infinite, as axes and GraphNorm depend on the whole structure."""
        return float("inf")

    def standardised(self, graph: Graph, edge_weight: Tensor | None) -> Tensor:
        nodes = self.node_encoder(self.embedding(self.node_input(graph, edge_weight)))
        lengths = self.from_length(
            radial_basis(graph.edge_length, self.cutoff, self.options.radial)
        )
        seen = transformed_edges(graph, principal_axes(graph, edge_weight)) / self.cutoff
        passes = [
            self._network(nodes, seen * signs, lengths, graph, edge_weight)
            for signs in self._signs(graph)
        ]
        return torch.stack(passes).mean(0)

    def _signs(self, graph: Graph) -> Iterator[Tensor]:
        """Signs of the axes under each frame to be averaged, each [e, 3] or [3]."""
        options, like = self.options, graph.edge_vector
        if (options.frames if self.training else options.evaluation_frames) == "full":
            yield from torch.tensor(list(product((1.0, -1.0), repeat=3))).to(like)
        elif self.training:
            drawn = 2.0 * torch.randint(2, (graph.num_structures, 3)).to(like) - 1
            yield drawn[graph.structure_index[graph.destination]]
        else:
            yield like.new_ones(3)

    def _network(
        self,
        nodes: Tensor,
        vectors: Tensor,
        lengths: Tensor,
        graph: Graph,
        edge_weight: Tensor | None,
    ) -> Tensor:
        """[n], the prediction in one frame: of edge vectors [e, 3] and encoded lengths."""
        edges = F.silu(torch.cat([self.from_vector(vectors), lengths], dim=1))
        edges = F.silu(self.edge_encoder(edges))
        collect = partial(self.sum, graph=graph, edge_weight=edge_weight)
        levels = [nodes]
        for layer in self.layers:
            nodes = layer(nodes, edges, graph, collect)
            levels.append(nodes)
        decoded: Tensor = self.decoder(torch.cat(levels, dim=1))
        return decoded.squeeze(-1)


class FAENetInteraction(nn.Module):
    """Messages and update of one interaction.

    Args:
        width: of atoms and filters.
        norm: of sums over neighbours, ``graph`` or ``batch``.
    """

    def __init__(self, width: int, norm: str) -> None:
        super().__init__()
        self.filter = EdgeLinear(width, width, width)
        self.norm = GraphNorm(width) if norm == "graph" else AtomNorm(width)
        self.back = nn.Linear(width, width)

    def forward(
        self, nodes: Tensor, edges: Tensor, graph: Graph, collect: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """New atoms [n, width].

        Args:
            nodes: [n, width].
            edges: [e, width].
            graph: gives source and target of each edge, and each atom's structure.
            collect: sums messages [e, width] over neighbours.
        """
        arrived = collect(from_source(nodes, graph) * F.silu(self.filter(edges, nodes, graph)))
        if isinstance(self.norm, GraphNorm):
            arrived = self.norm(arrived, graph)
        else:
            arrived = self.norm(arrived)
        return nodes + F.silu(self.back(F.silu(arrived)))


def principal_axes(graph: Graph, edge_weight: Tensor | None = None) -> Tensor:
    """The axes of each structure's second moment of edge vectors, Σ w v vᵀ.

    Args:
        graph: one structure or several.
        edge_weight: [e], at least 0.

    Returns:
        [structures, 3, 3] float64; rows are the axes in the order of their moments, smallest
        first, each with its largest component positive. An axis has unit length where its moment
        is apart from the other two, and fades to 0 where it agrees with one of them.
    """
    vectors = graph.edge_vector.double()
    products = vectors[:, :, None] * vectors[:, None, :]
    if edge_weight is not None:
        products = products * edge_weight.double()[:, None, None]
    of_edge = graph.structure_index[graph.destination]
    moment = segment_sum(products, of_edge, graph.num_structures)
    trace = moment.diagonal(dim1=1, dim2=2).sum(1)
    moments, axes = _Eigen.apply(moment / trace.clamp(min=1e-30)[:, None, None])
    gaps = moments.diff(dim=1)
    nearest = torch.stack([gaps[:, 0], gaps.amin(1), gaps[:, 1]], dim=1)
    clear = (nearest / EQUAL_MOMENTS).clamp(max=1)
    rows = axes.transpose(1, 2)
    largest = rows.gather(2, rows.abs().argmax(2, keepdim=True))
    return rows * (torch.where(largest < 0, -1.0, 1.0) * (clear**2 * (3 - 2 * clear))[:, :, None])


class _Eigen(torch.autograd.Function):
    """Eigenvalues and eigenvectors of symmetric matrices, with a finite gradient where equal.

    d v_i = Σ_j v_j (v_j · dA v_i) / (λ_i − λ_j). Where eigenvalues agree that is infinite; it is
    only ever multiplied by factors that vanish faster, so 1 / x is replaced by x / (x² + ε).
    """

    @staticmethod
    def forward(ctx: Any, matrices: Tensor) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(matrices)
        ctx.save_for_backward(values, vectors)
        return values, vectors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_values: Tensor, d_vectors: Tensor) -> Tensor:
        values, vectors = ctx.saved_tensors
        apart = values[:, None, :] - values[:, :, None]  # [s, j, i]: λ_i − λ_j
        inner = (apart / (apart**2 + 1e-24)) * (vectors.transpose(1, 2) @ d_vectors)
        inner = inner + torch.diag_embed(d_values)
        gradient = vectors @ inner @ vectors.transpose(1, 2)
        return 0.5 * (gradient + gradient.transpose(1, 2))
