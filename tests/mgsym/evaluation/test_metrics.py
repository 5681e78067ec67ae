from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from mgsym.evaluation.metrics import (
    auc,
    extreme_auc,
    noise_ceiling,
    pearson,
    score,
    score_graphs,
    spearman,
)
from mgsym.graph import Graph
from mgsym.rendering.tables import agreement

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


def test_auc_counts_pairs_in_the_right_order() -> None:
    # of six pairs, 3 > 1, 3 > 2, 2 > 1 are right, 2 = 2 is half, 3 < 4 and 2 < 4 are wrong
    chosen = torch.tensor([True, True, False, False, False])
    assert auc(torch.tensor([3.0, 2, 1, 2, 4]), chosen) == pytest.approx(3.5 / 6)
    assert math.isnan(auc(torch.ones(2), torch.ones(2, dtype=torch.bool)))


def test_extreme_atoms_are_a_twentieth() -> None:
    target = torch.arange(40.0)
    two_highest = torch.zeros(40)
    two_highest[38:] = 1
    scores = score(two_highest, target)
    assert scores.auc_high == 1
    assert scores.auc_low == pytest.approx((36 / 38) / 2 + 2 / 38)  # 36 ties and 2 above
    assert extreme_auc(torch.zeros(40), target) == 0.5
    assert extreme_auc(-target, target) == 0
    for nothing in (target[:1], torch.ones(40)):
        assert math.isnan(extreme_auc(nothing, nothing))
    assert math.isnan(extreme_auc(torch.full((40,), NAN), target))


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
    ceiling, low, high, _ = noise_ceiling(label, torch.full_like(label, 0.5))
    assert low < pearson(truth, label) < high
    assert ceiling == pytest.approx(1 / math.sqrt(1.25), abs=2e-3)
    assert ceiling == pytest.approx(pearson(truth, label), abs=3e-3)
    assert math.isnan(noise_ceiling(label, torch.full_like(label, NAN)).pearson)


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


def test_atoms_without_a_standard_error_count_in_the_ceiling() -> None:
    generator = torch.Generator().manual_seed(1)
    target = torch.randn(400, generator=generator)
    stderr = 0.4 + 0.2 * torch.rand(400, generator=generator)
    full = noise_ceiling(target, stderr)
    some = torch.where(torch.arange(400) % 10 == 0, NAN, stderr)
    part = noise_ceiling(target, some)
    # each of them as the least well known tenth of the others
    worst = stderr[torch.arange(400) % 10 != 0].double().square().sort().values[-36:].mean()
    expected = (some.double().square().nansum() + 40 * worst) / 400
    assert part.rmse**2 == pytest.approx(float(expected), rel=1e-5)
    assert part.pearson < full.pearson
    assert part.low < part.pearson < part.high


def test_the_interval_holds_what_a_perfect_predictor_reaches() -> None:
    """At least 19 times of 20, to counting errors, with four searches for each of 120 atoms."""
    generator = torch.Generator().manual_seed(0)
    held, width = 0, 0.0
    for _ in range(200):
        truth = 0.3 * torch.randn(120, generator=generator)
        searches = truth[:, None] + 0.5 * torch.randn(120, 4, generator=generator)
        limit = noise_ceiling(searches.mean(1), searches.std(1) / 2)
        held += limit.low <= pearson(truth, searches.mean(1)) <= limit.high
        width += (limit.high - limit.low) / 200
    assert held >= 186
    assert width < 0.35


def test_a_prediction_that_is_no_number_is_not_hidden(make_graph: Callable[..., Graph]) -> None:
    graphs = [make_graph("a"), make_graph("b", seed=1)]
    wrong = [torch.full_like(g.target, NAN) for g in graphs]
    found = score_graphs(wrong, graphs)
    assert math.isnan(found.mean_pearson)
    assert found.as_dict()["mean_pearson"] is None
    _, rows = agreement({"test": found})
    assert "nan" in rows[0]
    constant = score_graphs([torch.zeros_like(g.target) for g in graphs], graphs)
    assert constant.mean_pearson == 0.0
