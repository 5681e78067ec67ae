"""What is known of an atom beside its prediction, and whether that foretells the error.

The variance that a calibration gives every atom is multiplied by exp(Σ cᵢ zᵢ), with standardised
features z and coefficients c of maximum likelihood (multiplicative heteroscedasticity: Harvey,
Econometrica 44, 461 (1976)). A feature has a coefficient only where it makes errors that it was not
fitted to more likely: glasses are left out in turn, or octants of the structures where there are
fewer than three glasses. It must gain more than chance would give in one case of twenty (Student's
t over what was left out); features join one by one, the best first. Otherwise σ is what it was
without.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mgsym.graph import Graph
from mgsym.graph.operations import narrowed
from mgsym.structure.cell import fractional
from mgsym.uncertainty.out_of_distribution import TrainingSet

PREDICTED, ROUGHNESS, DISTANCE = "predicted barrier", "roughness", "training distance"
Features = Mapping[str, Tensor]  # [n] each, by name

FEWEST_GLASSES = 3  # to leave out in turn
_EDGE = 0.01  # of the atoms calibrated with; beyond what they reach a feature counts as there
_PRIOR = 1.0  # standard deviation of a coefficient, before anything is known
_SMALLEST = 1e-3  # share of the model's error in the residuals below which nothing tells it


@dataclass(frozen=True)
class ErrorFeature:
    """One feature, and what was found of it.

    Attributes:
        name: of the feature.
        mean, scale: what standardises it.
        low, high: the range that it is clamped to, standardised.
        coefficient: of the logarithm of the variance; 0 where it foretells nothing.
        gain, gain_error: of the log-likelihood of an atom that was left out, when it joins, and
            the standard error of that.
    """

    name: str
    mean: float
    scale: float
    low: float
    high: float
    coefficient: float = 0.0
    gain: float = 0.0
    gain_error: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "name" and not math.isfinite(value):
                raise ValueError(f"calibration: {name} of {self.name} is {value}")
        if self.scale <= 0:
            raise ValueError(f"calibration: scale of {self.name} is {self.scale}, expected above 0")

    def standardised(self, values: Tensor) -> Tensor:
        """[n] float64; what is not known or not finite counts as the mean."""
        z = (values.double() - self.mean) / self.scale
        return z.clamp(self.low, self.high).nan_to_num(nan=0.0)


class Residuals(NamedTuple):
    """Of labelled atoms of several structures; all [m] float64.

    Attributes:
        error2: eV², (label − prediction)².
        variance: eV², of the model's error, as far as it is known without features.
        noise2: eV², of the label.
        fold: int64, what is left out together.
    """

    error2: Tensor
    variance: Tensor
    noise2: Tensor
    fold: Tensor


def error_features(
    graph: Graph, mean: Tensor, training_set: TrainingSet | None
) -> dict[str, Tensor]:
    """What may foretell how wrong the prediction for an atom is.

    Args:
        graph: one structure.
        mean: [n] eV, the prediction.
        training_set: what the models were trained on; None where that is not known.

    Returns:
        [n] float64 each: the predicted barrier in eV; its standard deviation among the atom's
        neighbours (roughness, eV); the distance of its surroundings from the training atoms'
        (mgsym.uncertainty.out_of_distribution), where that is known; for each element but the
        first, whether the atom is of it.
    """
    value = mean.double().cpu()
    source, target = graph.edge_index.cpu()
    number = torch.bincount(target, minlength=graph.num_nodes).clamp(min=1)

    def around(x: Tensor) -> Tensor:
        return torch.zeros_like(value).index_add_(0, target, x[source]) / number

    centred = value - value.mean()
    rough = (around(centred.square()) - around(centred).square()).clamp(min=0).sqrt()
    features = {PREDICTED: value, ROUGHNESS: rough}
    if training_set is not None and training_set.surroundings is not None:
        around_training = training_set.surroundings
        own = narrowed(graph, around_training.cutoff)
        features[DISTANCE] = around_training.distance(own).double()
    types = graph.types.cpu()
    return features | {s: (types == i).double() for i, s in enumerate(graph.species) if i > 0}


def variance_factor(features: Sequence[ErrorFeature], values: Features | None) -> Tensor | float:
    """[n] what features multiply the variance by; 1 where none has a coefficient.

    Raises:
        ValueError: a feature with a coefficient is not among the values.
    """
    used = [feature for feature in features if feature.coefficient != 0]
    if not used:
        return 1.0
    total: Tensor | float = 0.0
    for feature in used:
        if values is None or feature.name not in values:
            raise ValueError(f"the calibration needs the feature {feature.name!r} of every atom")
        total = total + feature.coefficient * feature.standardised(values[feature.name])
    assert isinstance(total, Tensor)
    return total.exp()


def folds(graphs: Sequence[Graph], glasses: Sequence[str], rows: Sequence[Tensor]) -> Tensor:
    """[m] int64: which labelled atoms are left out together.

    Args:
        graphs: one structure each.
        glasses: the glass that each belongs to.
        rows: of each, the labelled atoms.
    """
    names = list(dict.fromkeys(glasses))
    if len(names) >= FEWEST_GLASSES:
        parts = [torch.full_like(r, names.index(g)) for g, r in zip(glasses, rows, strict=True)]
        return torch.cat(parts)
    octants = []
    for i, (graph, own) in enumerate(zip(graphs, rows, strict=True)):
        place = fractional(graph.positions[own], graph.cell[0])
        half = (place - place.floor() >= 0.5).long()
        octants.append(8 * i + 4 * half[:, 0] + 2 * half[:, 1] + half[:, 2])
    return torch.cat(octants)


def choose_features(
    values: Mapping[str, Tensor], residuals: Residuals
) -> tuple[tuple[ErrorFeature, ...], float]:
    """Find which features foretell errors, and by how much.

    Args:
        values: [m] each.
        residuals: of the same atoms.

    Returns:
        Every feature, those that foretell nothing with the coefficient 0; and what the variance
        without features is to be multiplied by.
    """
    share = float((residuals.variance / (residuals.variance + residuals.noise2)).mean())
    candidates = {n: _described(n, x) for n, x in values.items()}
    left = {n: f for n, f in candidates.items() if f is not None} if share > _SMALLEST else {}
    columns = {n: feature.standardised(values[n]) for n, feature in left.items()}
    taken: list[str] = []
    tested: dict[str, tuple[float, float]] = {}
    while waiting := [name for name in left if name not in taken]:
        now = {name: _gain([*taken, name], taken, columns, residuals) for name in waiting}
        tested |= now
        best = max(waiting, key=lambda name: now[name][0])
        if not _beyond_chance(*now[best], int(residuals.fold.unique().numel())):
            break
        taken.append(best)
    weights = torch.zeros(1, dtype=torch.float64)
    if taken:
        weights = _fit(_matrix(taken, columns, len(residuals.fold)), residuals)
    coefficients = dict(zip(taken, weights[1:].tolist(), strict=True))
    features = tuple(
        ErrorFeature(
            f.name, f.mean, f.scale, f.low, f.high, coefficients.get(name, 0.0), *tested[name]
        )
        for name, f in left.items()
    )
    return features, math.exp(float(weights[0]))


def _described(name: str, values: Tensor) -> ErrorFeature | None:
    """The feature's scales; None where it is the same everywhere."""
    values = values[values.isfinite()]
    if len(values) == 0 or not float(values.std(correction=0)) > 1e-9:
        return None
    mean, scale = float(values.mean()), float(values.std(correction=0))
    ordered = ((values - mean) / scale).sort().values
    edge = int(_EDGE * (len(ordered) - 1))
    return ErrorFeature(name, mean, scale, float(ordered[edge]), float(ordered[-1 - edge]))


