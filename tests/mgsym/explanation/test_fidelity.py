"""What an explanation can prove."""

from __future__ import annotations

import pytest
import torch

from mgsym.errors import InputError, UsageError
from mgsym.explanation import explain, fidelity
from mgsym.explanation.computation_graph import full_prediction, model_computation_graph
from mgsym.explanation.fidelity import without_and_alone
from mgsym.graph import Graph
from mgsym.models.base import BarrierModel


def test_all_edges_suffice_and_none_are_not_needed(
    lattice: Graph, planted: BarrierModel, node: int
) -> None:
    planted.eval()
    part = model_computation_graph(lattice, planted, node)
    full = full_prediction(planted, part)
    every, none = torch.arange(len(part.edges)), torch.arange(0)
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
    measured = fidelity(lattice, planted, found, sizes=(20, 5, 20))
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
    measured = fidelity(lattice, planted, explain(lattice, planted, node, "gradient"))
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
    assert [row.k for row in fidelity(lattice, planted, top).rows] == [10, 20]


def test_the_seed_draws_the_random_edges(lattice: Graph, planted: BarrierModel, node: int) -> None:
    found = explain(lattice, planted, node, "gradient")
    first, again, other = (fidelity(lattice, planted, found, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_another_graph_is_refused(lattice: Graph, planted: BarrierModel, node: int) -> None:
    found = explain(lattice, planted, node, "random")
    fewer = lattice.with_edges(torch.arange(lattice.num_edges) % 2 == 0)
    with pytest.raises(InputError, match="made with another graph or another model"):
        fidelity(fewer, planted, found)
    with pytest.raises(UsageError, match="draws is 0"):
        fidelity(lattice, planted, found, draws=0)
