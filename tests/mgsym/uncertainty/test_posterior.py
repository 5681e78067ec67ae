"""A prediction and searches combined: exact where a dense solve is, and better than either."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mgsym.errors import InputError
from mgsym.structure import Structure
from mgsym.uncertainty.calibration import Calibration, decay
from mgsym.uncertainty.error_covariance import ErrorCovariance
from mgsym.uncertainty.posterior import Observed, condition

TRICLINIC = torch.tensor([[13.0, 0, 0], [3, 12, 0], [-2, 1, 14]], dtype=torch.float64)
NEAR = Calibration(fraction=0.6, length=2.5, common=0.2)


def glass(count: int, cell: Tensor, seed: int = 0) -> Structure:
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    return Structure((3 * places - 1) @ cell, cell, torch.zeros(count), ("Cu",))


def case(count: int, observed: int, cell: Tensor, seed: int = 0) -> tuple[Structure, Tensor, ...]:
    """Structure, prediction, its std, observed rows, their values and variances."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(n: int) -> Tensor:
        return torch.rand(n, generator=generator, dtype=torch.float64)

    rows = torch.randperm(count, generator=generator)[:observed]
    mean, std = 1.5 + uniform(count), 0.1 + 0.1 * uniform(count)
    values = mean[rows] + 0.5 * uniform(observed) - 0.1
    return glass(count, cell, seed), mean, std, rows, values, 0.02 + 0.1 * uniform(observed)


def dense(
    structure: Structure, mean: Tensor, std: Tensor, seen: Observed, fit: Calibration
) -> tuple[Tensor, Tensor]:
    """The textbook posterior, with periodic images summed one by one."""
    steps = torch.arange(-3.0, 4.0, dtype=torch.float64)
    shifts = torch.cartesian_prod(steps, steps, steps) @ structure.cell
    apart = structure.positions[:, None] - structure.positions
    apart = apart - torch.linalg.solve(structure.cell.T, apart.mT).mT.round() @ structure.cell
    squares = [(apart + shift).square().sum(-1) for shift in shifts]
    kernel = sum(decay(fit.kernel, s.sqrt() / fit.length) for s in squares)
    kernel = kernel / kernel.diagonal()[0]
    prior = std[:, None] * std * (fit.fraction * kernel + fit.common)
    prior.diagonal().copy_(std**2)
    cross = prior[:, seen.rows]
    inner = cross[seen.rows] + torch.diag(seen.variances)
    found = mean + cross @ torch.linalg.solve(inner, seen.values - mean[seen.rows])
    left = prior.diagonal() - (cross * torch.linalg.solve(inner, cross.T).T).sum(1)
    return found, left.sqrt()


@pytest.mark.parametrize(("kernel", "common"), [("gaussian", 0.0), ("matern", 0.3)])
def test_equals_the_dense_posterior_in_a_small_triclinic_cell(kernel: str, common: float) -> None:
    structure, mean, std, *seen = case(120, 70, TRICLINIC)
    fit = Calibration(fraction=0.6, length=2.5, common=common, kernel=kernel)
    found = condition(structure, mean, std, Observed(*seen), fit)
    expected = dense(structure, mean, std, Observed(*seen), fit)
    # farther images than 4.5 lengths are left out
    tolerance = 2e-5 if kernel == "gaussian" else 2e-3
    torch.testing.assert_close(found.mean, expected[0], atol=tolerance, rtol=0)
    torch.testing.assert_close(found.std, expected[1], atol=tolerance, rtol=0)


@pytest.mark.parametrize("fit", [None, Calibration(fraction=0.7, length=0.01)])
def test_without_correlation_it_is_the_mean_by_inverse_variance(fit: Calibration | None) -> None:
    structure, mean, std, rows, values, variances = case(300, 100, 30 * torch.eye(3).double())
    found = condition(structure, mean, std, Observed(rows, values, variances), fit)
    weight = 1 / std[rows] ** 2, 1 / variances
    expected = (weight[0] * mean[rows] + weight[1] * values) / sum(weight)
    torch.testing.assert_close(found.mean[rows], expected)
    torch.testing.assert_close(found.std[rows], (1 / sum(weight)).sqrt())
    others = torch.ones(300, dtype=torch.bool)
    others[rows] = False
    assert torch.equal(found.mean[others], mean[others])
    torch.testing.assert_close(found.std[others], std[others])


def test_blocks_of_space_give_what_one_solve_gives() -> None:
    structure, mean, std, *seen = case(600, 500, 20 * torch.eye(3).double())
    fit = Calibration(fraction=0.6, length=1.2, common=0.2)
    whole = condition(structure, mean, std, Observed(*seen), fit)
    parts = condition(structure, mean, std, Observed(*seen), fit, most_observations=200)
    moved = float((whole.mean - mean).std())
    assert 0 < float((parts.mean - whole.mean).abs().max()) < 0.03 * moved
    assert float((parts.std - whole.std).abs().max()) < 1e-3


