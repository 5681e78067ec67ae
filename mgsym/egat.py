"""The EGAT layer: attention over the edges that arrive at a node.

EGAT is Kamiński et al., "Rossmann-toolbox", Brief. Bioinform. 23, bbab371 (2022), as DGL's
``EGATConv`` implements it. For an edge s→d and head k:

    f′ = LeakyReLU(W_i h_s + W_j h_d + W_e f_sd + b)
    α  = softmax of a_k · f′ over the edges that arrive at d
    h′_d = Σ α W_n h_s

Edge tensors are large (260,000 edges × 8 heads × 32 channels are 266 MB), so the block below
never holds one: it works through the edges in pieces that fit a core's cache, and computes f′
again in the backward pass.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mgsym.graph import Graph
from mgsym.layers import Dropout, pieces, update_running
from mgsym.scatter import segment_softmax, segment_sum

SLOPE = 0.01  # of DGL's LeakyReLU


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
    """

    def __init__(self, node_in: int, edge_in: int, out: int, heads: int) -> None:
        super().__init__()
        self.out, self.heads = out, heads
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
        attention_scale: Tensor | None = None,
    ) -> EGATOutput:
        """The layer as its equations read; `EGATBlock` computes the same in less memory.

        Args:
            nodes: [n, node_in].
            edges: [e, edge_in].
            graph: gives source and target of each edge.
            edge_weight: [e]; α = w eˣ / Σ w eˣ, so that 0 deletes the edge.
            attention_scale: [e]; multiplies α after the softmax (DGL's ``edge_weight``).
        """
        u = self.source(nodes)[graph.source] + self.target(nodes)[graph.destination]
        f = F.leaky_relu(u + self.edge(edges) + self.bias, SLOPE).unflatten(1, (self.heads, -1))
        logits = (f * self.attention).sum(-1)
        alpha = attend(logits, graph, edge_weight, attention_scale)
        sent = self.message(nodes).unflatten(1, (self.heads, -1))[graph.source]
        arrived = segment_sum(alpha[..., None] * sent, graph.destination, graph.num_nodes)
        return EGATOutput(arrived, f, alpha)

    def aggregate(self, nodes: Tensor, alpha: Tensor, graph: Graph) -> Tensor:
        """Σ α W_n h_s as W_n Σ α h_s, which moves `node_in` numbers per edge, not heads × out.

        Returns:
            [n, heads · out].
        """
        gathered: Tensor = _Gather.apply(
            alpha, nodes, graph.source, graph.destination, graph.offsets
        )
        weight = self.message.weight.unflatten(0, (self.heads, self.out))
        return torch.einsum("nki,koi->nko", gathered, weight).flatten(1)


def attend(
    logits: Tensor,
    graph: Graph,
    edge_weight: Tensor | None,
    attention_scale: Tensor | None,
) -> Tensor:
    """Attention [e, heads] of logits [e, heads], over the edges that arrive at each node."""
    alpha = segment_softmax(logits, graph.destination, graph.num_nodes, edge_weight)
    return alpha if attention_scale is None else alpha * attention_scale[:, None]


class EGATBlock(nn.Module):
    """SymGNN's layer: EGAT, batch norm, back to the input's width, plus the input, dropout.

    Args:
        width: of nodes and edges.
        heads: of the EGAT layer.
        dropout: after the skip connection, on nodes and edges.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.conv = EGATConv(width, width, width, heads)
        self.node_norm = nn.BatchNorm1d(heads * width)
        self.edge_norm = nn.BatchNorm1d(heads * width)
        self.node_back = nn.Linear(heads * width, width)
        self.edge_back = nn.Linear(heads * width, width)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        nodes: Tensor,
        edges: Tensor,
        graph: Graph,
        edge_weight: Tensor | None = None,
        attention_scale: Tensor | None = None,
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
        with torch.autocast(kind, enabled=False):
            nodes = nodes.to(edges.dtype)
            logits, update = self._edges(nodes, edges, graph, precision, need_update=not last)
            alpha = attend(logits, graph, edge_weight, attention_scale)
            arrived = self.conv.aggregate(nodes, alpha, graph)
            nodes = self.dropout(nodes + self.node_back(self.node_norm(arrived)))
            if update is not None:
                edges = self.dropout(edges + update)
        return nodes, edges

    def _edges(
        self,
        nodes: Tensor,
        edges: Tensor,
        graph: Graph,
        precision: torch.dtype,
        need_update: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Attention logits [e, heads] and, where needed, norm and projection of f′ [e, width]."""
        conv, norm = self.conv, self.edge_norm
        logits, update, mean, variance = _EdgeUpdate.apply(
            conv.source(nodes),
            conv.target(nodes) + conv.bias,
            edges,
            conv.edge.weight,
            conv.attention,
            norm.weight if need_update else None,
            norm.bias,
            self.edge_back.weight,
            self.edge_back.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.training,
            graph.source,
            graph.destination,
            precision,
        )
        if need_update:
            update_running(norm, mean, variance, graph.num_edges)
        return logits, update


