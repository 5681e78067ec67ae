"""What is done to edges to see whether a prediction needs them.

- ``weakened``: their weight is taken down by a tenth, in the whole prediction (a regression that
  has a share of it included). The model stays near what it was trained on.
- ``replaced``: edges give way to those of another atom of the same element, a few hops away at
  most (mgsym.explanation.methods.mixup), so that every atom keeps a neighbourhood. Of the network.
- ``deleted``: they are not there. Of the network.

A regression reads positions: it is no fair witness of the last two, as it leaves its range after a
handful of neighbours.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mgsym.errors import UsageError
from mgsym.explanation.computation_graph import ComputationGraph
from mgsym.explanation.methods.mixup import mixup
from mgsym.explanation.methods.weakening import WEAKENING
from mgsym.explanation.whole_edges import WholeEdges
from mgsym.models.base import BarrierModel

RINGS = 2  # draws of the atoms whose edges come in place of others

# how far the prediction moves, eV: with these bonds [k] int64 alone, and without them
Change = Callable[[Tensor], tuple[float, float]]


def weakened(model: BarrierModel, part: ComputationGraph, full: float, seed: int) -> Change:
    """Weaken all other edges, or these."""
    whole = WholeEdges(model, part)

    def change(chosen: Tensor) -> tuple[float, float]:
        weight = torch.ones(part.bonds, device=part.edges.device)
        weight[chosen] = 1 - WEAKENING
        others = (2 - WEAKENING) - weight
        alone, without = (abs(float(whole.predict(w)) - full) for w in (others, weight))
        return alone, without

    return change


def replaced(model: BarrierModel, part: ComputationGraph, full: float, seed: int) -> Change:
    """Replace all other edges, or these; the mean over rings of atoms."""
    every = torch.arange(len(part.edges), device=part.edges.device)
    generator = torch.Generator().manual_seed(seed)
    rings = [mixup(part, every, generator) for _ in range(RINGS)]

    def change(chosen: Tensor) -> tuple[float, float]:
        kept = torch.zeros(len(part.edges), device=part.edges.device)
        kept[part.edges_of(chosen)] = 1.0
        found = torch.tensor(
            [
                [abs(float(ring.predict(model, m)) - full) for m in (kept, 1 - kept)]
                for ring in rings
            ],
            dtype=torch.float64,
        )
        alone, without = found.mean(0).tolist()
        return alone, without

    return change


def deleted(model: BarrierModel, part: ComputationGraph, full: float, seed: int) -> Change:
    """Delete all other edges, or these."""

    def change(chosen: Tensor) -> tuple[float, float]:
        alone = torch.zeros(1, part.bonds, dtype=torch.bool, device=part.edges.device)
        alone[:, chosen] = True
        # one after the other: all but a few edges of a computation graph are many for a batch
        left, right = (
            abs(float(part.predict_deleted(model, kept)) - full) for kept in (alone, ~alone)
        )
        return left, right

    return change


PERTURBATIONS = {"weakened": weakened, "replaced": replaced, "deleted": deleted}


def perturbation_named(
    name: str,
) -> Callable[[BarrierModel, ComputationGraph, float, int], Change]:
    """The perturbation of this name.

    Raises:
        UsageError: there is none.
    """
    if name not in PERTURBATIONS:
        raise UsageError(
            f"no perturbation is called {name!r}; there are {', '.join(PERTURBATIONS)}"
        )
    return PERTURBATIONS[name]
