"""The edges' share of SymGNN's layer, fused: attention logits and new edges (mgsym.egat).

Edge tensors are large (260,000 edges × 8 heads × 32 channels are 266 MB), so they are worked
through in pieces that fit a core's cache, forward and backward, with gradients written by hand.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mgsym.layers import pieces

SLOPE = 0.01  # of DGL's LeakyReLU
_STORED = 1 << 27  # numbers of z kept for the backward pass: 512 MB; more are computed again


class EdgeUpdate(torch.autograd.Function):
    """f′ of every edge, reduced at once to what is kept of it.

    With u = P[source] + Q[target] + W_e f and z = f′ = LeakyReLU(u):

        logits = a · z per head,  y = γ (z − μ)/σ + β,  new = m (f + W y + c)

    where μ and σ² are the mean and variance of z over the edges (in training) or the running
    ones, and m is dropout: `scale` where `kept`, else 0. Where z is small enough it is stored;
    otherwise it is computed again, piece by piece, wherever it is needed.
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
        kept: Tensor | None,
        scale: float,
        running_mean: Tensor,
        running_variance: Tensor,
        eps: float,
        training: bool,
        source: Tensor,
        target: Tensor,
        precision: torch.dtype,
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        activation = _Activation(p, q, edges, w_e, source, target, precision)
        statistics = training and gamma is not None
        count, channels = len(edges), p.shape[1]
        memory = None
        if any(ctx.needs_input_grad) and count * channels <= _STORED:
            memory = _POOL.take(count * channels, precision, p.device)
            activation.stored = memory[: count * channels].view(count, channels)
        spread = _block_diagonal(a).to(precision)
        logits = edges.new_empty(count, a.shape[0])
        total = p.new_zeros(2, channels, dtype=torch.float64)
        for rows in pieces(count, channels, p.device):
            z = activation.compute(rows)
            logits[rows] = z @ spread
            if statistics:
                # about the running mean: no digits are lost when z is large against its spread
                z = z - running_mean
                total[0] += z.sum(0)
                total[1] += z.square_().sum(0)
        mean, variance = running_mean, running_variance
        if statistics:
            moments = (total / max(count, 1)).to(p.dtype)
            mean = moments[0] + running_mean
            variance = (moments[1] - moments[0] ** 2).clamp(min=0)
        new = None
        if gamma is not None:
            # norm and projection as one matrix and one constant: W y + c = (W s) z + W t + c
            s = gamma / (variance + eps).sqrt()
            matrix = (w * s * scale).T.to(precision)
            constant = (torch.mv(w, beta - mean * s) + c).mul_(scale).to(precision)
            new = torch.empty_like(edges)
            for rows in pieces(count, channels, p.device):
                moved = torch.addmm(constant, activation(rows), matrix)
                torch.add(moved, edges[rows], alpha=scale, out=new[rows])
                if kept is not None:
                    new[rows].mul_(kept[rows])
        ctx.save_for_backward(
            p, q, edges, w_e, a, gamma, beta, w, kept, mean, variance, source, target
        )
        ctx.memory = memory
        ctx.scale, ctx.eps, ctx.training, ctx.precision = scale, eps, training, precision
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        return logits, new, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_logits: Tensor | None, d_new: Tensor | None, *_: Any) -> Any:
        p, q, edges, w_e, a, gamma, beta, w, kept, mean, variance, source, target = (
            ctx.saved_tensors
        )
        grads: list[Tensor | None] = [None] * 18
        precision = ctx.precision
        activation = _Activation(p, q, edges, w_e, source, target, precision)
        count, channels, heads = len(edges), p.shape[1], len(a)
        # another backward pass through the same graph computes z again
        memory, ctx.memory = ctx.memory, None
        if memory is not None:
            activation.stored = memory[: count * channels].view(count, channels)
        if d_logits is None:
            d_logits = edges.new_zeros(count, heads)
        # one tensor of all that comes from above, so that one product takes it to z
        above, down = d_logits, _block_diagonal(a).T
        if d_new is not None:
            d_new = _masked(d_new, kept, ctx.scale)
            above = torch.cat([d_logits, d_new, d_new.new_ones(count, 1)], dim=1)
        moment = above.new_zeros(above.shape[1], channels)  # Σ above ⊗ z
        for rows in pieces(count, channels, p.device):
            _add_product(moment, above[rows].T, activation(rows))
        grads[4] = _diagonal_blocks(moment[:heads], a)
        slope: Tensor | None = None
        if d_new is not None:
            sigma = (variance + ctx.eps).sqrt()
            s = gamma / sigma
            d_w = moment[heads:-1]
            summed = d_new.sum(0)
            d_y = summed @ w  # Σ dy over edges
            d_y_xhat = ((w * d_w).sum(0) - mean * d_y) / sigma
            grads[5], grads[6], grads[8] = d_y_xhat, d_y, summed
            grads[7] = d_w * s + torch.outer(summed, beta - mean * s)
            constant = torch.zeros_like(s)
            if ctx.training:
                # how μ and σ move with z: dz gains constant + slope · z
                slope = -s * d_y_xhat / (sigma * count)
                constant = -s * d_y / count - slope * mean
            down = torch.cat([down, w * s, constant[None]])
        d_p, d_q, d_w_e = torch.zeros_like(p), torch.zeros_like(q), torch.zeros_like(w_e)
        d_edges = torch.empty_like(edges) if d_new is None else d_new
        down = down.to(precision)
        for rows in pieces(count, channels, p.device):
            z = activation(rows)
            d_z = above[rows].to(precision) @ down
            if slope is not None:
                d_z.addcmul_(z, slope.to(precision).expand_as(z))
            # of z itself, as it has the sign of u
            torch.ops.aten.leaky_relu_backward(d_z, z, SLOPE, True, grad_input=d_z)
            _add_product(d_w_e, d_z.T, edges[rows])
            if d_new is None:
                d_edges[rows] = d_z @ w_e.to(precision)
            else:
                _add_product(d_edges[rows], d_z, w_e)
            d_z = d_z.to(p.dtype)
            d_p.index_add_(0, source[rows], d_z)
            d_q.index_add_(0, target[rows], d_z)
        _POOL.give(memory)
        grads[0], grads[1], grads[2], grads[3] = d_p, d_q, d_edges, d_w_e
        return tuple(grads)


