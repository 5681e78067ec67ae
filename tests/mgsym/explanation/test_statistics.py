"""Statistics over many nodes, planted truth, and attention."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mgsym.errors import UsageError
from mgsym.explanation import explain
from mgsym.explanation.computation_graph import distance_to_atom, model_computation_graph
from mgsym.explanation.planted import PlantedModel, planted_benchmark, planted_truth
from mgsym.explanation.statistics import (
    choose_nodes,
    cycle_rank,
    edge_properties,
    edge_statistics,
)
from mgsym.graph import Graph
from mgsym.models import create_model
from mgsym.models.base import BarrierModel


def test_planted_truth_is_all_that_the_planted_model_looks_at(lattice: Graph) -> None:
    model = PlantedModel(lattice.species, lattice.cutoff)
    node = 43
    truth = planted_truth(lattice, node)
    weight = torch.ones(lattice.num_edges)
    whole = float(model(lattice)[node])
    weight[truth] = 0
    nothing = float(model(lattice, weight)[node])
    assert nothing == pytest.approx(0, abs=1e-6)
    assert float(model(lattice, 1 - weight)[node]) == pytest.approx(whole, abs=1e-6)
    for edge in truth.tolist():
        weight[:] = 1
        weight[edge] = 0
        assert abs(float(model(lattice, weight)[node]) - whole) > 1e-4


def test_the_edge_mask_finds_planted_edges(lattice: Graph) -> None:
    told: list[tuple[int, int]] = []
    found = planted_benchmark(
        lattice, nodes=2, methods=["edge-mask", "gradient", "random"],
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert found.precision_at_k["edge-mask"] >= 0.95
    assert found.precision_at_k["gradient"] < 0.9  # decoys mislead it
    assert found.precision_at_k["random"] < 0.3
    assert told[-1] == (6, 6)
    with pytest.raises(UsageError, match="no method is called 'x'"):
        planted_benchmark(lattice, methods=["x"])


def test_cycle_rank_of_known_graphs() -> None:
    ring = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    assert cycle_rank(ring) == 1
    assert cycle_rank(ring[:, :3]) == 0
    assert cycle_rank(torch.cat([ring, ring.flip(0)], dim=1)) == 1  # there and back is one edge
    assert cycle_rank(torch.combinations(torch.arange(4)).T) == 3  # K4: 6 − 4 + 1
    assert cycle_rank(torch.cat([ring, ring + 4], dim=1)) == 2


def test_properties_of_edges_in_a_cube(lattice: Graph, planted: BarrierModel, node: int) -> None:
    """The six edges of length 1 that arrive at the atom: angles of 90° (12) and 180° (3)."""
    part = model_computation_graph(lattice, planted, node, directed=True)
    edges = ((part.hop == 1) & (part.graph.edge_length < 1.1)).nonzero().squeeze(1)
    found = edge_properties(part, distance_to_atom(part), edges)
    assert found["length"] == pytest.approx(1)
    assert found["distance"] == pytest.approx(0.5)
    assert found["hop"] == 1
    assert found["angle"] == pytest.approx((12 * 90 + 3 * 180) / 15)
    assert found["right angles"] == pytest.approx(12 / 15)
    assert found["coordination"] == 18
    assert found["cycle rank"] == 0
    assert found["triangles"] == 8  # of 18 neighbours at (1 0 0) and (1 1 0), 8 are shared
    assert found["share of Cu"] + found["share of Zr"] == pytest.approx(1)


def test_statistics_see_what_is_selected(lattice: Graph) -> None:
    """The planted model looks at hops 1 and 2 only, as known; its controls lie as far away."""
    model = PlantedModel(lattice.species, lattice.cutoff)
    model.fit_statistics([lattice])
    found = edge_statistics(lattice, model, 6, "integrated-gradients", k=10, draws=2)
    assert [len(nodes) for nodes in found.nodes.values()] == [2, 2, 2]
    with torch.no_grad():
        predicted = model(lattice)
    high, low = (predicted[list(found.nodes[g])] for g in ("high", "low"))
    assert high.min() > low.max()
    effects = {(e.property, e.group, e.null): e for e in found.effects}
    near = effects["distance", "all", "matched"]
    assert near.nodes == 6
    assert abs(near.difference) < 0.13  # half a bin
    far = effects["hop", "all", "random"]
    assert far.difference == pytest.approx(far.selected - far.control)
    assert far.low is not None
    assert far.low <= far.difference <= (far.high or 0)
    assert len(found.distances["selected"]) == 60
    assert set(found.to_dict()) >= {"effects", "nodes", "unmatched_edges_per_node"}


def test_nodes_are_chosen_by_their_prediction() -> None:
    chosen = choose_nodes(torch.arange(10.0), 7)
    assert chosen == {"high": (9, 8, 7), "middle": (5, 4), "low": (1, 0)}
    with pytest.raises(UsageError, match="asked for 2 nodes, expected 3 … 10"):
        choose_nodes(torch.arange(10.0), 2)


@pytest.mark.parametrize("kind", ["softmax", "softplus"])
def test_attention_flows_from_the_atom(make_graph: Callable[..., Graph], kind: str) -> None:
    graph = make_graph(side=6, spacing=2.8)
    options = {"width": 8, "heads": (2, 1), "decoder_layers": 1, "edge_input": "length"}
    options["attention"] = kind
    model = create_model("symgnn", graph.species, graph.cutoff, options).eval()
    found = explain(graph, model, 7, "attention")
    # each hop passes on all that arrived: 1 in all, and less where the computation graph ends
    assert float(found.importance[found.hop == 1].sum()) > 1 - 1e-5
    assert float(found.importance.sum()) == pytest.approx(2, rel=1e-4)


def test_models_without_attention_say_so(lattice: Graph, planted: BarrierModel) -> None:
    with pytest.raises(UsageError, match="no attention to read"):
        explain(lattice, planted, 3, "attention")
