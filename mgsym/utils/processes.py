"""Several processes on one task, as torchrun starts them: who is who, who does what, and sums.

A training step's structures are shared out over the processes. What one process would compute over
the whole batch (batch statistics, the loss, gradients) is summed over them, forward and backward,
so that the run is the one of a single process to rounding.

Searches, predictions and the trainings of a benchmark do not depend on one another: each process
does its own (`alone`), and waits for the others at the end. When one fails, the others stop, and
the first that failed says why.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from mgsym.errors import MgsymError

T = TypeVar("T")
_PATIENCE = timedelta(hours=2)  # another process may be evaluating, or writing
_UNTIL_DONE = timedelta(days=60)  # another process may have the longer share
_MEETING = timedelta(minutes=10)  # until all are there
_LOOK = 1.0  # s between two looks at whether another process has failed
_STAY = 3.0  # s for which the process that keeps the notes waits for others that fail, too

_ALONE = False


def rank() -> int:
    """Which of the processes this one is, from 0; as torchrun says."""
    return int(os.environ.get("RANK", "0")) if count() > 1 else 0


def count() -> int:
    """How many processes torchrun started; 1 without it."""
    return 1 if _ALONE else int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def alone() -> Iterator[None]:
    """Let this process do work of its own, as if there were no others."""
    global _ALONE
    before, _ALONE = _ALONE, True
    try:
        yield
    finally:
        _ALONE = before


@contextmanager
def joined(device: torch.device | None = None) -> Iterator[None]:
    """Have the processes connected, so that those that wait hear when one ends.

    Args:
        device: where they compute together: by nccl on GPUs, each its own, else by gloo; None for
            those that work alone, however long, and meet at the end.
    """
    if count() == 1 or distributed.is_initialized():
        yield
        return
    with _refusing_lost_processes():
        distributed.init_process_group(
            "nccl" if device is not None and device.type == "cuda" else "gloo",
            timeout=_UNTIL_DONE if device is None else _PATIENCE,
        )
    try:
        yield
    except BaseException:
        first_to_fail()  # noted before the others find this process gone
        raise
    finally:
        distributed.destroy_process_group()


def own_device(name: str | torch.device) -> str | torch.device:
    """Of several processes on a machine with GPUs, each takes one where `name` leaves it open."""
    if count() > 1 and str(name) in ("auto", "cuda") and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return name


def own_share(items: int) -> slice:
    """Which of so many things, in their order, this process takes."""
    return slice(items * rank() // count(), items * (rank() + 1) // count())


def barrier() -> None:
    """Wait for all processes."""
    total(torch.zeros(1))


def gathered(item: T) -> list[T]:
    """What each process has, in their order; empty in all but the first."""
    if count() == 1:
        return [item]
    items: list[Any] | None = [None] * count() if rank() == 0 else None
    with _refusing_lost_processes():
        distributed.gather_object(item, items)
    return items or []


def total(values: Tensor) -> Tensor:
    """The sum over all processes, without gradients; values as they are of one process alone."""
    if count() == 1 or not distributed.is_initialized():
        return values
    summed = values.detach().clone()
    if distributed.get_backend() == "nccl":
        summed = summed.cuda()
    with _refusing_lost_processes():
        distributed.all_reduce(summed)
    return summed.to(values.device)


def any_of(flags: Sequence[bool]) -> list[bool]:
    """Whether each of some flags is set in any process."""
    return [bool(x) for x in (total(torch.tensor([float(flag) for flag in flags])) > 0).tolist()]


# ---- work that each does alone ----

_NOTES: Store | None = None  # what all processes can write into and read
_FIRST: bool | None = None  # to fail, where this process has failed
_FAILED, _LOOKED = False, 0.0  # whether one had failed, and when that was looked up


def meet() -> None:
    """Connect to the notes of all processes, which torchrun keeps, or else the first of them.

    Raises:
        MgsymError: they cannot be reached.
    """
    global _NOTES
    if count() > 1 and _NOTES is None:
        try:
            store, _, _ = next(rendezvous("env://", timeout=_MEETING))
        except (RuntimeError, ValueError) as error:
            raise MgsymError(
                f"the other processes of this run cannot be reached ({str(error)[:80]}): start "
                "them with torchrun"
            ) from error
        _NOTES = PrefixStore("mgsym", store)


def taken(items: int, kind: str) -> Iterator[int]:
    """Places of things to do, one after the other, none of which another process has taken."""
    if count() == 1:
        yield from range(items)
        return
    meet()
    assert _NOTES is not None
    while True:
        with _refusing_lost_processes():
            place = _NOTES.add(f"taken {kind}", 1) - 1
        if place >= items:
            return
        yield place


def first_to_fail() -> bool:
    """Note that this process has failed; whether it is the first, which is to say why."""
    global _FIRST
    if _FIRST is None:
        if _NOTES is None:
            return rank() == 0
        try:
            _FIRST = _NOTES.add("failed", 1) == 1
        except RuntimeError:  # gone with the process that kept the notes: that was perhaps killed
            _FIRST = True
        else:
            _keep_notes_for_others()
    return _FIRST


def _keep_notes_for_others() -> None:
    """Stay a moment, so that others which fail with this process can read that it was the first.

    Without torchrun the notes go with the first process; torchrun's outlive all of them.
    """
    if rank() != 0 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return
    assert _NOTES is not None
    until = time.monotonic() + _STAY
    while _NOTES.add("failed", 0) < count() and time.monotonic() < until:
        time.sleep(0.02)


def one_failed() -> bool:
    """Whether one of the processes has failed; looked up now and then."""
    global _FAILED, _LOOKED
    if _NOTES is None or _FAILED or time.monotonic() - _LOOKED < _LOOK:
        return _FAILED
    try:
        _FAILED = _NOTES.add("failed", 0) > 0
    except RuntimeError:
        _FAILED = True
    _LOOKED = time.monotonic()
    return _FAILED


# ---- a batch that is shared out ----


@dataclass(frozen=True)
class Share:
    """Which part of a batch this process has: (first row, rows, rows of all) of nodes and edges."""

    nodes: tuple[int, int, int]
    edges: tuple[int, int, int]


_SHARE: Share | None = None


@contextmanager
def shared_batch(share: Share | None) -> Iterator[None]:
    """Sum what belongs to a batch over all processes, while the block runs."""
    global _SHARE
    before, _SHARE = _SHARE, share
    try:
        yield
    finally:
        _SHARE = before


def is_shared() -> bool:
    """Whether other processes have parts of the batch."""
    return _SHARE is not None


def whole_rows(rows: int) -> tuple[int, int]:
    """Of a tensor of a batch's nodes or edges: the first row here, and the rows of all."""
    if _SHARE is None:
        return 0, rows
    first, own, of_all = _SHARE.edges if rows == _SHARE.edges[1] else _SHARE.nodes
    return (first, of_all) if rows == own else (0, rows)


def batch_sum(values: Tensor) -> Tensor:
    """Sum over the processes that share a batch; so are gradients on their way back."""
    if _SHARE is None:
        return values
    summed: Tensor = _Sum.apply(values)
    return summed


def batch_count(rows: int) -> int:
    """How many rows the batch has, here and in other processes."""
    return rows if _SHARE is None else whole_rows(rows)[1]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return total(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return total(grad)


def sum_gradients(parameters: Iterator[torch.nn.Parameter]) -> None:
    """Add up the gradients of all processes, in one message."""
    trained = [p for p in parameters if p.requires_grad]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    summed = total(torch.cat([p.grad.flatten() for p in trained if p.grad is not None]))
    for parameter, grad in zip(trained, summed.split([p.numel() for p in trained]), strict=True):
        parameter.grad = grad.view_as(parameter).clone()


@contextmanager
def _refusing_lost_processes() -> Iterator[None]:
    """One line where another process is gone."""
    try:
        yield
    except RuntimeError as error:  # gloo and nccl raise nothing else
        raise MgsymError(
            "another process of this run has ended or cannot be reached: see what it said, then "
            "go on with --resume"
        ) from error
