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
from mgsym.processes import batch_count, batch_sum, is_shared, total

SLOPE = 0.01  # of DGL's LeakyReLU
_STORED = 1 << 27  # numbers of z kept for the backward pass: 512 MB; more are computed again
_SUMMED = 1 << 14  # edges whose products may be summed in 16 bits


class EdgeUpdate(torch.autograd.Function):
    """f′ of every edge, reduced at once to what is kept of it.

    With u = P[source] + Q[target] + W_e f and z = f′ = LeakyReLU(u):

        logits = a · z per head,  y = γ (z − μ)/σ + β,  new = m (f + W y + c)

    where μ and σ² are the mean and variance of z over the edges (in training) or the running
    ones, and m is dropout: `scale` where `kept`, else 0. With `store`, z is stored where small
    enough; otherwise it is computed again, piece by piece, wherever it is needed.
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
        store: bool,
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        activation = _Activation(p, q, edges, w_e, source, target, precision)
        count, channels, heads = len(edges), p.shape[1], len(a)
        if store:
            activation.store()
        mean, variance = running_mean, running_variance
        if training and gamma is not None:
            mean, variance = _statistics(activation, running_mean)
        matrix, constant = _block_diagonal(a), p.new_zeros(heads)
        new = None
        if gamma is not None:
            # norm and projection as one matrix and one constant: W y + c = (W s) z + W t + c
            s = gamma / (variance + eps).sqrt()
            shift = torch.mv(w, beta - mean * s) + c
            matrix = torch.cat([matrix, (w * s).T], dim=1)
            constant = torch.cat([constant, shift])
            new = torch.empty_like(edges)
        matrix, constant = matrix.to(precision), constant.to(precision)
        logits = edges.new_empty(count, heads)
        for rows in pieces(count, channels, p.device):
            out = torch.addmm(constant, activation(rows), matrix)
            logits[rows] = out[:, :heads]
            if new is not None:
                torch.add(edges[rows], out[:, heads:], out=new[rows])
                if kept is not None:
                    new[rows].mul_(kept[rows]).mul_(scale)
        ctx.save_for_backward(
            p, q, edges, w_e, a, gamma, beta, w, kept, mean, variance, source, target
        )
        ctx.memory = activation.memory
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
        grads: list[Tensor | None] = [None] * 19
        activation = _Activation(p, q, edges, w_e, source, target, ctx.precision)
        # another backward pass through the same graph computes z again
        activation.restore(ctx.memory)
        ctx.memory = None
        count, channels, heads = len(edges), p.shape[1], len(a)
        runs = list(pieces(count, channels, p.device))
        above = [_above(d_logits, d_new, heads, kept, ctx.scale, rows) for rows in runs]
        matrix = _block_diagonal(a).T
        slope: Tensor | None = None
        if d_new is not None:
            sigma = (variance + ctx.eps).sqrt()
            s = gamma / sigma
            constant = torch.zeros_like(s)
        if any(ctx.needs_input_grad[4:9]) or (d_new is not None and ctx.training):
            moment, summed = _moments(above, activation, runs)
            grads[4] = _diagonal_blocks(moment[:heads], a)
            if d_new is not None:
                d_w, d_c = moment[heads:-1], summed[heads:-1]
                d_y = d_c @ w  # Σ dy over edges
                d_y_xhat = ((w * d_w).sum(0) - mean * d_y) / sigma
                grads[5], grads[6], grads[8] = d_y_xhat, d_y, d_c
                grads[7] = d_w * s + torch.outer(d_c, beta - mean * s)
                if ctx.training:
                    # how μ and σ move with z: dz gains constant + slope · z
                    if is_shared():
                        d_y, d_y_xhat = total(torch.stack([d_y, d_y_xhat]))
                        count = batch_count(count)
                    slope = -s * d_y_xhat / (sigma * count)
                    constant = -s * d_y / count - slope * mean
                    slope = slope.to(ctx.precision)
        if d_new is not None:
            matrix = torch.cat([matrix, w * s, constant[None]])
        d_p, d_q, d_w_e = torch.zeros_like(p), torch.zeros_like(q), torch.zeros_like(w_e)
        d_edges = torch.empty_like(edges)
        matrix, back = matrix.to(ctx.precision), w_e.to(ctx.precision)
        for rows, piece in zip(runs, above, strict=True):
            z = activation(rows)
            d_z = piece.to(ctx.precision) @ matrix
            if slope is not None:
                d_z.addcmul_(z, slope.expand_as(z))
            # of z itself, as it has the sign of u
            torch.ops.aten.leaky_relu_backward(d_z, z, SLOPE, True, grad_input=d_z)
            if ctx.needs_input_grad[3]:
                _add_product(d_w_e, d_z.T, edges[rows])
            if d_new is None:
                d_edges[rows] = d_z @ back
            else:
                torch.add(piece[:, heads:-1], d_z @ back, out=d_edges[rows])
            d_z = d_z.to(p.dtype)
            d_p.index_add_(0, source[rows], d_z)
            d_q.index_add_(0, target[rows], d_z)
        _POOL.give(activation.memory)
        grads[0], grads[1], grads[2], grads[3] = d_p, d_q, d_edges, d_w_e
        return tuple(grads)


def _above(
    d_logits: Tensor | None,
    d_new: Tensor | None,
    heads: int,
    kept: Tensor | None,
    scale: float,
    rows: slice,
) -> Tensor:
    """All that comes down to z of some edges, as one matrix, so that one product takes it there:
    the gradients of logits and of new edges behind dropout, and 1 for the norm's constant."""
    if d_new is None:
        assert d_logits is not None
        return d_logits[rows]
    d_new = d_new[rows]
    if kept is not None:
        d_new = (d_new * kept[rows]).mul_(scale)
    first = d_new.new_zeros(len(d_new), heads) if d_logits is None else d_logits[rows]
    return torch.cat([first, d_new, d_new.new_ones(len(d_new), 1)], dim=1)


