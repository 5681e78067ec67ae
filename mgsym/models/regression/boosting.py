"""Gradient-boosted decision trees on an atom's local inputs.

Wang, Ding, Zhang, Podryabinkin, Shapeev & Ma (npj Comput. Mater. 6, 194, 2020) predict with such
trees, from descriptors of its surroundings, how easily an atom of a metallic glass is activated.
Each tree fits what those before it leave over (Friedman, Ann. Statist. 29, 1189, 2001), on a random
part of the atoms and features (Friedman, Comput. Stat. Data Anal. 38, 367, 2002). Splits are found
from histograms of binned features (Ke et al., NeurIPS 2017). A tree makes the same comparison in
all nodes of a level (Prokhorenkova et al., NeurIPS 2018), so that a leaf is the bits of `depth`
comparisons and growing and reading trees are a few tensor operations.

How many trees are worth having is found with the last of the training glasses left out; then as
many are grown on all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mgsym.descriptors.local import LocalOptions
from mgsym.errors import UsageError
from mgsym.graph import Graph
from mgsym.graph.operations import glass_of
from mgsym.models.regression.base import DirectModel, labels_weigh
from mgsym.utils.progress import Progress

_BINNED_FROM = 20_000  # atoms whose features tell where bins end


@dataclass(frozen=True)
class BoostingOptions(LocalOptions):
    """Options of boosted trees.

    Attributes:
        trees: how many at most; as many as that where a single glass trains.
        patience: trees without a better one after which growing stops.
        depth: comparisons of a tree.
        bins: of each feature, equally full; 2 … 256.
        shrinkage: what a tree's values are multiplied by.
        rows: share of the atoms that a tree is grown from.
        columns: share of the features that each comparison chooses from.
        regularisation: how many atoms of residual zero each leaf holds beside its own.
        seed: of the rows and columns that trees are grown from.
    """

    trees: int = 400
    patience: int = 50
    depth: int = 5
    bins: int = 32
    shrinkage: float = 0.05
    rows: float = 0.5
    columns: float = 0.1
    regularisation: float = 20.0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, low in (("trees", 1), ("patience", 1), ("depth", 1), ("bins", 2)):
            if getattr(self, name) < low:
                raise UsageError(f"model.{name} is {getattr(self, name)}, expected at least {low}")
        if self.bins > 256:
            raise UsageError(f"model.bins is {self.bins}, expected at most 256")
        for name in ("shrinkage", "rows", "columns"):
            if not 0 < getattr(self, name) <= 1:
                raise UsageError(
                    f"model.{name} is {getattr(self, name)}, expected above 0, at most 1"
                )
        if not self.regularisation >= 0:
            raise UsageError(f"model.regularisation is {self.regularisation}, expected at least 0")


@dataclass(frozen=True)
class Tree:
    """One symmetric tree on binned features.

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


class Samples(NamedTuple):
    """Labelled atoms to learn from.

    Attributes:
        bins: [n, q] uint8, of their features.
        target: [n], the standardised label.
        weight: [n], how much each counts.
    """

    bins: Tensor
    target: Tensor
    weight: Tensor


