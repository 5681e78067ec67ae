"""Explainers, on models whose reasons are known."""

from __future__ import annotations

import copy

import pytest
import torch

from mgsym.errors import InputError, UsageError
from mgsym.explanation import METHODS, explain, method_settings, parse_settings
from mgsym.explanation.methods.masks import threshold
from mgsym.graph import Graph
from mgsym.models.base import BarrierModel

QUICK: dict[str, dict[str, int]] = {
    "edge-mask": {"steps": 3, "exchanges": 2},
    "sampled-mask": {"steps": 3, "draws": 4},
    "soft-mask": {"steps": 3},
    "parameterised-mask": {"steps": 3, "atoms": 2},
    "leave-one-out": {"candidates": 20},
}
PLAIN = [name for name in METHODS if name != "attention"]  # which the planted model lacks
DETERMINISTIC = ("weakening", "gradient", "integrated-gradients", "leave-one-out")


def hits(edges: torch.Tensor, truth: set[int]) -> float:
    """Precision of a list of edges."""
    return len(truth & set(edges.tolist())) / len(edges)


@pytest.mark.parametrize("method", [name for name in PLAIN if name != "random"])
def test_planted_edges_are_found(
    lattice: Graph, planted: BarrierModel, truth: set[int], node: int, method: str
) -> None:
    found = explain(lattice, planted, node, method, topk=len(truth))
    assert hits(found.edges, truth) >= 0.95


def test_planted_edges_are_found_through_attention_scale(
    lattice: Graph, planted: BarrierModel, truth: set[int], node: int
) -> None:
    found = explain(lattice, planted, node, "soft-mask", topk=len(truth), through="attention_scale")
    assert hits(found.edges, truth) >= 0.95


def test_masks_see_through_slopes_that_mislead(
    lattice: Graph, misleading: BarrierModel, truth: set[int], node: int
) -> None:
    """What deleting an edge does is not what its gradient says."""
    by_slope = explain(lattice, misleading, node, "gradient", topk=len(truth))
    assert hits(by_slope.edges, truth) < 0.5
    for method in ("edge-mask", "sampled-mask", "integrated-gradients"):
        found = explain(lattice, misleading, node, method, topk=len(truth))
        assert hits(found.edges, truth) >= 0.95


def test_random_edges_are_not_the_planted_ones(
    lattice: Graph, planted: BarrierModel, truth: set[int], node: int
) -> None:
    assert hits(explain(lattice, planted, node, "random", topk=20).edges, truth) < 0.3


def test_gradient_is_the_slope_of_the_prediction(
    lattice: Graph, planted: BarrierModel, truth: set[int], node: int
) -> None:
    """An edge that arrives at the node carries strength · (1 + what its source heard)."""
    found = explain(lattice, planted, node, "gradient")
    with torch.no_grad():
        whole = planted.eval()(lattice)[node]
        for place in ((found.hop == 1) & (found.importance > 0)).nonzero().squeeze(1):
            keep = torch.ones(lattice.num_edges)
            keep[found.edges[place]] = 0
            lost = whole - planted(lattice, keep)[node]
            assert found.importance[place] == pytest.approx(float(lost), rel=1e-4)


@pytest.mark.parametrize("method", PLAIN)
def test_every_method_weighs_every_edge_of_the_cone(
    lattice: Graph, planted: BarrierModel, node: int, method: str
) -> None:
    found = explain(lattice, planted, node, method, **QUICK.get(method, {}))
    assert found.method == method
    assert len(found) == len(found.importance) == int((found.hop >= 1).sum())
    assert torch.isfinite(found.importance).all()
    with torch.no_grad():
        whole = planted.eval()(lattice)[node]
    assert found.prediction == pytest.approx(float(whole), abs=1e-6)
    if method.endswith("mask"):
        assert 0 <= found.importance.min() <= found.importance.max() <= 1


@pytest.mark.parametrize("method", PLAIN)
def test_the_seed_decides(lattice: Graph, planted: BarrierModel, node: int, method: str) -> None:
    first, again, other = (
        explain(lattice, planted, node, method, seed=seed, **QUICK.get(method, {}))
        for seed in (0, 0, 1)
    )
    assert torch.equal(first.importance, again.importance)
    assert torch.equal(first.importance, other.importance) == (method in DETERMINISTIC)


@pytest.mark.parametrize("method", PLAIN)
def test_the_model_is_given_back_as_it_was(
    lattice: Graph, planted: BarrierModel, node: int, method: str
) -> None:
    planted.train()
    planted.strength.requires_grad_(False)  # type: ignore[union-attr]
    before, weights = torch.get_rng_state(), copy.deepcopy(planted.state_dict())
    threads = torch.get_num_threads()
    explain(lattice, planted, node, method, **QUICK.get(method, {}))
    assert planted.training
    assert planted.dropout.training  # type: ignore[union-attr]
    assert not planted.strength.requires_grad  # type: ignore[union-attr]
    planted.strength.requires_grad_(True)  # type: ignore[union-attr]
    explain(lattice, planted, node, method, **QUICK.get(method, {}))
    assert planted.strength.requires_grad  # type: ignore[union-attr]
    assert planted.strength.grad is None  # type: ignore[union-attr]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    for name, values in planted.state_dict().items():
        assert torch.equal(values, weights[name])


