"""Cubic splines on equal spacing, built and evaluated as LAMMPS does for its EAM tables.

Slopes at the knots come from a five-point difference (two-point at the ends), so that a value,
a force and a pressure agree with LAMMPS to rounding (`PairEAM::interpolate`). The first
derivative is continuous, the second jumps at knots.
"""

from __future__ import annotations

import torch
from torch import Tensor


def spline_coefficients(values: Tensor) -> Tensor:
    """Cubics between equally spaced knots.

    Args:
        values: [..., n] float64, n ≥ 5, at x = 0, h, 2h, ...

    Returns:
        [..., n − 1, 4]: in the bin of x, with t = x/h − bin, the value is
        c₀ + t (c₁ + t (c₂ + t c₃)).
    """
    slope = torch.empty_like(values)
    slope[..., 0] = values[..., 1] - values[..., 0]
    slope[..., 1] = 0.5 * (values[..., 2] - values[..., 0])
    slope[..., -2] = 0.5 * (values[..., -1] - values[..., -3])
    slope[..., -1] = values[..., -1] - values[..., -2]
    outer, inner = values[..., :-4] - values[..., 4:], values[..., 3:-1] - values[..., 1:-3]
    slope[..., 2:-2] = (outer + 8.0 * inner) / 12.0
    rise = values.diff(dim=-1)
    left, right = slope[..., :-1], slope[..., 1:]
    return torch.stack(
        (values[..., :-1], left, 3.0 * rise - 2.0 * left - right, left + right - 2.0 * rise), dim=-1
    )


def locate(x: Tensor, spacing: float, bins: int) -> tuple[Tensor, Tensor]:
    """The bin of each x and where in it (0 to 1); beyond the last bin, its end."""
    scaled = x / spacing
    index = scaled.detach().long().clamp_(0, bins - 1)
    return index, (scaled - index).clamp(max=1.0)


def evaluate(coefficients: Tensor, t: Tensor, spacing: float) -> tuple[Tensor, Tensor]:
    """Value and first derivative of cubics [..., 4] at t [...], the place in the bin."""
    c0, c1, c2, c3 = coefficients.unbind(-1)
    value = c0 + t * (c1 + t * (c2 + t * c3))
    slope = (c1 + t * (2.0 * c2 + 3.0 * t * c3)) / spacing
    return value, slope


def curvature(coefficients: Tensor, t: Tensor, spacing: float) -> Tensor:
    """Second derivative of cubics [..., 4] at t [...]; it jumps at the knots."""
    return (2.0 * coefficients[..., 2] + 6.0 * t * coefficients[..., 3]) / spacing**2
