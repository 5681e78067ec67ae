"""Gradient-boosted symmetric decision trees on binned features.

Each tree asks the same question of all its nodes of one level, so that a leaf is the bits of
`depth` comparisons: growing and reading trees are a few tensor operations (Friedman, Ann. Statist.
29, 1189, 2001; stochastic, Comput. Stat. Data Anal. 38, 367, 2002; symmetric trees as in
Prokhorenkova et al., NeurIPS 2018; splits from histograms as in Ke et al., NeurIPS 2017).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TreeSettings:
    """How trees are grown.

    Attributes:
        depth: comparisons of a tree.
        bins: of each feature, equally full.
        shrinkage: what a tree's values are multiplied by.
        rows: share of the samples that a tree is grown from.
        columns: share of the features that each comparison chooses from.
        regularisation: how many samples of residual zero each leaf holds beside its own.
    """

    depth: int = 5
    bins: int = 32
    shrinkage: float = 0.05
    rows: float = 0.5
    columns: float = 0.5
    regularisation: float = 20.0


@dataclass(frozen=True)
class Tree:
    """One symmetric tree on bins.

    Attributes:
        feature: [depth] int64, what each level compares.
        threshold: [depth] int64; a bin above it sets the level's bit, the first level's highest.
        value: [2^depth], of each leaf.
    """

    feature: Tensor
    threshold: Tensor
    value: Tensor

    def __call__(self, bins: Tensor) -> Tensor:
        """[n], the values of samples whose bins are [n, q]."""
        leaf = torch.zeros(len(bins), dtype=torch.int64, device=bins.device)
        for feature, threshold in zip(self.feature, self.threshold, strict=True):
            leaf = 2 * leaf + (bins[:, feature] > threshold)
        return self.value[leaf]


def bin_edges(features: Tensor, bins: int) -> Tensor:
    """[q, bins − 1], the quantiles of features [n, q] that make bins equally full.

    Each lies midway between two samples, so that rounding moves none of them to another bin.
    """
    share = torch.linspace(0, 1, bins + 1, device=features.device, dtype=features.dtype)[1:-1]
    above = (share * len(features)).round().long().clamp(1, max(len(features) - 1, 1))
    ascending = features.sort(dim=0).values
    below, above = ascending[above - 1], ascending[above.clamp(max=len(features) - 1)]
    return (0.5 * (below + above)).T.contiguous()


def binned(features: Tensor, edges: Tensor) -> Tensor:
    """[n, q] int64, the bin of each feature: how many of its edges are below it."""
    return torch.searchsorted(edges, features.T.contiguous()).T


def boost(
    bins: Tensor,
    residual: Tensor,
    weight: Tensor,
    count: int,
    settings: TreeSettings,
    generator: torch.Generator,
    watch: Callable[[int, Tree], bool | None],
) -> list[Tree]:
    """Grow trees one after another, each on what those before it leave over.

    Args:
        bins: [n, q] int64.
        residual: [n], what the trees together shall predict.
        weight: [n], how much each sample counts.
        count: how many trees.
        settings: of each.
        generator: CPU; draws rows and columns.
        watch: told the number of trees and the newest; growing ends when it says yes.
    """
    trees: list[Tree] = []
    residual = residual.clone()
    samples, features = bins.shape
    few = max(1, round(settings.columns * features)), max(1, round(settings.rows * samples))
    for i in range(count):
        rows = torch.randperm(samples, generator=generator)[: few[1]].to(bins.device)
        choices = [
            torch.randperm(features, generator=generator)[: few[0]].to(bins.device)
            for _ in range(settings.depth)
        ]
        trees.append(grow(bins[rows], residual[rows], weight[rows], settings, choices))
        residual -= trees[-1](bins)
        if watch(i + 1, trees[-1]):
            break
    return trees


def grow(
    bins: Tensor, residual: Tensor, weight: Tensor, settings: TreeSettings, choices: list[Tensor]
) -> Tree:
    """One tree that fits a residual [n]; level k compares one of the features choices[k]."""
    pull = residual * weight
    leaf = torch.zeros(len(bins), dtype=torch.int64, device=bins.device)
    taken = []
    for level, columns in enumerate(choices):
        gain = _gains(bins[:, columns], pull, weight, leaf, 2**level, settings)
        best = int(gain.argmax())
        feature, threshold = columns[best // (settings.bins - 1)], best % (settings.bins - 1)
        leaf = 2 * leaf + (bins[:, feature] > threshold)
        taken.append((int(feature), threshold))
    leaves = 2 ** len(choices)
    total = pull.new_zeros(leaves).index_add(0, leaf, pull)
    number = weight.new_zeros(leaves).index_add(0, leaf, weight)
    value = settings.shrinkage * total / (number + settings.regularisation).clamp(min=1e-9)
    feature_of, threshold_of = torch.tensor(taken, device=bins.device).unbind(1)
    return Tree(feature_of, threshold_of, value)


def _gains(
    bins: Tensor, pull: Tensor, weight: Tensor, leaf: Tensor, leaves: int, settings: TreeSettings
) -> Tensor:
    """[features · (bins − 1)]: Σ over leaves of G²/(n + λ) left and right of each threshold."""
    q, size = bins.shape[1], settings.bins
    base = torch.arange(q, device=bins.device) * leaves * size
    place = (base + leaf[:, None] * size + bins).flatten()

    def histogram(values: Tensor) -> Tensor:
        spread = values.double()[:, None].expand(-1, q).flatten()
        found = spread.new_zeros(q * leaves * size).index_add_(0, place, spread)
        return found.view(q, leaves, size).cumsum(2)

    sums, number = histogram(pull), histogram(weight)
    left, right = sums[..., :-1], sums[..., -1:] - sums[..., :-1]
    on_left, on_right = number[..., :-1], number[..., -1:] - number[..., :-1]
    more = max(settings.regularisation, 1e-9)  # an empty side gains nothing
    gain = left.square() / (on_left + more) + right.square() / (on_right + more)
    return gain.sum(1).flatten()
