"""How faithful explanations are."""

from __future__ import annotations

import pytest
import torch

from mgsym.errors import InputError, UsageError
from mgsym.explanation import evaluate_explanation, evaluate_explanations, explain
from mgsym.explanation.computation_graph import full_prediction, model_computation_graph
from mgsym.explanation.faithfulness import KINDS, NodeFaithfulness, without_and_alone
from mgsym.graph import Graph
from mgsym.models.base import BarrierModel


def test_all_edges_suffice_and_none_are_not_needed(
    lattice: Graph, planted: BarrierModel, node: int
) -> None:
    planted.eval()
    part = model_computation_graph(lattice, planted, node)
    full = full_prediction(planted, part)
    every, none = torch.arange(part.bonds), torch.arange(0)
    assert without_and_alone(planted, part, full, every)[0] == pytest.approx(0, abs=1e-6)
    assert without_and_alone(planted, part, full, none)[1] == pytest.approx(0, abs=1e-6)
    # none alone leave the mean label, which is what all deleted leave
    lost = full - float(planted.label_mean)
    assert without_and_alone(planted, part, full, none)[0] == pytest.approx(lost, rel=1e-5)
    assert without_and_alone(planted, part, full, every)[1] == pytest.approx(lost, rel=1e-5)


def test_planted_edges_beat_random_ones(
    lattice: Graph, planted: BarrierModel, truth: set[int], node: int
) -> None:
    found = explain(lattice, planted, node, "gradient")
    measured = evaluate_explanation(lattice, planted, found, sizes=(20, 5, 20))
    few, row = measured.rows
    assert (few.k, row.k) == (5, 20)
    assert row.sufficiency == pytest.approx(0, abs=1e-6)
    lost = found.prediction - float(planted.label_mean)
    assert row.necessity == pytest.approx(lost, rel=1e-5)
    assert 0 < few.sufficiency < few.random_sufficiency
    assert row.random_sufficiency > 0.9 * lost
    assert row.random_necessity < 0.1 * lost


def test_energies_are_told_in_label_deviations_too(
    lattice: Graph, planted: BarrierModel, node: int
) -> None:
    measured = evaluate_explanation(lattice, planted, explain(lattice, planted, node, "gradient"))
    assert [row.k for row in measured.rows] == [10, 20, 50, 100]
    for row, relative in zip(measured.rows, measured.in_label_sd(), strict=True):
        assert relative.k == row.k
        assert relative.necessity == pytest.approx(row.necessity / float(planted.label_scale))
    told = measured.to_dict()
    assert told["rows"][0]["necessity_eV"] == measured.rows[0].necessity
    assert told["label_scale_eV"] == pytest.approx(float(planted.label_scale))


def test_only_sizes_that_the_explanation_has(
    lattice: Graph, planted: BarrierModel, node: int
) -> None:
    top = explain(lattice, planted, node, "gradient", topk=30)
    assert [row.k for row in evaluate_explanation(lattice, planted, top).rows] == [10, 20]


def test_the_seed_draws_the_random_edges(lattice: Graph, planted: BarrierModel, node: int) -> None:
    found = explain(lattice, planted, node, "gradient")
    first, again, other = (
        evaluate_explanation(lattice, planted, found, seed=seed) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_another_graph_is_refused(lattice: Graph, planted: BarrierModel, node: int) -> None:
    found = explain(lattice, planted, node, "random")
    fewer = lattice.with_edges(torch.arange(lattice.num_edges) % 2 == 0)
    with pytest.raises(InputError, match="made with another graph or another model"):
        evaluate_explanation(fewer, planted, found)
    with pytest.raises(UsageError, match="draws is 0"):
        evaluate_explanation(lattice, planted, found, draws=0)


def test_planted_edges_beside_all_kinds_of_others(
    lattice: Graph, planted: BarrierModel, truth: set[int], node: int
) -> None:
    worth = evaluate_explanations(
        lattice, planted, [node], "gradient", k=len(truth), sizes=(5,), draws=2
    )
    (found,) = worth.nodes
    lost = explain(lattice, planted, node, "random").prediction - float(planted.label_mean)
    lost /= float(planted.label_scale)
    assert found.sizes == (5, 20)
    measures = found.measures()
    assert measures["sufficiency"]["explanation"] == pytest.approx(0, abs=1e-5)
    assert measures["necessity"]["explanation"] == pytest.approx(lost, rel=1e-4)
    assert measures["necessity"]["matched"] == pytest.approx(0, abs=1e-5)  # truth is excluded
    assert set(measures["insertion_area"]) == set(KINDS)
    assert worth.ratios()["necessity"][0] > 100
    assert worth.agreement() is None
    assert worth.to_dict()["nodes"][0]["node"] == node
    with pytest.raises(UsageError, match="no node"):
        evaluate_explanations(lattice, planted, [])
    with pytest.raises(UsageError, match="draws is 0"):
        evaluate_explanations(lattice, planted, [node], draws=0)


def test_one_and_several_are_measured_alike(
    lattice: Graph, planted: BarrierModel, node: int
) -> None:
    ours = explain(lattice, planted, node, "gradient")
    one = evaluate_explanation(lattice, planted, ours, sizes=(5, 20), draws=2)
    (beside,) = evaluate_explanations(
        lattice, planted, [node], "gradient", k=20, sizes=(5,), draws=2, explanations=[ours],
        shuffled=False,
    ).nodes  # fmt: skip
    assert (one.k, one.sizes) == (beside.k, beside.sizes)
    assert one.insertion["explanation"] == beside.insertion["explanation"]
    assert one.deletion["explanation"] == beside.deletion["explanation"]
    assert set(beside.insertion) == {"explanation", "matched", "random"}


def test_the_area_is_the_mean_over_log_k() -> None:
    curves = dict.fromkeys(KINDS, (1.0, 3.0, 3.0))
    node = NodeFaithfulness(
        0, 10, (1, 10, 100), curves, curves, curves, curves, 3, 0.2, 0.0, 0.1, None, 0.0
    )
    assert node.measures()["insertion_area"]["explanation"] == pytest.approx((2 + 3) / 2)
    assert node.measures()["sufficiency"]["random"] == 3.0
