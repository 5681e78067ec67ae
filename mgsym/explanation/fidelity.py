"""What an explanation can prove: does the prediction need these edges, and do they suffice?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from mgsym.errors import InputError, UsageError
from mgsym.explanation.computation_graph import (
    ComputationGraph,
    frozen_eval,
    full_prediction,
    model_computation_graph,
)
from mgsym.explanation.explanation import Explanation
from mgsym.graph import Graph
from mgsym.models.base import BarrierModel
from mgsym.prediction import OneModel
from mgsym.prediction.predict import one_model

SIZES = (10, 20, 50, 100)


@dataclass(frozen=True)
class FidelityRow:
    """How well k edges explain a prediction, against k random edges of the same computation graph.

    Energies are in eV; the random ones are means over draws, with standard deviations.

    Attributes:
        k: how many edges.
        sufficiency: |f(these edges alone) − f(all)|; small when they suffice.
        necessity: |f(all but these) − f(all)|; large when they are needed.
    """

    k: int
    sufficiency: float
    necessity: float
    random_sufficiency: float
    random_sufficiency_sd: float
    random_necessity: float
    random_necessity_sd: float


@dataclass(frozen=True)
class Fidelity:
    """Fidelity at several k.

    Attributes:
        rows: one per k.
        label_scale: eV, standard deviation of the labels the model was trained on: the yardstick.
        draws: how many random sets each random figure is a mean of.
    """

    rows: tuple[FidelityRow, ...]
    label_scale: float
    draws: int

    def in_label_sd(self) -> tuple[FidelityRow, ...]:
        """The rows with energies in units of `label_scale`."""
        return tuple(
            FidelityRow(row.k, *(v / self.label_scale for n, v in asdict(row).items() if n != "k"))
            for row in self.rows
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values for JSON; energies in eV."""
        rows = [
            {"k": row.k, **{f"{n}_eV": v for n, v in asdict(row).items() if n != "k"}}
            for row in self.rows
        ]
        return {"label_scale_eV": self.label_scale, "draws": self.draws, "rows": rows}


def fidelity(
    graph: Graph,
    model: OneModel,
    explanation: Explanation,
    *,
    sizes: Sequence[int] = SIZES,
    draws: int = 5,
    device: str | torch.device = "auto",
    seed: int = 0,
) -> Fidelity:
    """Measure sufficiency and necessity of the k most important edges by deleting edges.

    Args:
        graph: the graph that was explained.
        model: what was explained: a model, a run directory or a checkpoint.
        explanation: of any method, with all of the computation graph's edges or only the top ones.
        sizes: the k to measure at; those beyond the explanation's edges are left out.
        draws: how many random sets of k edges to compare with.
        device: ``auto`` (where the model is), ``cpu``, ``cuda`` or ``cuda:N``.
        seed: of the random sets.

    Raises:
        InputError: the explanation is not of this graph and model.
        UsageError: `draws` is less than 1.
    """
    if draws < 1:
        raise UsageError(f"draws is {draws}, expected at least 1")
    model = one_model(model, device)
    with frozen_eval(model) as where, torch.no_grad():
        part = model_computation_graph(graph.to(where), model, explanation.node)
        ranked = in_cone(part, explanation)
        full = full_prediction(model, part)
        generator = torch.Generator().manual_seed(seed)
        rows = tuple(
            _row(model, part, full, ranked[:k], draws, generator)
            for k in sorted(set(sizes))
            if 1 <= k <= len(ranked)
        )
    return Fidelity(rows, float(model.label_scale), draws)


def without_and_alone(
    model: BarrierModel, part: ComputationGraph, full: float, chosen: Tensor
) -> tuple[float, float]:
    """Sufficiency and necessity, eV, of some edges.

    Args:
        full: eV, the prediction with every edge.
        chosen: [k] int64, edges of the computation graph.
    """
    alone = torch.zeros(1, len(part.edges), dtype=torch.bool, device=part.edges.device)
    alone[:, chosen] = True
    # one after the other: all but a few edges of a computation graph are many for a batch
    sufficiency, necessity = (
        abs(float(part.predict_deleted(model, kept)) - full) for kept in (alone, ~alone)
    )
    return sufficiency, necessity


def _row(
    model: BarrierModel,
    part: ComputationGraph,
    full: float,
    chosen: Tensor,
    draws: int,
    generator: torch.Generator,
) -> FidelityRow:
    count, k = len(part.edges), len(chosen)
    sets = [torch.randperm(count, generator=generator)[:k].to(chosen.device) for _ in range(draws)]
    drawn = torch.tensor([without_and_alone(model, part, full, s) for s in sets]).reshape(-1, 2)
    mean, sd = drawn.mean(0).tolist(), drawn.std(0, correction=0).tolist()
    ours = without_and_alone(model, part, full, chosen)
    return FidelityRow(k, *ours, mean[0], sd[0], mean[1], sd[1])


def in_cone(part: ComputationGraph, explanation: Explanation) -> Tensor:
    """[m] int64: the explanation's edges, most important first, as those of `part`."""
    wanted = explanation.edges[explanation.ranking].to(part.edges.device)
    # edges are in the order of the parent's, both being sorted by target, then source
    place = torch.searchsorted(part.edges, wanted).clamp(max=len(part.edges) - 1)
    if not bool((part.edges[place] == wanted).all()):
        raise InputError(
            f"the explanation of node {explanation.node} has edges outside its computation graph: "
            "it was made with another graph or another model"
        )
    return place
