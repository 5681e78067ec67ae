"""Compiled sums over neighbours are PyTorch's to rounding."""

from __future__ import annotations

import pytest
import torch

from mgsym.descriptors import neighbor_sums
from mgsym.descriptors.local import LocalInputs, LocalOptions
from mgsym.descriptors.neighbor_sums import CompiledSums
from mgsym.descriptors.neighborhoods import of_edges
from mgsym.descriptors.power_spectrum import Environment, local_descriptors
from mgsym.graph import Graph, build_graph
from mgsym.structure import Structure

pytestmark = pytest.mark.usefixtures("compiler")


@pytest.fixture
def graph(disordered: Structure) -> Graph:
    return build_graph(disordered, 4.0)


def test_environments(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    for environment in (
        Environment(4.0, 6, 6, 5.0, 24),
        Environment(4.0, 9, 2, wide_radial=0),
        Environment(4.0, 20, 0, 4.5, 3),
        Environment(4.0, 32, 3),
    ):
        both = []
        for many in (10**9, 0):
            monkeypatch.setattr(neighbor_sums, "_MANY", many)
            both.append(torch.cat([found for _, found in environment.describe(graph)]))
        assert not torch.equal(*both)
        torch.testing.assert_close(*both, rtol=1e-5, atol=1e-5 * float(both[0].abs().max()))


def test_local_descriptors_also_of_atoms_without_neighbours(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = graph.with_edges(graph.destination % 3 > 0)
    for radial, l_max in ((10, 6), (5, 4)):
        both = []
        for many in (10**9, 0):
            monkeypatch.setattr(neighbor_sums, "_MANY", many)
            both.append(local_descriptors(alone, radial, l_max))
        torch.testing.assert_close(*both, rtol=1e-4, atol=1e-4)


def test_projections(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of features, whose averages are each computed by themselves, too."""
    inputs = LocalInputs(LocalOptions(4.0, 3, 2, 5.0, 4, smoothing=(1.0, 1.4)), 2)
    weight = torch.randn(inputs.num_features, 2, generator=torch.Generator().manual_seed(0))
    expected = inputs.features(graph) @ weight
    scale = float(expected.abs().max())
    for many in (10**9, 0):
        monkeypatch.setattr(neighbor_sums, "_MANY", many)
        found = inputs.project(graph, weight)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=3e-6 * scale)


def test_who_gets_them(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    near, types = of_edges(graph), graph.types
    assert CompiledSums.of(near, types, 2) is None
    monkeypatch.setattr(neighbor_sums, "_MANY", 0)
    assert CompiledSums.of(near, types, 2) is not None
    doubled = near._replace(vector=near.vector.double())
    weighted = near._replace(weight=torch.ones(len(near.vector)))
    learnt = near._replace(vector=near.vector.clone().requires_grad_())
    assert [CompiledSums.of(n, types, 2) for n in (doubled, weighted, learnt)] == [None] * 3
    monkeypatch.setenv("MGSYM_COMPILE", "0")
    assert CompiledSums.of(near, types, 2) is None
