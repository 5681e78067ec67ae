"""Which atoms to search from next: where a prediction is least certain, and not all in one place.

An atom that is labelled makes its neighbours known too, as far as their errors hang together. So
atoms are chosen one by one, each where the variance is highest that those before it would leave;
this is the pivoted Cholesky factorisation of the covariance, stopped early (Harbrecht, Peters &
Schneider, Appl. Numer. Math. 62, 428 (2012)), with the noise of the labels on its diagonal.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mgsym.errors import UsageError
from mgsym.uncertainty.error_covariance import ErrorCovariance
from mgsym.uncertainty.posterior import REACH


def select_atoms(
    field: ErrorCovariance,
    count: int,
    noise: float | Tensor = 0.0,
    candidates: Tensor | None = None,
) -> Tensor:
    """The atoms whose labels would leave the least variance, greedily; the same every time.

    Args:
        field: the errors of the prediction, or what earlier labels left of them.
        count: how many.
        noise: eV², the variance of the labels to come, one or [n].
        candidates: [n] bool, which atoms may be chosen; None allows all.

    Returns:
        [count] int64, the most wanted first.

    Raises:
        UsageError: `count` is below 1 or more than there are candidates.
    """
    atoms = len(field.std)
    free = torch.ones(atoms, dtype=torch.bool) if candidates is None else candidates.clone()
    if not 1 <= count <= int(free.sum()):
        raise UsageError(f"{count} atoms to choose, expected 1 to {int(free.sum())}")
    left = field.own.clone()
    noise = torch.as_tensor(noise, dtype=torch.float64).expand(atoms)
    columns: dict[int, tuple[Tensor, Tensor]] = {}  # of the factor, by atom: rows, values
    for _ in range(count):
        best = int(torch.where(free, left, -1.0).argmax())
        near = field.near(torch.tensor([best]), REACH).nonzero().squeeze(1)
        column = _column(field, best, near, columns)
        column /= (column[near == best] + noise[best]).clamp(min=1e-300).sqrt()
        left[near] = (left[near] - column.square()).clamp(min=0)
        free[best] = False
        columns[best] = (near, column)
    return torch.tensor(list(columns))


def _column(
    field: ErrorCovariance, best: int, near: Tensor, columns: dict[int, tuple[Tensor, Tensor]]
) -> Tensor:
    """[k] eV²: the covariance of `near` with the atom `best`, given the atoms chosen before."""
    column = field.covariance(near, torch.tensor([best])).squeeze(1)
    for before in [atom for atom in near.tolist() if atom in columns]:
        rows, values = columns[before]
        where = torch.searchsorted(rows, near).clamp(max=len(rows) - 1)
        own = values[torch.searchsorted(rows, best)]
        column -= torch.where(rows[where] == near, values[where], 0.0) * own
    return column
