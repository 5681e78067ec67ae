"""Boosted trees on planted steps."""

from __future__ import annotations

import pytest
import torch

from mgsym.models.regression.boosting import (
    BoostingOptions,
    Samples,
    Tree,
    bin_edges,
    binned,
    boost,
    grow,
)

ALL = {"rows": 1.0, "columns": 1.0}
PLAIN = BoostingOptions(depth=2, bins=8, shrinkage=1.0, regularisation=0.0, **ALL)


def uniform(count: int = 800, features: int = 3) -> torch.Tensor:
    return torch.rand(count, features, generator=torch.Generator().manual_seed(0))


def ignore(done: int, tree: Tree) -> None:
    return None


def test_bins_are_equally_full_and_open_at_the_ends() -> None:
    x = uniform()
    edges = bin_edges(x, 8)
    bins = binned(x, edges)
    assert edges.shape == (3, 7)
    assert (torch.bincount(bins[:, 1], minlength=8) - 100).abs().max() <= 1
    far = binned(torch.tensor([[-9.0, 9.0, 0.5]]), edges)
    assert far[0].tolist() == [0, 7, int((edges[2] < 0.5).sum())]


def test_a_tree_reads_its_bits_from_the_top() -> None:
    tree = Tree(torch.tensor([2, 0]), torch.tensor([3, 5]), torch.tensor([0.0, 1.0, 2.0, 3.0]))
    bins = torch.tensor([[5, 0, 3], [6, 0, 3], [0, 0, 4], [7, 0, 7]])
    assert tree(bins).tolist() == [0.0, 1.0, 2.0, 3.0]


def test_one_tree_finds_two_planted_steps() -> None:
    bins = binned(uniform(), bin_edges(uniform(), 8))
    planted = Tree(torch.tensor([1, 2]), torch.tensor([4, 2]), torch.tensor([0.0, 1.0, 5.0, 6.5]))
    every = [torch.arange(3)] * 2
    found = grow(Samples(bins, planted(bins), torch.ones(800)), PLAIN, every)
    assert (found.feature.tolist(), found.threshold.tolist()) == ([1, 2], [4, 2])
    torch.testing.assert_close(found.value, planted.value)
    # a leaf of n samples is pulled towards zero as by 30 more samples of zero
    weight = torch.rand(800, generator=torch.Generator().manual_seed(4))
    options = BoostingOptions(depth=2, bins=8, shrinkage=0.5, regularisation=30.0, **ALL)
    damped = grow(Samples(bins, planted(bins), weight), options, every)
    marks = Tree(damped.feature, damped.threshold, torch.arange(4))(bins)
    for leaf in range(4):
        own, pull = weight[marks == leaf], (weight * planted(bins))[marks == leaf]
        expected = 0.5 * float(pull.sum()) / (float(own.sum()) + 30)
        assert float(damped.value[leaf]) == pytest.approx(expected, rel=1e-5)


def test_boosting_learns_what_no_sum_of_features_is() -> None:
    x = uniform(4000)
    y = torch.where((x[:, 0] > 0.5) ^ (x[:, 1] > 0.375), 1.0, -1.0)
    bins = binned(x, bin_edges(x, 16))
    options = BoostingOptions(depth=3, bins=16, shrinkage=0.3, columns=1.0, regularisation=5.0)
    trees = boost(Samples(bins[:3000], y[:3000], torch.ones(3000)), 60, options, ignore)
    predicted = torch.stack([tree(bins[3000:]) for tree in trees]).sum(0)
    assert (predicted.sign() == y[3000:]).float().mean() > 0.97


def test_growing_ends_when_told_and_repeats_with_its_seed() -> None:
    x = uniform()
    bins, y = binned(x, bin_edges(x, 8)), x.sum(1)

    def run(seed: int) -> list[Tree]:
        options = BoostingOptions(depth=2, bins=8, columns=0.5, regularisation=1.0, seed=seed)
        return boost(Samples(bins, y, torch.ones(800)), 30, options, lambda done, _: done == 7)

    first, again, other = run(1), run(1), run(2)
    assert len(first) == 7
    assert all(torch.equal(a.value, b.value) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a.value, b.value) for a, b in zip(first, other, strict=True))
