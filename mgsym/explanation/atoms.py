"""Which atoms an explanation points at, and others as far away."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mgsym.explanation.controls import matched_part, matched_rows
from mgsym.explanation.explanation import Explanation


class AtomSets(NamedTuple):
    """Equally many atoms at equal distances.

    Attributes:
        selected: [k] int64, those that the explanation points at, most important first.
        matched: [k] int64, others.
        unmatched: how many atoms were left out of `selected`, as no other is as far away.
    """

    selected: Tensor
    matched: Tensor
    unmatched: int


def atom_importance(explanation: Explanation, num_nodes: int) -> Tensor:
    """[n] float64: for each atom the importance of the edges that start or end there, summed.

    The explained atom has 0, since every edge that arrives at it ends there.
    """
    importance = torch.zeros(num_nodes, dtype=torch.float64)
    for ends in explanation.endpoints:
        importance.index_add_(0, ends, explanation.importance.double())
    importance[explanation.node] = 0.0
    return importance


def important_atoms(importance: Tensor, count: int) -> Tensor:
    """[≤ count] int64: the atoms of largest importance, those without any left out."""
    order = importance.argsort(descending=True, stable=True)[:count]
    return order[importance[order] > 0]


def atom_sets(distance: Tensor, selected: Tensor, generator: torch.Generator) -> AtomSets:
    """Draw as many other atoms at the same distances, to bins of 0.25 Å.

    Where a bin has no more, its least important selected atoms are left out: so both sets are
    equal in number and distance, whatever else they differ in.

    Args:
        distance: [n] Å, `distance_between_atoms`.
        selected: [k] int64, most important first, the explained atom not among them.
        generator: of the draw.
    """
    found = matched_rows(distance, selected, generator)
    return AtomSets(matched_part(distance, selected, found), found.rows, found.missing)
