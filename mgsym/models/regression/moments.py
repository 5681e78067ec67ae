"""Linear regression from second moments, which pieces of any number of atoms add up to.

All that ridge regression needs of the data is Σ x xᵀ and Σ x y. Kept by glass, the same sums tell
how well the weights found on some glasses predict another.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
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
    While atoms are no more than features, the deviations themselves are kept in place of their
    products, which are larger, and take longer to make and to factorise.

    Attributes:
        deviations: float64, x − x̄ [n, d] and y − ȳ [n] of each atom, times the root of its
            weight; or None.
        products: [d, d] float64, Σ (x − x̄)(x − x̄)ᵀ; None where deviations are kept.
        cross: [d] float64, Σ (x − x̄)(y − ȳ).
        square: Σ (y − ȳ)².
        counts: [s] float64, atoms of each structure, or the sum of their weights.
        means: [s, d] float64, x̄ of each.
        targets: [s] float64, ȳ of each.
    """

    deviations: tuple[Tensor, Tensor] | None
    products: Tensor | None
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
        rows, values = (x - mean.to(x)) * root[:, None], (y - level.to(y)) * root
        square = float(values.double().square().sum())
        sums = (square, count[None], mean[None], level[None])
        if len(rows) <= rows.shape[1]:
            kept = rows.double(), values.double()
            return cls(kept, None, kept[1] @ kept[0], *sums)
        cross = torch.zeros_like(mean)
        for part, of_part in zip(rows.split(_PIECE), values.split(_PIECE), strict=True):
            cross += part.T @ of_part
        return cls(None, _products(rows), cross, *sums)

    @classmethod
    def sum(cls, parts: Iterable[Moments]) -> Moments:
        """Of several sets of structures together."""
        every = list(parts)
        cross = torch.stack([part.cross for part in every]).sum(0)
        counts, means, targets = (
            torch.cat([getattr(p, n) for p in every]) for n in ("counts", "means", "targets")
        )
        square = sum((part.square for part in every), 0.0)
        kept = [part.deviations for part in every if part.deviations is not None]
        if len(kept) == len(every) and sum(len(y) for _, y in kept) <= len(cross):
            rows, values = (torch.cat(tensors) for tensors in zip(*kept, strict=True))
            return cls((rows, values), None, cross, square, counts, means, targets)
        products = cross.new_zeros(len(cross), len(cross))
        for part in every:
            products += part.second()
        return cls(None, products, cross, square, counts, means, targets)

    def second(self) -> Tensor:
        """[d, d] float64, Σ (x − x̄)(x − x̄)ᵀ."""
        if self.products is not None:
            return self.products
        assert self.deviations is not None
        return _products(self.deviations[0])

    def centre(self) -> tuple[Tensor, Tensor]:
        """Mean of x [d] and of y [] over all atoms."""
        share = self.counts / self.counts.sum()
        return share @ self.means, share @ self.targets

    def between(self) -> tuple[Tensor, Tensor]:
        """Deviations of the structures from the mean over all atoms: of x [s, d], of y [s]."""
        mean, level = self.centre()
        root = self.counts.sqrt()
        return (self.means - mean) * root[:, None], (self.targets - level) * root

    def pearson(self, weight: Tensor) -> float:
        """Correlation within structures between x · weight and y."""
        if self.deviations is not None:
            explained = float((self.deviations[0] @ weight).square().sum())
        else:
            explained = float(weight @ self.second() @ weight)
        spread = explained * self.square
        return float(weight @ self.cross) / math.sqrt(spread) if spread > 0 else 0.0


def ridge_weights(moments: Moments, strengths: Sequence[float]) -> list[Tensor]:
    """Weights [d] of x − x̄ that minimise Σ (y − x w)² + strength Σ (s w)², for each strength.

    s is the standard deviation of each feature (Hoerl & Kennard, Technometrics 12, 55, 1970). With
    X the deviations over s, the weights times s are (XᵀX + strength)⁻¹ Xᵀy, or, which is the same,
    Xᵀ (XXᵀ + strength)⁻¹ y: the smaller of both matrices is factorised.
    """
    x, y = moments.between()
    if moments.deviations is not None:
        rows, values = moments.deviations
        x, right = torch.cat([rows, x]), torch.cat([values, y])
        scale = _scale(x.square().sum(0), moments.counts)
        x = x / scale
        return [x.T @ of_atoms / scale for of_atoms in _solved(x @ x.T, right, strengths)]
    products = moments.second() + x.T @ x
    scale = _scale(products.diagonal(), moments.counts)
    right = (moments.cross + x.T @ y) / scale
    return [w / scale for w in _solved(products / scale / scale[:, None], right, strengths)]


def _solved(matrix: Tensor, right: Tensor, strengths: Sequence[float]) -> Iterator[Tensor]:
    """(matrix + strength)⁻¹ right, for each strength."""
    unit = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    for strength in strengths:
        factor = torch.linalg.cholesky(matrix + strength * unit)
        yield torch.cholesky_solve(right[:, None], factor).squeeze(1)


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


def _products(rows: Tensor) -> Tensor:
    """[d, d] float64, Σ x xᵀ."""
    products = rows.new_zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    for part in rows.split(_PIECE):
        products += part.T @ part
    return products


def _scale(squares: Tensor, counts: Tensor) -> Tensor:
    """Standard deviation of each feature; 1 where it is the same everywhere."""
    spread = (squares / counts.sum()).clamp(min=0).sqrt()
    return torch.where(spread > 1e-8, spread, 1.0)
