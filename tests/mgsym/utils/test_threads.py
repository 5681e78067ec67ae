"""Work shared out over threads: results in order, whatever the number of threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from mgsym.utils.threads import thread_map

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order_and_gradients_are_as_in_the_caller(threads: int) -> None:
    x = torch.ones(2, requires_grad=True)

    def seen(i: int) -> tuple[int, int, bool]:
        return i, torch.get_num_threads(), (x * i).requires_grad

    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            found = list(thread_map(seen, range(20), CPU))
        assert found == [(i, 1, gradients) for i in range(20)]
    assert torch.get_num_threads() == threads


def test_few_results_wait_and_what_nobody_wants_is_not_computed(threads: int) -> None:
    taken, lock = 0, threading.Lock()

    def count(i: int) -> int:
        nonlocal taken
        with lock:
            taken += 1
        return i

    assert next(iter(thread_map(count, range(100), CPU))) == 0
    assert taken <= threads + 1


def test_an_error_comes_where_its_result_would(threads: int) -> None:
    results = thread_map(lambda i: 1 // (3 - i), range(10), CPU)
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert torch.get_num_threads() == threads
