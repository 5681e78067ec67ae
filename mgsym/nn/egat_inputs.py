"""What the passes over edges of an EGAT layer take, and the memory that they reuse."""

from __future__ import annotations

import ctypes
import math
from typing import NamedTuple

import torch
from torch import Tensor


class Learnt(NamedTuple):
    """What gradients go to: two parts of u, the edges, and the layer's weights.

    Attributes:
        p, q: [n, heads · out], what a node gives to the edges that leave it and that arrive.
        edges: [e, width], f.
        w_e: [heads · out, width].
        a: [heads, out], of the logits.
        gamma, beta: [heads · out], of the batch norm; no gamma leaves out the new edges.
        w, c: [width, heads · out] and [width], back to the edges' width.
    """

    p: Tensor
    q: Tensor
    edges: Tensor
    w_e: Tensor
    a: Tensor
    gamma: Tensor | None
    beta: Tensor
    w: Tensor
    c: Tensor


class Given(NamedTuple):
    """What no gradient goes to.

    Attributes:
        source, target: [e], the ends of each edge.
        kept, scale: the dropout of new edges: [e, width] bool, and what is kept is multiplied by.
        mean, variance: [heads · out], running, of z.
        eps: of the batch norm.
        training: whether mean and variance are those of these edges.
        precision: of the products over edges.
        memory: for z, which is stored there for the backward pass; None stores nothing.
        library: the passes over edges, compiled; None computes them with PyTorch.
    """

    source: Tensor
    target: Tensor
    kept: Tensor | None
    scale: float
    mean: Tensor
    variance: Tensor
    eps: float
    training: bool
    precision: torch.dtype
    memory: MemoryPool | None
    library: ctypes.CDLL | None = None


class MemoryPool:
    """Memory for z, reused from step to step: for a CPU to map fresh memory takes longer than
    to compute z. Other devices have such a pool already.

    It belongs to a layer, and is empty where that is copied.
    """

    def __init__(self) -> None:
        self.free: list[Tensor] = []

    def __deepcopy__(self, memo: object) -> MemoryPool:
        return MemoryPool()

    def __reduce__(self) -> tuple[type[MemoryPool], tuple[()]]:
        return MemoryPool, ()

    def clear(self) -> None:
        """Free the memory."""
        self.free.clear()

    def take(self, numbers: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """At least so many numbers; in steps of 2²² so that similar graphs share."""
        numbers = math.ceil(numbers / (1 << 22)) << 22 if device.type == "cpu" else numbers
        for i, memory in enumerate(self.free):
            if memory.dtype == dtype and memory.numel() == numbers and device.type == "cpu":
                return self.free.pop(i)
        self.free.clear()  # what does not fit now is of another graph
        return torch.empty(numbers, dtype=dtype, device=device)

    def give(self, memory: Tensor | None) -> None:
        """Take it back, when nothing reads it any more."""
        if memory is not None and memory.device.type == "cpu":
            self.free.append(memory)