def test_the_model_is_given_back_after_an_error(lattice: Graph, planted: BarrierModel) -> None:
    planted.train()
    with pytest.raises(UsageError):
        explain(lattice, planted, 999)
    assert planted.training
    assert all(p.requires_grad for p in planted.parameters())


def test_initialisations_give_a_spread(lattice: Graph, planted: BarrierModel, node: int) -> None:
    for method in ("edge-mask", "sampled-mask"):
        several = explain(lattice, planted, node, method, steps=5, initialisations=2)
        assert several.spread is not None
        assert several.spread.max() > 0
        assert explain(lattice, planted, node, method, steps=5, initialisations=1).spread is None


def test_the_mask_keeps_to_its_budget(lattice: Graph, planted: BarrierModel, node: int) -> None:
    found = explain(lattice, planted, node, "edge-mask", budget=30, steps=20)
    assert float(found.importance.sum()) == pytest.approx(30, rel=1e-3)
    assert found.settings["budget"] == 30
    assert explain(lattice, planted, node, "edge-mask", topk=7, steps=2).settings["budget"] == 7


def test_a_budget_beyond_all_edges_keeps_all(
    lattice: Graph, planted: BarrierModel, node: int
) -> None:
    found = explain(lattice, planted, node, "edge-mask", budget=10**6, steps=2)
    assert found.importance.min() > 0.99
    assert found.masked_prediction == pytest.approx(found.prediction, abs=1e-3)


def test_threshold_solves_for_the_number_of_edges() -> None:
    logits = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 4
    for total in (0.5, 50.0, 900.0):
        kept = (logits - threshold(logits, total)).sigmoid()
        assert float(kept.sum()) == pytest.approx(total, rel=1e-4)


def test_progress_counts_all_steps(lattice: Graph, planted: BarrierModel, node: int) -> None:
    for method, expected in (
        ("edge-mask", [(1, 2), (2, 2)]),
        ("soft-mask", [(1, 4), (2, 4), (3, 4), (4, 4)]),
    ):
        told: list[tuple[float, float]] = []

        def note(done: float, total: float, to: list = told, **info: object) -> None:  # type: ignore[type-arg]
            to.append((done, total))
            assert "error" in info

        explain(lattice, planted, node, method, steps=2, initialisations=2, progress=note)
        assert told == expected


def test_what_cannot_be_explained_is_refused(lattice: Graph, planted: BarrierModel) -> None:
    with pytest.raises(UsageError, match=r"no node 216: lattice has nodes 0 … 215"):
        explain(lattice, planted, 216)
    with pytest.raises(UsageError, match="no node -1"):
        explain(lattice, planted, -1)
    with pytest.raises(
        UsageError, match="no method is called 'mask'; there are weakening, edge-mask, sampl"
    ):
        explain(lattice, planted, 0, "mask")
    with pytest.raises(UsageError, match="method gradient has no setting 'steps'; it has none"):
        explain(lattice, planted, 0, "gradient", steps=3)
    with pytest.raises(UsageError, match="no setting 'stpes'; it has budget, steps"):
        explain(lattice, planted, 0, "edge-mask", stpes=3)
    with pytest.raises(UsageError, match="draws is 1, expected at least 2"):
        explain(lattice, planted, 0, "sampled-mask", draws=1)
    with pytest.raises(UsageError, match="asked for the 0 most important"):
        explain(lattice, planted, 0, topk=0)
    with pytest.raises(UsageError, match="through is 'x', expected edge_weight or attention_sc"):
        explain(lattice, planted, 0, "soft-mask", through="x")
    with pytest.raises(UsageError, match="a mask value between 0 and 1"):
        explain(lattice, planted, 0, "soft-mask", start=1.0)
    with pytest.raises(InputError, match=r"cutoff is 2 Å, the model was made for 1\.5 Å"):
        explain(lattice.replace(cutoff=2.0), planted, 0)
    with pytest.raises(InputError, match="no such run"):
        explain(lattice, "nowhere", 0)


def test_atoms_and_models_without_edges_are_refused(
    lattice: Graph, planted: BarrierModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    lonely = lattice.with_edges(lattice.destination != 5)
    with pytest.raises(UsageError, match=r"atom 5 has no neighbour within 1\.5 Å"):
        explain(lonely, planted, 5)
    monkeypatch.setattr(planted, "uses_edges", False)
    with pytest.raises(UsageError, match="no use of edges"):
        explain(lattice, planted, 5)


def test_settings_are_read_as_their_defaults_types() -> None:
    texts = ["steps=7", "size=0.5", "through=attention_scale"]
    assert parse_settings("soft-mask", texts) == {
        "steps": 7,
        "size": 0.5,
        "through": "attention_scale",
    }
    assert method_settings("sampled-mask", {"steps": 7})["draws"] == 32
    with pytest.raises(UsageError, match=r"steps is '2\.5', expected int"):
        parse_settings("edge-mask", ["steps=2.5"])
    with pytest.raises(UsageError, match="'steps' is no setting: expected NAME=VALUE"):
        parse_settings("edge-mask", ["steps"])
