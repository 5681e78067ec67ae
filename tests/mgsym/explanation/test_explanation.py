"""Explaining a model whose reasons are known."""

from __future__ import annotations

import pytest

from mgsym.explanation import explain


@pytest.mark.parametrize("method", ["edge-mask", "gradient"])
def test_finds_the_planted_edges(lattice, planted, method):
    model, truth = planted
    found = explain(
        lattice,
        model,
        43,
        method,
        topk=len(truth),
        device="cpu",
        **({"budget": 20} if method == "edge-mask" else {}),
    )
    assert len(truth & set(found.edges.tolist())) / len(truth) >= 0.95
