"""Linear regression from second moments, which pieces of any number of atoms add up to.

All that ridge regression needs of the data is Σ x xᵀ and Σ x y. Kept by glass, the same sums tell
how well the weights found on some glasses predict another.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_PIECE = 1024  # rows multiplied in float32 before they are summed in float64
STRENGTHS = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


@dataclass
class Moments:
    """Sums over the atoms of some structures.

    Within a structure deviations are from that structure's mean, whose own deviations are kept
    beside them: correlations are per structure, while weights also learn from the differences
    between structures.

    Sums and means count each atom as much as its label weighs (mgsym.evaluation.label_weights).

    Attributes:
        products: [d, d] float64, Σ (x − x̄)(x − x̄)ᵀ.
        cross: [d] float64, Σ (x − x̄)(y − ȳ).
        square: Σ (y − ȳ)².
        counts: [s] float64, atoms of each structure, or the sum of their weights.
        means: [s, d] float64, x̄ of each.
        targets: [s] float64, ȳ of each.
    """

    products: Tensor
    cross: Tensor
    square: float
    counts: Tensor
    means: Tensor
    targets: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor, weight: Tensor | None = None) -> Moments:
        """Of one structure: features x [n, d], target y [n] and weights [n], 1 where not given."""
        share = (torch.ones_like(y) if weight is None else weight).double()
        count = share.sum()
        mean, level = (share @ x.double()) / count, (share @ y.double()) / count
        root = share.sqrt().to(x)
        centred, target = (x - mean.to(x)) * root[:, None], (y - level.to(y)) * root
        products = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
        cross = torch.zeros_like(mean)
        for rows, values in zip(centred.split(_PIECE), target.split(_PIECE), strict=True):
            products += rows.T @ rows
            cross += rows.T @ values
        square = float(target.double().square().sum())
        return cls(products, cross, square, count[None], mean[None], level[None])

    @classmethod
    def sum(cls, parts: Iterable[Moments]) -> Moments:
        """Of several sets of structures together."""
        every = list(parts)
        products, cross = torch.zeros_like(every[0].products), torch.zeros_like(every[0].cross)
        for part in every:
            products += part.products
            cross += part.cross
        joined = (torch.cat([getattr(p, n) for p in every]) for n in ("counts", "means", "targets"))
        return cls(products, cross, sum(part.square for part in every), *joined)

    def centre(self) -> tuple[Tensor, Tensor]:
        """Mean of x [d] and of y [] over all atoms."""
        share = self.counts / self.counts.sum()
        return share @ self.means, share @ self.targets

    def total(self) -> tuple[Tensor, Tensor]:
        """Σ x xᵀ [d, d] and Σ x y [d] of deviations from the mean over all atoms."""
        mean, level = self.centre()
        x = (self.means - mean) * self.counts.sqrt()[:, None]
        y = (self.targets - level) * self.counts.sqrt()
        return self.products + x.T @ x, self.cross + x.T @ y

    def pearson(self, weight: Tensor) -> float:
        """Correlation within structures between x · weight and y."""
        spread = float(weight @ self.products @ weight) * self.square
        return float(weight @ self.cross) / math.sqrt(spread) if spread > 0 else 0.0


def ridge_weights(moments: Moments, strengths: Sequence[float]) -> list[Tensor]:
    """Weights [d] of x − x̄ that minimise Σ (y − x w)² + strength Σ (s w)², for each strength.

    s is the standard deviation of each feature (Hoerl & Kennard, Technometrics 12, 55, 1970).
    """
    products, cross = moments.total()
    scale = _scale(products, moments.counts)
    normal, right = products / scale / scale[:, None], (cross / scale)[:, None]
    unit = torch.eye(len(scale), dtype=normal.dtype, device=normal.device)
    factors = (torch.linalg.cholesky(normal + strength * unit) for strength in strengths)
    return [torch.cholesky_solve(right, factor).squeeze(1) / scale for factor in factors]


def choose_strength(groups: Sequence[Moments], strengths: Sequence[float] = STRENGTHS) -> float:
    """The strength whose weights predict each group best when the others train.

    Args:
        groups: moments of each glass, two or more.
        strengths: to choose from; above 0.

    Returns:
        The one with the highest Pearson within structures, averaged over the groups left out.
    """
    scores = torch.zeros(len(strengths))
    for i, left_out in enumerate(groups):
        rest = Moments.sum([*groups[:i], *groups[i + 1 :]])
        weights = ridge_weights(rest, strengths)
        scores += torch.tensor([left_out.pearson(weight) for weight in weights])
    return strengths[int(scores.argmax())]


def _scale(products: Tensor, counts: Tensor) -> Tensor:
    """Standard deviation of each feature; 1 where it is the same everywhere."""
    spread = (products.diagonal() / counts.sum()).clamp(min=0).sqrt()
    return torch.where(spread > 1e-8, spread, 1.0)
