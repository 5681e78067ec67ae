"""Gradient-boosted trees on top of a ridge regression.

The trees (mgsym.trees) see the scores of an atom's features along latent directions, and fit what
the ridge regression on all features leaves over. How many trees are worth having is found with
the last of the training glasses left out; then everything is fitted again with all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mgsym.errors import UsageError
from mgsym.graph import Graph
from mgsym.models.direct import Progress, labels_weigh
from mgsym.models.latent import LatentModel, LatentOptions
from mgsym.splits import glass_of
from mgsym.trees import Tree, TreeSettings, bin_edges, binned, boost


@dataclass(frozen=True)
class BoostingOptions(LatentOptions):
    """Options of boosted trees.

    Attributes:
        trees: how many at most; as many as that where a single glass trains.
        patience: trees without a better one after which growing stops.
        depth, bins, shrinkage, rows, columns, regularisation: of the trees
            (mgsym.trees.TreeSettings).
        seed: of the rows and columns that trees are grown from.
    """

    trees: int = 400
    patience: int = 50
    depth: int = 5
    bins: int = 32
    shrinkage: float = 0.05
    rows: float = 0.5
    columns: float = 0.5
    regularisation: float = 20.0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, low in (("trees", 1), ("patience", 1), ("depth", 1), ("bins", 2)):
            if getattr(self, name) < low:
                raise UsageError(f"model.{name} is {getattr(self, name)}, expected at least {low}")
        for name in ("shrinkage", "rows", "columns"):
            if not 0 < getattr(self, name) <= 1:
                raise UsageError(
                    f"model.{name} is {getattr(self, name)}, expected above 0, at most 1"
                )

    @property
    def settings(self) -> TreeSettings:
        """Of the trees."""
        return TreeSettings(
            self.depth, self.bins, self.shrinkage, self.rows, self.columns, self.regularisation
        )


class Boosting(LatentModel):
    """Boosted trees with BoostingOptions."""

    source = "Friedman 2001 (Ann. Statist. 29, 1189)"
    options: BoostingOptions
    edges: Tensor
    feature: Tensor
    threshold: Tensor
    value: Tensor
    grown: Tensor

    def __init__(self, species: tuple[str, ...], cutoff: float, options: BoostingOptions) -> None:
        super().__init__(species, cutoff, options)
        trees, depth = options.trees, options.depth
        self.register_buffer("edges", torch.zeros(options.directions, options.bins - 1))
        self.register_buffer("feature", torch.zeros(trees, depth, dtype=torch.int64))
        self.register_buffer("threshold", torch.zeros(trees, depth, dtype=torch.int64))
        self.register_buffer("value", torch.zeros(trees, 2**depth))
        self.register_buffer("grown", torch.zeros((), dtype=torch.int64))

    def fit_features(self, graphs: Sequence[Graph], progress: Progress) -> None:
        first, most = len(graphs), self.options.trees
        steps = first + 2 * most
        glasses = self.moments(graphs, lambda done: progress(done, steps))
        count = most
        if len(glasses) > 1:
            last = list(glasses)[-1]
            self.fit_linear([m for glass, m in glasses.items() if glass != last])
            inner = [g for g in graphs if glass_of(g) != last]
            outer = [g for g in graphs if glass_of(g) == last]
            count = self._worthwhile(inner, outer, lambda i: progress(first + i, steps))
        self.fit_linear(list(glasses.values()))
        begun = steps - count
        self._keep(self._grow(graphs, count, lambda i, _: progress(begun + i, steps)))
        progress(steps, steps)

    def _worthwhile(
        self, graphs: Sequence[Graph], left_out: Sequence[Graph], tell: Callable[[int], None]
    ) -> int:
        """How many trees, grown on some glasses, predict another one best."""
        scores: list[Tensor] = []
        targets: list[Tensor] = []
        for graph in left_out:
            z, left = self._sample(graph)
            scores.append(z)
            targets.append(left - left.mean())
        bins: list[Tensor] = []
        best, best_count = float(torch.cat(targets).square().sum()), 0

        def watch(done: int, tree: Tree) -> bool:
            nonlocal best, best_count
            if not bins:
                bins.extend(binned(z, self.edges) for z in scores)
            for rows, target in zip(bins, targets, strict=True):
                value = tree(rows)
                target -= value - value.mean()
            error = float(torch.cat(targets).square().sum())
            if error < best:
                best, best_count = error, done
            tell(done)
            return done - best_count >= self.options.patience

        self._grow(graphs, self.options.trees, watch)
        return best_count

    def _grow(
        self, graphs: Sequence[Graph], count: int, watch: Callable[[int, Tree], bool | None]
    ) -> list[Tree]:
        samples = [self._sample(graph) for graph in graphs]
        z = torch.cat([scores for scores, _ in samples])
        self.edges.copy_(bin_edges(z, self.options.bins))
        residual = torch.cat([left for _, left in samples])
        generator = torch.Generator().manual_seed(self.options.seed)
        weight = torch.cat([labels_weigh(graph) for graph in graphs])
        bins = binned(z, self.edges)
        return boost(bins, residual, weight, count, self.options.settings, generator, watch)

    def _sample(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """Scores of labelled atoms, and what the ridge regression leaves over."""
        linear, z = self.project(graph)
        known = graph.labelled
        return z[known], (self.standard_target(graph) - linear)[known]

    def _keep(self, trees: Sequence[Tree]) -> None:
        self.grown.fill_(len(trees))
        for i, tree in enumerate(trees):
            self.feature[i], self.threshold[i] = tree.feature, tree.threshold
            self.value[i] = tree.value

    def standardised(
        self, graph: Graph, edge_weight: Tensor | None, attention_scale: Tensor | None
    ) -> Tensor:
        total, z = self.project(graph)
        bins = binned(z, self.edges)
        for i in range(int(self.grown)):
            total = total + Tree(self.feature[i], self.threshold[i], self.value[i])(bins)
        return total
