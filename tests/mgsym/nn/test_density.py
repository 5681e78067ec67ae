"""The neighbours' density against a plain sum over edges, gradients included."""

from __future__ import annotations

import pytest
import torch

from mgsym.graph import Graph, build_graph
from mgsym.nn import layers
from mgsym.nn.density import neighbor_density
from mgsym.structure import Structure


@pytest.fixture(scope="module")
def graph(disordered: Structure) -> Graph:
    return build_graph(disordered, cutoff=3.4)


def inputs(graph: Graph) -> list[torch.Tensor]:
    """Radial [e, 3], harmonics [e, 4] and values [n, 2], all with gradients, float64."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(graph.num_edges, 3), (graph.num_edges, 4), (graph.num_nodes, 2)]
    drawn = [torch.randn(*s, generator=generator, dtype=torch.float64) for s in shapes]
    return [x.requires_grad_() for x in drawn]


def plain(graph: Graph, radial: torch.Tensor, harmonics: torch.Tensor, values: torch.Tensor):
    rows = torch.einsum("eb,ea,ec->eabc", radial, harmonics, values[graph.source])
    start = rows.new_zeros(graph.num_nodes, *rows.shape[1:])
    return start.index_add(0, graph.destination, rows)


@pytest.mark.parametrize("numbers", [1, 1000, 1 << 18])
def test_it_is_the_sum_over_edges(
    graph: Graph, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pieces of one atom, of a few, and of all; some atoms have no neighbours."""
    monkeypatch.setattr(layers, "_PIECE_CPU", numbers)
    thinned = graph.with_edges((graph.destination % 5 != 0) & (graph.destination != 63))
    for one in (graph, thinned, graph.with_edges(torch.zeros(graph.num_edges, dtype=torch.bool))):
        given = inputs(one)
        found, expected = neighbor_density(one, *given), plain(one, *given)
        torch.testing.assert_close(found, expected)
        above = torch.randn(found.shape, dtype=torch.float64)
        for a, b in zip(
            torch.autograd.grad(found, given, above),
            torch.autograd.grad(expected, given, above),
            strict=True,
        ):
            torch.testing.assert_close(a, b)


def test_gradients_are_given_where_they_are_asked_for(graph: Graph) -> None:
    radial, harmonics, values = inputs(graph)
    found = neighbor_density(graph, radial.detach(), harmonics.detach(), values)
    found.square().sum().backward()
    assert values.grad is not None
    assert radial.grad is None
    weight = torch.ones(graph.num_edges, 1, dtype=torch.float64, requires_grad=True)
    found = neighbor_density(graph, radial.detach() * weight, harmonics, values.detach())
    (grad,) = torch.autograd.grad(found.sum(), weight)
    each = torch.einsum("eb,ea,ec->e", radial, harmonics, values[graph.source])
    torch.testing.assert_close(grad[:, 0], each.detach())
