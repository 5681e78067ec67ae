"""Second moments give the same weights and correlations as the data themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mgsym.models.regression.moments import Moments, choose_strength, ridge_weights


def data(seed: int, count: int = 300, shift: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Five correlated features of different scale and mean; the target knows two of them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 5, generator=generator) @ torch.randn(5, 5, generator=generator)
    x = x * torch.tensor([1.0, 10.0, 0.1, 1.0, 3.0]) + torch.tensor([5.0, 0, 0, -20, shift])
    noise = 0.5 * torch.randn(count, generator=generator)
    return x, x[:, 0] - 0.3 * x[:, 4] + noise + shift


@pytest.fixture
def two() -> tuple[torch.Tensor, torch.Tensor, Moments]:
    """Two structures of different size and level: features, target and moments."""
    parts = [data(0, 300), data(1, 1500, shift=2.0)]
    x, y = (torch.cat(values) for values in zip(*parts, strict=True))
    return x.double(), y.double(), Moments.sum(Moments.of(*part) for part in parts)


def test_ridge_weights_minimise_the_penalised_squares(
    two: tuple[torch.Tensor, torch.Tensor, Moments],
) -> None:
    x, y, moments = two
    centred, target, scale = x - x.mean(0), y - y.mean(), x.std(0, correction=0)
    for strength, found in zip((1.0, 50.0), ridge_weights(moments, [1.0, 50.0]), strict=True):
        rows = torch.cat([centred, strength**0.5 * torch.diag(scale)])
        expected = torch.linalg.lstsq(rows, torch.cat([target, torch.zeros(5).double()])[:, None])
        torch.testing.assert_close(found, expected.solution[:, 0], rtol=1e-4, atol=1e-6)
    mean, level = moments.centre()
    torch.testing.assert_close(mean, x.mean(0))
    assert float(level) == pytest.approx(float(y.mean()))


def test_fewer_atoms_than_features_give_the_same_weights() -> None:
    """Rows are kept while they are few; joined, they become products once they are many."""
    parts = [data(seed, 40, shift=float(seed)) for seed in range(3)]
    wide = torch.randn(5, 100, generator=torch.Generator().manual_seed(1))
    glasses = [Moments.of((x / x.std(0)).double() @ wide.double(), y.double()) for x, y in parts]
    few, many = Moments.sum(glasses[:2]), Moments.sum(glasses)
    assert few.products is None
    assert many.deviations is None
    direct = replace(few, deviations=None, products=few.second())
    weights = ridge_weights(few, [1.0, 50.0])
    for found, expected in zip(weights, ridge_weights(direct, [1.0, 50.0]), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
        assert few.pearson(found) == pytest.approx(direct.pearson(found), abs=1e-9)
    torch.testing.assert_close(many.second(), torch.stack([m.second() for m in glasses]).sum(0))


def test_pearson_is_that_within_structures(
    two: tuple[torch.Tensor, torch.Tensor, Moments],
) -> None:
    x, y, moments = two
    weight = torch.tensor([1.0, 0.2, 0.0, -0.5, 0.1], dtype=torch.float64)
    found = x @ weight
    for part in (slice(0, 300), slice(300, None)):
        found[part] -= found[part].mean()
        y[part] -= y[part].mean()
    expected = float(torch.corrcoef(torch.stack([found, y]))[0, 1])
    assert moments.pearson(weight) == pytest.approx(expected, abs=1e-6)
    assert moments.pearson(torch.zeros(5).double()) == 0.0


def test_a_constant_feature_changes_nothing(
    two: tuple[torch.Tensor, torch.Tensor, Moments],
) -> None:
    x, y, _ = two
    (plain,) = ridge_weights(Moments.of(x, y), [3.0])
    (wider,) = ridge_weights(Moments.of(torch.cat([x, torch.ones(len(x), 1)], 1), y), [3.0])
    torch.testing.assert_close(wider, torch.cat([plain, torch.zeros(1).double()]))


def test_a_weight_of_two_counts_an_atom_twice() -> None:
    x, y = data(4, 60)
    weight = torch.arange(60) % 3  # 0, 1, 2
    rows = torch.repeat_interleave(torch.arange(60), weight)
    found, expected = Moments.of(x, y, weight.float()), Moments.of(x[rows], y[rows])
    for name in ("products", "cross", "counts", "means", "targets"):
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-3
        )
    assert found.square == pytest.approx(expected.square, rel=1e-5)


def test_the_strength_suits_what_is_learnt() -> None:
    """With few atoms to a feature, noise asks for a strong penalty, a clear signal for a weak."""
    generator = torch.Generator().manual_seed(3)

    def glasses(noise: float) -> list[Moments]:
        found = []
        for _ in range(3):
            x = torch.randn(80, 100, generator=generator)
            y = 0.3 * x.sum(1) + noise * torch.randn(80, generator=generator)
            found.append(Moments.of(x, y))
        return found

    assert choose_strength(glasses(0.0), (1e-3, 100.0)) == 1e-3
    assert choose_strength(glasses(2.0), (1.0, 100.0)) == 100.0
