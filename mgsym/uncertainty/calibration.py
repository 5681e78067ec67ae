"""How far barriers lie from predictions: spread between models, turned into standard deviations.

Models of an ensemble differ less from each other than from the truth, since all of them lack the
same things. So the spread s between them is scaled and a constant is added,

    σ² = scale² s² + floor²,

by maximum likelihood on structures that trained none of them (Levi et al., Sensors 22, 5540
(2022), and Palmer et al., npj Comput. Mater. 8, 115 (2022), scale in the same way; the constant
is needed here since spreads between seeds are small). Labels scatter by themselves: a residual has
the variance σ² + noise², and σ is that of the true barrier alone.

What else is known of an atom may say more: features that foretell errors multiply this variance
(mgsym.uncertainty.error_features). In the glasses at hand hardly any does, and then σ is nearly the
same for all atoms, which `Calibration.features` tells.

What the models lack, they lack alike for neighbours. Label noise is independent from atom to atom,
so the covariance of residuals of *different* atoms is the models' error alone:

    cov(i, j) = σᵢ σⱼ (fraction k(rᵢⱼ/length) + common)

with k(x) = exp(−x²/2) or Matérn's (1 + √3 x) exp(−√3 x) (Rasmussen & Williams, Gaussian Processes
for Machine Learning, eq. 4.17), whichever fits better; `common` is the share of an error that a
whole structure has in common. One atom differs from its neighbours by the rest,
1 − fraction − common.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from mgsym.errors import InputError
from mgsym.graph import Graph
from mgsym.graph.operations import glass_of
from mgsym.structure.neighbors import neighbor_pairs
from mgsym.uncertainty.error_features import (
    ErrorFeature,
    Features,
    Residuals,
    choose_features,
    folds,
    variance_factor,
)

REACH = 12.0  # Å: residuals of pairs up to here tell their correlation
_LEAST_FLOOR = 1e-4  # eV
_BINS = 24
GAUSSIAN, MATERN = KERNELS = ("gaussian", "matern")
_LENGTHS = torch.linspace(0.5, 8.0, 151, dtype=torch.float64)  # Å


@dataclass(frozen=True)
class Calibration:
    """What validation residuals taught about the error of a prediction.

    Attributes:
        scale: of the spread between models.
        floor: eV, the error where all models agree.
        noise: eV, root mean square error of the labels it was fitted to; 0 where not known, and
            then the error of a label counts as the models'.
        fraction: share of the error's variance that neighbours share, 0 … 1.
        length: Å, over which they do.
        common: share of the error's variance that all atoms of a structure share, 0 … 1.
        atoms: how many residuals it rests on.
        kernel: how correlation decays, ``gaussian`` or ``matern``.
        features: what was tried to tell atoms apart by, with what was found.
    """

    scale: float = 1.0
    floor: float = 0.0
    noise: float = 0.0
    fraction: float = 0.0
    length: float = 3.0
    common: float = 0.0
    atoms: int = 0
    kernel: str = GAUSSIAN
    features: tuple[ErrorFeature, ...] = ()

    def __post_init__(self) -> None:
        if self.kernel not in KERNELS:
            raise ValueError(f"calibration: kernel is {self.kernel!r}, expected one of {KERNELS}")
        for name, value in asdict(self).items():
            if name not in ("kernel", "features") and not 0 <= value < math.inf:
                raise ValueError(f"calibration: {name} is {value}, expected a number from 0")
        if self.length == 0 or self.fraction + self.common > 1 + 1e-9:
            raise ValueError(
                f"calibration: length {self.length}, fraction {self.fraction} and common "
                f"{self.common}, expected a length above 0 and shares that add to 1 at most"
            )

    @property
    def used(self) -> tuple[ErrorFeature, ...]:
        """The features that tell atoms apart."""
        return tuple(feature for feature in self.features if feature.coefficient != 0)

    def std(self, spread: Tensor, features: Features | None = None) -> Tensor:
        """Standard deviation of the true barrier, given the prediction.

        Args:
            spread: [n] eV, standard deviation between the models.
            features: [n] each, those of `used` at least.

        Returns:
            [n] eV.

        Raises:
            ValueError: a feature is missing.
        """
        variance = self.scale**2 * spread.square() + self.floor**2
        return (variance * variance_factor(self.features, features)).sqrt().to(spread)

    def label_std(
        self,
        spread: Tensor,
        noise: float | Tensor | None = None,
        features: Features | None = None,
    ) -> Tensor:
        """Standard deviation of a label, given the prediction: that of the barrier and its noise.

        Args:
            spread: [n] eV, standard deviation between the models.
            noise: eV, standard error of the labels, one or [n]; None takes the one fitted with.
            features: as for `std`.
        """
        noise = self.noise if noise is None else noise
        return (self.std(spread, features).square() + noise**2).sqrt()

    def correlation(self, distance: Tensor) -> Tensor:
        """Correlation of the errors of two different atoms of one structure; an atom's own is 1.

        With ones on its diagonal a matrix of these is positive definite where fraction + common
        is below 1 (in a cell at least a few times `length` wide).

        Args:
            distance: Å, any shape, above 0.
        """
        return self.fraction * decay(self.kernel, distance / self.length) + self.common

    @property
    def formula(self) -> str:
        """The correlation of errors at a distance r, for people."""
        x = f"r/{self.length:.2f} Å"
        gaussian = f"exp(−({x})²/2)"
        shape = gaussian if self.kernel == GAUSSIAN else f"(1 + √3 {x}) exp(−√3 {x})"
        return f"{self.fraction:.2f} {shape} + {self.common:.2f}"

    @property
    def verdict(self) -> str:
        """What tells sure atoms from unsure ones, for people; nothing where nothing was tried."""
        if not self.features:
            return ""
        if self.used:
            parts = (
                f"{f.name} (coefficient {f.coefficient:+.3f} per sd, gain {1e3 * f.gain:.1f} ± "
                f"{1e3 * f.gain_error:.1f} thousandths of a nat an atom)"
                for f in self.used
            )
            return f"The variance also depends on {', '.join(parts)}."
        tried = ", ".join(feature.name for feature in self.features)
        return (
            f"Beside the spread nothing tells sure atoms from unsure ones: {tried} foretell no "
            "error of atoms left out better than a constant."
        )

    @classmethod
    def fit(
        cls,
        means: Sequence[Tensor],
        spreads: Sequence[Tensor],
        graphs: Sequence[Graph],
        noise: float | None = None,
        features: Sequence[Features] | None = None,
    ) -> Calibration:
        """Learn from labelled structures that trained none of the models.

        Args:
            means: [n] eV, the prediction for each graph.
            spreads: [n] eV, the standard deviation between the models.
            graphs: one structure each.
            noise: eV, standard error of every label; None takes each label's own (target_stderr),
                and 0 where it is not known.
            features: of the atoms of each graph (`error_features`); those that foretell errors
                are used. None looks at none.

        Raises:
            InputError: no atom has a label.
        """
        of_graphs: Sequence[Features] = [{}] * len(graphs) if features is None else features
        inputs = zip(means, spreads, graphs, of_graphs, strict=True)
        cases = [_Residuals.of(*case, noise) for case in inputs]
        cases = [case for case in cases if len(case.error)]
        if not cases:
            raise InputError("no atom has a label to calibrate with: give labelled structures")
        error = torch.cat([case.error for case in cases])
        spread = torch.cat([case.spread for case in cases])
        variance = torch.cat([case.noise for case in cases]).square()
        scale2, floor2 = _variances(error.square(), spread.square(), variance)
        plain = cls(
            math.sqrt(scale2), math.sqrt(floor2), math.sqrt(variance.mean()), atoms=len(error)
        )
        plain = _with_features(cases, plain)
        return replace(plain, **_correlation(cases, plain))

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and text, in dicts and lists, for files."""
        return {**asdict(self), "features": [asdict(feature) for feature in self.features]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Calibration:
        """What `as_dict` gave.

        Raises:
            ValueError: a number is missing, unknown or out of its range.
        """
        # when the first were written, there was but one kernel and no feature
        content = {"kernel": GAUSSIAN, "features": (), **content}
        names = {field.name for field in fields(cls)}
        if set(content) != names:
            raise ValueError(f"calibration has {sorted(content)}, expected {sorted(names)}")
        features = tuple(ErrorFeature(**feature) for feature in content["features"])
        return cls(**{**content, "features": features})


def decay(kernel: str, x: Tensor) -> Tensor:
    """k of distances in units of the length: 1 at 0, falling to 0."""
    if kernel == GAUSSIAN:
        return torch.exp(-0.5 * x.square())
    scaled = math.sqrt(3) * x
    return (1 + scaled) * torch.exp(-scaled)


@dataclass(frozen=True)
class _Residuals:
    """Of the labelled atoms of one structure; all float64.

    Attributes:
        error: [m] eV, label − prediction.
        spread: [m] eV, between models.
        noise: [m] eV, of the labels.
        graph: the structure.
        rows: [m] int64, which atoms they are.
        features: [m] each, what else is known of them.
    """

    error: Tensor
    spread: Tensor
    noise: Tensor
    graph: Graph
    rows: Tensor
    features: Features

    @classmethod
    def of(
        cls, mean: Tensor, spread: Tensor, graph: Graph, features: Features, noise: float | None
    ) -> _Residuals:
        rows = graph.labelled.nonzero().squeeze(1)
        own = graph.target_stderr[rows].double().nan_to_num(nan=0.0)
        return cls(
            (graph.target.double() - mean.double())[rows],
            spread[rows].double(),
            own if noise is None else torch.full_like(own, noise),
            graph,
            rows,
            {name: values[rows] for name, values in features.items()},
        )


def _with_features(cases: Sequence[_Residuals], plain: Calibration) -> Calibration:
    """The calibration with whatever else foretells the errors."""
    shared = set.intersection(*(set(case.features) for case in cases))
    names = [name for name in cases[0].features if name in shared]
    if not names:
        return plain
    spread = torch.cat([case.spread for case in cases])
    residuals = Residuals(
        torch.cat([case.error for case in cases]).square(),
        plain.std(spread).square(),
        torch.cat([case.noise for case in cases]).square(),
        folds(
            [case.graph for case in cases],
            [glass_of(case.graph) for case in cases],
            [case.rows for case in cases],
        ),
    )
    values = {name: torch.cat([case.features[name] for case in cases]) for name in names}
    features, factor = choose_features(values, residuals)
    root = math.sqrt(factor)
    return replace(plain, scale=plain.scale * root, floor=plain.floor * root, features=features)


def _variances(error2: Tensor, spread2: Tensor, noise2: Tensor) -> tuple[float, float]:
    """scale² and floor² that make normal residuals of variance scale² s² + floor² + noise² likely.

    Fisher scoring: weighted least squares of error² − noise² on (s², 1), the weights 1/variance²
    from the step before; a step that makes the residuals less likely is halved.
    """
    basis = torch.stack([spread2, torch.ones_like(spread2)], dim=1)
    best = basis.new_tensor([0.0, max(float((error2 - noise2).mean()), _LEAST_FLOOR**2)])

    def surprise(parameters: Tensor) -> Tensor:
        variance = basis @ parameters + noise2
        return (variance.log() + error2 / variance).mean()

    for _ in range(100):
        weight = 1 / (basis @ best + noise2)
        wanted = _not_negative(basis * weight[:, None], (error2 - noise2) * weight)
        step = wanted - best
        while float(step.abs().max()) > 1e-12 and surprise(best + step) > surprise(best):
            step = step / 2
        best = best + step
        if float(step.abs().max()) < 1e-9 * float(best.max()):
            break
    return float(best[0]), float(best[1])


def _not_negative(basis: Tensor, wanted: Tensor) -> Tensor:
    """[2] least squares with scale² ≥ 0 and floor² at least its smallest."""
    least = basis.new_tensor([0.0, _LEAST_FLOOR**2])
    if float(basis[:, 0].abs().max()) > 0:
        both = torch.linalg.lstsq(basis, wanted[:, None], driver="gelsd").solution.squeeze(1)
        if bool((both >= least).all()):
            return both
    alone = (basis * wanted[:, None]).sum(0) / basis.square().sum(0).clamp(min=1e-300)
    candidates = [torch.stack([alone[0].clamp(min=0), least[1]]), torch.stack([least[0], alone[1]])]
    candidates = [torch.maximum(candidate, least) for candidate in candidates]
    return min(candidates, key=lambda candidate: float((basis @ candidate - wanted).square().sum()))


def _correlation(cases: Sequence[_Residuals], plain: Calibration) -> dict[str, Any]:
    """Kernel, fraction, length and common share of the correlation, by least squares on bins."""
    products, counts = torch.zeros(2, _BINS, dtype=torch.float64)
    common = pairs = 0.0
    for case in cases:
        errors = case.error / plain.std(case.spread, case.features)
        both, number = _products_by_distance(case, errors)
        products, counts = products + both, counts + number
        common += float(errors.sum().square() - errors.square().sum())
        pairs += len(errors) * (len(errors) - 1)
    shared = min(max(common / max(pairs, 1.0), 0.0), 1.0)
    seen = counts > 0
    if not bool(seen.any()):
        return {"common": shared}
    middle = (torch.arange(_BINS, dtype=torch.float64)[seen] + 0.5) * REACH / _BINS
    rest, weight = products[seen] / counts[seen] - shared, counts[seen]
    fits = [(_misfit(kernel, middle, rest, weight, 1 - shared), kernel) for kernel in KERNELS]
    (_, fraction, length), kernel = min(fits)
    if fraction == 0:
        return {"common": shared}
    return {"kernel": kernel, "fraction": fraction, "length": length, "common": shared}


def _misfit(
    kernel: str, middle: Tensor, wanted: Tensor, weight: Tensor, most: float
) -> tuple[float, float, float]:
    """Least squares of fraction · k on correlations: what is left, the fraction and the length.

    Args:
        kernel: of KERNELS.
        middle: [bins] Å.
        wanted: [bins] correlations.
        weight: [bins].
        most: the largest fraction.
    """
    kernels = decay(kernel, middle / _LENGTHS[:, None])
    overlap = (kernels * wanted * weight).sum(1)
    size = (kernels.square() * weight).sum(1)
    fractions = (overlap / size).clamp(0.0, most)
    misfit = ((fractions[:, None] * kernels - wanted).square() * weight).sum(1)
    best = int(misfit.argmin())
    return float(misfit[best]), float(fractions[best]), float(_LENGTHS[best])


def _products_by_distance(case: _Residuals, errors: Tensor) -> tuple[Tensor, Tensor]:
    """[bins] sums of the products of pairs of errors, and [bins] how many, by distance."""
    graph = case.graph
    first, second, third = graph.periodic[0].tolist()
    pairs = neighbor_pairs(graph.positions[case.rows], graph.cell[0], (first, second, third), REACH)
    bins = (pairs.vector.norm(dim=1) * (_BINS / REACH)).long().clamp(max=_BINS - 1)
    source, target = pairs.edge_index
    products = torch.zeros(_BINS, dtype=torch.float64)
    products.index_add_(0, bins, errors[source] * errors[target])
    return products, torch.bincount(bins, minlength=_BINS).double()
