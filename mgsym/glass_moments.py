"""Second moments of labelled structures, glass by glass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mgsym.graph import Graph
from mgsym.label_weights import label_weight
from mgsym.moments import STRENGTHS, Moments, choose_strength
from mgsym.splits import glass_of

USUAL_STRENGTH = 30.0  # where a single glass trains


def glass_moments(
    graphs: Sequence[Graph],
    features: Callable[[Graph], Tensor],
    target: Callable[[Graph], Tensor],
    tell: Callable[[int], None] | None = None,
) -> dict[str, Moments]:
    """Second moments of features [n, d] and target [n] over labelled atoms, by glass.

    Args:
        graphs: one structure each; each has labels.
        features, target: of a graph's atoms.
        tell: called with the number of structures done.
    """
    found: dict[str, Moments] = {}
    for i, graph in enumerate(graphs):
        known = graph.labelled
        own = Moments.of(features(graph)[known], target(graph)[known], labels_weigh(graph))
        glass = glass_of(graph)
        found[glass] = Moments.sum([found[glass], own]) if glass in found else own
        if tell is not None:
            tell(i + 1)
    return found


def strength_for(asked: float, glasses: Sequence[Moments]) -> float:
    """The ridge strength asked for, or for 0 the one that leaving out glasses in turn favours."""
    if asked > 0:
        return asked
    return choose_strength(glasses, STRENGTHS) if len(glasses) > 1 else USUAL_STRENGTH


def labels_weigh(graph: Graph) -> Tensor:
    """How much each label counts, for the labelled atoms of a graph: [labels]."""
    weight = label_weight(graph)
    return (torch.ones_like(graph.target) if weight is None else weight)[graph.labelled]
