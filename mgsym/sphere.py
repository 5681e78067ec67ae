"""Functions on the unit sphere: integrals exact for polynomials, and Gaunt coefficients.

Real spherical harmonics are those of `mgsym.descriptors.spherical_harmonics`.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from mgsym.descriptors import spherical_harmonics
from mgsym.errors import UsageError


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
