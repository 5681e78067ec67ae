from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from mgsym.graph import Graph
from mgsym.metrics import noise_ceiling, pearson, score, score_graphs, spearman

NAN = float("nan")


def test_known_values() -> None:
    # deviations of t: −1.5 −.5 .5 1.5; errors 0 0 0 2
    scores = score(torch.tensor([1.0, 2, 3, 6]), torch.tensor([1.0, 2, 3, 4]))
    assert scores.count == 4
    assert scores.pearson == pytest.approx(8 / math.sqrt(14 * 5))
    assert scores.spearman == pytest.approx(1)
    assert scores.mae == pytest.approx(0.5)
    assert scores.rmse == pytest.approx(1.0)
    assert scores.r2 == pytest.approx(1 - 4 / 5)
    assert scores.bias == pytest.approx(0.5)
    assert math.isnan(scores.ceiling)


def test_ties_share_their_rank() -> None:
    # ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4
    a, b = torch.tensor([1.0, 5, 5, 9]), torch.tensor([1.0, 2, 3, 4])
    assert spearman(a, b) == pytest.approx(4.5 / math.sqrt(4.5 * 5))


def test_pearson_is_numpys_and_stable_far_from_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 1000, generator=generator)
    assert pearson(a, b) == pytest.approx(np.corrcoef(a.numpy(), b.numpy())[0, 1], abs=1e-6)
    shifted = a.double() + 1e6
    assert pearson(shifted, b) == pytest.approx(pearson(a, b), abs=1e-6)


def test_unlabelled_atoms_do_not_count() -> None:
    with_gap = score(torch.tensor([1.0, 50, 3, 2]), torch.tensor([1.0, NAN, 2, 3]))
    assert with_gap == score(torch.tensor([1.0, 3, 2]), torch.tensor([1.0, 2, 3]))


@pytest.mark.parametrize("atoms", [0, 1, 5])
def test_constants_and_nothing_give_nan(atoms: int) -> None:
    scores = score(torch.full((atoms,), 1.7), torch.full((atoms,), 0.1))
    assert math.isnan(scores.pearson)
    assert math.isnan(scores.spearman)
    assert math.isnan(scores.r2)
    assert scores.count == atoms
    assert atoms == 0 or scores.bias == pytest.approx(1.6)


def test_noise_ceiling_of_a_planted_signal() -> None:
    generator = torch.Generator().manual_seed(1)
    truth = torch.randn(200_000, generator=generator, dtype=torch.float64)
    label = truth + 0.5 * torch.randn(200_000, generator=generator, dtype=torch.float64)
    ceiling = noise_ceiling(label, torch.full_like(label, 0.5))
    assert ceiling == pytest.approx(1 / math.sqrt(1.25), abs=2e-3)
    assert ceiling == pytest.approx(pearson(truth, label), abs=3e-3)
    assert math.isnan(noise_ceiling(label, torch.full_like(label, NAN)))


def test_pooled_flatters_where_structures_differ(make_graph: Callable[..., Graph]) -> None:
    graphs = [make_graph("a"), make_graph("b", seed=1)]
    graphs[1] = graphs[1].replace(target=graphs[1].target + 10)
    # a model that knows the structure but not the atom
    guesses = [g.target.mean() + 0.01 * torch.arange(g.num_nodes) for g in graphs]
    scores = score_graphs(guesses, graphs)
    assert scores.pooled.pearson > 0.95
    assert abs(scores.mean_pearson) < 0.3
    assert scores.mean_pearson == pytest.approx(
        (scores.structures["a"].pearson + scores.structures["b"].pearson) / 2
    )
    assert scores.structures["a"].ceiling > 0.9


def test_as_dict_has_no_nan(make_graph: Callable[..., Graph]) -> None:
    graph = make_graph("a")
    plain = score_graphs([torch.ones(graph.num_nodes)], [graph]).as_dict()
    assert plain["pooled"]["pearson"] is None
    assert plain["mean_pearson"] == 0
