"""The ridge regression that has a share in a network's prediction."""

from __future__ import annotations

import pytest
import torch

from mgsym.explanation import evaluate_explanation, explain
from mgsym.graph import Graph, build_graph
from mgsym.models import create_model
from mgsym.models.base import BarrierModel
from mgsym.prediction import predict_graph
from mgsym.structure import Structure

SMALL = {"width": 8, "heads": (1,), "decoder_layers": 1, "edge_input": "length", "l_max": 2}
SHARE = 0.25


def graph(seed: int, boxes: int = 4) -> Graph:
    generator = torch.Generator().manual_seed(seed)
    steps = torch.arange(boxes, dtype=torch.float64) * 2.6
    place = torch.cartesian_prod(steps, steps, steps)
    place = place + 0.9 * torch.rand(len(place), 3, generator=generator, dtype=torch.float64)
    types = torch.randint(2, (len(place),), generator=generator)
    cell = 2.6 * boxes * torch.eye(3, dtype=torch.float64)
    structure = Structure(place, cell, types, ("Cu", "Zr"), name=f"glass{seed}")
    barrier = 1.5 + 0.3 * torch.randn(len(place), generator=generator)
    return build_graph(structure.with_column("barrier", barrier, "eV"), 3.6)


@pytest.fixture(scope="module")
def model() -> BarrierModel:
    options = {**SMALL, "node_input": "descriptors", "ridge_share": SHARE}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_model("symgnn", ("Cu", "Zr"), 3.6, options)
    model.fit_statistics([graph(seed) for seed in range(3)])
    return model.eval()


def test_the_prediction_is_the_weighted_mean(model: BarrierModel) -> None:
    one = graph(5)
    with torch.no_grad():
        both = model.standardised(one, None)
        ridge_alone = model.ridge.standardised(one, None)
        model.ridge, ridge = None, model.ridge
        alone = model.standardised(one, None)
        torch.testing.assert_close(both, (1 - SHARE) * alone + SHARE * ridge_alone)
        model.ridge = ridge
    assert float(ridge_alone.std()) > 0.1


def test_the_network_learns_alone(model: BarrierModel) -> None:
    """In training the regression does not show, whatever it says."""
    one = graph(5)
    losses = []
    for shift in (0.0, 3.0):
        model.ridge.intercept += shift  # type: ignore[union-attr, operator]
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model.train()
            losses.append(model.standardised(one, None).square().mean().item())
            model.eval()
        model.ridge.intercept -= shift  # type: ignore[union-attr, operator]
    assert losses[0] == losses[1]


def test_the_regression_is_the_model_ridge(model: BarrierModel) -> None:
    graphs = [graph(seed) for seed in range(3)]
    ridge = create_model("ridge", ("Cu", "Zr"), 3.6, {})
    ridge.fit(graphs)  # type: ignore[operator]
    one = graph(6)
    with torch.no_grad():
        expected = ridge.standardised(one, None)
        torch.testing.assert_close(model.ridge.standardised(one, None), expected)


def test_pieces_and_explanations_see_all_of_it(model: BarrierModel) -> None:
    """A part of a structure would not tell the regression enough; it is asked before."""
    one = graph(7, boxes=7)
    torch.testing.assert_close(
        predict_graph(model, one, max_edges=one.num_edges // 3), predict_graph(model, one),
        atol=2e-5, rtol=1e-5,
    )  # fmt: skip
    node = 20
    found = explain(one, model, node, "gradient")
    assert found.prediction == pytest.approx(float(predict_graph(model, one)[node]), abs=1e-4)
    assert evaluate_explanation(one, model, found, sizes=[len(found)]).rows
