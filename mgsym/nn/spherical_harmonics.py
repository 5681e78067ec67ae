"""Functions on the unit sphere: real spherical harmonics, integrals, Gaunt coefficients."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from mgsym.errors import UsageError


def spherical_harmonics(direction: Tensor, l_max: int) -> Tensor:
    """Real spherical harmonics, orthonormal on the sphere.

    Associated Legendre functions times cos mφ and sin mφ, both by recursion in the Cartesian
    components, without angles (as in Sloan, JCGT 2(2), 2013).

    Args:
        direction: [e, 3] unit vectors.
        l_max: highest degree.

    Returns:
        [e, (l_max + 1)²], ordered l = 0 … l_max, m = −l … l.
    """
    x, y, z = direction.unbind(-1)
    cosine, sine = [torch.ones_like(x)], [torch.zeros_like(x)]  # ρᵐ cos mφ, ρᵐ sin mφ
    for m in range(1, l_max + 1):
        cosine.append(x * cosine[m - 1] - y * sine[m - 1])
        sine.append(x * sine[m - 1] + y * cosine[m - 1])
    columns: list[Tensor] = [x] * (l_max + 1) ** 2
    for m in range(l_max + 1):
        for degree, legendre in _legendre(z, m, l_max):
            norm = math.sqrt(
                (2 * degree + 1) / (4 * math.pi)
                * math.factorial(degree - m) / math.factorial(degree + m)
                * (1 if m == 0 else 2)
            )  # fmt: skip
            centre = degree * degree + degree
            columns[centre + m] = norm * legendre * cosine[m]
            if m > 0:
                columns[centre - m] = norm * legendre * sine[m]
    return torch.stack(columns, dim=-1)


def _legendre(z: Tensor, m: int, l_max: int) -> list[tuple[int, Tensor]]:
    """(l, P_l^m(z) / ρᵐ) for l = m … l_max, where ρ = √(1 − z²)."""
    double_factorial = math.prod(range(1, 2 * m, 2))
    polynomials = [(m, torch.full_like(z, float(double_factorial)))]
    if l_max > m:
        polynomials.append((m + 1, (2 * m + 1) * z * polynomials[0][1]))
    for degree in range(m + 2, l_max + 1):
        before, last = polynomials[-2][1], polynomials[-1][1]
        value = ((2 * degree - 1) * z * last - (degree + m - 1) * before) / (degree - m)
        polynomials.append((degree, value))
    return polynomials


def sphere_grid(degree: int) -> tuple[Tensor, Tensor]:
    """Points whose weighted sum is the integral over the sphere, exact up to `degree`.

    Gauss–Legendre nodes in z, equal steps around the axis (Atkinson, J. Austral. Math. Soc. B 23,
    332, 1982).

    Returns:
        unit vectors [q, 3] and weights [q] that sum to 4π, float64.

    Raises:
        UsageError: `degree` is below 0.
    """
    if degree < 0:
        raise UsageError(f"an integral over the sphere needs a degree of 0 or more, found {degree}")
    nodes, heights = np.polynomial.legendre.leggauss(degree // 2 + 1)
    steps = degree + 1
    turn = torch.arange(steps, dtype=torch.float64) * (2 * math.pi / steps)
    z = torch.from_numpy(nodes).repeat_interleave(steps)
    angle = turn.repeat(len(nodes))
    ring = (1 - z**2).sqrt()
    weights = torch.from_numpy(heights).repeat_interleave(steps) * (2 * math.pi / steps)
    return torch.stack([ring * angle.cos(), ring * angle.sin(), z], dim=1), weights


def gaunt_coefficients(first: int, second: int, third: int) -> Tensor:
    """∫ Y_a Y_b Y_c over the sphere for all harmonics up to three degrees.

    They couple two tensors to a third: Clebsch–Gordan coefficients up to a factor that depends on
    the three degrees alone, and zero where these add up to an odd number. All invariants of three
    tensors that a reflection leaves alone come from them, since three degrees have a single one.

    Returns:
        [(first + 1)², (second + 1)², (third + 1)²] float64.
    """
    points, weights = sphere_grid(first + second + third)
    a, b, c = (spherical_harmonics(points, degree) for degree in (first, second, third))
    return torch.einsum("q,qa,qb,qc->abc", weights, a, b, c)


def degrees(l_max: int) -> Tensor:
    """[(l_max + 1)²] int64: the degree l of each harmonic."""
    counts = torch.arange(l_max + 1)
    return counts.repeat_interleave(2 * counts + 1)


def block(degree: int) -> slice:
    """Where the harmonics of a degree stand."""
    return slice(degree**2, (degree + 1) ** 2)
