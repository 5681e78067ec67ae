"""Labels that are known better count more: weights from their standard errors."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mgsym.graph import Graph

KINDS = ("none", "stderr")


def with_label_weights(graphs: Sequence[Graph], kind: str, floor: float) -> list[Graph]:
    """Training graphs that carry a weight for each label; for ``none`` they are as given.

    A label with the standard error τ (in standard deviations of all labels) weighs
    1 / (floor² + τ²), the reciprocal of the variance of its residual when the model itself is
    wrong by `floor`. Labels without a standard error get the median one.

    Args:
        graphs: one structure each.
        kind: ``none`` or ``stderr``.
        floor: in standard deviations of the labels; keeps a label whose standard error came out
            tiny, as with two searches it may, from ruling the fit.

    Returns:
        Graphs with their `Graph.label_weight` [n]: mean 1 over all labels, 0 where there is none.
    """
    if kind == "none":
        return list(graphs)
    labelled = torch.cat([g.labelled for g in graphs])
    target = torch.cat([g.target for g in graphs])[labelled].double()
    stderr = torch.cat([g.target_stderr for g in graphs])[labelled].double()
    relative = stderr / target.std(correction=0).clamp(min=1e-6)
    typical = relative.nanmedian()
    relative = relative.nan_to_num(nan=0.0 if bool(typical.isnan()) else float(typical))
    weights = torch.zeros(len(labelled), dtype=torch.float64)
    weights[labelled] = 1 / (relative.square() + floor**2).clamp(min=1e-6)
    weights = (weights / weights[labelled].mean()).float()
    parts = weights.split([g.num_nodes for g in graphs])
    return [g.replace(label_weight=part) for g, part in zip(graphs, parts, strict=True)]
