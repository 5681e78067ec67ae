"""Read the attention of a model while it predicts.

A layer with attention gives it to `record_attention`; whoever wants to see it predicts inside
`recorded_attention`. Nothing is kept otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

_seen: ContextVar[list[Tensor] | None] = ContextVar("attention", default=None)


def record_attention(alpha: Tensor) -> None:
    """Keep the attention [e, heads] of a layer, if someone is looking."""
    seen = _seen.get()
    if seen is not None:
        seen.append(alpha.detach())


@contextmanager
def recorded_attention() -> Iterator[list[Tensor]]:
    """Yields a list that fills with [e, heads] per layer, in the order of the layers."""
    seen: list[Tensor] = []
    token = _seen.set(seen)
    try:
        yield seen
    finally:
        _seen.reset(token)
