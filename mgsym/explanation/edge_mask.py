"""Learn a mask over edges that keeps the prediction: GNNExplainer for regression, two ways.

Ying, Bourgeois, You, Zitnik & Leskovec, "GNNExplainer: Generating Explanations for Graph Neural
Networks", NeurIPS 2019. Their objective (their eqs. 3–4) is an expectation over subgraphs S in
which each edge e is kept with probability σ(M_e):

    minimise over M  E_S |f(S) − f(G)| / s    with E|S| = Σ σ(M) small,    s: the label's sd

They move the expectation into f, which leaves a soft mask: minimise over M the error of
f(G ⊙ σ(M)). `soft_mask` does that. For attention normalised over the edges of a node it is a poor
stand-in: a factor common to all edges of a node cancels, so that a mask can fade to nothing and
change no prediction, and what is left of it says little about subgraphs. `edge_mask` therefore
keeps the expectation. It draws subgraphs and follows the score-function gradient (Williams 1992)

    ∂/∂M_e E[L] = E[(L − L̄) (1[e in S] − σ(M_e))],

with the other subgraphs of the step as baseline. Subgraphs are small, so that is cheap, and what
it optimises is what deleting edges shows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mgsym.errors import UsageError
from mgsym.explanation.explanation import Explanation
from mgsym.explanation.receptive import Cone, full_prediction
from mgsym.explanation.simple import slopes
from mgsym.models.base import BarrierModel

LOWEST, HIGHEST = -8.0, 3.0  # of starting logits: no edge is beyond reach, none is certain
JITTER = 0.1  # of starting logits, which makes initialisations differ
SHRINK = 0.6  # of the steps bring the expected number of edges down to the budget


def edge_mask(
    model: BarrierModel,
    part: Cone,
    generator: torch.Generator,
    progress: Callable[..., None] | None,
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
    _at_least(1, budget=budget, steps=steps, start=start, initialisations=initialisations)
    _at_least(2, draws=draws)
    full, scale = full_prediction(model, part), float(model.label_scale)
    prior = slopes(model, part).abs().clamp(min=1e-12).log()
    prior = (prior - threshold(prior, max(start, budget))).clamp(LOWEST, HIGHEST)
    found: list[tuple[float, float, Tensor]] = []  # error and prediction in eV, mask

    def told(step: int, error: Tensor) -> None:
        if progress is not None:
            progress(
                len(found) * steps + step + 1, initialisations * steps, error=float(error.mean())
            )

    for _ in range(initialisations):
        logits = prior + JITTER * _normal(prior, generator)
        optimizer = torch.optim.Adam([logits], lr=learning_rate, betas=(0.9, 0.99))
        for step in range(steps):
            sought = budget * max(start / budget, 1) ** max(1 - step / (SHRINK * steps), 0)
            kept = _probabilities(logits, sought)
            drawn = _draw(kept, draws, generator)
            error = (part.predict_deleted(model, drawn) - full).abs() / scale
            logits.grad = _score_gradient(error, drawn, kept)
            optimizer.step()
            told(step, error)
        mask = _probabilities(logits, budget)
        predicted = part.predict_deleted(model, _draw(mask, draws, generator))
        error = (predicted - full).abs()
        found.append((float(error.mean()), float(predicted.mean()), mask))
    _, masked, best = min(found, key=lambda each: each[0])
    spread = _spread([mask for _, _, mask in found])
    return part.explanation(
        "edge-mask", best, prediction=full, masked_prediction=masked, spread=spread
    )


def soft_mask(
    model: BarrierModel,
    part: Cone,
    generator: torch.Generator,
    progress: Callable[..., None] | None,
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
    _at_least(1, budget=budget, steps=steps, initialisations=initialisations)
    if through not in ("edge_weight", "attention_scale"):
        raise UsageError(f"through is {through!r}, expected edge_weight or attention_scale")
    if not 0 < start < 1:
        raise UsageError(f"start is {start:g}, expected a mask value between 0 and 1")
    full, scale = full_prediction(model, part), float(model.label_scale)
    masks = []
    for first in range(0, initialisations * steps, steps):
        logits = torch.full((len(part.edges),), start, device=part.edges.device).logit()
        logits = (logits + JITTER * _normal(logits, generator)).requires_grad_()
        optimizer = torch.optim.Adam([logits], lr=learning_rate)
        for step in range(steps):
            mask = logits.sigmoid()
            error = ((part.predict(model, **{through: mask}) - full) / scale) ** 2
            loss = error + size * (mask.sum() / budget).log().clamp(min=0)
            loss = loss + entropy * _entropy(logits).mean()
            (logits.grad,) = torch.autograd.grad(loss, logits)
            optimizer.step()
            if progress is not None:
                progress(first + step + 1, initialisations * steps, error=float(error.detach()))
        masks.append(logits.detach().sigmoid())
    mean = torch.stack(masks).mean(0)
    with torch.no_grad():
        masked = float(part.predict(model, **{through: mean}))
    return part.explanation(
        "soft-mask", mean, prediction=full, masked_prediction=masked, spread=_spread(masks)
    )


def threshold(logits: Tensor, total: float) -> float:
    """The t for which Σ σ(logits − t) = total, by bisection."""
    low, high = float(logits.min()) - 20, float(logits.max()) + 20
    for _ in range(40):
        middle = (low + high) / 2
        if float((logits - middle).sigmoid().sum()) > total:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _probabilities(logits: Tensor, total: float) -> Tensor:
    """[m], the mask, shifted so that it keeps `total` edges on average."""
    return (logits - threshold(logits, total)).sigmoid()


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


def _entropy(logits: Tensor) -> Tensor:
    """[m], H(σ(M)) in nats."""
    softplus = torch.nn.functional.softplus
    mask = logits.sigmoid()
    return mask * softplus(-logits) + (1 - mask) * softplus(logits)


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(len(like), generator=generator).to(like.device)


def _spread(masks: list[Tensor]) -> Tensor | None:
    """[m], standard deviation between initialisations; None of one."""
    return torch.stack(masks).std(0, correction=0) if len(masks) > 1 else None


def _at_least(least: int, **settings: int) -> None:
    for name, value in settings.items():
        if value < least:
            raise UsageError(f"{name} is {value}, expected at least {least}")
