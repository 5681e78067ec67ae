"""Segment reductions against loops, the weighted softmax against deletion."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mgsym.nn.scatter import (
    run_sums,
    segment_max,
    segment_mean,
    segment_shares,
    segment_softmax,
    segment_sum,
)


@pytest.fixture
def rows() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    return values, torch.randint(6, (50,), generator=generator)  # of 7 segments the last is empty


def test_reductions_equal_loops(rows: tuple[Tensor, Tensor]) -> None:
    values, index = rows
    for reduce, by_hand in (
        (segment_sum, lambda v: v.sum(0)),
        (segment_mean, lambda v: v.mean(0)),
        (segment_max, lambda v: v.max(0).values),
    ):
        found = reduce(values, index, 7)
        for k in range(6):
            torch.testing.assert_close(found[k], by_hand(values[index == k]))
    assert (segment_sum(values, index, 7)[6] == 0).all()
    assert (segment_mean(values, index, 7)[6] == 0).all()
    assert (segment_max(values, index, 7)[6] == -torch.inf).all()


def test_softmax_equals_dense(rows: tuple[Tensor, Tensor]) -> None:
    values, index = rows
    found = segment_softmax(values, index, 7)
    for k in range(6):
        torch.testing.assert_close(found[index == k], torch.softmax(values[index == k], dim=0))


def test_softmax_survives_large_numbers() -> None:
    found = segment_softmax(torch.tensor([1e4, 0.0, -1e4]), torch.zeros(3, dtype=torch.int64), 1)
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0, 0.0]))


def test_weight_zero_deletes_and_weight_one_changes_nothing(rows: tuple[Tensor, Tensor]) -> None:
    values, index = rows
    ones = torch.ones(50, dtype=torch.float64)
    torch.testing.assert_close(
        segment_softmax(values, index, 7, ones), segment_softmax(values, index, 7)
    )
    keep = torch.arange(50) % 3 != 0
    values = torch.where(keep[:, None], values, 500.0)  # deleted rows must not set the maximum
    found = segment_softmax(values, index, 7, keep.double())
    torch.testing.assert_close(found[keep], segment_softmax(values[keep], index[keep], 7))
    assert (found[~keep] == 0).all()


def test_a_segment_with_every_row_deleted_gives_zero() -> None:
    weight = torch.zeros(3, requires_grad=True)
    found = segment_softmax(torch.randn(3), torch.zeros(3, dtype=torch.int64), 1, weight)
    assert (found == 0).all()
    (grad,) = torch.autograd.grad(found.sum(), weight)
    assert torch.isfinite(grad).all()


def test_shares_of_a_segment_sum_to_one() -> None:
    values = torch.tensor([[1.0, 0.0], [3.0, 0.0], [5.0, 2.0]])
    found = segment_shares(values, torch.tensor([0, 0, 2]), 3)
    assert found.tolist() == [[0.25, 0.0], [0.75, 0.0], [1.0, 1.0]]


def test_gradients_by_finite_differences(rows: tuple[Tensor, Tensor]) -> None:
    values, index = rows
    weight = torch.rand(50, dtype=torch.float64) + 0.1
    inputs = (values.requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradcheck(lambda v, w: segment_softmax(v, index, 7, w), inputs)


@pytest.mark.parametrize("leading", [(), (6,)])
def test_runs_are_summed_in_order(leading: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(*leading, 9, generator=generator, dtype=torch.float64)
    sizes = [4, 0, 3, 2]
    found = run_sums(values, torch.tensor(sizes))
    expected = torch.stack([part.sum(-1) for part in values.split(sizes, dim=-1)], dim=-1)
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)
    weight = torch.arange(4.0, dtype=torch.float64)
    values.requires_grad_()
    again = run_sums(values, torch.tensor(sizes))
    torch.testing.assert_close(again, expected, rtol=1e-14, atol=1e-14)
    (gradient,) = torch.autograd.grad((again * weight).sum(), values)
    assert torch.equal(gradient, weight.repeat_interleave(torch.tensor(sizes)).expand_as(values))
