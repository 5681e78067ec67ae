"""One order of edges that holds at every k, for the whole prediction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mgsym.errors import UsageError
from mgsym.explanation import Explanation, evaluate_explanation, explain
from mgsym.explanation.computation_graph import frozen_eval, model_computation_graph
from mgsym.explanation.ridge_pairs import RidgePairs
from mgsym.explanation.whole_edges import WholeEdges
from mgsym.graph import Graph
from mgsym.models import create_model
from mgsym.models.base import BarrierModel
from mgsym.models.with_ridge import NetworkWithRidge

NODE = 7


@pytest.fixture
def mixed(make_graph: Callable[..., Graph]) -> tuple[Graph, BarrierModel]:
    """A small network with a ridge regression, and what the regression was fitted to."""
    graph = make_graph(side=6, spacing=2.8)
    torch.manual_seed(3)
    graph = graph.replace(target=1.5 + 0.3 * torch.randn(graph.num_nodes))
    options = {"width": 8, "heads": (2, 1), "decoder_layers": 1, "ridge_share": 0.6}
    model = create_model("symgnn", graph.species, graph.cutoff, options)
    model.fit_statistics([graph])
    return graph, model.eval()


def test_weights_count_in_network_and_regression(mixed: tuple[Graph, BarrierModel]) -> None:
    graph, model = mixed
    assert isinstance(model, NetworkWithRidge)
    assert model.ridge is not None
    with frozen_eval(model), torch.no_grad():
        part = model_computation_graph(graph, model, NODE)
        whole = WholeEdges(model, part)
        one = torch.ones(part.bonds)
        assert float(whole.predict(one)) == pytest.approx(float(part.predict(model)), abs=1e-6)
        weight = one.clone()
        own = (part.hop[part.first] == 1).nonzero().squeeze(1)[:3]
        weight[own] = 0.7
        # by hand: the same pairs of the regression, and the network with the regression as it was
        pairs = RidgePairs(model.ridge, graph)
        with torch.enable_grad():
            values = pairs.values(NODE)
        of_pairs = torch.ones(len(values.vector), dtype=torch.float64)
        for edge in part.edges_of(own).tolist():  # both directions of a bond
            vector = part.graph.edge_vector[edge].double()
            near = (values.vector - vector).norm(dim=1) < 1e-4
            same = near & (values.ends[1] == part.nodes[part.graph.destination[edge]])
            assert int(same.sum()) == 1
            of_pairs[same] = 0.7
        moved = pairs.predict(values, of_pairs) - values.prediction
        expected = float(part.predict(model, weight)) + 0.6 * float(model.label_scale) * moved
        assert float(whole.predict(weight)) == pytest.approx(expected, abs=1e-5)
        assert abs(moved) > 1e-6


def test_the_order_holds_at_every_k(mixed: tuple[Graph, BarrierModel]) -> None:
    graph, model = mixed
    found = explain(graph, model, NODE)
    assert found.method == "weakening"
    assert found.agreement is None  # nothing is drawn
    again = explain(graph, model, NODE, seed=1)
    assert torch.equal(found.ranking, again.ranking)
    sizes = (5, 10, 20, 40, 80)
    worth = evaluate_explanation(graph, model, found, sizes=sizes, draws=5)
    assert worth.perturbation == "weakened"
    rows = worth.rows
    assert all(row.sufficiency < row.random_sufficiency for row in rows)
    assert all(row.necessity > row.random_necessity for row in rows)
    assert rows[-1].sufficiency < 0.2 * rows[-1].random_sufficiency
    assert found.value is not None
    assert {bool(v > 0) for v in found.value[found.ranking[:40]]} == {True, False}


def test_signs_are_kept_in_files(mixed: tuple[Graph, BarrierModel], tmp_path: Path) -> None:
    graph, model = mixed
    top = explain(graph, model, NODE, topk=12)
    top.save(tmp_path / "a.json")
    again = Explanation.load(tmp_path / "a.json")
    assert again.value is not None
    assert top.value is not None
    torch.testing.assert_close(again.value, top.value)
    assert torch.equal(again.edges, top.edges)
    top.save(tmp_path / "a.csv")
    header, first = (tmp_path / "a.csv").read_text().splitlines()[:2]
    assert header.endswith(",spread,adds_eV")
    assert float(first.split(",")[-1]) == pytest.approx(float(top.value[0]), rel=1e-6)


def test_perturbations_at_their_ends(lattice: Graph, planted: BarrierModel, node: int) -> None:
    """All edges alone change nothing; without any, all of the planted prediction is lost."""
    found = explain(lattice, planted, node, "random")
    count = len(found)
    for name in ("weakened", "replaced", "deleted"):
        worth = evaluate_explanation(
            lattice, planted, found, sizes=[count], draws=1, perturbation=name
        )
        (row,) = worth.rows
        assert row.sufficiency == pytest.approx(0, abs=1e-5)
        assert row.necessity > 1e-4
        assert worth.to_dict()["perturbation"] == name
    with pytest.raises(UsageError, match="no perturbation is called 'x'; there are weakened"):
        evaluate_explanation(lattice, planted, found, perturbation="x")
    with pytest.raises(UsageError, match="weakening is 2"):
        explain(lattice, planted, node, weakening=2.0)
