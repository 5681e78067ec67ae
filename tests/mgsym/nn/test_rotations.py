"""O(3): the paper's matrices, exact averages over the group, von Mises samples and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mgsym.errors import UsageError
from mgsym.nn.rotations import (
    SOURCES,
    Transforms,
    euler_matrices,
    octahedral_group,
    quadrature,
    random_orthogonal,
    random_rotations,
    sample_von_mises,
)

IDENTITY = torch.eye(3, dtype=torch.float64)


def assert_orthogonal(matrices: Tensor, tolerance: float = 1e-10) -> None:
    product = matrices.double() @ matrices.double().transpose(-1, -2)
    torch.testing.assert_close(product, IDENTITY.expand_as(product), atol=tolerance, rtol=0)


def test_euler_matrices_are_the_papers() -> None:
    a, b, g = 0.3, -1.1, 2.0
    ca, sa, cb, sb, cg, sg = (f(x) for x in (a, b, g) for f in (math.cos, math.sin))
    first = torch.tensor([[1, 0, 0], [0, ca, -sa], [0, sa, ca]], dtype=torch.float64)
    second = torch.tensor([[cb, 0, -sb], [0, 1, 0], [sb, 0, cb]], dtype=torch.float64)
    third = torch.tensor([[cg, -sg, 0], [sg, cg, 0], [0, 0, 1]], dtype=torch.float64)
    found = euler_matrices(torch.tensor([a, b, g], dtype=torch.float64))
    torch.testing.assert_close(found, first @ second @ third)
    assert_orthogonal(found)
    assert torch.linalg.det(found) == pytest.approx(1)


def test_random_matrices_fill_the_group_evenly() -> None:
    generator = torch.Generator().manual_seed(0)
    matrices = random_orthogonal(20_000, generator)
    assert_orthogonal(matrices)
    # Haar: entries have mean 0 and mean square 1/3; half the matrices are reflections
    assert matrices.mean(0).abs().max() < 0.02
    assert (matrices.square().mean(0) - 1 / 3).abs().max() < 0.02
    assert torch.linalg.det(matrices).mean().abs() < 0.03
    assert torch.linalg.det(random_rotations(50, generator)).min() == pytest.approx(1)


def test_octahedral_group_is_closed() -> None:
    group = octahedral_group()
    assert_orthogonal(group)
    assert len(torch.unique(group, dim=0)) == 48
    products = torch.einsum("aij,bjk->abik", group, group).flatten(0, 1)
    assert len(torch.unique(products, dim=0)) == 48


@pytest.mark.parametrize("degree", range(7))
def test_quadrature_averages_polynomials_exactly(degree: int) -> None:
    matrices, weights = quadrature(degree)
    assert weights.sum() == pytest.approx(1)
    x = torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64)
    y = torch.tensor([1.0, 0.2, -0.4], dtype=torch.float64)
    value = torch.einsum("i,tij,j->t", y, matrices, x) ** degree
    # the average of (y·Tx)^d over O(3) is (|x||y|)^d / (d + 1) for even d, else 0
    expected = 0.0 if degree % 2 else float(x.norm() * y.norm()) ** degree / (degree + 1)
    assert float((weights * value).sum()) == pytest.approx(expected, abs=1e-12)


def test_quadrature_refuses_a_negative_degree() -> None:
    with pytest.raises(UsageError, match="degree of at least 0, found -1"):
        quadrature(-1)


@pytest.mark.parametrize("kappa", [0.05, 1.0, 8.0, 300.0])
def test_von_mises_samples_have_the_right_moments(kappa: float) -> None:
    torch.manual_seed(0)
    location = torch.tensor([0.7], dtype=torch.float64)
    z = sample_von_mises(location, torch.tensor([kappa], dtype=torch.float64), 40_000)
    expected = torch.special.i1(torch.tensor(kappa)) / torch.special.i0(torch.tensor(kappa))
    if kappa == 300.0:
        expected = torch.tensor(1 - 1 / 600.0)  # asymptotic: the Bessel functions overflow
    assert (z - location).cos().mean() == pytest.approx(float(expected), abs=0.02)
    assert (z - location).sin().mean() == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("kappa", [0.05, 0.5, 2.0, 20.0, 200.0])
def test_von_mises_gradients_are_those_of_the_mean(kappa: float) -> None:
    """d/dκ E[cos z] = A′(κ) = 1 − A² − A/κ, and d/dμ E[sin(z)] = A cos μ."""
    torch.manual_seed(1)
    concentration = torch.tensor([kappa], dtype=torch.float64, requires_grad=True)
    location = torch.tensor([0.4], dtype=torch.float64, requires_grad=True)
    z = sample_von_mises(location, concentration, 60_000)
    ratio = torch.special.i1e(concentration) / torch.special.i0e(concentration)
    (d_kappa,) = torch.autograd.grad((z - location).cos().mean(), concentration, retain_graph=True)
    ratio = ratio.detach()
    derivative = 1 - ratio**2 - ratio / kappa
    assert float(d_kappa) == pytest.approx(float(derivative), rel=0.03, abs=1e-6)
    (d_location,) = torch.autograd.grad(z.sin().mean(), location)
    assert float(d_location) == pytest.approx(float(ratio * math.cos(0.4)), abs=0.01)


def test_von_mises_gradient_follows_one_sample_through_its_distribution() -> None:
    """F(z(κ); κ) stays constant along the implicit gradient."""
    torch.manual_seed(2)
    kappa, step = 3.0, 1e-5
    concentration = torch.tensor([kappa], dtype=torch.float64, requires_grad=True)
    z = sample_von_mises(torch.zeros(1, dtype=torch.float64), concentration, 1)
    (slope,) = torch.autograd.grad(z.sum(), concentration)

    def cumulative(upper: float, k: float) -> float:
        t = torch.linspace(0, upper, 20_001, dtype=torch.float64)
        density = torch.exp(k * t.cos()) / (
            2 * math.pi * torch.special.i0(torch.tensor(k, dtype=torch.float64))
        )
        return float(torch.trapezoid(density, t))

    moved = float(z) + float(slope) * step
    assert cumulative(moved, kappa + step) == pytest.approx(cumulative(float(z), kappa), abs=1e-9)


@pytest.mark.parametrize("source", SOURCES)
def test_transforms_are_orthogonal_weighted_and_repeat_in_evaluation(source: str) -> None:
    torch.manual_seed(3)
    transforms = Transforms(source, samples=3)
    for training in (True, False):
        matrices, weights = transforms.train(training)()
        assert_orthogonal(matrices.detach(), 1e-5)
        assert weights.sum() == pytest.approx(1)
        if source not in ("none", "augment"):
            assert torch.linalg.det(matrices).mean().abs() < 1e-5  # as many reflections
    state = torch.get_rng_state()
    again = transforms()[0]
    assert torch.equal(again, matrices)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("source", ["von-mises", "von-mises-fixed", "haar", "augment"])
def test_random_sources_change_in_training(source: str) -> None:
    torch.manual_seed(4)
    transforms = Transforms(source)
    assert not torch.equal(transforms()[0], transforms()[0])


def test_only_von_mises_learns_and_learns_all_twelve_numbers() -> None:
    torch.manual_seed(5)
    transforms = Transforms("von-mises", samples=4)
    matrices, _ = transforms()
    (matrices * torch.randn(matrices.shape)).sum().backward()
    grads = [p.grad for p in transforms.parameters()]
    assert sum(p.numel() for p in transforms.parameters()) == 12
    assert all(g is not None and (g != 0).all() for g in grads)
    for source in SOURCES:
        learned = [p for p in Transforms(source).parameters() if p.requires_grad]
        assert bool(learned) == (source == "von-mises")


def test_unknown_source_and_no_samples_are_refused() -> None:
    with pytest.raises(UsageError, match="no transform source 'euler'; there are von-mises"):
        Transforms("euler")
    with pytest.raises(UsageError, match="at least 1 transform sample"):
        Transforms("haar", samples=0)