def _moments(
    above: list[Tensor], activation: _Activation, runs: list[slice]
) -> tuple[Tensor, Tensor]:
    """Products of what comes down with z, [·, channels], and its sums [·], over edges."""
    moment = above[0].new_zeros(above[0].shape[1], activation.ends.shape[1])
    total = moment.new_zeros(len(moment))
    for rows, piece in zip(runs, above, strict=True):
        _add_product(moment, piece.T, activation(rows))
        total += piece.sum(0)
    return moment, total


def _statistics(activation: _Activation, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of z over the edges, [channels]."""
    count, channels = len(activation.edges), len(shift)
    sums = torch.zeros(2, channels, dtype=torch.float64, device=shift.device)
    for rows in pieces(count, channels, shift.device):
        # sums of z − shift: no digits are lost when the mean is large against the spread
        z = activation(rows) - shift
        sums[0] += z.sum(0)
        sums[1] += z.square_().sum(0)
    moments = (batch_sum(sums) / max(batch_count(count), 1)).to(shift.dtype)
    return moments[0] + shift, (moments[1] - moments[0] ** 2).clamp(min=0)


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
        self.memory: Tensor | None = None
        self.done = 0  # rows in memory, from the first

    def store(self) -> None:
        """Keep what is computed from now on, if it is not too much."""
        numbers = len(self.edges) * self.ends.shape[1]
        if numbers <= _STORED:
            self.memory = _POOL.take(numbers, self.ends.dtype, self.ends.device)

    def restore(self, memory: Tensor | None) -> None:
        """Take over what was stored."""
        self.memory, self.done = memory, len(self.edges)

    def __call__(self, rows: slice) -> Tensor:
        stored: Tensor | None = None
        if self.memory is not None:
            channels = self.ends.shape[1]
            stored = self.memory[rows.start * channels : rows.stop * channels].view(-1, channels)
            if rows.stop <= self.done:
                return stored
            self.done = rows.stop
        u = F.embedding_bag(self.pairs[rows], self.ends, mode="sum")  # both ends in one pass
        u.addmm_(self.edges[rows].to(u.dtype), self.w_e)
        if stored is None:
            return F.leaky_relu_(u, SLOPE)
        return torch.ops.aten.leaky_relu.out(u, SLOPE, out=stored)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, multiplied in the lower precision, summed over pieces in total's.

    A product over all edges would be rounded to 16 bits once it is large, and a GPU may add up
    its parts in 16 bits too.
    """
    if left.dtype == right.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        lower = left.dtype if right.dtype == total.dtype else right.dtype
        left, right = left.to(lower), right.to(lower)
        whole = len(right) // _SUMMED * _SUMMED
        if whole:  # pieces as large as a GPU's
            lefts = left[:, :whole].unflatten(1, (-1, _SUMMED)).transpose(0, 1)
            products = torch.bmm(lefts, right[:whole].unflatten(0, (-1, _SUMMED)))
            total += products.sum(0, dtype=total.dtype)
        if whole < len(right):
            total += left[:, whole:] @ right[whole:]


def _block_diagonal(a: Tensor) -> Tensor:
    """[heads, out] → [heads · out, heads], so that z @ it is a · z per head."""
    return torch.block_diag(*a[:, :, None])


def _diagonal_blocks(matrix: Tensor, a: Tensor) -> Tensor:
    """Its inverse, of the transpose [heads, heads · out]."""
    heads, out = a.shape
    index = torch.arange(heads, device=a.device)
    return matrix.unflatten(1, (heads, out))[index, index]
