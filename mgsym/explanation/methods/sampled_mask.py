"""Learn a mask by drawing subgraphs: the expectation of GNNExplainer as it stands.

Ying, Bourgeois, You, Zitnik & Leskovec, "GNNExplainer: Generating Explanations for Graph Neural
Networks", NeurIPS 2019. Their objective (their eqs. 3–4) is an expectation over subgraphs S in
which each edge e is kept with probability σ(M_e):

    minimise over M  E_S |f(S) − f(G)| / s    with E|S| = Σ σ(M) small,    s: the label's sd

This method keeps the expectation. It follows the score-function gradient (Williams 1992)

    ∂/∂M_e E[L] = E[(L − L̄) (1[e in S] − σ(M_e))],

with the other subgraphs of the step as baseline, and needs no gradient of the model. Which edges
suffice is not unique, so two seeds find sets of equal worth that share few edges: `edge_mask` is
the method that settles on one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mgsym.errors import UsageError
from mgsym.explanation.computation_graph import ComputationGraph, full_prediction
from mgsym.explanation.explanation import Explanation
from mgsym.explanation.methods.attribution import path_slopes
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
from mgsym.models.base import BarrierModel
from mgsym.utils.progress import Progress

SHRINK = 0.6  # of the steps bring the expected number of edges down to the budget


def sampled_mask(
    model: BarrierModel,
    part: ComputationGraph,
    generator: torch.Generator,
    progress: Progress | None,
    *,
    budget: int = 50,
    steps: int = 150,
    draws: int = 32,
    learning_rate: float = 0.5,
    start: int = 300,
    initialisations: int = 1,
) -> Explanation:
    """Learn which edges keep the prediction when all others are deleted.

    Which edges suffice need not be unique, so the mask reported is the best of several, not
    their mean: a mean of masks is a mask for none of them. Their spread tells how unique it is.

    Args:
        budget: how many edges the mask is to keep, Σ σ(M).
        steps: of Adam, each initialisation.
        draws: subgraphs drawn each step.
        learning_rate: of Adam.
        start: how many edges the mask keeps at first, those of steepest gradient before others.
        initialisations: how often to start again; the mask of least error is taken.
    """
    at_least(1, budget=budget, steps=steps, start=start, initialisations=initialisations)
    at_least(2, draws=draws)
    full, scale = full_prediction(model, part), float(model.label_scale)
    try:
        prior = path_slopes(model, part, (1.0,)).abs().clamp(min=1e-12).log()
    except UsageError:  # no gradient: near edges first
        prior = -part.hop[part.first].float()
    prior = (prior - threshold(prior, max(start, budget))).clamp(LOWEST, HIGHEST)
    found: list[tuple[float, float, Tensor]] = []  # error and prediction in eV, mask

    def told(step: int, error: Tensor) -> None:
        if progress is not None:
            progress(
                len(found) * steps + step + 1, initialisations * steps, error=float(error.mean())
            )

    for _ in range(initialisations):
        logits = prior + JITTER * normal(prior, generator)
        optimizer = torch.optim.Adam([logits], lr=learning_rate, betas=(0.9, 0.99))
        for step in range(steps):
            sought = budget * max(start / budget, 1) ** max(1 - step / (SHRINK * steps), 0)
            kept = probabilities(logits, sought)
            drawn = _draw(kept, draws, generator)
            error = (part.predict_deleted(model, drawn) - full).abs() / scale
            logits.grad = _score_gradient(error, drawn, kept)
            optimizer.step()
            told(step, error)
        mask = probabilities(logits, budget)
        predicted = part.predict_deleted(model, _draw(mask, draws, generator))
        error = (predicted - full).abs()
        found.append((float(error.mean()), float(predicted.mean()), mask))
    _, masked, best = min(found, key=lambda each: each[0])
    spread = spread_of([mask for _, _, mask in found])
    return part.explanation(
        "sampled-mask", best, prediction=full, masked_prediction=masked, spread=spread
    )


def _draw(kept: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """[draws, m] bool, subgraphs in which each edge is kept with its probability."""
    chance = torch.rand(draws, len(kept), generator=generator)  # on the CPU: one seed, one result
    return chance.to(kept.device) < kept


def _score_gradient(error: Tensor, drawn: Tensor, kept: Tensor) -> Tensor:
    """[m], the gradient of the expected error by the logits.

    Errors are standardised, so that a step does not depend on how large they are, and the part
    that would change the number of edges, which the budget holds, is projected out.
    """
    advantage = (error - error.mean()) / error.std().clamp(min=1e-8)
    gradient = advantage @ (drawn.to(kept.dtype) - kept) / len(error)
    slope = kept * (1 - kept)
    return gradient - slope * (gradient.sum() / slope.sum().clamp(min=1e-12))
