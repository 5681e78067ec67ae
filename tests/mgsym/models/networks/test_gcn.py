"""Graph convolutions against their matrices; messages with edge features against their formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mgsym.graph import Graph, build_graph
from mgsym.models import create_model
from mgsym.models.networks.gcn import GCN, EdgeGCN, _EdgeLayer, inverse_root_degree, propagate
from mgsym.structure import Structure


@pytest.fixture(scope="module")
def graph(disordered: Structure) -> Graph:
    return build_graph(disordered, cutoff=3.6)


@pytest.fixture(scope="module")
def chain() -> Graph:
    """Three atoms in a row, 2.5 Å apart: the outer ones have one neighbour, the middle one two."""
    positions = torch.tensor([[0.0, 0, 0], [2.5, 0, 0], [5.0, 0, 0]], dtype=torch.float64)
    cell = 30 * torch.eye(3, dtype=torch.float64)
    types = torch.tensor([0, 1, 0])
    return build_graph(Structure(positions, cell, types, ("Cu", "Zr")), cutoff=3.0)


def dense(graph: Graph, weight: Tensor) -> Tensor:
    """D^−½ Ã D^−½ [n, n]; an atom's images add up."""
    n = graph.num_nodes
    adjacency = torch.zeros(n, n).index_put(
        (graph.destination, graph.source), weight, accumulate=True
    )
    adjacency = adjacency + torch.eye(n)
    root = adjacency.sum(1).rsqrt()
    return root[:, None] * adjacency * root


def test_a_chain_by_hand(chain: Graph) -> None:
    nodes = torch.tensor([[1.0], [10.0], [100.0]])
    found = propagate(nodes, chain, inverse_root_degree(chain))
    near, far = 1 / 2, 1 / math.sqrt(6)  # degrees with the loop: 2, 3, 2
    expected = [1 * near + 10 * far, 10 / 3 + (1 + 100) * far, 100 * near + 10 * far]
    assert found.squeeze(1).tolist() == pytest.approx(expected)


def test_weights_enter_sums_and_degrees(graph: Graph) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(graph.num_edges, generator=generator)
    nodes = torch.randn(graph.num_nodes, 5, generator=generator)
    scale = inverse_root_degree(graph, weight)
    torch.testing.assert_close(
        propagate(nodes, graph, scale, weight), dense(graph, weight) @ nodes, atol=1e-5, rtol=0
    )


def test_gcn_is_its_matrices(graph: Graph) -> None:
    torch.manual_seed(0)
    model = create_model("gcn", ("Cu", "Zr"), 3.6, {"layers": 2}).eval()
    assert isinstance(model, GCN)
    matrix = dense(graph, torch.ones(graph.num_edges))
    hidden = model.node_encoder(graph.types)
    for layer in model.layers:
        hidden = torch.relu(matrix @ hidden @ layer.weight.T + layer.bias)  # type: ignore[operator]
    torch.testing.assert_close(model(graph), model.decoder(hidden).squeeze(1), atol=1e-5, rtol=0)


def test_gcn_sees_no_distances(graph: Graph) -> None:
    model = create_model("gcn", ("Cu", "Zr"), 3.6).eval()
    stretched = graph.replace(edge_vector=0.9 * graph.edge_vector)
    assert torch.equal(model(stretched), model(graph))


def test_a_message_reads_both_ends_and_the_edge(chain: Graph) -> None:
    torch.manual_seed(0)
    layer = _EdgeLayer(4)
    nodes, edges = torch.randn(3, 4), torch.randn(4, 4)
    weight = torch.tensor([0.5, 1.0, 0.25, 2.0])
    whole = torch.cat([layer.sender.weight, layer.edge.weight, layer.receiver.weight], dim=1)
    messages = []
    for e in range(4):
        s, d = chain.edge_index[:, e]
        read = torch.cat([nodes[s], edges[e], nodes[d]])
        messages.append(torch.relu(whole @ read + layer.edge.bias))
    # edges arrive at atoms 0, 1, 1, 2
    means = [messages[0], (messages[1] + 0.25 * messages[2]) / 1.25, messages[3]]
    heard = torch.stack(means)
    normal = (heard - heard.mean(0)) / (heard.var(0, correction=0) + 1e-5).sqrt()
    changes = torch.relu(layer.node(torch.cat([nodes, normal], dim=1)))
    found_nodes, found_edges = layer(nodes, edges, chain, weight)
    torch.testing.assert_close(found_nodes, nodes + changes)
    torch.testing.assert_close(found_edges, edges + torch.stack(messages))


def test_edge_vectors_are_read_in_a_fixed_frame(graph: Graph) -> None:
    torch.manual_seed(0)
    turned = graph.replace(edge_vector=graph.edge_vector[:, [1, 2, 0]])
    by_vector = create_model("gcn-edges", ("Cu", "Zr"), 3.6).eval()
    by_length = create_model("gcn-edges", ("Cu", "Zr"), 3.6, {"edge_input": "length"}).eval()
    assert isinstance(by_vector, EdgeGCN)
    assert (by_vector.invariant, by_length.invariant) == ("no", "yes")
    assert (by_vector(turned) - by_vector(graph)).abs().max() > 1e-4
    torch.testing.assert_close(by_length(turned), by_length(graph), atol=1e-6, rtol=0)
