"""Independent pieces of work, shared out over threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from mgsym.utils.devices import one_thread

Item = TypeVar("Item")
Result = TypeVar("Result")


def thread_map(
    function: Callable[[Item], Result], items: Iterable[Item], device: torch.device
) -> Iterator[Result]:
    """Results of a function for each of some items, in their order.

    On a CPU each item has a thread of its own, as many at a time as torch has threads, and torch
    computes it with that thread alone: this keeps all of them busy where its operations are too
    small or too many to be shared out. Few results are kept waiting, so that memory is bounded.
    What it computes does not depend on how many threads there are. Gradients are recorded as where
    it is called.

    Args:
        function: what it does may not depend on other items.
        items: taken one by one, in the caller's thread.
        device: where the function computes; a GPU's work is not shared out.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield from map(function, items)
        return
    gradients = torch.is_grad_enabled()

    def call(item: Item) -> Result:
        with torch.set_grad_enabled(gradients):
            return function(item)

    with one_thread(), ThreadPoolExecutor(threads, initializer=_alone) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(call, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # whoever asked may want no more
            for future in waiting:
                future.cancel()


def _alone() -> None:
    torch.set_num_threads(1)
