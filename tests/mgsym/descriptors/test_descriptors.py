"""Spherical harmonics against their integrals and addition theorem; invariant descriptors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mgsym.descriptors.power_spectrum import count_descriptors, local_descriptors
from mgsym.graph import Graph, build_graph
from mgsym.nn.rotations import random_orthogonal
from mgsym.nn.spherical_harmonics import spherical_harmonics
from mgsym.structure import Structure

L_MAX = 8


@pytest.fixture(scope="module")
def graph(disordered: Structure) -> Graph:
    return build_graph(disordered, cutoff=4.0)


def directions(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return vectors / vectors.norm(dim=1, keepdim=True)


def test_harmonics_are_orthonormal_on_the_sphere() -> None:
    nodes, heights = np.polynomial.legendre.leggauss(L_MAX + 1)
    phi = torch.arange(2 * L_MAX + 2, dtype=torch.float64) * (2 * math.pi / (2 * L_MAX + 2))
    z, angle = (t.flatten() for t in torch.meshgrid(torch.tensor(nodes), phi, indexing="ij"))
    ring = (1 - z**2).sqrt()
    points = torch.stack([ring * angle.cos(), ring * angle.sin(), z], dim=1)
    weight = torch.tensor(heights).repeat_interleave(len(phi)) * (2 * math.pi / len(phi))
    values = spherical_harmonics(points, L_MAX)
    gram = values.T @ (weight[:, None] * values)
    torch.testing.assert_close(gram, torch.eye((L_MAX + 1) ** 2).double(), atol=1e-12, rtol=0)


def test_harmonics_obey_the_addition_theorem() -> None:
    a, b = directions(20), directions(20).flip(0)
    cosine = (a * b).sum(1).numpy()
    ya, yb = spherical_harmonics(a, L_MAX), spherical_harmonics(b, L_MAX)
    for degree in range(L_MAX + 1):
        block = slice(degree**2, (degree + 1) ** 2)
        legendre = np.polynomial.legendre.Legendre.basis(degree)(cosine)
        expected = torch.from_numpy((2 * degree + 1) / (4 * math.pi) * legendre)
        torch.testing.assert_close((ya[:, block] * yb[:, block]).sum(1), expected)


def test_first_harmonics_are_the_known_ones() -> None:
    x, y, z = directions(5).unbind(1)
    found = spherical_harmonics(directions(5), 1)
    factor = math.sqrt(3 / (4 * math.pi))
    expected = [
        torch.full_like(x, math.sqrt(1 / (4 * math.pi))),
        factor * y,
        factor * z,
        factor * x,
    ]
    torch.testing.assert_close(found, torch.stack(expected, dim=1))


def test_descriptors_do_not_turn_with_the_structure(graph: Graph) -> None:
    found = local_descriptors(graph, radial=5, l_max=4)
    assert found.shape == (64, count_descriptors(2, 5, 4))
    for matrix in random_orthogonal(4, torch.Generator().manual_seed(2)):
        turned = graph.replace(edge_vector=graph.edge_vector @ matrix.T.float())
        torch.testing.assert_close(local_descriptors(turned, 5, 4), found, atol=2e-4, rtol=1e-4)


def test_descriptors_tell_a_tetrahedron_from_a_square() -> None:
    """Four neighbours at one distance: only the angular part can tell."""
    tetrahedron = [[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
    square = [[1.0, 1, 0], [-1, 1, 0], [1, -1, 0], [-1, -1, 0]]
    found = []
    for corners in (tetrahedron, square):
        arms = torch.tensor(corners, dtype=torch.float64)
        arms = 2.5 * arms / arms.norm(dim=1, keepdim=True)
        positions = torch.cat([torch.zeros(1, 3, dtype=torch.float64), arms]) + 20
        types = torch.zeros(5, dtype=torch.int64)
        box = 40 * torch.eye(3, dtype=torch.float64)
        graph = build_graph(Structure(positions, box, types, ("Cu",)), cutoff=4.0)
        found.append(local_descriptors(graph, radial=5, l_max=4)[0])
    radial, angular = slice(0, 6), slice(6, None)
    torch.testing.assert_close(found[0][radial], found[1][radial], atol=1e-5, rtol=0)
    assert (found[0][angular] - found[1][angular]).abs().max() > 0.1
    # a tetrahedron has no l = 1 and l = 2 moment
    assert found[0][6:16].abs().max() < 0.02


def test_weight_zero_equals_deleting_the_edge(graph: Graph) -> None:
    keep = torch.arange(graph.num_edges) % 4 != 0
    masked = local_descriptors(graph, 5, 3, edge_weight=keep.float())
    torch.testing.assert_close(masked, local_descriptors(graph.with_edges(keep), 5, 3))


def test_atoms_without_neighbours_have_finite_descriptors(graph: Graph) -> None:
    alone = graph.with_edges(torch.zeros(graph.num_edges, dtype=torch.bool))
    weight = torch.zeros(0, requires_grad=True)
    found = local_descriptors(alone, 5, 3, edge_weight=weight)
    assert (found[:, 2:] == 0).all()
    zero = torch.zeros(graph.num_edges, requires_grad=True)
    (grad,) = torch.autograd.grad(local_descriptors(graph, 5, 3, zero).sum(), zero)
    assert torch.isfinite(grad).all()