class _EdgeUpdate(torch.autograd.Function):
    """f′ of every edge, reduced at once to what is kept of it.

    With u = P[source] + Q[target] + W_e f and z = f′ = LeakyReLU(u):

        logits = a · z per head,  y = γ (z − μ)/σ + β,  update = W y + c

    where μ and σ² are the mean and variance of z over the edges (in training) or the running
    ones. z is never stored: it is computed piece by piece, once more for the update (μ and σ
    need all pieces first), and again in the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        p: Tensor,
        q: Tensor,
        edges: Tensor,
        w_e: Tensor,
        a: Tensor,
        gamma: Tensor | None,
        beta: Tensor,
        w: Tensor,
        c: Tensor,
        running_mean: Tensor,
        running_variance: Tensor,
        eps: float,
        training: bool,
        source: Tensor,
        target: Tensor,
        precision: torch.dtype,
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        activation = _Activation(p, q, edges, w_e, source, target, precision)
        spread = _block_diagonal(a).to(precision)
        count, channels = len(edges), p.shape[1]
        logits = edges.new_empty(count, a.shape[0])
        total = p.new_zeros(2, channels, dtype=torch.float64)
        statistics = training and gamma is not None
        # sums of z − shift: no digits are lost when the mean is large against the spread
        shift = running_mean
        update = None if gamma is None else edges.new_empty(count, w.shape[0])
        scaled, constant = _folded(gamma, beta, w, c, running_mean, running_variance, eps)
        for rows in pieces(count, channels, p.device):
            z = activation(rows)
            logits[rows] = z @ spread
            if statistics:
                z = z.to(p.dtype).sub_(shift)
                total[0] += z.sum(0)
                total[1] += z.square_().sum(0)
            elif update is not None:
                update[rows] = _affine(z, scaled, constant)
        mean, variance = running_mean, running_variance
        if statistics and update is not None:
            moments = (total / max(count, 1)).to(p.dtype)
            mean = moments[0] + shift
            variance = (moments[1] - moments[0] ** 2).clamp(min=0)
            scaled, constant = _folded(gamma, beta, w, c, mean, variance, eps)
            for rows in pieces(count, channels, p.device):
                z = activation(rows)
                update[rows] = _affine(z, scaled, constant)
        ctx.save_for_backward(p, q, edges, w_e, a, gamma, beta, w, mean, variance, source, target)
        ctx.eps, ctx.training, ctx.precision = eps, training, precision
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        return logits, update, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_logits: Tensor | None, d_update: Tensor | None, *_: Any) -> Any:
        p, q, edges, w_e, a, gamma, beta, w, mean, variance, source, target = ctx.saved_tensors
        grads: list[Tensor | None] = [None] * 16
        precision = ctx.precision
        activation = _Activation(p, q, edges, w_e, source, target, precision)
        spread = _block_diagonal(a)
        count, channels = len(edges), p.shape[1]
        scaled: Tensor | None = None
        slope: Tensor | None = None
        constant: Tensor | None = None
        if d_update is not None:
            sigma = (variance + ctx.eps).sqrt()
            s = gamma / sigma
            scaled = w * s
            if ctx.training or ctx.needs_input_grad[7]:
                moment = w.new_zeros(w.shape)  # Σ dupdate ⊗ z
                for rows in pieces(count, channels, p.device):
                    z = activation(rows)
                    _add_product(moment, d_update[rows].T, z)
                summed = d_update.sum(0)
                d_y = summed @ w  # Σ dy over edges
                d_y_xhat = ((w * moment).sum(0) - mean * d_y) / sigma
                grads[5], grads[6] = d_y_xhat, d_y
                grads[7] = moment * s + torch.outer(summed, beta - mean * s)
                grads[8] = summed
                if ctx.training:
                    # how μ and σ move with z: dz gains constant + slope · z
                    slope = -s * d_y_xhat / (sigma * count)
                    constant = -s * d_y / count - slope * mean
        d_p, d_q = torch.zeros_like(p), torch.zeros_like(q)
        d_edges = torch.empty_like(edges)
        d_w_e, d_spread = torch.zeros_like(w_e), torch.zeros_like(spread)
        for rows in pieces(count, channels, p.device):
            z = activation(rows)
            d_z = _upward(d_logits, d_update, spread, scaled, constant, rows, precision)
            if slope is not None:
                d_z.addcmul_(z, slope.to(precision).expand_as(z))
            if d_logits is not None and ctx.needs_input_grad[4]:
                _add_product(d_spread, z.T, d_logits[rows])
            # of z itself, as it has the sign of u
            d_z = torch.ops.aten.leaky_relu_backward(d_z, z, SLOPE, True)
            if ctx.needs_input_grad[3]:
                _add_product(d_w_e, d_z.T, edges[rows])
            d_edges[rows] = d_z @ w_e.to(precision)
            d_z = d_z.to(p.dtype)
            d_p.index_add_(0, source[rows], d_z)
            d_q.index_add_(0, target[rows], d_z)
        grads[0], grads[1], grads[2], grads[3] = d_p, d_q, d_edges, d_w_e
        grads[4] = _diagonal_blocks(d_spread, a)
        return tuple(grads)


class _Activation:
    """z of some edges, [rows, channels], in the precision of the products."""

    def __init__(
        self,
        p: Tensor,
        q: Tensor,
        edges: Tensor,
        w_e: Tensor,
        source: Tensor,
        target: Tensor,
        precision: torch.dtype,
    ) -> None:
        self.ends = torch.cat([p, q]).to(precision)
        self.pairs = torch.stack([source, target + len(p)], dim=1)
        self.edges, self.w_e = edges, w_e.T.to(precision)

    def __call__(self, rows: slice) -> Tensor:
        u = F.embedding_bag(self.pairs[rows], self.ends, mode="sum")  # both ends in one pass
        u.addmm_(self.edges[rows].to(u.dtype), self.w_e)
        return F.leaky_relu_(u, SLOPE)


def _affine(z: Tensor, matrix: Tensor, constant: Tensor) -> Tensor:
    return torch.addmm(constant.to(z.dtype), z, matrix.T.to(z.dtype))


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, multiplied in the lower precision, summed over pieces in total's."""
    if left.dtype == right.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        lower = left.dtype if right.dtype == total.dtype else right.dtype
        total += left.to(lower) @ right.to(lower)


