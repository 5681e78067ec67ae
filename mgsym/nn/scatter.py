"""Segment reductions: many edges into the node at which they arrive.

One small file in place of a dependency. Edges are sorted by target, so a node's edges are one
run of rows; `offsets` ([n + 1], see Graph.offsets) says where each run starts.
"""

from __future__ import annotations

import torch
from torch import Tensor


def segment_sum(values: Tensor, index: Tensor, count: int) -> Tensor:
    """Sum rows into segments.

    Args:
        values: [e, ...].
        index: [e] int64, the segment of each row, in any order.
        count: number of segments.

    Returns:
        [count, ...]; zero for a segment without rows.
    """
    return values.new_zeros(count, *values.shape[1:]).index_add(0, index, values)


def run_sums(values: Tensor, sizes: Tensor) -> Tensor:
    """Sum runs of numbers that follow one another, in the same order each time.

    `segment_sum` adds in whatever order a GPU's threads come, so that it is not repeated to the
    bit there: where sums decide a trajectory, take this.

    Args:
        values: [..., n].
        sizes: [b] int64, how long each run is; n in all.

    Returns:
        [..., b].
    """
    if values.requires_grad:  # segment_reduce cannot be differentiated twice
        run = torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)
        return values.new_zeros(*values.shape[:-1], len(sizes)).index_add(-1, run, values)
    lists = values.shape[:-1].numel()
    sums = torch.segment_reduce(values.reshape(-1), "sum", lengths=sizes.repeat(lists), unsafe=True)
    return sums.view(*values.shape[:-1], len(sizes))


def segment_mean(values: Tensor, index: Tensor, count: int, weight: Tensor | None = None) -> Tensor:
    """Mean of the rows of each segment, each row counted `weight` times.

    Arguments as in `segment_sum`, and weight [e], at least 0. A segment without rows, or of
    rows of weight 0 only, gives zero.
    """
    weight = values.new_ones(len(values)) if weight is None else weight.to(values.dtype)
    trailing = [1] * (values.dim() - 1)
    total = segment_sum(weight, index, count)
    summed = segment_sum(values * weight.view(-1, *trailing), index, count)
    return summed / torch.where(total > 0, total, 1.0).view(-1, *trailing)


def segment_max(values: Tensor, index: Tensor, count: int) -> Tensor:
    """Largest row of each segment, elementwise; −inf for an empty segment."""
    expanded = index.view(-1, *[1] * (values.dim() - 1)).expand_as(values)
    start = values.new_full((count, *values.shape[1:]), -torch.inf)
    return start.scatter_reduce(0, expanded, values, "amax")


def segment_softmax(
    logits: Tensor, index: Tensor, count: int, weight: Tensor | None = None
) -> Tensor:
    """Softmax over the rows of each segment, each row counted `weight` times.

    α = w eˣ / Σ w eˣ, with 0/0 = 0. A row of weight 0 is as good as deleted: it takes no share,
    and the maximum subtracted for safety is taken over rows with w > 0 only. (Going through
    log w instead would give an infinite gradient at w = 0.)

    Args:
        logits: [e, ...].
        index: [e] int64.
        count: number of segments.
        weight: [e], at least 0.

    Returns:
        [e, ...].
    """
    if weight is not None:
        weight = weight.view(-1, *[1] * (logits.dim() - 1))
    counted = logits if weight is None else logits.masked_fill(weight <= 0, -torch.inf)
    largest = segment_max(counted.detach(), index, count)
    largest = torch.where(torch.isfinite(largest), largest, 0.0)
    shifted = logits - largest.index_select(0, index)
    if weight is not None:
        # a deleted row may lie far above the maximum of the others: keep its exponential finite,
        # for the gradient of its weight
        shifted = shifted.clamp(max=60.0)
    share = shifted.exp() if weight is None else weight * shifted.exp()
    return segment_shares(share, index, count)


def segment_shares(values: Tensor, index: Tensor, count: int) -> Tensor:
    """Each row over the sum of its segment, 0/0 being 0; arguments as in `segment_sum`, at least 0.

    Returns:
        [e, ...].
    """
    total = segment_sum(values, index, count)
    return values / torch.where(total > 0, total, 1.0).index_select(0, index)