def _matrix(names: Sequence[str], columns: Mapping[str, Tensor], count: int) -> Tensor:
    """[m, 1 + features], a one and the features of every atom."""
    ones = torch.ones(count, dtype=torch.float64)
    return torch.stack([ones, *(columns[name] for name in names)], dim=1)


def _gain(
    names: Sequence[str], without: Sequence[str], columns: Mapping[str, Tensor], all_: Residuals
) -> tuple[float, float]:
    """What some features gain over fewer on atoms left out: the mean over folds and its error."""
    gains = []
    for fold in all_.fold.unique():
        out = all_.fold == fold
        rest, own = (Residuals(*(x[rows] for x in all_)) for rows in (~out, out))
        both = []
        for several in (without, names):
            x = _matrix(several, columns, len(out))
            both.append(float(_surprise(_fit(x[~out], rest), x[out], own)))
        gains.append(both[0] - both[1])
    gain = torch.tensor(gains, dtype=torch.float64)
    spread = float(gain.std()) if len(gain) > 1 else 0.0
    return float(gain.mean()), spread / math.sqrt(len(gain))


def _beyond_chance(gain: float, error: float, count: int) -> bool:
    """Whether a mean of so many is above 0 with 95 % confidence (Abramowitz & Stegun 26.7.5)."""
    if count < 2 or not gain > 0:
        return False
    freedom = count - 1
    return gain > error * (1.645 + 1.524 / freedom + 1.420 / freedom**2)


def _surprise(weights: Tensor, x: Tensor, residuals: Residuals) -> Tensor:
    """Mean over atoms of −log likelihood, without what is constant."""
    variance = residuals.variance * (x @ weights).exp() + residuals.noise2
    return (variance.log() + residuals.error2 / variance).mean() / 2


def _fit(x: Tensor, residuals: Residuals) -> Tensor:
    """[k] coefficients by Fisher scoring; a step that is no gain is halved."""
    weights, count = torch.zeros(x.shape[1], dtype=torch.float64), len(x)
    prior = torch.full_like(weights, 1 / _PRIOR**2 / count)
    prior[0] = 0.0

    def cost(w: Tensor) -> float:
        return float(_surprise(w, x, residuals) + (prior * w.square()).sum() / 2)

    for _ in range(50):
        own = residuals.variance * (x @ weights).exp()
        total = own + residuals.noise2
        slope = x.T @ (own / total * (1 - residuals.error2 / total)) / (2 * count)
        curvature = (x * (own / total).square()[:, None]).T @ x / (2 * count)
        curvature.diagonal().add_(prior + 1e-12)
        step = -torch.linalg.solve(curvature, slope + prior * weights)
        before = cost(weights)
        while float(step.abs().max()) > 1e-9 and not cost(weights + step) <= before:
            step = step / 2
        weights = weights + step
        if float(step.abs().max()) < 1e-7:
            break
    return weights
