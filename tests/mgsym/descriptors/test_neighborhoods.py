"""Neighbours at any distance, and Gaussian averages over them."""

from __future__ import annotations

import pytest
import torch

import mgsym.descriptors.neighborhoods
from mgsym.descriptors.neighborhoods import Neighborhoods, gaussian_mean, neighborhoods
from mgsym.graph import Graph, build_graph, collate
from mgsym.structure import Structure

CELLS = {
    "cube": torch.eye(3, dtype=torch.float64) * 10.4,
    "long": torch.diag(torch.tensor([10.4, 10.4, 62.4], dtype=torch.float64)),
    "triclinic": torch.tensor([[30.0, 0, 0], [9, 25, 0], [-4, 6, 20]], dtype=torch.float64),
}


def random_structure(cell: torch.Tensor, periodic: tuple[bool, bool, bool]) -> Structure:
    """One atom per 30 Å³, some of them outside the cell."""
    generator = torch.Generator().manual_seed(0)
    count = int(torch.linalg.det(cell).abs() / 30)
    fraction = 1.3 * torch.rand(count, 3, generator=generator, dtype=torch.float64) - 0.1
    types = torch.randint(2, (count,), generator=generator)
    return Structure(fraction @ cell, cell, types, ("Cu", "Zr"), periodic=periodic)


def joined(parts: list[Neighborhoods]) -> torch.Tensor:
    """Owner, source and vector of every pair, sorted."""
    rows = [torch.cat([p.nodes[p.owner][:, None], p.source[:, None], p.vector], 1) for p in parts]
    return torch.tensor(sorted(torch.cat(rows).tolist()))


def graph_of(structure: Structure, cutoff: float) -> Graph:
    """A graph in which atoms may lie as near to one another as they like."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mgsym.graph.graph.SHORTEST_DISTANCE", 0.0)
        return build_graph(structure, cutoff)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("periodic", [(True, True, True), (True, False, True)])
@pytest.mark.parametrize("search", [20_000, 40])
def test_neighbours_are_the_edges_of_a_graph_with_that_cutoff(
    cell: str, periodic: tuple[bool, bool, bool], search: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small limit cuts the longer structures into slabs."""
    structure = random_structure(CELLS[cell], periodic)
    edges = graph_of(structure, 4.5)
    monkeypatch.setattr(mgsym.descriptors.neighborhoods, "_SEARCH", search)
    parts = list(neighborhoods(graph_of(structure, 2.0), 4.5))
    assert (len(parts) > 1) == (search == 40 and cell != "cube")
    assert torch.equal(
        torch.cat([p.nodes for p in parts]).sort().values, torch.arange(len(structure))
    )
    whole = Neighborhoods(
        torch.arange(len(structure)), edges.destination, edges.source, edges.edge_vector
    )
    torch.testing.assert_close(joined(parts), joined([whole]), rtol=0, atol=0)


def test_pieces_and_closer_neighbours(disordered: Structure) -> None:
    graph = build_graph(disordered, 3.0)
    (near,) = neighborhoods(graph, 4.0)
    pieces = list(near.pieces(10))
    assert [len(p.nodes) for p in pieces] == [10] * 6 + [4]
    assert torch.equal(joined(pieces), joined([near]))
    edges = Neighborhoods(torch.arange(64), graph.destination, graph.source, graph.edge_vector)
    assert torch.equal(joined([near.closer(3.0)]), joined([edges]))
    assert torch.equal(near.number, torch.bincount(near.owner, minlength=64))


def test_a_gaussian_mean_is_the_sum_over_all_images(disordered: Structure) -> None:
    graph, length = build_graph(disordered, 3.0), 1.7
    values = torch.randn(64, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    total, weights = torch.zeros_like(values), torch.zeros(64, 1, dtype=torch.float64)
    steps = torch.cartesian_prod(*[torch.arange(-2.0, 3.0, dtype=torch.float64)] * 3)
    for shift in steps @ graph.cell[0]:
        distance = torch.cdist(graph.positions, graph.positions + shift)
        weight = torch.exp(-0.5 * (distance / length) ** 2) * (distance < 3 * length)
        total, weights = total + weight @ values, weights + weight.sum(1, keepdim=True)
    torch.testing.assert_close(gaussian_mean(graph, values, length), total / weights)
    constant = torch.full((64, 1), 3.0)
    torch.testing.assert_close(gaussian_mean(graph, constant, length), constant)


def test_an_atom_alone_is_its_own_mean_and_structures_do_not_mix(disordered: Structure) -> None:
    graph = build_graph(disordered, 3.0)
    values = torch.randn(64, 3, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(gaussian_mean(graph, values, 0.1), values)
    both = gaussian_mean(collate([graph, graph]), torch.cat([values, 2 * values]), 2.0)
    torch.testing.assert_close(both[:64] * 2, both[64:])
    torch.testing.assert_close(both[:64], gaussian_mean(graph, values, 2.0))
