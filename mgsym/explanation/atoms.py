"""Which atoms an explanation points at, and others as far away."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mgsym.explanation.controls import matchable, matched_rows
from mgsym.explanation.explanation import Explanation


class AtomSets(NamedTuple):
    """Equally many atoms at equal distances.

    Attributes:
        selected: [k] int64, those that the explanation points at, most important first.
        matched: [k] int64, others.
        passed_over: how many of the k most important are not selected, as too few others are as
            far away.
    """

    selected: Tensor
    matched: Tensor
    passed_over: int


def atom_importance(explanation: Explanation, num_nodes: int) -> Tensor:
    """[n] float64: for each atom the importance of the edges that start or end there, summed.

    The explained atom has 0, since every edge that arrives at it ends there.
    """
    importance = torch.zeros(num_nodes, dtype=torch.float64)
    for ends in explanation.endpoints:
        importance.index_add_(0, ends, explanation.importance.double())
    importance[explanation.node] = 0.0
    return importance


def ranked_atoms(importance: Tensor) -> Tensor:
    """[k] int64: the atoms that have an importance, most important first."""
    order = importance.argsort(descending=True, stable=True)
    return order[importance[order] > 0]


def atom_sets(distance: Tensor, ranked: Tensor, count: int, generator: torch.Generator) -> AtomSets:
    """The most important atoms, and as many others at the same distances, to bins of 0.25 Å.

    At most half of a bin can be selected: its most important atoms. Where that passes over an
    atom among the `count` most important, one further down the ranking takes its place. So both
    sets are equal in number and distance, and no selected atom is less important than one that
    was drawn from its bin.

    Args:
        distance: [n] Å, `distance_between_atoms`.
        ranked: [k] int64, `ranked_atoms`.
        count: how many to select.
        generator: of the draw.
    """
    selected = matchable(distance, ranked, count)
    passed_over = (~torch.isin(ranked[:count], selected)).sum()
    found = matched_rows(distance, selected, generator)
    return AtomSets(selected, found.rows, int(passed_over))
