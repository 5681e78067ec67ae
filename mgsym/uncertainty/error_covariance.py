"""The errors of a prediction as a random field: how those of neighbouring atoms hang together.

The true barrier of atom i is mᵢ + eᵢ, the prediction and its error. Errors are taken to be normal
with the covariance that mgsym.uncertainty.calibration fits,

    cov(eᵢ, eⱼ) = σᵢ σⱼ (fraction k(rᵢⱼ/length) + common),   var(eᵢ) = σᵢ².
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mgsym.errors import InputError
from mgsym.structure import Structure
from mgsym.structure.cell import fractional, heights, wrap_fraction
from mgsym.uncertainty.calibration import Calibration, decay

IMAGES = 4.5  # lengths; periodic images farther than this do not count (k < 0.004)
_ROWS = 256  # of a matrix of distances at once


@dataclass(frozen=True)
class ErrorCovariance:
    """The errors of a prediction for one structure; all float64.

    Attributes:
        fractional: [n, 3] positions in units of the cell.
        cell: [3, 3] Å.
        periodic: along each of its vectors.
        std: [n] eV.
        calibration: how they hang together.
    """

    fractional: Tensor
    cell: Tensor
    periodic: tuple[bool, bool, bool]
    std: Tensor
    calibration: Calibration

    @classmethod
    def of(cls, structure: Structure, std: Tensor, calibration: Calibration) -> ErrorCovariance:
        """The field on a structure.

        Args:
            structure: where the atoms are.
            std: [n] eV.
            calibration: how its errors hang together.

        Raises:
            InputError: a standard deviation is not a number from 0.
        """
        std = std.double()
        if bad := std[~(torch.isfinite(std) & (std >= 0))].tolist():
            raise InputError(
                f"a standard deviation of the prediction is {bad[0]}, expected a number from 0 eV"
            )
        inside = fractional(structure.positions, structure.cell)
        inside = wrap_fraction(inside, structure.periodic)
        return cls(inside, structure.cell, structure.periodic, std, calibration)

    @property
    def common(self) -> Tensor:
        """[n] eV: what one standard deviation of the structure's common error does to each atom."""
        return self.std * math.sqrt(self.calibration.common)

    @property
    def own(self) -> Tensor:
        """[n] eV²: the variance of each atom without the common error."""
        return self.std**2 * (1 - self.calibration.common)

    @property
    def heights(self) -> Tensor:
        """[3] Å, between opposite faces of the cell."""
        return heights(self.cell)

    def covariance(self, a: Tensor, b: Tensor) -> Tensor:
        """[a, b] eV²: of the errors of two lists of atoms, without the common error."""
        covariance = torch.empty(len(a), len(b), dtype=torch.float64)
        for rows, part in zip(a.split(_ROWS), covariance.split(_ROWS), strict=True):
            part.copy_(self._kernel(self.fractional[rows, None] - self.fractional[b]))
        covariance *= self.calibration.fraction * self.std[a, None] * self.std[b]
        return torch.where(a[:, None] == b, self.own[a, None], covariance)

    def near(self, nodes: Tensor, lengths: float) -> Tensor:
        """[n] bool: atoms within some correlation lengths of the box around `nodes`."""
        reach = lengths * self.calibration.length / self.heights * (self.calibration.fraction > 0)
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
        kernel, scaled = self.calibration.kernel, self.cell / self.calibration.length
        total, at_zero = torch.zeros(difference.shape[:-1], dtype=torch.float64), 0.0
        for shift in self._images():
            total += decay(kernel, ((difference + shift) @ scaled).norm(dim=-1))
            at_zero += float(decay(kernel, (shift @ scaled).norm()))
        return total / at_zero

    def _images(self) -> Tensor:
        """[images, 3]: the cells whose atoms are near enough to count."""
        reach = (0.5 + IMAGES * self.calibration.length / self.heights).floor()
        counts = torch.where(torch.tensor(self.periodic), reach, 0).long().tolist()
        return torch.cartesian_prod(*(torch.arange(-n, n + 1.0).double() for n in counts))
