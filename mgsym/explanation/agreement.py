"""Do two rankings of edges agree?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor

from mgsym.errors import InputError
from mgsym.evaluation.metrics import spearman
from mgsym.explanation.explanation import Explanation


def rank_agreement(first: Tensor, second: Tensor, k: int) -> float:
    """Spearman's rank correlation of two importances over the union of their k largest.

    Two unlike rankings are apart in it even where they have little to do with each other: edges
    high in one and low in the other make the union, so that chance gives less than zero.

    Args:
        first, second: [m] importances of the same edges.
        k: how many edges of each count.

    Returns:
        −1 … 1; 1 where the union holds a single edge.
    """
    tops = [x.argsort(descending=True, stable=True)[:k] for x in (first, second)]
    union = torch.cat(tops).unique()
    if len(union) < 2:
        return 1.0
    a, b = first[union], second[union]
    if torch.equal(a, b):
        return 1.0  # also where all are equal and a correlation is not defined
    return spearman(a, b)


def mean_agreement(importances: Sequence[Tensor], k: int) -> float | None:
    """The mean of `rank_agreement` over all pairs; None of one."""
    pairs = [rank_agreement(a, b, k) for a, b in combinations(importances, 2)]
    return sum(pairs) / len(pairs) if pairs else None


def method_agreement(
    explanations: Mapping[str, Explanation], k: int
) -> dict[tuple[str, str], float]:
    """`rank_agreement` of every two explanations of the same node.

    Raises:
        InputError: they are not of the same edges (a top-k alone does not tell enough).
    """
    found = {}
    for (name, a), (other, b) in combinations(explanations.items(), 2):
        if not torch.equal(a.edges, b.edges):
            raise InputError(f"explanations {name} and {other} are not of the same edges")
        found[name, other] = rank_agreement(a.importance, b.importance, k)
    return found
