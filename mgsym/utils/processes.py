"""Several processes on one task, as torchrun starts them: who is who, and sums over all of them.

A training step's structures are shared out over the processes. What one process would compute over
the whole batch (batch statistics, the loss, gradients) is summed over them, forward and backward,
so that the run is the one of a single process to rounding.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable

from mgsym.errors import MgsymError

_PATIENCE = timedelta(hours=2)  # another process may be evaluating, or writing


def rank() -> int:
    """Which of the processes this one is, from 0; as torchrun says."""
    return int(os.environ.get("RANK", "0")) if count() > 1 else 0


def count() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Have the processes connected: by nccl on GPUs, each its own, else by gloo."""
    if count() == 1 or distributed.is_initialized():
        yield
        return
    with _told():
        distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE
        )
    try:
        yield
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
    if distributed.is_initialized():
        total(torch.zeros(1))


def total(values: Tensor) -> Tensor:
    """The sum over all processes, without gradients; values as they are of one process alone."""
    if not distributed.is_initialized():
        return values
    summed = values.detach().clone()
    if distributed.get_backend() == "nccl":
        summed = summed.cuda()
    with _told():
        distributed.all_reduce(summed)
    return summed.to(values.device)


def any_of(flags: Sequence[bool]) -> list[bool]:
    """Whether each of some flags is set in any process."""
    return [bool(x) for x in (total(torch.tensor([float(flag) for flag in flags])) > 0).tolist()]


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
def _told() -> Iterator[None]:
    """One line where another process is gone."""
    try:
        yield
    except RuntimeError as error:  # gloo and nccl raise nothing else
        raise MgsymError(
            "another process of this run has ended or cannot be reached: see what it said, then "
            "go on with --resume"
        ) from error
