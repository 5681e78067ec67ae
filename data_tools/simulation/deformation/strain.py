"""The strain of a cell: deformation gradients, the affine step, and cells tilted too far.

A strain γ or ε is that of the start (engineering strain). Positions and cell vectors r become F r
with F = 1 + γ eₓ⊗e_y for ``shear-xy`` (as LAMMPS' tilt factor xy grows by γ l_y), and so on for
the other planes; and F = 1 + ε eₓ⊗eₓ for ``uniaxial-x``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

MODES = {
    "shear-xy": (0, 1),
    "shear-xz": (0, 2),
    "shear-yz": (1, 2),
    "uniaxial-x": (0, 0),
    "uniaxial-y": (1, 1),
    "uniaxial-z": (2, 2),
}
MOST_TILT = 0.6  # of the cell vector that a cell leans along; beyond it the cell is reduced


class Direction(NamedTuple):
    """How a glass is strained.

    Attributes:
        mode: one of MODES.
        reverse: whether the sign of the strain is changed.
    """

    mode: str
    reverse: bool = False

    @property
    def name(self) -> str:
        """Such as ``shear-xy`` or ``shear-xy-reverse``."""
        return f"{self.mode}-reverse" if self.reverse else self.mode

    @property
    def sign(self) -> int:
        """−1 where the strain is reversed."""
        return -1 if self.reverse else 1

    @property
    def component(self) -> tuple[int, int]:
        """Which component of F is strained, and which one of the stress resists."""
        return MODES[self.mode]

    @property
    def uniaxial(self) -> bool:
        """Whether a length is strained, not an angle."""
        return self.component[0] == self.component[1]


def deformation_gradient(direction: Direction, strain: float) -> Tensor:
    """Return F [3, 3] float64 of a strain; the direction's sign is applied to it."""
    gradient = torch.eye(3, dtype=torch.float64)
    gradient[direction.component] += direction.sign * strain
    return gradient


def increments(directions: Sequence[Direction], before: float, after: float) -> Tensor:
    """Return what takes each system from one strain to another, F(after) F(before)⁻¹ [b, 3, 3]."""
    start = torch.stack([deformation_gradient(d, before) for d in directions])
    end = torch.stack([deformation_gradient(d, after) for d in directions])
    return torch.linalg.solve(start, end, left=False)


def transverse_lengths(directions: Sequence[Direction]) -> Tensor:
    """Mark the lengths across each uniaxial direction, [b, 3, 3] bool on the diagonal."""
    free = torch.zeros(len(directions), 3, 3, dtype=torch.bool)
    for marked, direction in zip(free, directions, strict=True):
        if direction.uniaxial:
            marked.fill_diagonal_(True)
            marked[direction.component] = False
    return free


def strained(
    positions: Tensor, cell: Tensor, gradient: Tensor, system: Tensor
) -> tuple[Tensor, Tensor]:
    """Carry atoms and cells along affinely.

    Args:
        positions: [n, 3] Å.
        cell: [b, 3, 3] Å, rows are the cell vectors.
        gradient: [b, 3, 3], F of each system.
        system: [n] int64, the system of each atom.
    """
    return transformed(gradient, positions, system), cell @ gradient.mT


def transformed(matrices: Tensor, vectors: Tensor, system: Tensor) -> Tensor:
    """Multiply each system's matrix [b, 3, 3] with the vectors [n, 3] of its atoms."""
    if len(matrices) == 1:
        return vectors @ matrices[0].mT
    return (matrices[system] @ vectors[:, :, None]).squeeze(2)


def reduced(cell: Tensor) -> Tensor:
    """Describe the same lattice by vectors that lean less, where they lean far.

    A vector that leans along an earlier one by more than MOST_TILT of it has whole multiples of
    that one taken away (as LAMMPS flips a box), which changes neither the lattice nor a cell's
    triangular form. Cells that lean less are returned as they are.

    Args:
        cell: [3, 3] Å, rows are the cell vectors, periodic along all of them.
    """
    lattice = cell.clone()
    if not bool((_leans(lattice) > MOST_TILT).any()):
        return lattice
    for row, earlier in ((1, 0), (2, 1), (2, 0)):
        lower = torch.linalg.qr(lattice.mT)[1].mT  # L of cell = L Q
        lattice[row] -= (
            torch.round(lower[row, earlier] / lower[earlier, earlier]) * lattice[earlier]
        )
    return lattice


def _leans(cell: Tensor) -> Tensor:
    """How far each vector leans along each earlier one, in its lengths: [3, 3] lower triangle."""
    lower = torch.linalg.qr(cell.mT)[1].mT
    return (lower / lower.diagonal()).tril(-1).abs()
