"""The equivariant network: tensors turn as they should, products are what they claim to be."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from mgsym.errors import UsageError
from mgsym.graph import Graph, build_graph
from mgsym.models import create_model
from mgsym.models.networks.ace import Ace, AceLayer
from mgsym.nn import layers
from mgsym.nn.equivariant import ChannelMix, EquivariantNorm, SphereProducts, VectorCoupling
from mgsym.nn.rotations import random_orthogonal
from mgsym.nn.spherical_harmonics import block, gaunt_coefficients, sphere_grid, spherical_harmonics
from mgsym.structure import Structure

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
TYPES = {"node_input": "types", "width": 16, "channels": 4, "features": 6, "vectors": 3}


@pytest.fixture(scope="module")
def graph(disordered: Structure) -> Graph:
    return build_graph(disordered, cutoff=4.0)


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


def turning(matrix: Tensor, degree: int) -> Tensor:
    """D with Y(matrix · x) = D Y(x)."""
    points, weights = sphere_grid(2 * degree)
    turned = spherical_harmonics(points @ matrix.T, degree)
    return torch.einsum("q,qa,qb->ab", weights, turned, spherical_harmonics(points, degree))


def orthogonal() -> list[Tensor]:
    """Random rotations and reflections, and the inversion."""
    return [*random_orthogonal(4, torch.Generator().manual_seed(3)), -torch.eye(3).double()]


def close(a: Tensor, b: Tensor) -> None:
    """Equal to the precision of their type, relative to the largest."""
    a, b = a.detach(), b.detach()
    assert float((a - b).abs().max()) < TOLERANCE[a.dtype] * float(1 + b.abs().max())


def ace(**options: object) -> Ace:
    torch.manual_seed(0)
    model = create_model("ace", ("Cu", "Zr"), 4.0, options)
    assert isinstance(model, Ace)
    return model


def settle(model: Ace, graph: Graph) -> Ace:
    """In evaluation mode, with norms that know the graph's densities."""
    with torch.no_grad():
        for _ in range(60):
            model(graph)
    return model.eval()


@pytest.fixture(scope="module")
def settled(graph: Graph) -> Ace:
    """A model of types and vectors."""
    return settle(ace(**TYPES), graph)


def turned(graph: Graph, matrix: Tensor) -> Graph:
    return graph.replace(edge_vector=graph.edge_vector @ matrix.to(graph.edge_vector.dtype).T)


def last_layer(model: Ace, graph: Graph) -> tuple[AceLayer, tuple[Tensor, ...]]:
    """The last layer with what it is given: the graph's geometry, channels, vectors."""
    nodes = model.embedding(model.node_input(graph, None))
    radial, harmonics = model._geometry(graph, None)
    vectors = nodes.new_zeros(len(nodes), 0, 3)
    nodes, vectors = model.layers[0](graph, radial, harmonics, nodes, vectors)
    return model.layers[1], (radial, harmonics, nodes, vectors)


@pytest.mark.parametrize("index", range(5), ids=["O(3)"] * 4 + ["inversion"])
def test_densities_and_vectors_turn_with_the_structure(
    graph: Graph, settled: Ace, dtype: torch.dtype, index: int
) -> None:
    matrix = orthogonal()[index]
    d = turning(matrix, 3).to(dtype)
    exact = graph.replace(edge_vector=graph.edge_vector.to(dtype))
    model = copy.deepcopy(settled).to(dtype)
    last, before = last_layer(model, exact)
    _, after = last_layer(model, turned(exact, matrix))
    assert before[3].shape == (64, 3, 3)
    assert before[3].abs().max() > 0.1
    close(after[2], before[2])
    close(after[3], torch.einsum("ij,nvj->nvi", d[1:4, 1:4], before[3]))
    found = last.density(turned(exact, matrix), *after)
    expected = torch.einsum("ij,jnk->ink", d, last.density(exact, *before))
    assert expected[9:].abs().max() > 0.1
    close(found, expected)
    close(model(turned(exact, matrix)), model(exact))


def test_without_its_vectors_the_layer_says_something_else(graph: Graph, settled: Ace) -> None:
    last, (radial, harmonics, nodes, vectors) = last_layer(settled, graph)
    with_them = last.density(graph, radial, harmonics, nodes, vectors)
    without = last.density(graph, radial, harmonics, nodes, 0 * vectors)
    for degree in range(4):
        assert (with_them - without)[block(degree)].abs().max() > 1e-2


