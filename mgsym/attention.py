"""Read the attention of a model while it predicts, or scale it.

A layer with attention gives it to `record_attention`; whoever wants to see it predicts inside
`recorded_attention`. Nothing is kept otherwise. A layer multiplies its attention by
`attention_scale`, which is None but inside `scaled_attention`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

_seen: ContextVar[list[Tensor] | None] = ContextVar("attention", default=None)
_scale: ContextVar[Tensor | None] = ContextVar("attention_scale", default=None)


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


def attention_scale() -> Tensor | None:
    """Return what attention is to be multiplied by after its softmax, [e]; None for nothing."""
    return _scale.get()


@contextmanager
def scaled_attention(scale: Tensor | None) -> Iterator[None]:
    """Multiply the attention of every layer by a number for each edge, [e], after its softmax.

    It is what DGL calls an edge weight, and not the same as deleting edges: attention is not
    normalised again. Models without attention predict as ever.
    """
    token = _scale.set(scale)
    try:
        yield
    finally:
        _scale.reset(token)
