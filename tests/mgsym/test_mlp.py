"""The MLP knows an atom's own inputs, and statistics of its neighbours where asked to."""

from __future__ import annotations

import pytest
import torch

from mgsym.graph import Graph, build_graph
from mgsym.models import create_model
from mgsym.models.mlp import neighbor_statistics
from mgsym.structure import Structure


@pytest.fixture(scope="module")
def graph(disordered: Structure) -> Graph:
    return build_graph(disordered, cutoff=3.6)


def test_types_alone_give_one_barrier_per_element(graph: Graph) -> None:
    model = create_model("mlp", ("Cu", "Zr"), 3.6).eval()
    assert (model.uses_edges, model.receptive_field) == (False, 0)
    found = model(graph)
    for kind in (0, 1):
        assert len(found[graph.types == kind].unique()) == 1
    assert len(found.unique()) == 2


@pytest.mark.parametrize(
    ("options", "hops"),
    [
        ({"physical_inputs": ("energy",)}, 0),
        ({"physical_inputs": ("energy",), "smoothing": (2.0,)}, 1),
        ({"node_input": "descriptors"}, 1),
        ({"neighbors": True}, 1),
        ({"neighbors": True, "node_input": "descriptors"}, 2),
    ],
)
def test_it_says_how_far_it_sees(options: dict[str, object], hops: int) -> None:
    model = create_model("mlp", ("Cu", "Zr"), 3.6, options)
    assert (model.hops, model.uses_edges) == (hops, hops > 0)


def test_statistics_by_hand() -> None:
    positions = torch.tensor([[0.0, 0, 0], [2.0, 0, 0], [0, 3.0, 0]], dtype=torch.float64)
    cell = 30 * torch.eye(3, dtype=torch.float64)
    graph = build_graph(
        Structure(positions, cell, torch.tensor([0, 0, 0]), ("Cu",)), cutoff=3.5
    ).with_edges(torch.tensor([0, 1, 2]))  # 1→0, 2→0, 0→1: none arrives at atom 2
    assert graph.edge_index.tolist() == [[1, 2, 0], [0, 0, 1]]
    values = torch.tensor([[1.0], [10.0], [40.0]])
    expected = torch.tensor([[2, 2.5, 25, 0.25, 225], [1, 2, 1, 0, 0], [0, 0, 0, 0, 0]])
    torch.testing.assert_close(neighbor_statistics(graph, values), expected)
    # weights 3 and 1 of atom 0's neighbours
    weighted = neighbor_statistics(graph, values, torch.tensor([3.0, 1.0, 1.0]))[0]
    assert weighted.tolist() == pytest.approx([4, 2.25, 17.5, 0.1875, 168.75])
