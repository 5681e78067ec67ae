"""The soft mask of GNNExplainer, for comparison (Ying et al., NeurIPS 2019).

They move the expectation over subgraphs into f and minimise the error of f(G ⊙ σ(M)). For
attention normalised over the edges of a node that is a poor stand-in: a factor common to all
edges of a node cancels, so that a mask can fade to nothing and change no prediction.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mgsym.errors import UsageError
from mgsym.explanation.computation_graph import ComputationGraph, full_prediction
from mgsym.explanation.explanation import Explanation
from mgsym.explanation.methods.masks import JITTER, at_least, normal, spread_of
from mgsym.models.base import BarrierModel
from mgsym.nn.egat import scaled_attention
from mgsym.utils.progress import Progress


def soft_mask(
    model: BarrierModel,
    part: ComputationGraph,
    generator: torch.Generator,
    progress: Progress | None,
    *,
    budget: int = 50,
    steps: int = 100,
    learning_rate: float = 0.1,
    size: float = 0.1,
    entropy: float = 0.01,
    start: float = 0.9,
    through: str = "edge_weight",
    initialisations: int = 2,
) -> Explanation:
    """GNNExplainer's soft mask, for comparison: minimise the error of f(G ⊙ σ(M)).

    The loss is ((f(G ⊙ σ(M)) − f(G))/s)² + size · max(0, log(Σ σ(M)/budget)) + entropy · mean H.
    The size is a budget, since a sum over tens of thousands of edges swamps the error and a
    mean of them is swamped by it. The mask reported is the mean of all initialisations.

    Args:
        budget: how many edges the mask is to keep, Σ σ(M).
        steps: of Adam, each initialisation.
        learning_rate: of Adam.
        size, entropy: weights of the terms.
        start: the mask's first value; near 1, where the prediction is the full one.
        through: ``edge_weight`` (fading to deletion) or ``attention_scale`` (after the softmax).
        initialisations: how many masks to average.
    """
    at_least(1, budget=budget, steps=steps, initialisations=initialisations)
    if through not in ("edge_weight", "attention_scale"):
        raise UsageError(f"through is {through!r}, expected edge_weight or attention_scale")
    if not 0 < start < 1:
        raise UsageError(f"start is {start:g}, expected a mask value between 0 and 1")
    full, scale = full_prediction(model, part), float(model.label_scale)
    masks = []
    for first in range(0, initialisations * steps, steps):
        logits = torch.full((part.bonds,), start, device=part.edges.device).logit()
        logits = (logits + JITTER * normal(logits, generator)).requires_grad_()
        optimizer = torch.optim.Adam([logits], lr=learning_rate)
        for step in range(steps):
            mask = logits.sigmoid()
            error = ((_masked(model, part, mask, through) - full) / scale) ** 2
            loss = error + size * (mask.sum() / budget).log().clamp(min=0)
            loss = loss + entropy * _entropy(logits).mean()
            (logits.grad,) = torch.autograd.grad(loss, logits)
            optimizer.step()
            if progress is not None:
                progress(first + step + 1, initialisations * steps, error=float(error.detach()))
        masks.append(logits.detach().sigmoid())
    mean = torch.stack(masks).mean(0)
    with torch.no_grad():
        masked = float(_masked(model, part, mean, through))
    return part.explanation(
        "soft-mask", mean, prediction=full, masked_prediction=masked, spread=spread_of(masks)
    )


def _masked(model: BarrierModel, part: ComputationGraph, mask: Tensor, through: str) -> Tensor:
    """eV, the prediction under a mask [m] of edges or of their attention."""
    if through == "edge_weight":
        return part.predict(model, mask)
    with scaled_attention(mask[part.bond]):
        return part.predict(model)


def _entropy(logits: Tensor) -> Tensor:
    """[m], H(σ(M)) in nats."""
    softplus = torch.nn.functional.softplus
    mask = logits.sigmoid()
    return mask * softplus(-logits) + (1 - mask) * softplus(logits)
