"""What the learned masks share: budgets, starts and spreads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mgsym.errors import UsageError

LOWEST, HIGHEST = -8.0, 3.0  # of starting logits: no edge is beyond reach, none is certain
JITTER = 0.1  # of starting logits, which makes initialisations differ


@torch.no_grad()
def threshold(logits: Tensor, total: float) -> Tensor:
    """The t [..., 1] for which Σ σ(logits − t) = total in each row of [..., m], by bisection."""
    low = logits.amin(-1, keepdim=True).double() - 20
    high = logits.amax(-1, keepdim=True).double() + 20
    for _ in range(40):
        middle = (low + high) / 2
        above = (logits - middle.to(logits)).sigmoid().sum(-1, keepdim=True) > total
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return ((low + high) / 2).to(logits)


def probabilities(logits: Tensor, total: float) -> Tensor:
    """[m], the mask, shifted so that it keeps `total` edges on average."""
    return (logits - threshold(logits, total)).sigmoid()


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """[m], normal numbers drawn on the CPU: one seed, one result on every device."""
    return torch.randn(len(like), generator=generator).to(like.device)


def spread_of(masks: Sequence[Tensor]) -> Tensor | None:
    """[m], standard deviation between initialisations; None of one."""
    return torch.stack(list(masks)).std(0, correction=0) if len(masks) > 1 else None


def at_least(least: int, **settings: int) -> None:
    """Raise UsageError where a setting is less than `least`."""
    for name, value in settings.items():
        if value < least:
            raise UsageError(f"{name} is {value}, expected at least {least}")
