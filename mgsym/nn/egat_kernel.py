"""The edges' share of SymGNN's layer, fused: attention logits and new edges (mgsym.nn.egat).

Edge tensors are large (260,000 edges × 8 heads × 32 channels are 266 MB), so they are worked
through in pieces that fit a core's cache, forward and backward, with gradients written by hand.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mgsym.nn.edge_passes import CompiledEdges
from mgsym.nn.egat_inputs import Given, Learnt
from mgsym.nn.layers import pieces
from mgsym.utils.devices import free_memory
from mgsym.utils.processes import batch_count, batch_sum, is_shared, total

SLOPE = 0.01  # of DGL's LeakyReLU
_STORED = 1 << 29  # bytes of z kept for the backward pass on a CPU; more is computed again
_SUMMED = 1 << 14  # edges whose products may be summed in 16 bits


class Updated(NamedTuple):
    """Logits [e, heads], new edges [e, width] where wanted, and mean and variance of z."""

    logits: Tensor
    new: Tensor | None
    mean: Tensor
    variance: Tensor


def update_edges(learnt: Learnt, given: Given) -> Updated:
    """Compute f′ of every edge, reduced at once to what is kept of it.

    With u = P[source] + Q[target] + W_e f and z = f′ = LeakyReLU(u):

        logits = a · z per head,  y = γ (z − μ)/σ + β,  new = m (f + W y + c)

    where μ and σ² are the mean and variance of z over the edges (in training) or the running
    ones, and m is dropout: `scale` where `kept`, else 0. With `memory`, z is stored where small
    enough; otherwise it is computed again, piece by piece, wherever it is needed.
    """
    return Updated(*_EdgeUpdate.apply(*learnt, given))


class _EdgeUpdate(torch.autograd.Function):
    """`update_edges`; autograd sees tensors only where each is an argument by itself."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        learnt, given = Learnt(*arguments[:-1]), arguments[-1]
        stored = _memory_for(learnt, given)
        passes = _passes(learnt, given, stored)
        mean, variance = given.mean, given.variance
        if given.training and learnt.gamma is not None:
            mean, variance = _statistics(passes, mean)
        logits, new = _outputs(learnt, given, passes, mean, variance)
        ctx.save_for_backward(*learnt, mean, variance)
        ctx.stored = stored
        ctx.given = given
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        return logits, new, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_logits: Tensor | None, d_new: Tensor | None, *_: Any) -> Any:
        *saved, mean, variance = ctx.saved_tensors
        learnt, given = Learnt(*saved), ctx.given._replace(mean=mean, variance=variance)
        # another backward pass through the same graph computes z again
        stored, ctx.stored = ctx.stored, None
        passes = _passes(learnt, given, stored, filled=True)
        wanted = Learnt(*ctx.needs_input_grad[:-1])
        grads = _gradients(learnt, given, passes, d_logits, d_new, wanted)
        if given.memory is not None:
            given.memory.give(stored)
        return (*(grads.get(name) for name in Learnt._fields), None)


def _passes(
    learnt: Learnt, given: Given, stored: Tensor | None, filled: bool = False
) -> EagerEdges | CompiledEdges:
    """The passes over edges, compiled where `given` has a library."""
    if given.library is not None:
        return CompiledEdges(learnt, given, stored)
    return EagerEdges(learnt, given, stored, filled)


def _memory_for(learnt: Learnt, given: Given) -> Tensor | None:
    """Where z is stored, if it is not too much: of a GPU's memory, half of what is free."""
    numbers, device = len(learnt.edges) * learnt.p.shape[1], learnt.p.device
    if given.memory is None:
        return None
    most = _STORED if device.type == "cpu" else free_memory(device) // 2
    if numbers * given.precision.itemsize > most:
        return None
    return given.memory.take(numbers, given.precision, device)


def _outputs(
    learnt: Learnt,
    given: Given,
    passes: EagerEdges | CompiledEdges,
    mean: Tensor,
    variance: Tensor,
) -> tuple[Tensor, Tensor | None]:
    """Logits and, where wanted, new edges."""
    if learnt.gamma is None:
        return passes.outputs(None, learnt.c)
    # norm and projection as one matrix and one constant: W y + c = (W s) z + W t + c
    s = learnt.gamma / (variance + given.eps).sqrt()
    return passes.outputs(learnt.w * s, torch.mv(learnt.w, learnt.beta - mean * s) + learnt.c)


