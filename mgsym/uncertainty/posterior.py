"""A prediction and searches in the same structure, combined into one figure for each atom.

The prediction m is wrong by a random field e (mgsym.uncertainty.error_covariance). Searches tell mᵢ
+ eᵢ of some atoms, with errors of known variance that are independent between atoms. What is then
known of every atom is the Gaussian-process posterior (Rasmussen & Williams, Gaussian Processes for
Machine Learning, eqs. 2.25–2.26; in geostatistics, simple kriging with a random mean). Without
correlation it is the mean weighted by inverse variances.

Each atom is computed from the observations within a few correlation lengths, by dense Cholesky
factors of blocks of space, so that memory does not grow with the structure; the error common to
all atoms is estimated from all observations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mgsym.errors import InputError
from mgsym.structure import Structure
from mgsym.uncertainty.calibration import Calibration
from mgsym.uncertainty.error_covariance import ErrorCovariance

REACH = 2.5  # lengths; observations farther from a block of atoms are left out: they move a mean
# by 0.0005 eV (8,000 atoms searched five times each)
MOST_OBSERVATIONS = 3000  # in one block: a factor of 72 MB
FEW_OBSERVATIONS = 256  # in one block where errors are independent and blocks have no margin


class Observed(NamedTuple):
    """What searches say.

    Attributes:
        rows: [k] int64, distinct atoms.
        values: [k] eV.
        variances: [k] eV², of the values' errors; above 0.
    """

    rows: Tensor
    values: Tensor
    variances: Tensor


class Posterior(NamedTuple):
    """What prediction and searches say together.

    Attributes:
        mean: [n] float64, eV.
        std: [n] float64, eV, of the true barrier.
    """

    mean: Tensor
    std: Tensor


def condition(
    structure: Structure,
    mean: Tensor,
    std: Tensor,
    observed: Observed,
    calibration: Calibration | None = None,
    *,
    most_observations: int = MOST_OBSERVATIONS,
) -> Posterior:
    """Combine a prediction with observations of some of its atoms.

    Args:
        structure: where the atoms are.
        mean: [n] eV, the prediction.
        std: [n] eV, of its error; 0 where it is certain.
        observed: by the searches.
        calibration: how its errors hang together; None takes them as independent.
        most_observations: in one block, which bounds memory (8 bytes times its square, thrice).

    Raises:
        InputError: a number is not finite, or a variance not positive.
    """
    field = ErrorCovariance.of(structure, std, calibration or Calibration())
    mean = mean.double()
    _check(mean, observed)
    residual, noise = torch.zeros_like(mean), torch.full_like(mean, math.nan)
    residual[observed.rows] = observed.values.double() - mean[observed.rows]
    noise[observed.rows] = observed.variances.double()

    # C and k are covariances without the common error u: kᵢᵀ C⁻¹ e, kᵢᵀ C⁻¹ u and kᵢᵀ C⁻¹ kᵢ
    weighted, shared, explained = torch.zeros(3, len(mean), dtype=torch.float64)
    evidence, precision = 0.0, 1.0  # uᵀ C⁻¹ e and 1 + uᵀ C⁻¹ u
    common = field.common
    for nodes, near in _blocks(field, ~noise.isnan(), most_observations):
        solved, cross, square = _solve(
            field, nodes, near, noise[near], torch.stack([residual[near], common[near]], dim=1)
        )
        weighted[nodes], shared[nodes] = (cross @ solved).T
        explained[nodes] = square
        inside = torch.isin(near, nodes)
        products = common[near[inside]] @ solved[inside]
        evidence, precision = evidence + float(products[0]), precision + float(products[1])
    left = common - shared
    variance = field.own - explained + left.square() / precision
    return Posterior(mean + weighted + left * evidence / precision, variance.clamp(min=0).sqrt())


def _solve(
    field: ErrorCovariance, nodes: Tensor, near: Tensor, noise: Tensor, wanted: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """C⁻¹ wanted [k, 2], the covariance k of each node with the observations [m, k], kᵀ C⁻¹ k [m].

    Args:
        field: of the errors.
        nodes: [m] atoms.
        near: [k] observed atoms that count for them.
        noise: [k] eV², of the observations.
        wanted: [k, 2].
    """
    covariance = field.covariance(near, near)
    covariance.diagonal().add_(noise)
    factor = torch.linalg.cholesky(covariance)
    cross = field.covariance(nodes, near)
    half = torch.linalg.solve_triangular(factor, cross.T, upper=False)
    return torch.cholesky_solve(wanted, factor), cross, half.square().sum(0)


def _blocks(field: ErrorCovariance, observed: Tensor, most: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Parts of the structure, [m] int64 each, and the observed atoms that count for them, [k].

    A part with more observations than `most` is halved along its longest side.
    """
    if field.calibration.fraction == 0:
        most = min(most, FEW_OBSERVATIONS)
    waiting = [torch.arange(len(observed))]
    while waiting:
        nodes = waiting.pop()
        near = (field.near(nodes, REACH) & observed).nonzero().squeeze(1)
        if len(near) <= most or len(nodes) == 1:
            if len(near):
                yield nodes, near
            continue
        own = field.fractional[nodes]
        axis = int(((own.amax(0) - own.amin(0)) * field.heights).argmax())
        order = own[:, axis].argsort(stable=True)
        half = len(nodes) // 2
        waiting += [nodes[part].sort().values for part in (order[half:], order[:half])]


def _check(mean: Tensor, observed: Observed) -> None:
    rows, values, variances = observed
    if not len(rows) == len(values) == len(variances) == len(rows.unique()):
        raise ValueError(
            f"{len(rows.unique())} distinct of {len(rows)} atoms, {len(values)} values, "
            f"{len(variances)} variances: expected as many of each"
        )
    for name, numbers, good in (
        ("prediction", mean, torch.isfinite(mean)),
        ("barrier found by searches", values, torch.isfinite(values)),
        ("variance of a barrier", variances, torch.isfinite(variances) & (variances > 0)),
    ):
        if not bool(good.all()):
            raise InputError(f"a {name} is {numbers[~good][0]:g}, expected a finite number")