def _upward(
    d_logits: Tensor | None,
    d_update: Tensor | None,
    spread: Tensor,
    scaled: Tensor | None,
    constant: Tensor | None,
    rows: slice,
    precision: torch.dtype,
) -> Tensor:
    """What logits and update say of z, [rows, channels]."""
    from_logits = None if d_logits is None else d_logits[rows].to(precision)
    spread = spread.T.to(precision)
    if d_update is None or scaled is None:
        assert from_logits is not None
        return from_logits @ spread
    d_z = d_update[rows].to(precision) @ scaled.to(precision)
    if constant is not None:
        d_z += constant.to(precision)
    return d_z if from_logits is None else d_z.addmm_(from_logits, spread)


def _folded(
    gamma: Tensor | None,
    beta: Tensor,
    w: Tensor,
    c: Tensor,
    mean: Tensor,
    variance: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Norm and projection as one matrix and one constant: W y + c = (W s) z + W t + c."""
    if gamma is None:
        return w, c
    s = gamma / (variance + eps).sqrt()
    return w * s, torch.mv(w, beta - mean * s) + c


def _block_diagonal(a: Tensor) -> Tensor:
    """[heads, out] → [heads · out, heads], so that z @ it is a · z per head."""
    return torch.block_diag(*a[:, :, None])


def _diagonal_blocks(matrix: Tensor, a: Tensor) -> Tensor:
    heads, out = a.shape
    index = torch.arange(heads, device=a.device)
    return matrix.unflatten(0, (heads, out))[index, :, index]


class _Gather(torch.autograd.Function):
    """out[d, k] = Σ over edges s→d of α[e, k] h[s], without a [e, heads, width] tensor."""

    @staticmethod
    def forward(
        ctx: Any, alpha: Tensor, nodes: Tensor, source: Tensor, target: Tensor, offsets: Tensor
    ) -> Tensor:
        ctx.save_for_backward(alpha, nodes, source, target)
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
        alpha, nodes, source, target = ctx.saved_tensors
        d_alpha, d_nodes = torch.empty_like(alpha), torch.zeros_like(nodes)
        heads, width = grad.shape[1:]
        for rows in pieces(len(source), heads * width, nodes.device):
            arrived = grad.index_select(0, target[rows])
            sent = nodes.index_select(0, source[rows])
            torch.sum(arrived * sent[:, None], dim=-1, out=d_alpha[rows])
            d_nodes.index_add_(0, source[rows], (arrived * alpha[rows, :, None]).sum(1))
        return d_alpha, d_nodes, None, None, None
