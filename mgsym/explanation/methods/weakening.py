"""The default explainer: one order of the edges that holds at every k.

Deleting edges takes a model out of all that it has seen: a regression on positions leaves its
range after a handful. So every edge is weakened, by a tenth, in the network and in the regression
alike (mgsym.explanation.whole_edges), which stays near a glass. An edge adds φ = weakening · ∂f/∂w,
halfway between whole and weakened. Where the integrated gradient from none to all has the other
sign it counts as nothing, and else as the geometric mean of both, so that an edge which is felt
only when it is weakened does not count.

Edges are taken one by one, strongest first, from the side that is lacking: one that raises the
barrier while the others, weakened, leave it too low, and one that lowers it otherwise. So the first
k edges are felt when they are weakened, and hold the prediction when the others are, for every k;
the order of k + 1 begins with that of k. What is lacking is predicted to first order and measured
anew every few edges. Nothing is drawn at random.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mgsym.errors import UsageError
from mgsym.explanation.computation_graph import ComputationGraph, full_prediction
from mgsym.explanation.explanation import Explanation
from mgsym.explanation.methods.attribution import without_gradient
from mgsym.explanation.methods.masks import at_least
from mgsym.explanation.whole_edges import WholeEdges
from mgsym.models.base import BarrierModel
from mgsym.utils.progress import Progress

WEAKENING = 0.1
ORDERED = 100  # edges whose order is measured; those after them come by what they add
WEAK = 0.1  # of the strongest left of the other side: a weaker edge is not taken before that
PATH = ((0.069432, 0.173927), (0.330009, 0.326073), (0.669991, 0.326073), (0.930568, 0.173927))


def weakening(
    model: BarrierModel,
    part: ComputationGraph,
    generator: torch.Generator,
    progress: Progress | None,
    *,
    weakening: float = WEAKENING,
    ordered: int = ORDERED,
    block: int = 5,
) -> Explanation:
    """Order edges by what weakening them does to the whole prediction.

    Args:
        weakening: share of an edge's weight that is taken, in 0 … 1.
        ordered: how many edges are taken from the side that is lacking.
        block: edges after which that is measured anew.

    Raises:
        UsageError: a setting makes no sense.
    """
    at_least(1, ordered=ordered, block=block)
    if not 0 < weakening <= 1:
        raise UsageError(f"weakening is {weakening}, expected above 0 and at most 1")
    whole = WholeEdges(model, part)
    full, count = full_prediction(model, part), part.bonds
    total = len(PATH) + 1 + -(-min(ordered, count) // block)

    def step(done: int) -> None:
        if progress is not None:
            progress(done, total)

    try:
        slope = _slope(whole, 1 - weakening / 2)
    except UsageError:  # a model without gradients: edges near the atom come first
        return part.explanation("weakening", part.nearness().exp(), prediction=full)
    step(1)
    path = torch.zeros_like(slope)
    for i, (point, share) in enumerate(PATH):
        path += 2 * point * share * _slope(whole, point**2)
        step(2 + i)
    together = torch.where(slope * path > 0, (slope * path).sqrt(), 0.0) * slope.sign()
    value, strength = weakening * slope, weakening * together
    order = _order(whole, full, value, strength, weakening, min(ordered, count), block, step)
    importance = _falling(order, strength.abs(), min(ordered, count))
    return part.explanation("weakening", importance, prediction=full, value=strength)


def _slope(whole: WholeEdges, weight: float) -> Tensor:
    """[b] eV, ∂f/∂w with all weights alike."""
    weights = torch.full((whole.part.bonds,), weight, device=whole.part.edges.device)
    prediction = whole.predict(weights.requires_grad_())
    if not prediction.requires_grad:
        raise without_gradient()
    (slope,) = torch.autograd.grad(prediction, weights, allow_unused=True)
    return torch.zeros_like(weights) if slope is None else slope.nan_to_num()


def _order(
    whole: WholeEdges,
    full: float,
    value: Tensor,
    strength: Tensor,
    weakening: float,
    count: int,
    block: int,
    step: Callable[[int], None],
) -> Tensor:
    """[m] int64, all edges: `count` by what is lacking, the others by strength.

    Args:
        full: eV, the prediction.
        value: [m] eV, what each edge adds when the others are weakened.
        strength: [m] eV, by which edges of one side follow each other.
    """
    sides = {+1: _side(strength, +1), -1: _side(strength, -1)}
    taken = torch.zeros(len(value), dtype=torch.bool, device=value.device)
    order: list[int] = []
    while len(order) < count and (sides[+1] or sides[-1]):
        weights = torch.where(taken, 1.0, 1 - weakening)
        with torch.no_grad():
            lacking = full - float(whole.predict(weights))
        for _ in range(min(block, count - len(order))):
            side = _next_side(sides, strength, +1 if lacking > 0 else -1)
            if side == 0:
                break
            edge = sides[side].pop()
            order.append(edge)
            taken[edge] = True
            lacking -= float(value[edge])
        step(1 + len(PATH) + -(-len(order) // block))
    rest = strength.abs().argsort(descending=True, stable=True)
    chosen = torch.tensor(order, dtype=torch.int64, device=value.device)
    return torch.cat([chosen, rest[~taken[rest]]])


def _next_side(sides: dict[int, list[int]], strength: Tensor, lacking: int) -> int:
    """The side to take an edge from: the one lacking, unless only weak ones are left; 0 if none."""
    best = {s: abs(float(strength[edges[-1]])) if edges else 0.0 for s, edges in sides.items()}
    side = lacking if best[lacking] >= WEAK * best[-lacking] else -lacking
    return side if best[side] > 0 else 0


def _side(strength: Tensor, sign: int) -> list[int]:
    """The edges that raise, or lower, the barrier, the strongest last."""
    signed = sign * strength
    order = signed.argsort(stable=True)
    return [int(edge) for edge in order[signed[order] > 0]]


def _falling(order: Tensor, strength: Tensor, count: int) -> Tensor:
    """[m] eV that fall along the order: the strength of the strongest edge still to come.

    Of equal ones the first `count` differ by 1e-5, so that sorting gives the order back.
    """
    ordered = strength[order].double()
    highest = ordered.flip(0).cummax(0).values.flip(0)
    left = (count - torch.arange(len(order), device=order.device)).clamp(min=0)
    falling = torch.empty_like(strength)
    falling[order] = (highest * (1 + 1e-5 * left)).to(strength)
    return falling
