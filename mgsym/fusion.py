"""A prediction and searches in the same structure, combined into one figure for each atom.

The true barrier of atom i is mᵢ + eᵢ, the prediction and its error. Errors are taken to be normal
with the covariance

    cov(eᵢ, eⱼ) = σᵢ σⱼ (fraction k(rᵢⱼ) + common),   var(eᵢ) = σᵢ²,   k(r) = exp(−r²/2 length²):

neighbours are wrong alike, and so are, a little, all atoms of a structure. Searches tell mᵢ + eᵢ
with an error of known variance, independent between atoms. What is then known of every atom is
the Gaussian-process posterior (Rasmussen & Williams, Gaussian Processes for Machine Learning,
eqs. 2.25–2.26; in geostatistics, simple kriging with a random mean). Without correlation it is the
mean weighted by inverse variances.

Each atom is computed from the observations within a few lengths, by dense Cholesky factors of
blocks of space, so that memory does not grow with the structure; the share common to all is exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mgsym.errors import InputError
from mgsym.structure import Structure

REACH = 3.5  # lengths; observations farther from a block of atoms are left out (k = 0.002)
MOST_OBSERVATIONS = 3000  # in one block: a factor of 72 MB
IMAGES = 4.5  # lengths; periodic images farther than this do not count (k = 4e-5)
_ROWS = 256  # of a matrix of distances at once


@dataclass(frozen=True)
class ErrorCorrelation:
    """How the errors of a prediction hang together within one structure.

    Attributes:
        fraction: share of the variance that neighbours share, 0 … 1.
        length: Å, over which they do.
        common: share of the variance that all atoms of a structure share, 0 … 1.
    """

    fraction: float = 0.0
    length: float = 3.0
    common: float = 0.0

    def __post_init__(self) -> None:
        shares = (self.fraction, self.common)
        if min(shares) < 0 or sum(shares) > 1 + 1e-9 or not self.length > 0:
            raise InputError(
                f"errors with fraction {self.fraction}, common {self.common} and length "
                f"{self.length}: expected shares that add to 1 at most and a length above 0 Å"
            )


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


class Fused(NamedTuple):
    """What prediction and searches say together.

    Attributes:
        mean: [n] float64, eV.
        std: [n] float64, eV, of the true barrier.
    """

    mean: Tensor
    std: Tensor


def fuse(
    structure: Structure,
    mean: Tensor,
    std: Tensor,
    observed: Observed,
    correlation: ErrorCorrelation | None = None,
    *,
    most_observations: int = MOST_OBSERVATIONS,
) -> Fused:
    """Combine a prediction with observations of some of its atoms.

    Args:
        structure: where the atoms are.
        mean: [n] eV, the prediction.
        std: [n] eV, of its error; 0 where it is certain.
        observed: by the searches.
        correlation: of its errors; None takes them as independent.
        most_observations: in one block, which bounds memory (8 bytes times its square, thrice).

    Raises:
        InputError: a number is not finite, or a variance not positive.
    """
    correlation = correlation or ErrorCorrelation()
    prior = _Prior.of(structure, mean, std, correlation)
    _check(prior, observed)
    if len(observed.rows) == 0:
        return Fused(prior.mean, prior.std)
    residual = torch.zeros_like(prior.mean)
    residual[observed.rows] = observed.values.double() - prior.mean[observed.rows]
    noise = torch.full_like(prior.mean, math.nan)
    noise[observed.rows] = observed.variances.double()

    weighted = torch.zeros_like(prior.mean)  # kᵢᵀ C⁻¹ residual
    shared = torch.zeros_like(prior.mean)  # kᵢᵀ C⁻¹ u
    explained = torch.zeros_like(prior.mean)  # kᵢᵀ C⁻¹ kᵢ
    precision = prior.mean.new_ones(())  # 1 + uᵀ C⁻¹ u
    evidence = prior.mean.new_zeros(())  # uᵀ C⁻¹ residual
    for nodes, near in _blocks(prior, ~noise.isnan(), most_observations):
        both = torch.stack([residual[near], prior.common[near]], dim=1)
        solved, cross, square = _solve(prior, nodes, near, noise[near], both)
        weighted[nodes], shared[nodes] = (cross @ solved).T
        explained[nodes] = square
        own = torch.isin(near, nodes)
        products = prior.common[near[own]] @ solved[own]
        evidence, precision = evidence + products[0], precision + products[1]
    offset = evidence / precision
    remaining = prior.common - shared
    variance = prior.std**2 - prior.common**2 - explained + remaining**2 / precision
    return Fused(prior.mean + weighted + remaining * offset, variance.clamp(min=0).sqrt())


@dataclass(frozen=True)
class _Prior:
    """What is known of a structure before the searches; all float64.

    Attributes:
        fractional: [n, 3] positions in units of the cell.
        cell: [3, 3] Å.
        periodic: along each of its vectors.
        mean, std: [n] eV.
        common: [n] eV, what one unit of the structure's common error does to each atom.
        correlation: of the errors.
    """

    fractional: Tensor
    cell: Tensor
    periodic: tuple[bool, bool, bool]
    mean: Tensor
    std: Tensor
    common: Tensor
    correlation: ErrorCorrelation

    @classmethod
    def of(
        cls, structure: Structure, mean: Tensor, std: Tensor, correlation: ErrorCorrelation
    ) -> _Prior:
        fractional = torch.linalg.solve(structure.cell.T, structure.positions.T).T
        repeats = torch.tensor(structure.periodic)
        fractional = torch.where(repeats, fractional - fractional.floor(), fractional)
        mean, std = mean.double(), std.double()
        common = std * math.sqrt(correlation.common)
        return cls(
            fractional, structure.cell, structure.periodic, mean, std, common, correlation
        )

    @property
    def heights(self) -> Tensor:
        """[3] Å, between opposite faces of the cell."""
        return 1 / torch.linalg.inv(self.cell).norm(dim=0)

    def covariance(self, a: Tensor, b: Tensor) -> Tensor:
        """[a, b] eV²: of the errors that neighbours share, without the common one."""
        found = torch.empty(len(a), len(b), dtype=torch.float64)
        for rows, part in zip(a.split(_ROWS), found.split(_ROWS), strict=True):
            part.copy_(self._kernel(self.fractional[rows, None] - self.fractional[b]))
        return found * self.correlation.fraction * self.std[a, None] * self.std[b]

    def _kernel(self, difference: Tensor) -> Tensor:
        """k of differences [..., 3] in units of the cell, summed over periodic images.

        The sum keeps it positive definite in small cells; it is divided by that at distance zero.
        """
        repeats = torch.tensor(self.periodic)
        difference = torch.where(repeats, difference - difference.round(), difference)
        scaled = self.cell / self.correlation.length
        total, at_zero = torch.zeros(difference.shape[:-1], dtype=torch.float64), 0.0
        for shift in self._images():
            total += torch.exp(-0.5 * ((difference + shift) @ scaled).square().sum(-1))
            at_zero += math.exp(-0.5 * float((shift @ scaled).square().sum()))
        return total / at_zero

    def _images(self) -> list[Tensor]:
        """[3] each: the cells whose atoms are near enough to count."""
        reach = IMAGES * self.correlation.length / self.heights
        counts = [
            math.floor(0.5 + float(r)) if p else 0
            for r, p in zip(reach, self.periodic, strict=True)
        ]
        ranges = [torch.arange(-n, n + 1, dtype=torch.float64) for n in counts]
        return list(torch.cartesian_prod(*ranges))


def _solve(
    prior: _Prior, nodes: Tensor, near: Tensor, noise: Tensor, wanted: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """C⁻¹ wanted [k, 2], k of each node with the observations [m, k], and kᵀ C⁻¹ k [m].

    Args:
        nodes: [m] atoms.
        near: [k] observed atoms that count for them.
        noise: [k] eV², of the observations.
        wanted: [k, 2].
    """
    own = prior.std**2 - prior.common**2  # all of an atom's variance but the common one
    covariance = prior.covariance(near, near)
    covariance.diagonal().copy_(own[near] + noise)
    factor = torch.linalg.cholesky(covariance)
    cross = prior.covariance(nodes, near)
    same = nodes[:, None] == near
    cross[same] = own[nodes].repeat_interleave(same.sum(1))
    half = torch.linalg.solve_triangular(factor, cross.T, upper=False)
    return torch.cholesky_solve(wanted, factor), cross, half.square().sum(0)


def _blocks(
    prior: _Prior, observed: Tensor, most: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Parts of the structure, [m] int64 each, and the observed atoms that count for them, [k].

    A part with more observations than `most` is halved along its longest side, as long as its
    surroundings leave a use in that.
    """
    reach = REACH * prior.correlation.length / prior.heights * (prior.correlation.fraction > 0)
    waiting = [torch.arange(len(observed))]
    while waiting:
        nodes = waiting.pop()
        near = _within(prior, nodes, reach) & observed
        if int(near.sum()) <= most or len(nodes) == 1:
            if bool(near.any()):
                yield nodes, near.nonzero().squeeze(1)
            continue
        own = prior.fractional[nodes]
        axis = int(((own.amax(0) - own.amin(0)) * prior.heights).argmax())
        order = own[:, axis].argsort(stable=True)
        half = len(nodes) // 2
        waiting += [nodes[part].sort().values for part in (order[half:], order[:half])]