class _Pool:
    """Memory for z, reused from step to step: for a CPU to map fresh memory takes longer than
    to compute z. Other devices have such a pool already."""

    def __init__(self) -> None:
        self.free: list[Tensor] = []

    def take(self, numbers: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """At least so many numbers; in steps of 2²² so that similar graphs share."""
        numbers = math.ceil(numbers / (1 << 22)) << 22 if device.type == "cpu" else numbers
        for i, memory in enumerate(self.free):
            if memory.dtype == dtype and memory.numel() == numbers and device.type == "cpu":
                return self.free.pop(i)
        self.free.clear()  # what does not fit now is of another graph
        return torch.empty(numbers, dtype=dtype, device=device)

    def give(self, memory: Tensor | None) -> None:
        """Take it back, when nothing reads it any more."""
        if memory is not None and memory.device.type == "cpu":
            self.free.append(memory)


_POOL = _Pool()


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
        self.stored: Tensor | None = None

    def __call__(self, rows: slice) -> Tensor:
        return self.compute(rows) if self.stored is None else self.stored[rows]

    def compute(self, rows: slice) -> Tensor:
        """z computed, and stored where it is to be."""
        u = F.embedding_bag(self.pairs[rows], self.ends, mode="sum")  # both ends in one pass
        u.addmm_(self.edges[rows].to(u.dtype), self.w_e)
        if self.stored is None:
            return F.leaky_relu_(u, SLOPE)
        return torch.ops.aten.leaky_relu.out(u, SLOPE, out=self.stored[rows])


def _masked(gradient: Tensor, kept: Tensor | None, scale: float) -> Tensor:
    """The gradient behind dropout, always a tensor of its own."""
    return gradient.clone() if kept is None else (gradient * kept).mul_(scale)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, multiplied in the lower precision, summed over pieces in total's."""
    if left.dtype == right.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        lower = left.dtype if right.dtype == total.dtype else right.dtype
        total += left.to(lower) @ right.to(lower)


def _block_diagonal(a: Tensor) -> Tensor:
    """[heads, out] → [heads · out, heads], so that z @ it is a · z per head."""
    return torch.block_diag(*a[:, :, None])


def _diagonal_blocks(matrix: Tensor, a: Tensor) -> Tensor:
    """Its inverse, of the transpose [heads, heads · out]."""
    heads, out = a.shape
    index = torch.arange(heads, device=a.device)
    return matrix.unflatten(1, (heads, out))[index, index]
