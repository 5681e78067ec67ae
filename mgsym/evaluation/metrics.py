"""How well predictions agree with labels, per structure and pooled.

Between-structure differences make a pooled Pearson correlation flattering: a model that tells one
glass from another but no atom from its neighbour can score well. The mean over structures is the
honest figure, so both are always given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mgsym.graph import Graph

NAN = float("nan")


@dataclass(frozen=True)
class Scores:
    """Agreement over the labelled atoms of one set; NaN where a number is not defined.

    Attributes:
        count: labelled atoms.
        pearson: linear correlation; NaN when either side is constant.
        spearman: correlation of ranks.
        mae, rmse: eV.
        r2: coefficient of determination, 1 − Σ(p − t)² / Σ(t − t̄)².
        bias: mean of prediction − target, eV.
        auc_high, auc_low: how well the prediction tells the 5 % of the atoms with the highest,
            and the lowest, labels from all others (`extreme_auc`); ½ knows nothing, 1 is perfect.
        ceiling: the Pearson that a perfect predictor would reach, given the labels' standard
            errors (`noise_ceiling`, over the same atoms); NaN where those are not known.
        ceiling_low, ceiling_high: its 95 % interval.
    """

    count: int
    pearson: float
    spearman: float
    mae: float
    rmse: float
    r2: float
    bias: float
    auc_high: float = NAN
    auc_low: float = NAN
    ceiling: float = NAN
    ceiling_low: float = NAN
    ceiling_high: float = NAN

    @property
    def undefined(self) -> bool:
        """Whether a prediction was not a finite number, so that there is nothing to score."""
        return self.count > 0 and not math.isfinite(self.rmse)


@dataclass(frozen=True)
class SplitScores:
    """Scores of several structures: all their atoms pooled, and each by its name."""

    pooled: Scores
    structures: Mapping[str, Scores]

    @property
    def mean_pearson(self) -> float:
        """Mean over structures of the Pearson within each.

        A constant counts as 0; a prediction that is not a number makes the mean NaN.
        """
        values = [
            0.0 if math.isnan(s.pearson) and not s.undefined else s.pearson
            for s in self.structures.values()
        ]
        return sum(values) / max(len(values), 1)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: numbers that are not defined are None."""
        return {
            "mean_pearson": None if math.isnan(self.mean_pearson) else self.mean_pearson,
            "pooled": _plain(self.pooled),
            "structures": {name: _plain(s) for name, s in self.structures.items()},
        }


def score(prediction: Tensor, target: Tensor, stderr: Tensor | None = None) -> Scores:
    """Compare predictions with labels.

    Args:
        prediction: [n] eV.
        target: [n] eV; NaN where there is no label, which is left out.
        stderr: [n] eV, standard errors of the targets; NaN where not known.
    """
    labelled = ~torch.isnan(target)
    p, t = prediction[labelled].double(), target[labelled].double()
    if len(t) == 0:
        return Scores(0, NAN, NAN, NAN, NAN, NAN, NAN)
    limit = noise_ceiling(t, torch.full_like(t, NAN) if stderr is None else stderr[labelled])
    error = p - t
    spread = float((t - t.mean()).square().sum())
    squared = float(error.square().sum())
    return Scores(
        count=len(t),
        pearson=pearson(p, t),
        spearman=spearman(p, t),
        mae=float(error.abs().mean()),
        rmse=math.sqrt(squared / len(t)),
        r2=1 - squared / spread if spread > 0 else NAN,
        bias=float(error.mean()),
        auc_high=extreme_auc(p, t),
        auc_low=extreme_auc(-p, -t),
        ceiling=limit.pearson,
        ceiling_low=limit.low,
        ceiling_high=limit.high,
    )


def score_graphs(predictions: Sequence[Tensor], graphs: Sequence[Graph]) -> SplitScores:
    """Scores of one prediction per graph, a graph being one structure.

    Raises:
        ValueError: their numbers differ.
    """
    structures = {
        graph.names[0] or f"structure {i}": score(p, graph.target, graph.target_stderr)
        for i, (p, graph) in enumerate(zip(predictions, graphs, strict=True))
    }
    pooled = score(
        torch.cat([*predictions]) if predictions else torch.empty(0),
        torch.cat([g.target for g in graphs]) if graphs else torch.empty(0),
        torch.cat([g.target_stderr for g in graphs]) if graphs else None,
    )
    return SplitScores(pooled, structures)


def pearson(a: Tensor, b: Tensor) -> float:
    """Linear correlation of two [n] tensors; NaN when one of them is constant."""
    if len(a) == 0 or bool(a.max() == a.min()) or bool(b.max() == b.min()):
        return NAN
    a, b = a.double() - a.double().mean(), b.double() - b.double().mean()
    return float(a @ b) / float(a.norm() * b.norm())


