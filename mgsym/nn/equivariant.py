"""Layers on tensors of O(3), held as [lm, n, k]: harmonic, atom, channel.

All keep how tensors turn: A[lm] turns as Y_lm, and a reflection of space multiplies it by (−1)^l.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mgsym.nn.layers import pieces
from mgsym.nn.spherical_harmonics import (
    block,
    degrees,
    gaunt_coefficients,
    sphere_grid,
    spherical_harmonics,
)
from mgsym.utils.processes import batch_count, batch_sum


class ChannelMix(nn.Module):
    """Linear maps between channels, one for each degree.

    Args:
        inputs: channels.
        features: channels of the result.
        degree: highest l.
    """

    degrees: Tensor

    def __init__(self, inputs: int, features: int, degree: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(degree + 1, inputs, features) / math.sqrt(inputs))
        self.register_buffer("degrees", degrees(degree), persistent=False)

    def forward(self, density: Tensor) -> Tensor:
        """[lm, n, features] from densities [n, lm, b, c] with b · c channels."""
        return torch.matmul(density.flatten(2).transpose(0, 1), self.weight[self.degrees])


class VectorCoupling(nn.Module):
    """Densities of vectors, coupled to tensors of degree l ± 1 and mixed.

    Σ_m,m' G(l m, 1 m', L M) · density[l m, b, (c, m')], with Gaunt coefficients G and one linear
    map of the channels b, c for each pair (l, L).

    Args:
        inputs: channels, radial functions times vectors.
        features: channels of the result.
        degree: highest l and L.
    """

    def __init__(self, inputs: int, features: int, degree: int) -> None:
        super().__init__()
        self.degree = degree
        self.paths = [(d, d + 1) for d in range(degree)] + [(d + 1, d) for d in range(degree)]
        self.weight = nn.Parameter(
            torch.randn(len(self.paths), inputs, features) / math.sqrt(2 * inputs)
        )

    def forward(self, density: Tensor) -> Tensor:
        """[lm, n, features] from densities [n, lm, b, 3 c] of c vectors (in the order of Y_1m)."""
        counts = [2 * d + 1 for d in range(self.degree + 1)]
        blocks = density.unflatten(-1, (-1, 3)).split(counts, dim=1)
        by_degree: list[Tensor | None] = [None] * (self.degree + 1)
        gaunt = _coupling(self.degree, density.dtype, density.device)
        for (first, last), weight in zip(self.paths, self.weight, strict=True):
            coupling = gaunt[block(first), :, block(last)]
            mixed = torch.einsum("nsbci,sit->tnbc", blocks[first], coupling).flatten(2) @ weight
            by_degree[last] = mixed if by_degree[last] is None else by_degree[last] + mixed
        return torch.cat([part for part in by_degree if part is not None])


class EquivariantNorm(nn.Module):
    """Batch norm for tensors: the scalars' mean becomes 0, and each degree's mean square 1.

    Args:
        features: channels.
        degree: highest l.
    """

    degrees: Tensor
    mean: Tensor
    square: Tensor

    def __init__(self, features: int, degree: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("degrees", degrees(degree), persistent=False)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("square", torch.ones(degree + 1, features))

    def forward(self, tensors: Tensor) -> Tensor:
        """[lm, n, k], of which in training the mean and squares of this batch are taken."""
        mean, square = self._statistics(tensors) if self.training else (self.mean, self.square)
        scale = (square + 1e-6).rsqrt()[self.degrees]
        centred = torch.cat([tensors[:1] - mean, tensors[1:]])
        return centred * scale[:, None]

    def _statistics(self, tensors: Tensor) -> tuple[Tensor, Tensor]:
        count = max(batch_count(tensors.shape[1]), 1)
        mean = batch_sum(tensors[0].sum(0)) / count
        squares = torch.cat([(tensors[:1] - mean), tensors[1:]]).square().sum(1)
        squares = batch_sum(squares) / count
        sums = squares.new_zeros(self.square.shape).index_add(0, self.degrees, squares)
        square = sums / torch.bincount(self.degrees)[:, None]
        with torch.no_grad():
            self.mean.lerp_(mean, self.momentum)
            self.square.lerp_(square, self.momentum)
        return mean, square


class SphereProducts(nn.Module):
    """Invariants and vectors of products of up to three tensors.

    With f(Ω) = Σ A[lm] Y_lm(Ω) of each atom and channel: A[00], the power √(Σ_m A[lm]² / (2l + 1))
    of every l above 0, ∫ f³ / 4π; and the vectors A[1m] and ∫ f² Y_1m. The integrals equal the
    contraction with Gaunt coefficients.

    Args:
        degree: highest l.
    """

    degrees: Tensor

    def __init__(self, degree: int) -> None:
        super().__init__()
        self.degree = degree
        self.register_buffer("degrees", degrees(degree), persistent=False)

    def forward(self, tensors: Tensor, with_vectors: bool) -> tuple[Tensor, Tensor | None]:
        """From [lm, n, k]: invariants [n, (l + 2) k] and vectors [3, n, 2 k], if asked for.

        Powers and triples are compressed by roots, so that all are linear in large densities.
        """
        grid = _grid(self.degree, tensors.dtype, tensors.device)
        triples, pairs = _SphereIntegrals.apply(tensors, *grid, with_vectors)
        triples = triples / (4 * math.pi)
        triples = triples / (1 + triples**2) ** (1 / 3)
        invariants = torch.cat([tensors[0], self._powers(tensors), triples], dim=1)
        return invariants, torch.cat([tensors[1:4], pairs], dim=2) if with_vectors else None

    def _powers(self, tensors: Tensor) -> Tensor:
        """[n, l k]."""
        counts = torch.bincount(self.degrees)
        squares = tensors.new_zeros(len(counts), *tensors.shape[1:])
        squares = squares.index_add(0, self.degrees, tensors.square())[1:] / counts[1:, None, None]
        # rounded at zero, so that the gradient stays finite
        return ((squares + 1e-4).sqrt() - 1e-2).transpose(0, 1).flatten(1)


class _SphereIntegrals(torch.autograd.Function):
    """∫ f³ [n, k] and, if asked for, ∫ f² Y_1m [3, n, k] of f = Σ A[lm] Y_lm, A [lm, n, k].

    Functions are evaluated for a few atoms at a time, and again in the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any, tensors: Tensor, values: Tensor, weights: Tensor, with_vectors: bool
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(tensors, values, weights)
        vectors = weights * values.T[1:4] if with_vectors else weights.new_zeros(0, len(weights))
        triples = tensors.new_empty(tensors.shape[1:])
        pairs = tensors.new_empty(len(vectors), *tensors.shape[1:])
        for atoms in pieces(tensors.shape[1], values.shape[0] * tensors.shape[2], tensors.device):
            function = values @ tensors[:, atoms].flatten(1)
            square = function * function
            pairs[:, atoms] = (vectors @ square).view_as(pairs[:, atoms])
            triples[atoms] = (weights @ square.mul_(function)).view_as(triples[atoms])
        return triples, pairs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_triples: Tensor, d_pairs: Tensor) -> Any:
        tensors, values, weights = ctx.saved_tensors
        vectors = weights * values.T[1:4]
        grad = torch.empty_like(tensors)
        for atoms in pieces(tensors.shape[1], values.shape[0] * tensors.shape[2], tensors.device):
            function = values @ tensors[:, atoms].flatten(1)
            # d ∫ f³ = 3 ∫ f² df and d ∫ f² Y = 2 ∫ f Y df
            back = function * function
            back.mul_(d_triples[atoms].flatten()).mul_(3 * weights[:, None])
            if len(d_pairs):
                back += function.mul_(2 * (vectors.T @ d_pairs[:, atoms].flatten(1)))
            grad[:, atoms] = (values.T @ back).view_as(grad[:, atoms])
        return grad, None, None, None


# Constants are made in the precision in which they are used: rounded to float32 with a model and
# back to float64, they would turn to 1e-7 only.


@lru_cache(maxsize=16)
def _grid(degree: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Harmonics [q, lm] and weights [q] at points that integrate products of three exactly."""
    with torch.inference_mode(False):
        points, weights = sphere_grid(3 * degree)
        values = spherical_harmonics(points, degree)
        return values.to(device, dtype), weights.to(device, dtype)


@lru_cache(maxsize=16)
def _coupling(degree: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Gaunt coefficients [lm, 3, lm] of a tensor and a vector."""
    with torch.inference_mode(False):
        return gaunt_coefficients(degree, 1, degree)[:, 1:].to(device, dtype)
