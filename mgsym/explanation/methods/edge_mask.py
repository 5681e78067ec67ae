"""The default explainer: an edge mask that settles on one answer.

GNNExplainer (Ying et al., NeurIPS 2019) for regression, with a fixed budget of edges: minimise
over the mask m = σ(M − t), t such that Σ m is the budget,

    log(1 + ((f(G ⊙ m) − f(G)) / s)²)          these edges should suffice,
    − necessity · log |Σ m φ| / s              their deletion should be felt, to first order,
    + anchor · ½ Σ (M − log|φ|)²               and nothing else should decide,

where s is the label's standard deviation and φ the integrated gradients of the edges, which also
are the start. Tens of thousands of logits answer for one number, so that without the anchor
nearly all directions are flat and a mask is mostly its own noise: two seeds shared 5 % of their
edges. With it the optimum is one, and initialisations agree (`agreement`); what is left between
them is reported as spread, and their masks are averaged.

A soft mask need not suffice once its small values are deleted. So at last edges just inside the
budget are exchanged for edges outside, one pair at a time and the best pair first, until the
prediction stays with the edges of the budget alone (`exchange`). This draws nothing at random.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mgsym.errors import UsageError
from mgsym.explanation.agreement import mean_agreement
from mgsym.explanation.computation_graph import ComputationGraph, computation_graph, full_prediction
from mgsym.explanation.explanation import Explanation
from mgsym.explanation.methods.attribution import midpoints, path_slopes
from mgsym.explanation.methods.exchange import exchange
from mgsym.explanation.methods.masks import (
    HIGHEST,
    JITTER,
    LOWEST,
    at_least,
    normal,
    probabilities,
    spread_of,
    threshold,
)
from mgsym.graph import collate
from mgsym.models.base import BarrierModel
from mgsym.utils.progress import Progress

PATH = 4  # steps of the integrated gradients that a mask starts from
POOL = 600  # edges that are learned: those of largest start, and all that arrive at the atom


def edge_mask(
    model: BarrierModel,
    part: ComputationGraph,
    generator: torch.Generator,
    progress: Progress | None,
    *,
    budget: int = 50,
    steps: int = 40,
    learning_rate: float = 0.1,
    necessity: float = 3.0,
    anchor: float = 0.1,
    initialisations: int = 4,
    exchanges: int = 30,
    tolerance: float = 0.02,
) -> Explanation:
    """Learn which edges keep the prediction, and change it when they are deleted.

    Args:
        budget: how many edges the mask is to keep, Σ m.
        steps: of Adam.
        learning_rate: of Adam; it falls to zero.
        necessity, anchor: weights of the terms.
        initialisations: how many masks are learned, from starts with noise, and averaged.
        exchanges: how many pairs of edges may be exchanged at most.
        tolerance: error, in standard deviations of the label, at which exchanging stops.
    """
    at_least(1, budget=budget, steps=steps, initialisations=initialisations)
    at_least(0, exchanges=exchanges)
    full = full_prediction(model, part)
    attribution = _attribution(model, part)
    start = _start(part, attribution, budget)
    logits = torch.stack(
        [start + JITTER * normal(start, generator) for _ in range(initialisations)]
    )
    if attribution is not None:
        settings = (budget, steps, learning_rate, necessity, anchor)
        _learn(model, part, full, start, attribution, logits, settings, progress)
    masks = [probabilities(row, budget) for row in logits]
    mean = torch.stack(masks).mean(0)
    mean = exchange(model, part, full, mean, budget, exchanges, tolerance)
    alone = torch.zeros(1, len(mean), dtype=torch.bool, device=mean.device)
    alone[0, mean.argsort(descending=True, stable=True)[:budget]] = True
    return part.explanation(
        "edge-mask",
        mean,
        prediction=full,
        masked_prediction=float(part.predict_deleted(model, alone)),
        spread=spread_of(masks),
        agreement=mean_agreement(masks, budget),
    )


def _attribution(model: BarrierModel, part: ComputationGraph) -> Tensor | None:
    """[b] eV, integrated gradients; None of a model without gradients."""
    try:
        return path_slopes(model, part, midpoints(PATH))
    except UsageError:
        return None


def _start(part: ComputationGraph, attribution: Tensor | None, budget: int) -> Tensor:
    """[b], the logits to start from; without gradients, edges near the atom come first."""
    if attribution is None:
        start = part.nearness()
    else:
        start = attribution.abs().clamp(min=1e-12).log()
    return (start - threshold(start, budget)).clamp(LOWEST, HIGHEST)


def _learn(
    model: BarrierModel,
    part: ComputationGraph,
    full: float,
    start: Tensor,
    attribution: Tensor,
    logits: Tensor,
    settings: tuple[int, int, float, float, float],
    progress: Progress | None,
) -> None:
    """Improve `logits` [initialisations, b] in place, all of them in one batch."""
    budget, steps, learning_rate, necessity, anchor = settings
    first = start + torch.where(part.hop[part.first] == 1, HIGHEST - LOWEST, 0.0)
    edges = part.edges_of(first.argsort(descending=True, stable=True)[: max(POOL, 2 * budget)])
    small = computation_graph(part.graph.with_edges(edges), part.node, part.depth)
    pool, place = part.bond[edges[small.edges]].unique(return_inverse=True)
    rows = len(logits)
    batch = collate([small.graph] * rows)
    nodes = torch.arange(rows, device=pool.device) * small.graph.num_nodes + small.node
    scale = float(model.label_scale)
    learned, prior, phi = logits[:, pool].clone(), start[pool], attribution[pool] / scale
    optimizer = torch.optim.Adam([learned], lr=learning_rate, betas=(0.9, 0.99))
    total = min(budget, 0.9 * len(pool))
    for step in range(steps):
        shift = threshold(learned, total)
        moving = learned.detach().requires_grad_()
        mask = (moving - shift).sigmoid()
        error = (model(batch, mask[:, place].flatten())[nodes] - full) / scale
        loss = (1 + error.square()).log().sum()
        loss = loss - necessity * (1e-3 + (mask @ phi).abs()).log().sum()
        loss = loss + anchor / 2 * (moving - prior).square().sum()
        (gradient,) = torch.autograd.grad(loss, moving)
        learned.grad = _along_budget(gradient, mask.detach())
        optimizer.param_groups[0]["lr"] = learning_rate * (1 - step / steps)
        optimizer.step()
        if progress is not None:
            progress(step + 1, steps, error=float(error.detach().abs().mean()))
    logits[:, pool] = learned


def _along_budget(gradient: Tensor, mask: Tensor) -> Tensor:
    """The gradient without the part that would change Σ m, which the budget holds."""
    slope = mask * (1 - mask)
    share = gradient.sum(1, keepdim=True) / slope.sum(1, keepdim=True).clamp(min=1e-12)
    return gradient - slope * share
