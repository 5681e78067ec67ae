"""The errors of a prediction as a random field: how those of neighbouring atoms hang together.

The true barrier of atom i is mᵢ + eᵢ, the prediction and its error. Errors are taken to be normal
with the covariance

    cov(eᵢ, eⱼ) = σᵢ σⱼ (fraction k(rᵢⱼ) + common),   var(eᵢ) = σᵢ²,   k(r) = exp(−r²/2 length²):

neighbours are wrong alike, and so are, a little, all atoms of a structure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mgsym.errors import InputError
from mgsym.structure import Structure

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


@dataclass(frozen=True)
class ErrorField:
    """The errors of a prediction for one structure; all float64.

    Attributes:
        fractional: [n, 3] positions in units of the cell.
        cell: [3, 3] Å.
        periodic: along each of its vectors.
        std: [n] eV.
        correlation: how they hang together.
    """

    fractional: Tensor
    cell: Tensor
    periodic: tuple[bool, bool, bool]
    std: Tensor
    correlation: ErrorCorrelation

    @classmethod
    def of(cls, structure: Structure, std: Tensor, correlation: ErrorCorrelation) -> ErrorField:
        """The field on a structure.

        Args:
            structure: where the atoms are.
            std: [n] eV.
            correlation: of the errors.

        Raises:
            InputError: a standard deviation is not a number from 0.
        """
        std = std.double()
        if bad := std[~(torch.isfinite(std) & (std >= 0))].tolist():
            raise InputError(
                f"a standard deviation of the prediction is {bad[0]}, expected a number from 0 eV"
            )
        fractional = torch.linalg.solve(structure.cell.T, structure.positions.T).T
        repeats = torch.tensor(structure.periodic)
        fractional = torch.where(repeats, fractional - fractional.floor(), fractional)
        return cls(fractional, structure.cell, structure.periodic, std, correlation)

    @property
    def common(self) -> Tensor:
        """[n] eV: what one standard deviation of the structure's common error does to each atom."""
        return self.std * math.sqrt(self.correlation.common)

    @property
    def own(self) -> Tensor:
        """[n] eV²: the variance of each atom without the common error."""
        return self.std**2 * (1 - self.correlation.common)

    @property
    def heights(self) -> Tensor:
        """[3] Å, between opposite faces of the cell."""
        return 1 / torch.linalg.inv(self.cell).norm(dim=0)

    def covariance(self, a: Tensor, b: Tensor) -> Tensor:
        """[a, b] eV²: of the errors of two lists of atoms, without the common error."""
        found = torch.empty(len(a), len(b), dtype=torch.float64)
        for rows, part in zip(a.split(_ROWS), found.split(_ROWS), strict=True):
            part.copy_(self._kernel(self.fractional[rows, None] - self.fractional[b]))
        found *= self.correlation.fraction * self.std[a, None] * self.std[b]
        return torch.where(a[:, None] == b, self.own[a, None], found)

    def near(self, nodes: Tensor, lengths: float) -> Tensor:
        """[n] bool: atoms within some correlation lengths of the box around `nodes`."""
        reach = lengths * self.correlation.length / self.heights * (self.correlation.fraction > 0)
        own = self.fractional[nodes]
        low, high = own.amin(0) - reach, own.amax(0) + reach
        offset = self.fractional - low
        offset = torch.where(torch.tensor(self.periodic), offset - offset.floor(), offset)
        return ((offset >= 0) & (offset <= high - low)).all(1)

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

    def _images(self) -> Tensor:
        """[images, 3]: the cells whose atoms are near enough to count."""
        reach = (0.5 + IMAGES * self.correlation.length / self.heights).floor()
        counts = torch.where(torch.tensor(self.periodic), reach, 0).long().tolist()
        return torch.cartesian_prod(*(torch.arange(-n, n + 1.0).double() for n in counts))
