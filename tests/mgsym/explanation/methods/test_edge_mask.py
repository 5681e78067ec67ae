"""The edge mask settles on one answer, and its edges suffice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mgsym.explanation import explain, explain_nodes, mean_agreement, rank_agreement
from mgsym.explanation.computation_graph import full_prediction, model_computation_graph
from mgsym.explanation.methods.exchange import exchange
from mgsym.graph import Graph
from mgsym.models import create_model
from mgsym.models.base import BarrierModel


@pytest.fixture
def network(make_graph: Callable[..., Graph]) -> tuple[Graph, BarrierModel]:
    """A small network, untrained, on a crystal shaken at random."""
    graph = make_graph(side=6, spacing=2.8)
    torch.manual_seed(3)
    options = {"width": 8, "heads": (2, 1), "decoder_layers": 1, "edge_input": "length"}
    model = create_model("symgnn", graph.species, graph.cutoff, options).eval()
    with torch.no_grad():
        model.decoder[-1].weight *= 100  # so that edges matter by more than a label's deviation
    return graph, model


def test_initialisations_and_seeds_agree(network: tuple[Graph, BarrierModel]) -> None:
    graph, model = network
    first, second = (
        explain(graph, model, 7, "edge-mask", seed=s, exchanges=0, budget=20) for s in (0, 1)
    )
    assert first.agreement is not None
    assert first.agreement >= 0.9
    assert rank_agreement(first.importance, second.importance, 20) >= 0.9


def test_without_the_anchor_they_do_not(network: tuple[Graph, BarrierModel]) -> None:
    """What the anchor is there for."""
    graph, model = network
    anchored, free = (
        explain(graph, model, 7, "edge-mask", exchanges=0, budget=20, anchor=a).agreement
        for a in (0.1, 0.0)
    )
    assert anchored is not None
    assert free is not None
    assert free < anchored


def test_exchanged_edges_suffice_better(network: tuple[Graph, BarrierModel]) -> None:
    graph, model = network
    before, after = (
        explain(graph, model, 7, "edge-mask", budget=10, exchanges=n, tolerance=1e-5)
        for n in (0, 30)
    )
    errors = [abs((e.masked_prediction or 0) - e.prediction) for e in (before, after)]
    assert errors[1] < errors[0]
    assert torch.equal(before.importance.sort().values, after.importance.sort().values)


def test_an_exchange_takes_the_edge_that_is_missing(
    lattice: Graph, planted: BarrierModel, truth: set[int], node: int
) -> None:
    """All planted edges but one, and one that does nothing: a single exchange mends it."""
    planted.eval()
    part = model_computation_graph(lattice, planted, node, directed=True)
    edges = part.edges.tolist()
    arriving = next(e for e in truth if int(lattice.destination[e]) == node)
    idle = next(e for e in edges if e not in truth)
    importance = torch.full((len(edges),), 0.01)
    for edge in truth:
        importance[edges.index(edge)] = 1.0
    importance[edges.index(arriving)], importance[edges.index(idle)] = 0.02, 0.5
    full = full_prediction(planted, part)
    found = exchange(planted, part, full, importance, len(truth), 5, 1e-4)
    top = found.argsort(descending=True)[: len(truth)].tolist()
    assert {edges[i] for i in top} == truth


class Deaf(BarrierModel):
    """Counts neighbours without a gradient, as a tree does."""

    def __init__(self) -> None:
        super().__init__(("Cu", "Zr"), 1.5, 1)

    def standardised(self, graph: Graph, edge_weight: Tensor | None) -> Tensor:
        weight = torch.ones(graph.num_edges) if edge_weight is None else edge_weight.detach()
        return torch.zeros(graph.num_nodes).index_add(0, graph.destination, (weight > 0.5).float())


def test_models_without_gradients_are_explained_too(lattice: Graph, node: int) -> None:
    """Every edge counts one: with k edges alone the prediction is k."""
    model = Deaf()
    found = explain(lattice, model, node, "edge-mask", budget=18)
    assert found.prediction == 18
    assert found.masked_prediction == 18
    assert explain(lattice, model, node, "leave-one-out").importance.tolist() == [1.0] * 18
    with pytest.raises(Exception, match="no gradient with respect to edges"):
        explain(lattice, model, node, "gradient")


def test_many_nodes_are_explained_as_one_by_one(lattice: Graph, planted: BarrierModel) -> None:
    told: list[tuple[int, int]] = []
    together = list(
        explain_nodes(
            lattice, planted, [3, 43], "edge-mask", steps=3, exchanges=0, seed=2,
            progress=lambda done, total: told.append((done, total)),
        )
    )  # fmt: skip
    for node, found in zip((3, 43), together, strict=True):
        alone = explain(lattice, planted, node, "edge-mask", steps=3, exchanges=0, seed=2)
        assert torch.equal(found.importance, alone.importance)
    assert told == [(1, 2), (2, 2)]


def test_rank_agreement_is_spearman_over_the_union() -> None:
    a = torch.tensor([5.0, 4, 3, 2, 1, 0])
    assert rank_agreement(a, a, 3) == 1
    assert rank_agreement(a, -a, 3) == pytest.approx(-1)
    b = torch.tensor([5.0, 4, 2, 3, 1, 0])  # union of the top 3: four edges, two exchanged
    assert rank_agreement(a, b, 3) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert mean_agreement([a], 3) is None
    assert mean_agreement([a, a, -a], 3) == pytest.approx(-1 / 3)