def _gradients(
    learnt: Learnt,
    given: Given,
    passes: EagerEdges | CompiledEdges,
    d_logits: Tensor | None,
    d_new: Tensor | None,
    wanted: Learnt,
) -> dict[str, Tensor]:
    """Compute the gradients of what is in `learnt`, by name, from those of logits and new edges.

    `given` has the mean and variance that z was normalised with.
    """
    w, mean = learnt.w, given.mean
    grads: dict[str, Tensor] = {}
    projection = slope = constant = None
    if d_new is not None:
        assert learnt.gamma is not None
        sigma = (given.variance + given.eps).sqrt()
        s = learnt.gamma / sigma
        projection = w * s
    if any(wanted[4:]) or (d_new is not None and given.training):
        grads["a"], d_w, d_c = passes.moments(d_logits, d_new)
        if d_new is not None:
            d_y = d_c @ w  # Σ dy over edges
            d_y_xhat = ((w * d_w).sum(0) - mean * d_y) / sigma
            d_w = d_w * s + torch.outer(d_c, learnt.beta - mean * s)
            grads |= {"gamma": d_y_xhat, "beta": d_y, "w": d_w, "c": d_c}
            if given.training:
                # how μ and σ move with z: dz gains constant + slope · z
                count = len(learnt.edges)
                if is_shared():
                    d_y, d_y_xhat = total(torch.stack([d_y, d_y_xhat]))
                    count = batch_count(count)
                slope = -s * d_y_xhat / (sigma * count)
                constant = -s * d_y / count - slope * mean
    return grads | passes.gradients(d_logits, d_new, projection, slope, constant, bool(wanted.w_e))