class Boosting(DirectModel):
    """Boosted trees with BoostingOptions."""

    source = "Wang, Ding, Zhang, Podryabinkin, Shapeev & Ma 2020 (npj Comput. Mater. 6, 194)"
    options: BoostingOptions
    edges: Tensor
    feature: Tensor
    threshold: Tensor
    value: Tensor
    grown: Tensor

    def __init__(self, species: tuple[str, ...], cutoff: float, options: BoostingOptions) -> None:
        super().__init__(species, cutoff, options)
        trees, depth = options.trees, options.depth
        self.register_buffer("edges", torch.zeros(self.inputs.num_features, options.bins - 1))
        self.register_buffer("feature", torch.zeros(trees, depth, dtype=torch.int64))
        self.register_buffer("threshold", torch.zeros(trees, depth, dtype=torch.int64))
        self.register_buffer("value", torch.zeros(trees, 2**depth))
        self.register_buffer("grown", torch.zeros((), dtype=torch.int64))

    def fit_features(self, graphs: Sequence[Graph], progress: Progress) -> None:
        options, first = self.options, 2 * len(graphs)
        count, steps = options.trees, first + 2 * options.trees
        self._fit_edges(graphs, lambda done: progress(done, steps))
        glasses: dict[str, list[Samples]] = {}
        for i, graph in enumerate(graphs):
            glasses.setdefault(glass_of(graph), []).append(self._samples(graph))
            progress(len(graphs) + i + 1, steps)
        if len(glasses) > 1:
            *inner, last = (joined(parts) for parts in glasses.values())
            count = worthwhile(joined(inner), last, options, lambda i: progress(first + i, steps))
        every = joined([part for parts in glasses.values() for part in parts])
        begun = steps - count
        self._keep(boost(every, count, options, lambda i, _: progress(begun + i, steps)))
        progress(steps, steps)

    def _fit_edges(self, graphs: Sequence[Graph], tell: Callable[[int], None]) -> None:
        """Find where the bins of each feature end, from some of the labelled atoms."""
        step = -(-sum(int(g.labelled.sum()) for g in graphs) // _BINNED_FROM)
        parts = []
        for i, graph in enumerate(graphs):
            parts.append(self.inputs.features(graph)[graph.labelled][::step])
            tell(i + 1)
        self.edges.copy_(bin_edges(torch.cat(parts), self.options.bins))

    def _samples(self, graph: Graph) -> Samples:
        labelled = graph.labelled
        target = self.standard_target(graph)[labelled]
        return Samples(self._bins(graph)[labelled], target, labels_weigh(graph))

    def _bins(self, graph: Graph) -> Tensor:
        """[n, features] uint8, one block of features after another: they need far more memory."""
        blocks, start = [], 0
        for block in self.inputs.blocks(graph):
            blocks.append(binned(block, self.edges[start : start + block.shape[1]]))
            start += block.shape[1]
        return torch.cat(blocks, dim=1)

    def _keep(self, trees: Sequence[Tree]) -> None:
        self.grown.fill_(len(trees))
        for i, tree in enumerate(trees):
            self.feature[i], self.threshold[i] = tree.feature, tree.threshold
            self.value[i] = tree.value

    def standardised(self, graph: Graph, edge_weight: Tensor | None) -> Tensor:
        bins = self._bins(graph)
        total = self.value.new_zeros(graph.num_nodes)
        for i in range(int(self.grown)):
            total = total + Tree(self.feature[i], self.threshold[i], self.value[i])(bins)
        return total


def joined(parts: Sequence[Samples]) -> Samples:
    """Samples of several structures as one."""
    return Samples(*(torch.cat(values) for values in zip(*parts, strict=True)))


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
    """[n, q] uint8, the bin of each feature: how many of its edges are below it."""
    return torch.searchsorted(edges, features.T.contiguous(), out_int32=True).T.to(torch.uint8)


def worthwhile(
    samples: Samples, left_out: Samples, options: BoostingOptions, tell: Callable[[int], None]
) -> int:
    """How many trees, grown on some glasses, predict another one best; at least one."""
    residual = left_out.target - left_out.target.mean()
    best, best_count = float("inf"), 1

    def watch(done: int, tree: Tree) -> bool:
        nonlocal best, best_count, residual
        value = tree(left_out.bins)
        residual = residual - (value - value.mean())
        error = float(residual.square().sum())
        if error < best:
            best, best_count = error, done
        tell(done)
        return done - best_count >= options.patience

    boost(samples, options.trees, options, watch)
    return best_count


def boost(
    samples: Samples,
    count: int,
    options: BoostingOptions,
    watch: Callable[[int, Tree], bool | None],
) -> list[Tree]:
    """Grow trees one after another, each on what those before it leave over.

    Args:
        samples: to learn from.
        count: how many trees.
        options: of each.
        watch: called with the number of trees and the newest; growing ends when it returns true.
    """
    generator = torch.Generator().manual_seed(options.seed)
    bins, residual, weight = samples
    number, features = bins.shape
    few = max(1, round(options.columns * features)), max(1, round(options.rows * number))
    trees: list[Tree] = []
    for i in range(count):
        rows = torch.randperm(number, generator=generator)[: few[1]].to(bins.device)
        choices = [
            torch.randperm(features, generator=generator)[: few[0]].to(bins.device)
            for _ in range(options.depth)
        ]
        part = Samples(bins[rows], residual[rows], weight[rows])
        trees.append(grow(part, options, choices))
        residual = residual - trees[-1](bins)
        if watch(i + 1, trees[-1]):
            break
    return trees


def grow(samples: Samples, options: BoostingOptions, choices: Sequence[Tensor]) -> Tree:
    """One tree; level k compares one of the features choices[k]."""
    bins, residual, weight = samples
    pull = residual * weight
    leaf = torch.zeros(len(bins), dtype=torch.int64, device=bins.device)
    taken = []
    for level, columns in enumerate(choices):
        gain = _gains(bins[:, columns], pull, weight, leaf, 2**level, options)
        best = int(gain.argmax())
        feature, threshold = columns[best // (options.bins - 1)], best % (options.bins - 1)
        leaf = 2 * leaf + (bins[:, feature] > threshold)
        taken.append((int(feature), threshold))
    leaves = 2 ** len(choices)
    total = pull.new_zeros(leaves).index_add(0, leaf, pull)
    number = weight.new_zeros(leaves).index_add(0, leaf, weight)
    value = options.shrinkage * total / (number + options.regularisation).clamp(min=1e-9)
    feature_of, threshold_of = torch.tensor(taken, device=bins.device).unbind(1)
    return Tree(feature_of, threshold_of, value)


def _gains(
    bins: Tensor, pull: Tensor, weight: Tensor, leaf: Tensor, leaves: int, options: BoostingOptions
) -> Tensor:
    """[features · (bins − 1)]: Σ over leaves of G²/(n + λ) left and right of each threshold."""
    q, size = bins.shape[1], options.bins
    base = torch.arange(q, device=bins.device) * leaves * size
    place = (base + leaf[:, None] * size + bins).flatten()

    def histogram(values: Tensor) -> Tensor:
        spread = values.double()[:, None].expand(-1, q).flatten()
        totals = spread.new_zeros(q * leaves * size).index_add_(0, place, spread)
        return totals.view(q, leaves, size).cumsum(2)

    sums, number = histogram(pull), histogram(weight)
    left, right = sums[..., :-1], sums[..., -1:] - sums[..., :-1]
    on_left, on_right = number[..., :-1], number[..., -1:] - number[..., :-1]
    more = max(options.regularisation, 1e-9)  # an empty side gains nothing
    gain = left.square() / (on_left + more) + right.square() / (on_right + more)
    return gain.sum(1).flatten()
