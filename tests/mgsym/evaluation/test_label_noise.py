"""The variance of a mean over few searches."""

from __future__ import annotations

import math

import pytest
import torch

from mgsym.evaluation.label_noise import TYPICAL_VARIANCE, SearchNoise

NAN = float("nan")


def test_pools_the_scatter_of_single_searches() -> None:
    generator = torch.Generator().manual_seed(0)
    single = 0.9 * torch.randn(2000, 4, generator=generator, dtype=torch.float64)
    stderr = single.std(1) / 2
    noise = SearchNoise.fit(stderr, torch.full((2000,), 4))
    assert noise.variance == pytest.approx(0.81, rel=0.05)
    expected = (30 * 0.33 + 3 * float((4 * stderr**2).sum())) / (30 + 6000)
    assert noise.variance == pytest.approx(expected, rel=1e-12)


def test_little_is_made_of_few_searches() -> None:
    stderr = torch.tensor([NAN, NAN, 1e-6, 0.05, 0.05])
    events = torch.tensor([0, 1, 2, 2, 1000])
    variance = SearchNoise(0.4, prior_degrees_of_freedom=10).of_means(stderr, events)
    assert variance[0] == math.inf
    assert variance[1] == pytest.approx(0.4)
    assert variance[2] == pytest.approx(10 * 0.4 / 11 / 2)
    assert variance[3] == pytest.approx((0.05**2 * 2 + 10 * 0.4) / 11 / 2)
    assert variance[4] == pytest.approx(0.05**2, rel=0.01)


def test_without_repeats_the_typical_variance_stands() -> None:
    noise = SearchNoise.fit(torch.tensor([NAN, NAN]), torch.tensor([0, 1]))
    assert noise.variance == pytest.approx(TYPICAL_VARIANCE)