def test_what_is_common_moves_atoms_that_are_far_from_every_search() -> None:
    structure, mean, std, rows, _, variances = case(200, 60, 60 * torch.eye(3).double())
    fit = Calibration(fraction=0.2, length=1.0, common=0.5)
    seen = Observed(rows, mean[rows] + 0.2, variances)
    found = condition(structure, mean, std, seen, fit)
    others = torch.ones(200, dtype=torch.bool)
    others[rows] = False
    expected = dense(structure, mean, std, seen, fit)
    assert float((found.mean - mean)[others].min()) > 0.05
    torch.testing.assert_close(found.mean, expected[0], atol=1e-6, rtol=0)


def test_neighbours_across_the_boundary_are_told() -> None:
    places = torch.tensor([[0.2, 5, 5], [19.8, 5, 5], [10, 5, 5]], dtype=torch.float64)
    cell = 20 * torch.eye(3, dtype=torch.float64)
    periodic = Structure(places, cell, torch.zeros(3), ("Cu",))
    std, mean = torch.full((3,), 0.2), torch.ones(3)
    seen = Observed(torch.tensor([0]), torch.tensor([1.4]), torch.tensor([0.01]))
    fit = Calibration(fraction=1.0, length=2.0)
    found = condition(periodic, mean, std, seen, fit).mean
    k = math.exp(-0.5 * (0.4 / 2) ** 2)
    expected = 1 + 0.4 * 0.04 / 0.05 * torch.tensor([1.0, k, 0.0], dtype=torch.float64)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    open_box = periodic.replace(periodic=(False, True, True))
    assert float(condition(open_box, mean, std, seen, fit).mean[1]) == pytest.approx(1, abs=1e-9)


def test_moving_the_atoms_together_changes_nothing() -> None:
    structure, mean, std, *seen = case(200, 120, TRICLINIC)
    moved = structure.replace(positions=structure.positions + torch.tensor([30.1, -7.7, 0.3]))
    first, second = (condition(s, mean, std, Observed(*seen), NEAR) for s in (structure, moved))
    torch.testing.assert_close(first.mean, second.mean)
    torch.testing.assert_close(first.std, second.std)


def test_it_finds_a_planted_field_better_than_inverse_variances_and_knows_its_error() -> None:
    structure = glass(700, 22 * torch.eye(3, dtype=torch.float64))
    std = torch.full((700,), 0.15, dtype=torch.float64)
    fit = Calibration(fraction=0.7, length=2.4, common=0.1)
    every = torch.arange(700)
    field = ErrorCovariance.of(structure, std, fit)
    covariance = field.covariance(every, every) + field.common[:, None] * field.common
    generator = torch.Generator().manual_seed(1)

    def normal() -> Tensor:
        return torch.randn(700, generator=generator, dtype=torch.float64)

    mean = 1.7 + 0.2 * normal()
    truth = mean + torch.linalg.cholesky(covariance) @ normal()
    seen = Observed(every, truth + 0.4 * normal(), torch.full((700,), 0.16))
    alone = condition(structure, mean, std, seen)
    together = condition(structure, mean, std, seen, fit)
    errors = [float((found.mean - truth).square().mean().sqrt()) for found in (alone, together)]
    assert errors[1] < errors[0] < 0.15
    expected = [float(found.std.square().mean().sqrt()) for found in (alone, together)]
    assert errors == pytest.approx(expected, rel=0.06)
    scaled = ((together.mean - truth) / together.std).square().mean().sqrt()
    assert float(scaled) == pytest.approx(1, abs=0.1)


def test_nothing_observed_is_the_prediction_and_certainty_does_not_move() -> None:
    structure, mean, std, *seen = case(50, 20, TRICLINIC)
    nothing = Observed(*(values[:0] for values in seen))
    found = condition(structure, mean, std, nothing, NEAR)
    assert torch.equal(found.mean, mean)
    torch.testing.assert_close(found.std, std)
    certain = torch.where(torch.arange(50) < 25, 0.0, std)
    found = condition(structure, mean, certain, Observed(*seen), NEAR)
    assert torch.equal(found.mean[:25], mean[:25])
    assert float(found.std[:25].max()) == 0


def test_numbers_that_are_none_are_refused() -> None:
    structure, mean, std, rows, values, variances = case(50, 20, TRICLINIC)
    bad = values.clone()
    bad[3] = math.nan
    with pytest.raises(InputError, match="a barrier found by searches is nan, expected a finite"):
        condition(structure, mean, std, Observed(rows, bad, variances))
    with pytest.raises(InputError, match="a variance of a barrier is 0"):
        condition(structure, mean, std, Observed(rows, values, 0 * variances))
    with pytest.raises(InputError, match=r"standard deviation of the prediction is -0\.1"):
        condition(structure, mean, torch.full((50,), -0.1), Observed(rows, values, variances))
    twice = torch.cat([rows[:1], rows[:19]])
    with pytest.raises(ValueError, match="19 distinct of 20 atoms"):
        condition(structure, mean, std, Observed(twice, values, variances))
