"""Explainers without anything to learn; a learned one should beat them."""

from __future__ import annotations

import torch
from torch import Tensor

from mgsym.errors import UsageError
from mgsym.explanation.computation_graph import ComputationGraph, full_prediction
from mgsym.explanation.explanation import Explanation
from mgsym.explanation.methods.masks import at_least
from mgsym.models.base import BarrierModel
from mgsym.nn.egat import recorded_attention
from mgsym.nn.scatter import segment_shares
from mgsym.utils.progress import Progress


def path_slopes(model: BarrierModel, part: ComputationGraph, weights: tuple[float, ...]) -> Tensor:
    """[b] eV, the mean of ∂f/∂w of every bond where all bonds weigh w, over several w.

    Raises:
        UsageError: the model has no gradient, as trees have none.
    """
    total = torch.zeros(part.bonds, device=part.edges.device)
    for value in weights:
        weight = torch.full_like(total, value, requires_grad=True)
        prediction = part.predict(model, weight)
        if not prediction.requires_grad:
            raise without_gradient()
        (slope,) = torch.autograd.grad(prediction, weight, allow_unused=True)
        total += 0 if slope is None else slope.nan_to_num()
    return total / len(weights)


def without_gradient() -> UsageError:
    """What to raise of a model whose prediction has no gradient."""
    return UsageError(
        "this model's prediction has no gradient with respect to edges: choose the "
        "method edge-mask, sampled-mask, leave-one-out or random"
    )


def midpoints(steps: int) -> tuple[float, ...]:
    """The weights between 0 and 1 at which an integral of `steps` steps is taken."""
    return tuple((step + 0.5) / steps for step in range(steps))


def gradient(
    model: BarrierModel,
    part: ComputationGraph,
    generator: torch.Generator,
    progress: Progress | None,
) -> Explanation:
    """How fast the prediction changes with the weight of each edge, |w ∂f/∂w| at w = 1, in eV.

    To first order it is what deleting the edge would do (gradient times input).
    """
    importance = path_slopes(model, part, (1.0,)).abs()
    return part.explanation("gradient", importance, prediction=full_prediction(model, part))


def integrated_gradients(
    model: BarrierModel,
    part: ComputationGraph,
    generator: torch.Generator,
    progress: Progress | None,
    *,
    steps: int = 16,
) -> Explanation:
    """|∫ ∂f/∂w dw| of every edge, all weights going from 0 to 1 together, in eV.

    Sundararajan, Taly & Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, eq. 1, on edge
    weights with the baseline 0, by the midpoint rule. Where a model only averages over
    neighbours, a weight common to all edges cancels, so that the ranking is that of `gradient`.

    Args:
        steps: of the integral.
    """
    at_least(1, steps=steps)
    importance = path_slopes(model, part, midpoints(steps)).abs()
    full = full_prediction(model, part)
    return part.explanation("integrated-gradients", importance, prediction=full)


def leave_one_out(
    model: BarrierModel,
    part: ComputationGraph,
    generator: torch.Generator,
    progress: Progress | None,
    *,
    candidates: int = 100,
) -> Explanation:
    """|f(G ∖ e) − f(G)| in eV: what deleting each edge alone does, exactly.

    One prediction per edge makes it dear, so only some edges are tried: those of steepest
    gradient, or, where the model has none, those of fewest hops; all others get 0.

    Args:
        candidates: how many edges to try.
    """
    at_least(1, candidates=candidates)
    full = full_prediction(model, part)
    try:
        likely = path_slopes(model, part, (1.0,)).abs()
    except UsageError:
        likely = -part.hop[part.first].float()
    tried = likely.argsort(descending=True, stable=True)[:candidates].tolist()
    importance = torch.zeros(part.bonds, device=part.edges.device)
    weight = torch.ones_like(importance)
    for done, edge in enumerate(tried, start=1):
        weight[edge] = 0
        with torch.no_grad():
            importance[edge] = (part.predict(model, weight) - full).abs()
        weight[edge] = 1
        if progress is not None:
            progress(done, len(tried))
    return part.explanation("leave-one-out", importance, prediction=full)


def random(
    model: BarrierModel,
    part: ComputationGraph,
    generator: torch.Generator,
    progress: Progress | None,
) -> Explanation:
    """Every bond drawn at random: what an explanation must be better than."""
    importance = torch.rand(part.bonds, generator=generator)
    return part.explanation("random", importance, prediction=full_prediction(model, part))


def attention(
    model: BarrierModel,
    part: ComputationGraph,
    generator: torch.Generator,
    progress: Progress | None,
) -> Explanation:
    """The share of the atom's attention that passes through each edge.

    Attention flow from the atom outwards (rollout of Abnar & Zuidema, "Quantifying Attention Flow
    in Transformers", ACL 2020, without their identity term): the atom has 1; an edge s→d passes
    on a share of what d has, its α over the sum of those of all edges that arrive at d (the mean
    over layers and heads); an edge's importance is what it passes on, summed over the model's hops.

    Raises:
        UsageError: the model has no attention.
    """
    with recorded_attention() as seen, torch.no_grad():
        full = float(part.predict(model))
    seen = [alpha for alpha in seen if len(alpha) == len(part.edges)]
    if not seen:
        raise UsageError("this model has no attention to read: choose another method")
    target, nodes = part.graph.destination, part.graph.num_nodes
    # a softmax gives shares already, softplus does not
    shares = [segment_shares(alpha.float(), target, nodes).mean(1) for alpha in seen]
    mean = torch.stack(shares).mean(0)
    importance = part.summed(_flow(part, mean))
    return part.explanation("attention", importance, prediction=full)


def _flow(part: ComputationGraph, alpha: Tensor) -> Tensor:
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
