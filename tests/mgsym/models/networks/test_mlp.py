"""The MLP knows an atom's own inputs."""

from __future__ import annotations

import pytest

from mgsym.graph import Graph, build_graph
from mgsym.models import create_model
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
        ({"physical_inputs": ("energy",), "physical_smoothing": (2.0,)}, 1),
        ({"node_input": "descriptors"}, 1),
    ],
)
def test_it_says_how_far_it_sees(options: dict[str, object], hops: int) -> None:
    model = create_model("mlp", ("Cu", "Zr"), 3.6, options)
    assert (model.hops, model.uses_edges) == (hops, hops > 0)
