"""The EGAT layer: attention over the edges that arrive at a node.

EGAT is Kamiński et al., "Rossmann-toolbox", Brief. Bioinform. 23, bbab371 (2022), as DGL's
``EGATConv`` implements it. For an edge s→d and head k:

    f′ = LeakyReLU(W_i h_s + W_j h_d + W_e f_sd + b)
    α  = softmax of a_k · f′ over the edges that arrive at d
    h′_d = Σ α W_n h_s

A softmax averages over neighbours, so that no layer can count them (Xu et al., "How Powerful are
Graph Neural Networks?", ICLR 2019). With ``attention="softplus"``, α = ln(1 + exp(a_k · f′)) is
each edge's own, and the layer sums.

The block below computes the same, fused, in pieces of edges that fit a core's cache.

A layer gives its attention to `record_attention`; whoever wants to see it predicts inside
`recorded_attention`. It multiplies its attention by what `scaled_attention` set, if anything.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mgsym.graph import Graph
from mgsym.nn.edge_passes import Gather, Softmax, compiled_passes
from mgsym.nn.egat_inputs import Given, Learnt, MemoryPool
from mgsym.nn.egat_kernel import SLOPE, update_edges
from mgsym.nn.layers import BatchNorm, Dropout, pieces, update_running
from mgsym.nn.scatter import segment_softmax, segment_sum
from mgsym.utils.processes import batch_count


class EGATOutput(NamedTuple):
    """What an EGAT layer gives: nodes [n, heads, out], edges [e, heads, out], attention
    [e, heads]."""

    nodes: Tensor
    edges: Tensor
    attention: Tensor


class EGATConv(nn.Module):
    """One EGAT layer, equal to DGL's ``EGATConv`` (without its biases other than b).

    Args:
        node_in, edge_in: widths of the inputs.
        out: width of a head.
        heads: how many.
        attention: ``softmax``, or ``softplus`` of each edge by itself.
    """

    def __init__(
        self, node_in: int, edge_in: int, out: int, heads: int, attention: str = "softmax"
    ) -> None:
        super().__init__()
        self.out, self.heads = out, heads
        self.normalised = attention == "softmax"
        self.source = nn.Linear(node_in, heads * out, bias=False)  # W_i
        self.target = nn.Linear(node_in, heads * out, bias=False)  # W_j
        self.edge = nn.Linear(edge_in, heads * out, bias=False)  # W_e
        self.message = nn.Linear(node_in, heads * out, bias=False)  # W_n
        self.bias = nn.Parameter(torch.zeros(heads * out))
        self.attention = nn.Parameter(torch.empty(heads, out))
        for weight in (*(m.weight for m in self.children()), self.attention):
            nn.init.xavier_normal_(weight, gain=math.sqrt(2))  # type: ignore[arg-type]

    def forward(
        self,
        nodes: Tensor,
        edges: Tensor,
        graph: Graph,
        edge_weight: Tensor | None = None,
    ) -> EGATOutput:
        """The layer as its equations read; `EGATBlock` computes the same in less memory.

        Args:
            nodes: [n, node_in].
            edges: [e, edge_in].
            graph: gives source and target of each edge.
            edge_weight: [e]; α = w eˣ / Σ w eˣ, or w ln(1 + eˣ), so that 0 deletes the edge.
        """
        u = self.source(nodes)[graph.source] + self.target(nodes)[graph.destination]
        f = F.leaky_relu(u + self.edge(edges) + self.bias, SLOPE).unflatten(1, (self.heads, -1))
        logits = (f * self.attention).sum(-1)
        alpha = attend(logits, graph, edge_weight, normalised=self.normalised)
        sent = self.message(nodes).unflatten(1, (self.heads, -1))[graph.source]
        arrived = segment_sum(alpha[..., None] * sent, graph.destination, graph.num_nodes)
        return EGATOutput(arrived, f, alpha)

    def aggregate(
        self, nodes: Tensor, alpha: Tensor, graph: Graph, library: ctypes.CDLL | None = None
    ) -> Tensor:
        """Σ α W_n h_s as W_n Σ α h_s, which moves `node_in` numbers per edge, not heads × out.

        Returns:
            [n, heads · out].
        """
        gathered: Tensor
        if library is not None:
            gathered = Gather.apply(library, alpha, nodes, graph.source, graph.offsets)
        else:
            gathered = _Gather.apply(alpha, nodes, graph.source, graph.destination, graph.offsets)
        weight = self.message.weight.unflatten(0, (self.heads, self.out))
        return torch.einsum("nki,koi->nko", gathered, weight).flatten(1)


def attend(
    logits: Tensor,
    graph: Graph,
    edge_weight: Tensor | None,
    library: ctypes.CDLL | None = None,
    normalised: bool = True,
) -> Tensor:
    """Attention [e, heads] of logits [e, heads]: a softmax over the edges that arrive at each
    node, or, not normalised, the softplus of each.

    It is recorded and scaled where somebody asks for it (mgsym.nn.egat).
    """
    alpha: Tensor
    if not normalised:
        alpha = F.softplus(logits)
        if edge_weight is not None:
            alpha = alpha * edge_weight[:, None]
    elif library is not None and edge_weight is None:
        alpha = Softmax.apply(library, logits, graph.offsets)
    else:
        alpha = segment_softmax(logits, graph.destination, graph.num_nodes, edge_weight)
    record_attention(alpha)
    scale = attention_scale()
    return alpha if scale is None else alpha * scale[:, None]


class EGATBlock(nn.Module):
    """SymGNN's layer: EGAT, batch norm, back to the input's width, plus the input, dropout.

    Args:
        width: of nodes and edges.
        heads: of the EGAT layer.
        dropout: after the skip connection, on nodes and edges.
        attention: of the EGAT layer.
    """

    def __init__(self, width: int, heads: int, dropout: float, attention: str = "softmax") -> None:
        super().__init__()
        self.conv = EGATConv(width, width, width, heads, attention)
        self.node_norm = BatchNorm(heads * width)
        self.edge_norm = BatchNorm(heads * width)
        self.node_back = nn.Linear(heads * width, width)
        self.edge_back = nn.Linear(heads * width, width)
        self.dropout = Dropout(dropout)
        self._memory = MemoryPool()

    def train(self, mode: bool = True) -> EGATBlock:
        """Change the mode; memory that only training takes is freed where that ends."""
        if not mode:
            self._memory.clear()
        super().train(mode)
        return self

    def forward(
        self,
        nodes: Tensor,
        edges: Tensor,
        graph: Graph,
        edge_weight: Tensor | None = None,
        last: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """New nodes [n, width] and edges [e, width].

        Args:
            last: leave the edges as they are, since nothing reads them any more.
        """
        kind = nodes.device.type
        lower = torch.is_autocast_enabled(kind)
        precision = torch.get_autocast_dtype(kind) if lower else edges.dtype
        # only the products over edges, nearly all the work, are made in lower precision
        library = None if lower else compiled_passes(edges, self.conv.out, self.training)
        with torch.autocast(kind, enabled=False):
            nodes = nodes.to(edges.dtype)
            logits, new = self._edges(nodes, edges, graph, precision, not last, library)
            alpha = attend(logits, graph, edge_weight, library, self.conv.normalised)
            arrived = self.conv.aggregate(nodes, alpha, graph, library)
            nodes = self.dropout(nodes + self.node_back(self.node_norm(arrived)))
        return nodes, edges if new is None else new

    def _edges(
        self,
        nodes: Tensor,
        edges: Tensor,
        graph: Graph,
        precision: torch.dtype,
        need_update: bool,
        library: ctypes.CDLL | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attention logits [e, heads] and, where needed, new edges [e, width]."""
        conv, norm = self.conv, self.edge_norm
        kept, scale = self.dropout.draw(edges) if need_update else (None, 1.0)
        learnt = Learnt(
            conv.source(nodes),
            conv.target(nodes) + conv.bias,
            edges,
            conv.edge.weight,
            conv.attention,
            norm.weight if need_update else None,
            norm.bias,
            self.edge_back.weight,
            self.edge_back.bias,
        )
        assert norm.running_mean is not None
        assert norm.running_var is not None
        given = Given(
            source=graph.source,
            target=graph.destination,
            kept=kept,
            scale=scale,
            mean=norm.running_mean,
            variance=norm.running_var,
            eps=norm.eps,
            training=norm.training,
            precision=precision,
            memory=self._memory if torch.is_grad_enabled() else None,
            library=library,
        )
        updated = update_edges(learnt, given)
        if need_update:
            update_running(norm, updated.mean, updated.variance, batch_count(graph.num_edges))
        return updated.logits, updated.new


