"""Power spectra and bispectra against angles, 3j symbols and the known values of crystals."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from mgsym.environments import (
    Environment,
    bispectrum,
    bispectrum_degrees,
    power_spectrum,
    scalar_coupling,
)
from mgsym.graph import Graph, build_graph, collate
from mgsym.prediction import transformed
from mgsym.rotations import random_orthogonal
from mgsym.sphere import spherical_harmonics
from mgsym.structure import Structure

SOME = Environment(cutoff=4.5, radial=3, l_max=4, bispectrum=4, wide_cutoff=6.0, wide_radial=5)


def described(graph: Graph, environment: Environment) -> torch.Tensor:
    found = torch.full((graph.num_nodes, environment.count(len(graph.species))), float("nan"))
    for nodes, values in environment.describe(graph):
        found[nodes] = values
    return found


def around(corners: list[list[float]]) -> torch.Tensor:
    """c [1, 1, 49] of neighbours in these directions, all of weight 1."""
    vectors = torch.tensor(corners, dtype=torch.float64)
    return spherical_harmonics(vectors / vectors.norm(dim=1, keepdim=True), 6).sum(0)[None, None]


def three_j(degrees: tuple[int, int, int], m: tuple[int, int, int]) -> float:
    """Wigner's 3j symbol by Racah's sum (Edmonds, Angular Momentum, eq. 3.6.11)."""
    (a, b, c), (x, y, z), f = degrees, m, math.factorial
    if x + y + z != 0:
        return 0.0
    total = 0.0
    for k in range(a + b + c + 1):
        below = (k, c - b + k + x, c - a + k - y, a + b - c - k, a - k - x, b - k + y)
        if min(below) >= 0:
            total += (-1) ** k / math.prod(map(f, below))
    triangle = f(a + b - c) * f(a - b + c) * f(b + c - a) / f(a + b + c + 1)
    ends = math.prod(f(j + i) * f(j - i) for j, i in zip(degrees, m, strict=True))
    return (-1) ** (a - b - z) * math.sqrt(triangle * ends) * total


def real_from_complex(n: int) -> torch.Tensor:
    """U [real m, complex m]: real harmonics (without Condon-Shortley phase) from complex ones."""
    u = torch.zeros(2 * n + 1, 2 * n + 1, dtype=torch.complex128)
    u[n, n] = 1
    for m in range(1, n + 1):
        u[n + m, n - m], u[n + m, n + m] = 1 / math.sqrt(2), (-1) ** m / math.sqrt(2)
        u[n - m, n - m], u[n - m, n + m] = 1j / math.sqrt(2), -1j * (-1) ** m / math.sqrt(2)
    return u


@pytest.mark.parametrize("degrees", bispectrum_degrees(4))
def test_couplings_are_wigners(degrees: tuple[int, int, int]) -> None:
    symbols = torch.zeros([2 * n + 1 for n in degrees], dtype=torch.complex128)
    for m in itertools.product(*[range(-n, n + 1) for n in degrees]):
        symbols[tuple(i + n for i, n in zip(m, degrees, strict=True))] = three_j(degrees, m)
    turned = torch.einsum("ax,by,cz,xyz->abc", *map(real_from_complex, degrees), symbols)
    expected = turned.real * math.copysign(1, three_j(degrees, (0, 0, 0)))
    torch.testing.assert_close(turned.imag, torch.zeros_like(turned.imag), atol=1e-12, rtol=0)
    found = torch.from_numpy(scalar_coupling(*degrees))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_degrees_form_triangles_of_even_sum() -> None:
    assert bispectrum_degrees(1) == []
    assert bispectrum_degrees(3) == [(1, 1, 2), (1, 2, 3), (2, 2, 2), (2, 3, 3)]


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


def test_bispectrum_of_one_neighbour() -> None:
    """Turned to the z axis only m = 0 is left: √((2l₁+1)(2l₂+1)(2l₃+1)) |3j(000)|."""
    found = bispectrum(around([[0.5, -1.0, 0.3]]), 4)[0]
    expected = [
        math.sqrt(math.prod(2 * n + 1 for n in degrees)) * abs(three_j(degrees, (0, 0, 0)))
        for degrees in bispectrum_degrees(4)
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_bispectrum_of_known_polyhedra() -> None:
    """Ŵ₆ of the icosahedron, Ŵ₄ and Ŵ₆ of fcc (Steinhardt et al., table I)."""
    golden = (1 + math.sqrt(5)) / 2
    icosahedron = [
        list(p)
        for a, b in itertools.product((1.0, -1.0), (golden, -golden))
        for p in ((0.0, a, b), (a, b, 0.0), (b, 0.0, a))
    ]
    signs = list(itertools.product((1.0, -1.0), repeat=2))
    fcc = [list(p) for a, b in signs for p in ((a, b, 0.0), (a, 0.0, b), (0.0, a, b))]
    for corners, n, known in (
        (icosahedron, 6, -0.169754),
        (fcc, 6, -0.013161),
        (fcc, 4, -0.159317),
    ):
        c = around(corners)
        at = bispectrum_degrees(6).index((n, n, n))
        # Steinhardt's 3j symbol has the sign of its m = 0 element, ours is positive there
        triple = float(bispectrum(c, 6)[0, at]) * math.copysign(1, three_j((n, n, n), (0, 0, 0)))
        square = float(c[0, 0, n * n : (n + 1) ** 2].square().sum())
        assert triple / (4 * math.pi * square) ** 1.5 == pytest.approx(known, abs=2e-6)


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
    monkeypatch.setattr("mgsym.environments._PIECE_CPU", 7)
    torch.testing.assert_close(described(collate([graph, graph]), SOME), found.repeat(2, 1))
    apart = disordered.replace(positions=10 * disordered.positions, cell=10 * disordered.cell)
    assert (described(build_graph(apart, 3.0), SOME) == 0).all()
