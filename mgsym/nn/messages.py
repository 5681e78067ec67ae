"""Parts of message-passing networks: sums over neighbours, linear maps of an edge and its ends."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgsym.graph import Graph
from mgsym.nn.layers import BatchNorm
from mgsym.nn.scatter import segment_mean, segment_sum

LOG_2 = 0.6931471805599453


class ShiftedSoftplus(nn.Module):
    """ln(½ eˣ + ½), which is 0 at 0 (Schütt et al., NeurIPS 2017, arXiv 1706.08566, sec. 4.1)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.softplus(x) - LOG_2


def mlp(
    *widths: int, activation: type[nn.Module] = nn.ReLU, activate_last: bool = False
) -> nn.Sequential:
    """Linear layers of these widths with an activation between them, and on request after them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*(layers if activate_last else layers[:-1]))


def xavier(model: nn.Module, last: nn.Module) -> None:
    """Draw every linear layer's weights anew after Glorot & Bengio (AISTATS 2010); biases are 0.

    torch's own start shrinks a signal by more than half in every layer.

    Args:
        model: its linear layers are changed.
        last: the layer that predicts; its weights start ten times smaller, so that training
            starts near the mean of the labels.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight, gain=0.1 if layer is last else 1.0)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class NeighborSum(nn.Module):
    """Messages summed over the edges that arrive at an atom, Σ w m / N.

    N is the number of neighbours that an atom of the training structures has on average. It only
    brings sums to the size of one message; unlike a mean, they still count neighbours.
    """

    neighbors: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("neighbors", torch.ones(()))

    def fit(self, graphs: Sequence[Graph]) -> None:
        """Take N from the training structures."""
        edges, nodes = sum(g.num_edges for g in graphs), sum(g.num_nodes for g in graphs)
        self.neighbors.fill_(max(edges / max(nodes, 1), 1.0))

    def forward(self, messages: Tensor, graph: Graph, edge_weight: Tensor | None) -> Tensor:
        """[n, width] of messages [e, width]; a message of weight 0 is as good as none."""
        if edge_weight is not None:
            messages = messages * edge_weight.to(messages.dtype)[:, None]
        return segment_sum(messages, graph.destination, graph.num_nodes) / self.neighbors


class AtomNorm(BatchNorm):
    """Batch norm over atoms whose running statistics start as the first batch's.

    Sums over neighbours differ little from atom to atom beside their mean. Batch norm starts from
    a variance of 1, which a training of a few dozen steps would not forget.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[n, width]."""
        if self.training:
            seen = int(self.num_batches_tracked)  # type: ignore[arg-type]
            self.momentum = max(0.1, 1 / (seen + 1))
        return super().forward(x)


class EdgeLinear(nn.Module):
    """A linear map of (edge, source, target) put side by side, W_e e + W_s h_s + W_t h_t + b.

    The nodes' part is made per node and then spread over the edges, a thirtieth of the work.

    Args:
        edge: width of edges.
        node: width of nodes.
        out: width of the result.
        bias: whether there is a b.
    """

    def __init__(self, edge: int, node: int, out: int, bias: bool = True) -> None:
        super().__init__()
        self.edge = nn.Linear(edge, out, bias=bias)
        self.source = nn.Linear(node, out, bias=False)
        self.target = nn.Linear(node, out, bias=False)

    def forward(self, edges: Tensor, nodes: Tensor, graph: Graph) -> Tensor:
        """[e, out] of edges [e, edge] and nodes [n, node]."""
        sent, at = from_source(self.source(nodes), graph), self.target(nodes)
        return self.edge(edges) + sent + at.index_select(0, graph.destination)


class GraphNorm(nn.Module):
    """Normalise over the atoms of each structure (Cai et al., ICML 2021, arXiv 2009.03294, eq. 8).

    γ (h − α μ) / σ + β with mean μ over the atoms, σ the root mean square of h − α μ, and learned
    α, β, γ. The same in training and afterwards.
    """

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.mean_scale = nn.Parameter(torch.ones(width))

    def forward(self, nodes: Tensor, graph: Graph) -> Tensor:
        """[n, width]."""
        of, count = graph.structure_index, graph.num_structures
        mean = segment_mean(nodes, of, count)
        centred = nodes - self.mean_scale * mean.index_select(0, of)
        variance = segment_mean(centred.square(), of, count)
        scale = (variance + self.eps).rsqrt().index_select(0, of)
        return self.weight * centred * scale + self.bias


def from_source(nodes: Tensor, graph: Graph) -> Tensor:
    """[e, …]: what the source of each edge has; the gradient is summed in a fixed order."""
    return nodes.index_select(0, graph.source)


def transformed_edges(graph: Graph, matrices: Tensor) -> Tensor:
    """Edge vectors under one matrix per structure, v′ = T v.

    Args:
        graph: one structure or several.
        matrices: [structures, 3, 3], T; any precision.

    Returns:
        [e, 3] Å, of the edge vectors' type.
    """
    of_edge = matrices.index_select(0, graph.structure_index[graph.destination])
    vectors = graph.edge_vector.to(matrices.dtype)
    return torch.einsum("eij,ej->ei", of_edge, vectors).to(graph.edge_vector.dtype)