def _within(prior: _Prior, nodes: Tensor, reach: Tensor) -> Tensor:
    """[n] bool: atoms within `reach`, in units of the cell, of the box around some atoms."""
    own = prior.fractional[nodes]
    low, high = own.amin(0) - reach, own.amax(0) + reach
    repeats = torch.tensor(prior.periodic)
    offset = prior.fractional - low
    offset = torch.where(repeats, offset - offset.floor(), offset)
    return ((offset >= 0) & (offset <= high - low)).all(1)


def _check(prior: _Prior, observed: Observed) -> None:
    rows, values, variances = observed
    count = len(prior.mean)
    if len({len(rows), len(values), len(variances)}) > 1:
        raise ValueError(f"{len(rows)} atoms, {len(values)} values, {len(variances)} variances")
    if len(rows.unique()) < len(rows) or (len(rows) and not 0 <= int(rows.min())):
        raise ValueError("observed atoms must be distinct rows")
    if len(rows) and int(rows.max()) >= count:
        raise ValueError(f"an observed atom is beyond the {count} of the structure")
    for name, found, low in (
        ("prediction", prior.mean, -math.inf),
        ("standard deviation of the prediction", prior.std, 0.0),
        ("observation", values, -math.inf),
        ("variance of an observation", variances, 1e-300),
    ):
        if not bool((torch.isfinite(found) & (found >= low)).all()):
            raise InputError(f"a {name} is {_worst(found)}, expected a number from {max(low, 0):g}")


def _worst(values: Tensor) -> float:
    bad = values[~torch.isfinite(values)]
    return float(bad[0]) if len(bad) else float(values.min())