def test_products_are_contractions_with_gaunt_coefficients() -> None:
    tensors = torch.randn(16, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    invariants, vectors = SphereProducts(3)(tensors, with_vectors=True)
    single, powers, triples = invariants.split([3, 9, 3], dim=1)
    gaunt = gaunt_coefficients(3, 3, 3)
    torch.testing.assert_close(single, tensors[0])
    exact = torch.einsum("abc,ank,bnk,cnk->nk", gaunt, tensors, tensors, tensors) / (4 * math.pi)
    torch.testing.assert_close(triples, exact / (1 + exact**2) ** (1 / 3))
    for degree in (1, 2, 3):
        square = tensors[block(degree)].square().mean(0)
        found = powers[:, 3 * (degree - 1) : 3 * degree]
        torch.testing.assert_close(found, (square + 1e-4).sqrt() - 1e-2)
    assert vectors is not None
    torch.testing.assert_close(vectors[..., :3], tensors[1:4])
    exact = torch.einsum("abc,ank,bnk->cnk", gaunt[..., 1:4], tensors, tensors)
    torch.testing.assert_close(vectors[..., 3:], exact)


@pytest.mark.parametrize("with_vectors", [False, True])
def test_gradients_of_products(with_vectors: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_PIECE_CPU", 100)  # an atom at a time
    products = SphereProducts(2)
    generator = torch.Generator().manual_seed(0)
    tensors = torch.randn(9, 3, 2, dtype=torch.float64, generator=generator, requires_grad=True)

    def both(x: Tensor) -> tuple[Tensor, ...]:
        invariants, vectors = products(x, with_vectors)
        return (invariants,) if vectors is None else (invariants, vectors)

    assert torch.autograd.gradcheck(both, (tensors,))


def test_norm_centres_scalars_and_scales_each_degree() -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = 3 + 5 * torch.randn(9, 4000, 2, generator=generator)
    norm = EquivariantNorm(2, 2, momentum=1.0)
    found = norm(tensors)
    torch.testing.assert_close(found[0].mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    for degree in range(3):
        square = found[block(degree)].square().mean((0, 1))
        torch.testing.assert_close(square, torch.ones(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(norm.eval()(tensors), found)


@pytest.mark.parametrize("layer", [ChannelMix(6, 4, 3), VectorCoupling(6, 4, 3)])
def test_layers_commute_with_rotation(layer: torch.nn.Module, dtype: torch.dtype) -> None:
    """Of a density [n, lm, b, c] the harmonic turns, and the vector that c holds."""
    vectors = isinstance(layer, VectorCoupling)
    generator = torch.Generator().manual_seed(0)
    density = torch.randn(5, 16, 2, 9 if vectors else 3, dtype=dtype, generator=generator)
    layer = copy.deepcopy(layer).to(dtype)
    for matrix in orthogonal():
        d = turning(matrix, 3).to(dtype)
        after = torch.einsum("st,ntbc->nsbc", d, density)
        if vectors:
            split = after.unflatten(-1, (3, 3))
            after = torch.einsum("ij,nsbvj->nsbvi", d[1:4, 1:4], split).flatten(-2)
        close(layer(after), torch.einsum("st,tnk->snk", d, layer(density)))


def test_it_tells_a_tetrahedron_from_a_square(graph: Graph) -> None:
    """Four neighbours at one distance, types as inputs: only products can tell."""
    tetrahedron = [[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
    square = [[1.0, 1, 0], [-1, 1, 0], [1, -1, 0], [-1, -1, 0]]
    model, found = settle(ace(**TYPES, layers=1), graph), []
    for corners in (tetrahedron, square):
        arms = torch.tensor(corners, dtype=torch.float64)
        arms = 2.5 * arms / arms.norm(dim=1, keepdim=True)
        positions = torch.cat([torch.zeros(1, 3, dtype=torch.float64), arms]) + 20
        box = 40 * torch.eye(3, dtype=torch.float64)
        types = torch.zeros(5, dtype=torch.int64)
        whole = build_graph(Structure(positions, box, types, ("Cu",)), cutoff=4.0)
        # without the corners' edges among themselves, which differ in length
        star = whole.with_edges(whole.destination == 0)
        found.append(float(model(star)[0].detach()))
    assert abs(found[0] - found[1]) > 1e-3


def test_every_parameter_learns(graph: Graph) -> None:
    model = ace(**TYPES)
    model(graph).square().sum().backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not (p.grad != 0).any()]
    # a bias before batch norm cannot matter
    assert [n for n in still if not n.endswith(".bias")] == []


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("layers", 0, "model.layers is 0, expected at least 1"),
        ("edge_radial", 1, "model.edge_radial is 1, expected at least 2"),
        ("vectors", -1, "model.vectors is -1, expected at least 0"),
        ("node_input", "mass", "model.node_input is 'mass', expected types or descriptors"),
    ],
)
def test_bad_options_of_ace_are_named(option: str, value: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ace(**{option: value})
