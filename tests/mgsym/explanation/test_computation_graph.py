"""What a prediction can depend on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mgsym.errors import UsageError
from mgsym.explanation import node_of_id
from mgsym.explanation.computation_graph import computation_graph, model_computation_graph
from mgsym.graph import Graph, collate
from mgsym.models import create_model
from mgsym.models.base import BarrierModel

OPTIONS = {
    "vectors": {},
    "lengths": {"edge_input": "length"},
    "descriptors": {"node_input": "descriptors", "radial": 4, "l_max": 2},
}


def symgnn(kind: str) -> BarrierModel:
    """A small SymGNN whose batch norms have seen something."""
    torch.manual_seed(0)
    options = {"width": 8, "heads": (2, 1), "decoder_layers": 1, **OPTIONS[kind]}
    return create_model("symgnn", ("Cu", "Zr"), 4.0, options)


@pytest.mark.parametrize("kind", OPTIONS)
def test_the_cone_predicts_what_the_whole_graph_does(
    make_graph: Callable[..., Graph], kind: str
) -> None:
    graph, model = make_graph(side=8, spacing=2.8), symgnn(kind)
    model(graph)  # in training mode: running statistics move
    model.eval()
    with torch.no_grad():
        whole = model(graph)
        for node in (0, 100, 511):
            part = model_computation_graph(graph, model, node)
            assert len(part.edges) < graph.num_edges
            assert float(part.predict(model)) == pytest.approx(float(whole[node]), abs=1e-5)


@pytest.mark.parametrize("kind", OPTIONS)
def test_nothing_outside_the_cone_matters_and_all_inside_may(
    make_graph: Callable[..., Graph], kind: str
) -> None:
    graph, model = make_graph(side=8, spacing=2.8), symgnn(kind).eval()
    weight = torch.ones(graph.num_edges, requires_grad=True)
    (slope,) = torch.autograd.grad(model(graph, weight)[100], weight)
    inside = torch.zeros(graph.num_edges, dtype=torch.bool)
    inside[model_computation_graph(graph, model, 100).edges] = True
    assert not slope[~inside].any()
    assert (slope[inside] != 0).float().mean() > 0.9


def test_the_cone_keeps_every_edge_into_nodes_within_reach(lattice: Graph, node: int) -> None:
    part = computation_graph(lattice, node, 2)
    hops = lattice.hops_to(node, 2)
    expected = ((hops[lattice.destination] >= 0) & (hops[lattice.destination] < 2)).nonzero()
    assert torch.equal(part.edges, expected.squeeze(1))
    assert torch.equal(part.hop, hops[lattice.destination[part.edges]] + 1)
    assert torch.equal(part.nodes[part.graph.edge_index], lattice.edge_index[:, part.edges])
    assert part.nodes[part.node] == node
    assert torch.bincount(part.hop).tolist() == [0, 18, 18 * 18]


def test_a_cone_of_the_whole_structure_leaves_others_out(lattice: Graph, node: int) -> None:
    pair = collate([lattice, lattice])
    part = computation_graph(pair, node + lattice.num_nodes, None)
    assert part.graph.num_nodes == lattice.num_nodes
    assert torch.equal(part.edges, torch.arange(lattice.num_edges) + lattice.num_edges)
    apart = lattice.with_edges(lattice.destination != node)
    assert (computation_graph(apart, node, None).hop == 0).all()


@pytest.mark.parametrize("kind", OPTIONS)
def test_deleting_equals_weights_of_zero(make_graph: Callable[..., Graph], kind: str) -> None:
    graph, model = make_graph(side=6, spacing=2.8), symgnn(kind).eval()
    part = model_computation_graph(graph, model, 7)
    generator = torch.Generator().manual_seed(0)
    shares = torch.tensor([0.0, 0.05, 0.3, 0.9, 1.0])[:, None]
    kept = torch.rand(5, len(part.edges), generator=generator) < shares
    together = part.predict_deleted(model, kept)
    with torch.no_grad():
        for row, found in zip(kept, together, strict=True):
            assert float(found) == pytest.approx(float(part.predict(model, row.float())), abs=1e-5)
    alone = part.predict_deleted(model, torch.zeros(1, len(part.edges), dtype=torch.bool))
    assert float(alone[0]) == pytest.approx(float(together[0]), abs=1e-5)


def test_atoms_are_found_by_their_ids(lattice: Graph) -> None:
    assert node_of_id(lattice, 100) == 0
    assert node_of_id(lattice, 143) == 43
    with pytest.raises(UsageError, match="no atom of lattice has id 42: its ids lie in 100 … 315"):
        node_of_id(lattice, 42)
    with pytest.raises(UsageError, match="2 atoms have id 143"):
        node_of_id(collate([lattice, lattice]), 143)