def _statistics(passes: EagerEdges | CompiledEdges, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of z over the edges, [channels]."""
    # sums of z − shift: no digits are lost when the mean is large against the spread
    moments = batch_sum(passes.statistics(shift)) / max(batch_count(passes.count), 1)
    moments = moments.to(shift.dtype)
    return moments[0] + shift, (moments[1] - moments[0] ** 2).clamp(min=0)


class EagerEdges:
    """The passes over edges, with PyTorch.

    Args:
        stored: memory for z, or None.
        filled: it holds z already.
    """

    def __init__(self, learnt: Learnt, given: Given, stored: Tensor | None, filled: bool) -> None:
        self.learnt, self.given = learnt, given
        self.count = len(learnt.edges)
        self.activation = _Activation(learnt, given, stored, filled)
        self.above: list[Tensor] | None = None
        self.runs = list(pieces(self.count, learnt.p.shape[1], learnt.edges.device))

    def statistics(self, shift: Tensor) -> Tensor:
        """Sums of z − shift and of its squares, [2, channels] float64."""
        sums = torch.zeros(2, len(shift), dtype=torch.float64, device=shift.device)
        for rows in self.runs:
            z = self.activation(rows) - shift
            sums[0] += z.sum(0)
            sums[1] += z.square_().sum(0)
        return sums

    def outputs(self, projection: Tensor | None, constant: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits [e, heads] and, where there is a projection [width, channels], new edges."""
        edges, given, heads = self.learnt.edges, self.given, len(self.learnt.a)
        matrix, constants = _block_diagonal(self.learnt.a), constant.new_zeros(heads)
        new = None
        if projection is not None:
            matrix = torch.cat([matrix, projection.T], dim=1)
            constants = torch.cat([constants, constant])
            new = torch.empty_like(edges)
        matrix, constants = matrix.to(given.precision), constants.to(given.precision)
        logits = edges.new_empty(self.count, heads)
        for rows in self.runs:
            out = torch.addmm(constants, self.activation(rows), matrix)
            logits[rows] = out[:, :heads]
            if new is not None:
                torch.add(edges[rows], out[:, heads:], out=new[rows])
                if given.kept is not None:
                    new[rows].mul_(given.kept[rows]).mul_(given.scale)
        return logits, new

    def moments(self, d_logits: Tensor | None, d_new: Tensor | None) -> tuple[Tensor, ...]:
        """Sums over edges of the products of d_logits and z per head, [heads, out], and, of d_new
        behind dropout, of its products with z, [width, channels], and of itself, [width]."""
        heads = len(self.learnt.a)
        above = self._above(d_logits, d_new)
        moment = above[0].new_zeros(above[0].shape[1], self.learnt.p.shape[1])
        sums = moment.new_zeros(len(moment))
        for rows, piece in zip(self.runs, above, strict=True):
            _add_product(moment, piece.T, self.activation(rows))
            sums += piece.sum(0)
        d_a = _diagonal_blocks(moment[:heads], self.learnt.a)
        return d_a, moment[heads:-1], sums[heads:-1]

    def gradients(
        self,
        d_logits: Tensor | None,
        d_new: Tensor | None,
        projection: Tensor | None,
        slope: Tensor | None,
        constant: Tensor | None,
        weights: bool,
    ) -> dict[str, Tensor]:
        """Gradients of p, q, edges and, if `weights`, w_e, where dz = d_logits · a +
        d_new · projection + slope · z + constant."""
        learnt, given, heads = self.learnt, self.given, len(self.learnt.a)
        matrix = _block_diagonal(learnt.a).T
        if projection is not None:
            last = torch.zeros_like(projection[0]) if constant is None else constant
            matrix = torch.cat([matrix, projection, last[None]])
        d_p, d_q = torch.zeros_like(learnt.p), torch.zeros_like(learnt.q)
        d_w_e, d_edges = torch.zeros_like(learnt.w_e), torch.empty_like(learnt.edges)
        matrix, back = matrix.to(given.precision), learnt.w_e.to(given.precision)
        slope = None if slope is None else slope.to(given.precision)
        for rows, piece in zip(self.runs, self._above(d_logits, d_new), strict=True):
            z = self.activation(rows)
            d_z = piece.to(given.precision) @ matrix
            if slope is not None:
                d_z.addcmul_(z, slope.expand_as(z))
            # of z itself, as it has the sign of u
            torch.ops.aten.leaky_relu_backward(d_z, z, SLOPE, True, grad_input=d_z)
            if weights:
                _add_product(d_w_e, d_z.T, learnt.edges[rows])
            if d_new is None:
                d_edges[rows] = d_z @ back
            else:
                torch.add(piece[:, heads:-1], d_z @ back, out=d_edges[rows])
            d_z = d_z.to(d_p.dtype)
            d_p.index_add_(0, given.source[rows], d_z)
            d_q.index_add_(0, given.target[rows], d_z)
        return {"p": d_p, "q": d_q, "edges": d_edges, "w_e": d_w_e}

    def _above(self, d_logits: Tensor | None, d_new: Tensor | None) -> list[Tensor]:
        """Made once, as both passes read it."""
        if self.above is None:
            heads = len(self.learnt.a)
            self.above = [_above(d_logits, d_new, heads, self.given, rows) for rows in self.runs]
        return self.above


def _above(
    d_logits: Tensor | None,
    d_new: Tensor | None,
    heads: int,
    given: Given,
    rows: slice,
) -> Tensor:
    """All that comes down to z of some edges, as one matrix, so that one product takes it there:
    the gradients of logits and of new edges behind dropout, and 1 for the norm's constant."""
    if d_new is None:
        assert d_logits is not None
        return d_logits[rows]
    d_new = d_new[rows]
    if given.kept is not None:
        d_new = (d_new * given.kept[rows]).mul_(given.scale)
    first = d_new.new_zeros(len(d_new), heads) if d_logits is None else d_logits[rows]
    return torch.cat([first, d_new, d_new.new_ones(len(d_new), 1)], dim=1)


class _Activation:
    """z of some edges, [rows, channels], in the precision of the products."""

    def __init__(self, learnt: Learnt, given: Given, stored: Tensor | None, filled: bool) -> None:
        p, q, edges, w_e, *_ = learnt
        self.ends = torch.cat([p, q]).to(given.precision)
        self.pairs = torch.stack([given.source, given.target + len(p)], dim=1)
        self.edges, self.w_e = edges, w_e.T.to(given.precision)
        self.stored = stored
        self.done = len(edges) if filled else 0  # rows stored, from the first

    def __call__(self, rows: slice) -> Tensor:
        stored: Tensor | None = None
        if self.stored is not None:
            channels = self.ends.shape[1]
            stored = self.stored[rows.start * channels : rows.stop * channels].view(-1, channels)
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
