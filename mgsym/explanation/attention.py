"""Read an explanation from a model's attention."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mgsym.attention import recorded_attention
from mgsym.errors import UsageError
from mgsym.explanation.explanation import Explanation
from mgsym.explanation.receptive import Cone
from mgsym.models.base import BarrierModel


def attention(
    model: BarrierModel,
    part: Cone,
    generator: torch.Generator,
    progress: Callable[..., None] | None,
) -> Explanation:
    """The share of the atom's attention that passes through each edge.

    Attention flow from the atom outwards (rollout of Abnar & Zuidema, "Quantifying Attention Flow
    in Transformers", ACL 2020, without their identity term): the atom has 1; an edge s→d passes
    on α of what d has, α being the mean over layers and heads; an edge's importance is what it
    passes on, summed over the model's hops.

    Raises:
        UsageError: the model has no attention.
    """
    with recorded_attention() as seen, torch.no_grad():
        full = float(part.predict(model))
    seen = [alpha for alpha in seen if len(alpha) == len(part.edges)]
    if not seen:
        raise UsageError("this model has no attention to read: choose another method")
    mean = torch.stack([alpha.float().mean(1) for alpha in seen]).mean(0)
    importance = _flow(part, mean)
    return part.explanation("attention", importance, prediction=full)


def _flow(part: Cone, alpha: Tensor) -> Tensor:
    """[m], what passes through each edge."""
    graph = part.graph
    held = torch.zeros(graph.num_nodes, device=alpha.device)
    held[part.node] = 1
    total = torch.zeros_like(alpha)
    for _ in range(part.depth or graph.num_nodes):
        passed = alpha * held[graph.destination]
        total += passed
        held = torch.zeros_like(held).index_add(0, graph.source, passed)
        if float(held.sum()) < 1e-6:
            break
    return total
