"""Atoms to label next: least certain, and not neighbours of each other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mgsym.errors import UsageError
from mgsym.structure import Structure
from mgsym.uncertainty.active_learning import select_atoms
from mgsym.uncertainty.calibration import Calibration
from mgsym.uncertainty.error_covariance import ErrorCovariance


def field(count: int, box: float, fit: Calibration, seed: int = 0) -> ErrorCovariance:
    generator = torch.Generator().manual_seed(seed)
    places = box * torch.rand(count, 3, generator=generator, dtype=torch.float64)
    cell = box * torch.eye(3, dtype=torch.float64)
    std = 0.1 + 0.05 * torch.rand(count, generator=generator)
    return ErrorCovariance.of(Structure(places, cell, torch.zeros(count), ("Cu",)), std, fit)


def dense_greedy(errors: ErrorCovariance, count: int, noise: float) -> Tensor:
    """Condition the whole covariance on one label after the other."""
    every = torch.arange(len(errors.std))
    left = errors.covariance(every, every)
    chosen: list[int] = []
    for _ in range(count):
        variance = left.diagonal().clone()
        variance[chosen] = -1
        best = int(variance.argmax())
        left = left - left[:, best, None] * left[best] / (left[best, best] + noise)
        chosen.append(best)
    return torch.tensor(chosen)


def test_without_correlation_the_largest_errors_are_chosen() -> None:
    errors = field(200, 20.0, Calibration())
    assert torch.equal(select_atoms(errors, 20), errors.std.argsort(descending=True)[:20])


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_chosen_as_by_conditioning_the_whole_covariance(noise: float) -> None:
    errors = field(300, 16.0, Calibration(fraction=0.8, length=1.5))
    assert torch.equal(select_atoms(errors, 40, noise), dense_greedy(errors, 40, noise))


def test_atoms_that_hang_together_are_not_chosen_together() -> None:
    fit = Calibration(fraction=0.9, length=3.0)
    errors, alone = field(1000, 25.0, fit), field(1000, 25.0, Calibration())
    assert (
        _shortest(errors, select_atoms(errors, 30)) > 4 > _shortest(alone, select_atoms(alone, 30))
    )
    assert torch.equal(select_atoms(errors, 30), select_atoms(errors, 30))
    assert torch.equal(select_atoms(errors, 30)[:10], select_atoms(errors, 10))


def _shortest(errors: ErrorCovariance, rows: Tensor) -> float:
    """Å, between two of the atoms."""
    apart = errors.fractional[rows, None] - errors.fractional[rows]
    length = ((apart - apart.round()) @ errors.cell).norm(dim=2)
    return float(length[~torch.eye(len(rows), dtype=torch.bool)].min())


def test_only_candidates_are_chosen() -> None:
    errors = field(100, 12.0, Calibration(fraction=0.5, length=2.0))
    free = torch.arange(100) % 3 == 0
    assert bool(free[select_atoms(errors, 34, 0.01, free)].all())
    with pytest.raises(UsageError, match="35 atoms to choose, expected 1 to 34"):
        select_atoms(errors, 35, 0.01, free)
    with pytest.raises(UsageError, match="0 atoms to choose"):
        select_atoms(errors, 0)
