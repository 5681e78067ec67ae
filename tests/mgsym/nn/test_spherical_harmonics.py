"""Integrals over the sphere against closed forms; Gaunt coefficients against 3j symbols."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mgsym.errors import UsageError
from mgsym.nn.rotations import random_orthogonal
from mgsym.nn.spherical_harmonics import (
    block,
    degrees,
    gaunt_coefficients,
    sphere_grid,
    spherical_harmonics,
)


def double_factorial(n: int) -> int:
    return math.prod(range(n, 0, -2))


@pytest.mark.parametrize("degree", [0, 1, 4, 9])
def test_the_grid_integrates_every_monomial_up_to_its_degree(degree: int) -> None:
    points, weights = sphere_grid(degree)
    assert float(weights.sum()) == pytest.approx(4 * math.pi, rel=1e-14)
    for i in range(degree + 1):
        for j in range(degree + 1 - i):
            for k in range(degree + 1 - i - j):
                powers = points[:, 0] ** i * points[:, 1] ** j * points[:, 2] ** k
                found = float((weights * powers).sum())
                # Folland, Am. Math. Monthly 108, 446 (2001)
                even = i % 2 == j % 2 == k % 2 == 0
                top = math.prod(double_factorial(p - 1) for p in (i, j, k))
                exact = 4 * math.pi * top / double_factorial(i + j + k + 1) if even else 0.0
                assert found == pytest.approx(exact, abs=1e-13)


def test_a_grid_of_negative_degree_is_refused() -> None:
    with pytest.raises(UsageError, match="degree of 0 or more, found -1"):
        sphere_grid(-1)


def three_j_square(a: int, b: int, c: int) -> float:
    """(a b c; 0 0 0)² (Edmonds, Angular Momentum in Quantum Mechanics, eq. 3.7.17)."""
    total = a + b + c
    if total % 2 or c > a + b or c < abs(a - b):
        return 0.0
    half, f = total // 2, math.factorial
    triangle = f(total - 2 * a) * f(total - 2 * b) * f(total - 2 * c) / f(total + 1)
    return triangle * (f(half) / (f(half - a) * f(half - b) * f(half - c))) ** 2


def test_gaunt_coefficients_are_orthogonal_as_clebsch_gordan_coefficients_are() -> None:
    """Σ_ab G_abc G_abc' = δ_cc' (2 l₁ + 1)(2 l₂ + 1) (l₁ l₂ l₃; 000)² / 4π, zero for odd sums."""
    gaunt = gaunt_coefficients(3, 3, 3)
    for a in range(4):
        for b in range(4):
            for c in range(4):
                part = gaunt[block(a), block(b), block(c)]
                factor = (2 * a + 1) * (2 * b + 1) / (4 * math.pi) * three_j_square(a, b, c)
                gram = torch.einsum("abc,abd->cd", part, part)
                assert (gram - factor * torch.eye(2 * c + 1).double()).abs().max() < 1e-14


def test_known_gaunt_coefficients() -> None:
    gaunt = gaunt_coefficients(2, 2, 2)
    # with a constant, the harmonics are orthonormal
    torch.testing.assert_close(gaunt[0], torch.eye(9).double() / math.sqrt(4 * math.pi))
    assert float(gaunt[2, 2, 6]) == pytest.approx(1 / math.sqrt(5 * math.pi))  # ∫ Y10² Y20
    torch.testing.assert_close(gaunt, gaunt.permute(2, 0, 1))


def turning(matrix: Tensor, degree: int) -> Tensor:
    """D with Y(matrix · x) = D Y(x), [(degree + 1)²] squared."""
    points, weights = sphere_grid(2 * degree)
    turned = spherical_harmonics(points @ matrix.T, degree)
    return torch.einsum("q,qa,qb->ab", weights, turned, spherical_harmonics(points, degree))


def test_gaunt_coefficients_do_not_turn_with_space() -> None:
    gaunt = gaunt_coefficients(3, 3, 3)
    for matrix in random_orthogonal(4, torch.Generator().manual_seed(0)):
        d = turning(matrix, 3)
        turned = torch.einsum("abc,ia,jb,kc->ijk", gaunt, d, d, d)
        torch.testing.assert_close(turned, gaunt, atol=1e-13, rtol=0)


def test_each_degree_has_its_harmonics() -> None:
    assert degrees(2).tolist() == [0, 1, 1, 1, 2, 2, 2, 2, 2]
    assert [len(degrees(3)[block(d)].unique()) for d in range(4)] == [1, 1, 1, 1]