class _Gather(torch.autograd.Function):
    """out[d, k] = Σ over edges s→d of α[e, k] h[s], without a [e, heads, width] tensor."""

    @staticmethod
    def forward(
        ctx: Any, alpha: Tensor, nodes: Tensor, source: Tensor, target: Tensor, offsets: Tensor
    ) -> Tensor:
        ctx.save_for_backward(alpha, nodes, source, target, offsets)
        heads = alpha.shape[1]
        out = nodes.new_empty(len(offsets) - 1, heads, nodes.shape[1])
        for k in range(heads):
            out[:, k] = F.embedding_bag(
                source,
                nodes,
                offsets,
                mode="sum",
                per_sample_weights=alpha[:, k].contiguous(),
                include_last_offset=True,
            )
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        alpha, nodes, source, target, offsets = ctx.saved_tensors
        heads, width = grad.shape[1:]
        d_alpha = torch.empty_like(alpha)
        for k in range(heads):
            # grad[target, k] · nodes[source], neither gathered
            d_alpha[:, k] = torch.ops.aten._embedding_bag_per_sample_weights_backward(
                grad[:, k], nodes, source, offsets[:-1], target, 0
            )
        d_nodes, flat = torch.zeros_like(nodes), grad.reshape(-1, width)
        arriving = torch.arange(heads, device=grad.device)
        for rows in pieces(len(source), width, nodes.device):
            sent = F.embedding_bag(
                target[rows, None] * heads + arriving,
                flat,
                mode="sum",
                per_sample_weights=alpha[rows],
            )
            d_nodes.index_add_(0, source[rows], sent)
        return d_alpha, d_nodes, None, None, None


_seen: ContextVar[list[Tensor] | None] = ContextVar("attention", default=None)

_scale: ContextVar[Tensor | None] = ContextVar("attention_scale", default=None)


def record_attention(alpha: Tensor) -> None:
    """Keep the attention [e, heads] of a layer, if someone is looking."""
    seen = _seen.get()
    if seen is not None:
        seen.append(alpha.detach())


@contextmanager
def recorded_attention() -> Iterator[list[Tensor]]:
    """Yields a list that fills with [e, heads] per layer, in the order of the layers."""
    seen: list[Tensor] = []
    token = _seen.set(seen)
    try:
        yield seen
    finally:
        _seen.reset(token)


def attention_scale() -> Tensor | None:
    """Return what attention is to be multiplied by after its softmax, [e]; None for nothing."""
    return _scale.get()


@contextmanager
def scaled_attention(scale: Tensor | None) -> Iterator[None]:
    """Multiply the attention of every layer by a number for each edge, [e], after its softmax.

    It is what DGL calls an edge weight, and not the same as deleting edges: attention is not
    normalised again. Models without attention predict as ever.
    """
    token = _scale.set(scale)
    try:
        yield
    finally:
        _scale.reset(token)
