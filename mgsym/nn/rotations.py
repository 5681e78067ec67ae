"""Rotations and reflections of space: Euler matrices, ways to sample O(3), von Mises gradients.

Edge vectors are columns in the paper, v′ = T v; for rows, ``vectors @ T.T``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import permutations, product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributions import VonMises

from mgsym.errors import UsageError

SOURCES = (
    "von-mises", "von-mises-fixed", "haar", "octahedral", "quadrature", "augment", "none"
)  # fmt: skip
HALVES, ANGLES = ("rotation", "reflection"), ("alpha", "beta", "gamma")


def euler_matrices(angles: Tensor) -> Tensor:
    """T = O_x1(α) O_x2(β) O_x3(γ) of arXiv 2401.08627, section 4.

    Args:
        angles: [..., 3], (α, β, γ) in radians.

    Returns:
        [..., 3, 3].
    """
    c, s = angles.cos(), angles.sin()
    one, zero = torch.ones_like(c[..., 0]), torch.zeros_like(c[..., 0])

    def matrix(*entries: Tensor) -> Tensor:
        return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))

    first = matrix(one, zero, zero, zero, c[..., 0], -s[..., 0], zero, s[..., 0], c[..., 0])
    second = matrix(c[..., 1], zero, -s[..., 1], zero, one, zero, s[..., 1], zero, c[..., 1])
    third = matrix(c[..., 2], -s[..., 2], zero, s[..., 2], c[..., 2], zero, zero, zero, one)
    return first @ second @ third


def random_orthogonal(count: int, generator: torch.Generator | None = None) -> Tensor:
    """Matrices drawn uniformly (Haar) from O(3), half of them reflections on average.

    QR of a Gaussian matrix with the signs of R's diagonal moved to Q
    (Mezzadri, Notices AMS 54, 592, 2007).

    Returns:
        [count, 3, 3] float64.
    """
    q, r = torch.linalg.qr(torch.randn(count, 3, 3, dtype=torch.float64, generator=generator))
    return q * torch.sign(torch.diagonal(r, dim1=1, dim2=2))[:, None, :]


def random_rotations(count: int, generator: torch.Generator | None = None) -> Tensor:
    """Haar-random proper rotations, [count, 3, 3] float64."""
    matrices = random_orthogonal(count, generator)
    return matrices * torch.linalg.det(matrices)[:, None, None]


def octahedral_group() -> Tensor:
    """The 48 symmetries of the cube: signed permutation matrices, [48, 3, 3] float64."""
    identity = torch.eye(3, dtype=torch.float64)
    rows = [identity[list(p)] for p in permutations(range(3))]
    signs = [torch.tensor(s, dtype=torch.float64) for s in product((1, -1), repeat=3)]
    return torch.stack([sign[:, None] * matrix for matrix in rows for sign in signs])


def quadrature(degree: int) -> tuple[Tensor, Tensor]:
    """A quadrature over O(3), exact for polynomials in the matrix entries up to `degree`.

    In these Euler angles the Haar measure is cos β dα dβ dγ: α and γ take degree + 1 equal steps
    and sin β the Gauss–Legendre nodes. Each rotation comes with its negative.

    Returns:
        matrices [m, 3, 3] and weights [m] that sum to 1, float64.
    """
    if degree < 0:
        raise UsageError(f"a quadrature needs a degree of at least 0, found {degree}")
    circle = torch.arange(degree + 1, dtype=torch.float64) * (2 * math.pi / (degree + 1))
    nodes, heights = np.polynomial.legendre.leggauss(degree // 2 + 1)
    beta = torch.from_numpy(np.arcsin(nodes))
    angles = torch.cartesian_prod(circle, beta, circle)
    weights = torch.from_numpy(heights).repeat_interleave(degree + 1).repeat(degree + 1)
    weights = weights / weights.sum()
    matrices = euler_matrices(angles)
    return torch.cat([matrices, -matrices]), torch.cat([weights, weights]) / 2


class _ImplicitVonMises(torch.autograd.Function):
    """A sample z of von Mises(0, κ), with dz/dκ by implicit reparameterisation.

    dz/dκ = −(∂F(z; κ)/∂κ) / p(z; κ) (Figurnov, Mohamed & Mnih, NeurIPS 2018, eq. 4). By symmetry
    F(z) = ½ + ∫₀ᶻ p, so that with A = I₁(κ)/I₀(κ)

        dz/dκ = −∫₀ᶻ (cos t − A) exp(κ (cos t − cos z)) dt,

    in which no normalising constant is left. The integrand is smooth on [0, z]: 64
    Gauss–Legendre nodes give it to rounding for every sample that occurs.
    """

    @staticmethod
    def forward(ctx: Any, sample: Tensor, concentration: Tensor) -> Tensor:
        ctx.save_for_backward(sample, concentration)
        return sample.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        sample, concentration = ctx.saved_tensors
        z, kappa = sample.double(), concentration.double()
        nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(64))
        t = 0.5 * z[..., None] * (nodes + 1)
        mean_cosine = torch.special.i1e(kappa) / torch.special.i0e(kappa)
        growth = (kappa[..., None] * (t.cos() - z[..., None].cos())).clamp(max=600.0).exp()
        integral = 0.5 * z * (weights * (t.cos() - mean_cosine[..., None]) * growth).sum(-1)
        return None, -integral.to(grad.dtype) * grad


def sample_von_mises(location: Tensor, concentration: Tensor, count: int) -> Tensor:
    """Samples of von Mises distributions that carry gradients for both parameters.

    Drawn by ``torch.distributions.VonMises`` from torch's current random state.

    Args:
        location: [...], radians.
        concentration: [...], κ > 0.
        count: samples of each.

    Returns:
        [count, ...], radians.
    """
    zero = torch.zeros_like(concentration)
    drawn = VonMises(zero.detach(), concentration.detach()).sample(torch.Size([count]))
    centred = _ImplicitVonMises.apply(drawn, concentration.expand_as(drawn))
    return location + centred


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from torch's CPU random state as if seeded, and leave that state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs too
        yield


class Transforms(nn.Module):
    """Where the transforms T of O(3) come from that SymGNN averages over.

    Half of them are rotations, half the negatives of rotations. In evaluation mode the same
    transforms come every time, so that one input gives one prediction.

    Args:
        source: ``von-mises`` (three learned distributions over α, β, γ for rotations and three
            for the other half; paper, eq. 5), ``von-mises-fixed`` (the same as they begin, never
            learned), ``haar`` (uniform), ``octahedral`` (the 48
            symmetries of the cube), ``quadrature`` (exact to `degree`), ``augment`` (one
            random transform in training, the identity in evaluation) or ``none``.
        samples: K, transforms drawn of each half by ``von-mises…`` and ``haar``.
        degree: of the quadrature.
        seed: of the transforms drawn in evaluation mode.
    """

    fixed: Tensor
    fixed_weights: Tensor

    def __init__(self, source: str, samples: int = 2, degree: int = 2, seed: int = 0) -> None:
        super().__init__()
        if source not in SOURCES:
            raise UsageError(f"no transform source {source!r}; there are {', '.join(SOURCES)}")
        if samples < 1:
            raise UsageError(f"at least 1 transform sample is needed, found {samples}")
        self.source, self.samples, self.seed = source, samples, seed
        if source.startswith("von-mises"):
            # one row for the rotations, one for the other half; columns α, β, γ
            location = torch.empty(2, 3).uniform_(-math.pi, math.pi)
            self.location = nn.Parameter(location, requires_grad=self.learned)
            self.log_concentration = nn.Parameter(torch.zeros(2, 3), requires_grad=self.learned)
        matrices, weights = _fixed_transforms(source, degree)
        self.register_buffer("fixed", matrices.float(), persistent=False)
        self.register_buffer("fixed_weights", weights.float(), persistent=False)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Transforms [t, 3, 3] and their weights [t], which sum to 1."""
        if self.source in ("von-mises", "von-mises-fixed", "haar"):
            drawn = self._draw() if self.training else self._draw_fixed()
            matrices = drawn.to(self.fixed)
            return matrices, matrices.new_full((len(matrices),), 1 / len(matrices))
        if self.source == "augment" and self.training:
            return random_orthogonal(1).to(self.fixed), self.fixed_weights
        return self.fixed, self.fixed_weights

    @property
    def learned(self) -> bool:
        """Whether its distributions are learned."""
        return self.source == "von-mises"

    def distributions(self) -> dict[str, float]:
        """Locations (radians) and concentrations of the learned von Mises distributions.

        Returns:
            By name, ``location_rotation_alpha_rad`` …, ``concentration_reflection_gamma``:
            ``rotation`` is the half of O(3) that they make up, ``reflection`` the other. Nothing
            where nothing is learned.
        """
        if not self.learned:
            return {}
        names = [f"{half}_{angle}" for half in HALVES for angle in ANGLES]
        location = self.location.detach().flatten().tolist()
        concentration = self.log_concentration.detach().exp().flatten().tolist()
        return {
            **{f"location_{n}_rad": value for n, value in zip(names, location, strict=True)},
            **{f"concentration_{n}": value for n, value in zip(names, concentration, strict=True)},
        }

    def _draw_fixed(self) -> Tensor:
        with seeded(self.seed):
            return self._draw()

    def _draw(self) -> Tensor:
        if self.source == "haar":
            rotations = random_rotations(2 * self.samples)
        else:
            angles = sample_von_mises(
                self.location.cpu().double(),
                self.log_concentration.cpu().double().exp(),
                self.samples,
            )
            rotations = euler_matrices(angles.transpose(0, 1).flatten(0, 1))
        half = rotations.new_ones(2 * self.samples)
        half[self.samples :] = -1
        return half[:, None, None] * rotations


def learned_transforms(model: nn.Module) -> Transforms | None:
    """The transforms of a model whose distributions it learns; None where it has none."""
    candidates = (part for part in model.modules() if isinstance(part, Transforms) and part.learned)
    return next(candidates, None)


def distributions_of(model: nn.Module) -> dict[str, float]:
    """What a model has learned of its transforms, as `Transforms.distributions` names it."""
    transforms = learned_transforms(model)
    return {} if transforms is None else transforms.distributions()


def _fixed_transforms(source: str, degree: int) -> tuple[Tensor, Tensor]:
    if source == "quadrature":
        return quadrature(degree)
    group = octahedral_group() if source == "octahedral" else torch.eye(3)[None]
    return group, torch.full((len(group),), 1 / len(group))
