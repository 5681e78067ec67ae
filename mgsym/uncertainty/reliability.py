"""Whether predicted standard deviations are honest: what they promise beside what is found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from mgsym.graph import Graph
from mgsym.uncertainty.calibration import Calibration
from mgsym.uncertainty.error_features import Features

BINS = 10
SMALLEST_BIN = 50  # atoms


@dataclass(frozen=True)
class ReliabilityBin:
    """Atoms of similar predicted standard deviation.

    Attributes:
        count: atoms.
        predicted: eV, root mean square of the predicted standard deviation of a label.
        found: eV, root mean square of label − prediction.
    """

    count: int
    predicted: float
    found: float


@dataclass(frozen=True)
class Reliability:
    """Residuals of labels in units of their predicted standard deviation, z.

    Attributes:
        count: labelled atoms.
        calibrated: whether the models' spread was calibrated, or taken as it is.
        noise: eV, root mean square error of the labels that was allowed for; 0 when not known.
        z_mean, z_sd: of z; 0 and 1 for an honest prediction without bias.
        coverage_68, coverage_95: share of the labels within 1 and 1.96 standard deviations;
            0.683 and 0.950 for normal errors.
        bins: quantiles of the predicted standard deviation, lowest first.
    """

    count: int
    calibrated: bool
    noise: float
    z_mean: float
    z_sd: float
    coverage_68: float
    coverage_95: float
    bins: tuple[ReliabilityBin, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def reliability(
    means: Sequence[Tensor],
    spreads: Sequence[Tensor],
    graphs: Sequence[Graph],
    calibration: Calibration | None = None,
    noise: float | None = None,
    features: Sequence[Features] | None = None,
) -> Reliability | None:
    """Compare predicted standard deviations with residuals.

    Args:
        means: [n] eV, the prediction for each graph.
        spreads: [n] eV, the standard deviation between the models.
        graphs: labelled structures.
        calibration: of the spread; None takes the spread itself.
        noise: eV, standard error of the labels; None takes each label's own (target_stderr), and
            where it is not known that of the calibration.
        features: of the atoms of each graph, where the calibration uses some.

    Returns:
        None where nothing is predicted of the error: one model without a calibration.
    """
    error_model = calibration or Calibration()
    labelled = torch.cat([graph.labelled for graph in graphs])
    residual = (torch.cat([graph.target for graph in graphs]) - torch.cat([*means]))[labelled]
    own = torch.cat([graph.target_stderr for graph in graphs])[labelled].double()
    error = own.nan_to_num(error_model.noise) if noise is None else torch.full_like(own, noise)
    residual, spread = residual.double(), torch.cat([*spreads])[labelled].double()
    if len(residual) == 0 or (calibration is None and not bool((spread > 0).any())):
        return None
    of_atoms = {
        feature.name: torch.cat([columns[feature.name] for columns in features or ()])[labelled]
        for feature in error_model.used
    }
    std = error_model.label_std(spread, error, of_atoms).clamp(min=1e-6)
    z = residual / std
    return Reliability(
        count=len(z),
        calibrated=calibration is not None,
        noise=math.sqrt(error.square().mean()),
        z_mean=float(z.mean()),
        z_sd=float(z.std(correction=0)),
        coverage_68=float((z.abs() <= 1).double().mean()),
        coverage_95=float((z.abs() <= 1.96).double().mean()),
        bins=_bins(std, residual),
    )


def _bins(std: Tensor, residual: Tensor) -> tuple[ReliabilityBin, ...]:
    count = 1 if std.max() == std.min() else max(1, min(BINS, len(std) // SMALLEST_BIN))
    order = std.argsort(stable=True)
    return tuple(
        ReliabilityBin(
            count=len(part),
            predicted=math.sqrt(std[part].square().mean()),
            found=math.sqrt(residual[part].square().mean()),
        )
        for part in order.tensor_split(count)
    )
