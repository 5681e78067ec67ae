"""What an explanation is held against: other edges, and another model."""

from __future__ import annotations

import copy
from collections import Counter
from typing import NamedTuple

import torch
from torch import Tensor

from mgsym.models.base import BarrierModel

BIN = 0.25  # Å, width of the bins of distance


class Matched(NamedTuple):
    """Edges, or atoms, drawn to match others.

    Attributes:
        rows: [k − missing] int64, such as edges of the computation graph.
        missing: how many could not be drawn because their bin had run out.
    """

    rows: Tensor
    missing: int


def random_edges(count: int, chosen: Tensor, generator: torch.Generator) -> Tensor:
    """As many edges as `chosen`, drawn from all `count`: [k] int64."""
    return torch.randperm(count, generator=generator)[: len(chosen)].to(chosen.device)


def matched_rows(distance: Tensor, chosen: Tensor, generator: torch.Generator) -> Matched:
    """Other edges (or atoms), as far from the atom as the chosen ones, to bins of 0.25 Å.

    Args:
        distance: [m] Å, `distance_to_atom` or `distance_between_atoms`.
        chosen: [k] int64; none of them is drawn.
    """
    distance, own = distance.cpu(), chosen.cpu()
    bins = (distance / BIN).long()
    free = torch.ones(len(distance), dtype=torch.bool)
    free[own] = False
    drawn = []
    for place, wanted in zip(*bins[own].unique(return_counts=True), strict=True):
        pool = (free & (bins == place)).nonzero().squeeze(1)
        drawn.append(pool[torch.randperm(len(pool), generator=generator)[: int(wanted)]])
    rows = torch.cat(drawn) if drawn else own
    return Matched(rows.to(chosen.device), len(own) - len(rows))


def matchable(distance: Tensor, ranked: Tensor, count: int) -> Tensor:
    """The first rows of a ranking for which `matched_rows` will find a match each.

    At most half of a bin is taken, its first rows; rows further down the ranking, in other bins,
    take the place of the rest.

    Args:
        distance: [m] Å, as for `matched_rows`.
        ranked: [r] int64, most important first.
        count: how many are wanted.

    Returns:
        [≤ count] int64, in the order of the ranking.
    """
    bins = (distance / BIN).long().tolist()
    size, taken = Counter(bins), dict.fromkeys(bins, 0)
    kept: list[int] = []
    for row in ranked.tolist():
        if len(kept) == count:
            break
        if size[bins[row]] >= 2 * (taken[bins[row]] + 1):
            taken[bins[row]] += 1
            kept.append(row)
    return torch.tensor(kept, dtype=torch.int64)


def shuffled_weights(model: BarrierModel, generator: torch.Generator) -> BarrierModel:
    """A copy of a model whose weights are shuffled, each tensor within itself.

    An explanation that stays what it was does not tell of what the model learnt (Adebayo et al.,
    "Sanity Checks for Saliency Maps", NeurIPS 2018). Weights are the parameters and whatever
    buffers are called weights; statistics of inputs and labels stay.
    """
    shuffled = copy.deepcopy(model)
    learnt: dict[str, Tensor] = dict(shuffled.named_parameters())
    kept = ("weight", "value")  # how closed-form models and trees call what they learnt
    learnt |= {name: b for name, b in shuffled.named_buffers() if name.endswith(kept)}
    with torch.no_grad():
        for values in learnt.values():
            order = torch.randperm(values.numel(), generator=generator).to(values.device)
            values.copy_(values.flatten()[order].view_as(values))
    return shuffled
