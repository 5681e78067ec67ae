"""How well a label is known: the variance of a mean over few searches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# measured on Cu64Zr36 with the potential of Mendelev et al. 2009: single searches spread by 0.57 eV
# about their atom's mean, and this variance itself differs by 37 % between atoms
TYPICAL_VARIANCE = 0.33  # eV²
TYPICAL_WEIGHT = 30.0  # degrees of freedom that the typical variance counts as
SUCCESS = 0.56  # share of the searches that end at a saddle
STRENGTH = 15.0  # degrees of freedom that the pooled variance counts as for each atom


@dataclass(frozen=True)
class SearchNoise:
    """How single searches scatter about the mean barrier of their atom.

    Attributes:
        variance: eV², pooled over atoms.
        strength: how many degrees of freedom it counts as beside those of an atom itself.
    """

    variance: float = TYPICAL_VARIANCE
    strength: float = STRENGTH

    @classmethod
    def fit(cls, stderr: Tensor, events: Tensor) -> SearchNoise:
        """Pool the variance within atoms; where there are few, towards what is typical.

        Args:
            stderr: [n] eV, of the means; NaN where there is none.
            events: [n], how many successful searches each mean rests on.
        """
        freedom, squares = _within(stderr, events)
        total = TYPICAL_WEIGHT + float(freedom.sum())
        return cls((TYPICAL_WEIGHT * TYPICAL_VARIANCE + float(squares.sum())) / total)

    def of_means(self, stderr: Tensor, events: Tensor) -> Tensor:
        """[n] eV²: the variance of each mean; infinite without a search.

        An atom's own scatter is taken together with the pooled one (an empirical Bayes estimate),
        since two or three searches tell little of it, and one nothing.

        Args:
            stderr, events: as for `fit`.
        """
        freedom, squares = _within(stderr, events)
        single = (squares + self.strength * self.variance) / (freedom + self.strength)
        return single / events.double()


def _within(stderr: Tensor, events: Tensor) -> tuple[Tensor, Tensor]:
    """[n] degrees of freedom and sums of squares about the mean; 0 where there are none."""
    count = events.double()
    squares = stderr.double().square() * count * (count - 1)
    known = torch.isfinite(squares) & (count > 1)
    zero = torch.zeros_like(squares)
    return torch.where(known, count - 1, zero), torch.where(known, squares, zero)
