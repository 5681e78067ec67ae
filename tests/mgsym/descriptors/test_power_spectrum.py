"""Power spectra against angles; what descriptors see and what they do not."""

from __future__ import annotations

import pytest
import torch

from mgsym.descriptors.power_spectrum import Environment, power_spectrum
from mgsym.graph import Graph, build_graph, collate
from mgsym.graph.operations import transformed
from mgsym.nn.rotations import random_orthogonal
from mgsym.nn.spherical_harmonics import spherical_harmonics
from mgsym.structure import Structure

SOME = Environment(cutoff=4.5, radial=3, l_max=4, wide_cutoff=6.0, wide_radial=5)


def described(graph: Graph, environment: Environment) -> torch.Tensor:
    found = torch.full((graph.num_nodes, environment.count(len(graph.species))), float("nan"))
    for nodes, values in environment.describe(graph):
        found[nodes] = values
    return found


def around(corners: list[list[float]]) -> torch.Tensor:
    """c [1, 1, 49] of neighbours in these directions, all of weight 1."""
    vectors = torch.tensor(corners, dtype=torch.float64)
    return spherical_harmonics(vectors / vectors.norm(dim=1, keepdim=True), 6).sum(0)[None, None]


def test_power_spectrum_of_two_neighbours_is_legendre() -> None:
    """Channels of one neighbour each, at an angle: the cross terms are P_l of its cosine."""
    a, b = around([[0.3, -0.2, 0.9]]), around([[1.0, 0.4, 0.1]])
    found = power_spectrum(torch.cat([a, b], dim=1), 6).view(7, 3)
    u, v = torch.tensor([0.3, -0.2, 0.9]).double(), torch.tensor([1.0, 0.4, 0.1]).double()
    cosine = float(u @ v / u.norm() / v.norm())
    p2, p3 = (3 * cosine**2 - 1) / 2, (5 * cosine**3 - 3 * cosine) / 2
    expected = torch.tensor([1.0, cosine, p2, p3], dtype=torch.float64)
    torch.testing.assert_close(found[:4, 1], expected)
    torch.testing.assert_close(found[:, [0, 2]], torch.ones(7, 2, dtype=torch.float64))


def test_descriptors_do_not_turn_with_the_structure(disordered: Structure) -> None:
    graph = build_graph(disordered, 3.0)
    found = described(graph, SOME)
    assert found.shape == (64, SOME.count(2))
    assert torch.isfinite(found).all()
    for matrix in random_orthogonal(4, torch.Generator().manual_seed(2)):  # reflections too
        turned = described(transformed(graph, matrix), SOME)
        torch.testing.assert_close(turned, found, atol=1e-4, rtol=1e-4)


def test_descriptors_see_no_edges_and_nothing_beyond_their_cutoff(disordered: Structure) -> None:
    graph = build_graph(disordered, 3.0)
    found = described(graph, SOME)
    assert torch.equal(described(graph.with_edges(torch.zeros(0, dtype=torch.int64)), SOME), found)
    assert torch.equal(described(build_graph(disordered, 5.0), SOME), found)
    wide = build_graph(disordered.replace(cell=40 * torch.eye(3, dtype=torch.float64)), 3.0)
    distance = (wide.positions - wide.positions[0]).norm(dim=1)
    far = wide.replace(types=torch.where(distance > SOME.reach, 1 - wide.types, wide.types))
    assert not torch.equal(far.types, wide.types)
    assert torch.equal(described(far, SOME)[0], described(wide, SOME)[0])


def test_batches_pieces_and_lonely_atoms(
    disordered: Structure, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = build_graph(disordered, 3.0)
    found = described(graph, SOME)
    monkeypatch.setattr("mgsym.descriptors.power_spectrum._PIECE_CPU", 7)
    torch.testing.assert_close(described(collate([graph, graph]), SOME), found.repeat(2, 1))
    apart = disordered.replace(positions=10 * disordered.positions, cell=10 * disordered.cell)
    assert (described(build_graph(apart, 3.0), SOME) == 0).all()