EXTREME = 0.05  # of the atoms, as Wang, Ding & Ma compare


def extreme_auc(prediction: Tensor, target: Tensor) -> float:
    """Score how well a prediction tells the atoms with the highest labels from all others.

    The area under the ROC curve of the 5 % of the atoms (at least one) with the highest labels;
    Wang, Ding & Ma, Nature Commun. 11 (2020), compare descriptors of barriers by it.

    Args:
        prediction, target: [n] eV, all of them known.

    Returns:
        0 … 1; NaN for fewer than two atoms, equal labels or predictions that are no numbers.
    """
    constant = len(target) < 2 or bool(target.max() == target.min())
    if constant or not bool(prediction.isfinite().all()):
        return NAN
    chosen = torch.zeros_like(target, dtype=torch.bool)
    chosen[target.topk(max(round(EXTREME * len(target)), 1)).indices] = True
    return auc(prediction, chosen)


def auc(score: Tensor, chosen: Tensor) -> float:
    """Compute the area under the ROC curve, ties counted half (Mann & Whitney).

    Args:
        score: [n].
        chosen: [n] bool, the atoms whose score ought to be higher.

    Returns:
        0 … 1; NaN where all atoms are chosen, or none.
    """
    inside, outside = score[chosen], score[~chosen].sort().values
    if len(inside) == 0 or len(outside) == 0:
        return NAN
    below = torch.searchsorted(outside, inside.contiguous(), right=False)
    up_to = torch.searchsorted(outside, inside.contiguous(), right=True)
    return float((below + up_to).double().mean()) / (2 * len(outside))


def spearman(a: Tensor, b: Tensor) -> float:
    """Correlation of the ranks of two [n] tensors; ties share their mean rank."""
    return pearson(_ranks(a), _ranks(b))


class NoiseCeiling(NamedTuple):
    """The Pearson correlation that a perfect predictor would reach.

    Attributes:
        pearson: √ρ with the reliability ρ = 1 − mean(stderr²) / var(target); NaN where it is not
            defined.
        low, high: 95 % interval of what it would reach on so many atoms.
        rmse: √mean(stderr²), eV.
    """

    pearson: float
    low: float
    high: float
    rmse: float


def noise_ceiling(target: Tensor, stderr: Tensor) -> NoiseCeiling:
    """The noise ceiling of some labels, and how far it is known.

    Both variances are means over the atoms, so that ρ has the standard error of a mean, of
    −(stderr² − mean stderr²)/v + mean stderr² ((t − t̄)² − v)/v². That a standard error rests on
    few searches is in it, as it then scatters from atom to atom. To this comes the scatter of any
    correlation r found on n atoms, (1 − r²)/√n. The interval takes Student's t.

    Args:
        target: [n] eV, the labels that are scored.
        stderr: [n] eV. An atom without one has a label from a single search, as a rule, and counts
            as much noise as the tenth of the others that is known worst.
    """
    noise, n = _noise(stderr), len(target)
    if noise is None or n < 2:
        return NoiseCeiling(NAN, NAN, NAN, NAN)
    mean, variance = float(noise.mean()), float(target.double().var(correction=0))
    rmse = math.sqrt(mean)
    if not variance > 0:
        return NoiseCeiling(NAN, NAN, NAN, rmse)
    square = (target.double() - target.double().mean()).square()
    influence = (mean * square / variance - noise) / variance
    freedom = n - 1
    share = 1 - mean / variance
    sampling = 2 * math.sqrt(max(share, 0.0)) * (1 - share)  # its scatter in r², times √n
    quantile = 1.96 + 2.37 / freedom + 2.82 / freedom**2  # of Student's t, Abramowitz 26.7.5
    reach = quantile * math.hypot(float(influence.std(correction=1)), sampling) / math.sqrt(n)
    low, middle, high = (
        math.sqrt(value) if value >= 0 else NAN for value in (share - reach, share, share + reach)
    )
    low = 0.0 if math.isnan(low) else low
    return NoiseCeiling(middle, low, min(high, 1.0), rmse)


def _noise(stderr: Tensor) -> Tensor | None:
    """[n] eV², of every label; None where fewer than two standard errors are known."""
    has_stderr = ~torch.isnan(stderr)
    count = int(has_stderr.sum())
    if count < 2:
        return None
    square = stderr.double().square()
    worst = square[has_stderr].sort().values[-max(count // 10, 1) :].mean()
    return torch.where(has_stderr, square, worst)


def _ranks(values: Tensor) -> Tensor:
    _, group, count = torch.unique(values, return_inverse=True, return_counts=True)
    last = count.cumsum(0).double()
    ranks: Tensor = (last - (count - 1) / 2)[group]
    return ranks


def _plain(scores: Scores) -> dict[str, Any]:
    return {
        k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(scores).items()
    }
