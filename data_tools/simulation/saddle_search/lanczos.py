"""The lowest curvature of many energy surfaces at once (Lanczos, J. Res. Natl. Bur. Stand. 45, 255
(1950); for saddle points: Malek & Mousseau, Phys. Rev. E 62, 7723 (2000)).

One call per step: the caller gives the Hessian times the vector that was asked for last.
"""

from __future__ import annotations

import torch
from torch import Tensor

UNUSED = 1e9  # eV/Å²; stands for directions not yet looked at
EXHAUSTED = 1e-6  # eV/Å²; a smaller remainder means that the space is used up


class Lanczos:
    """Recursions in slots, each at its own step.

    Args:
        slots: how many, b.
        size: coordinates of each, n.
        most: vectors of one recursion, k.
        device: where to compute.
        dtype: of the vectors; the small matrices are float64.
    """

    def __init__(
        self,
        slots: int,
        size: int,
        most: int,
        device: torch.device,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.most = most
        self.basis = torch.zeros(slots, most, size, dtype=dtype, device=device)
        self.matrix = torch.zeros(slots, most, most, dtype=torch.float64, device=device)
        self.step = torch.zeros(slots, dtype=torch.int64, device=device)
        self.value = torch.full((slots,), torch.nan, dtype=torch.float64, device=device)

    def start(self, slots: Tensor, vector: Tensor) -> None:
        """Begin in some slots [c], from vectors [c, n]."""
        self.basis[slots] = 0.0
        self.basis[slots, 0] = vector / vector.norm(dim=1, keepdim=True)
        self.matrix[slots] = UNUSED * torch.eye(
            self.most, dtype=torch.float64, device=vector.device
        )
        self.step[slots] = 0
        self.value[slots] = torch.nan

    def asked(self, slots: Tensor) -> Tensor:
        """The vectors [c, n] whose product with the Hessian is wanted next."""
        return self.basis[slots, self.step[slots]]

    def advance(
        self, slots: Tensor, product: Tensor, least: Tensor, most: Tensor, tolerance: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Take in Hessian × asked vector [c, n].

        Args:
            slots: [c].
            product: [c, n] eV/Å².
            least, most: [c] how many vectors a recursion uses.
            tolerance: [c] of the lowest eigenvalue, relative.

        Returns:
            Which of them are done [c], and their lowest eigenvectors [c, n] (rows of those that
            are not done mean nothing); eigenvalues are in `value`.
        """
        step = self.step[slots]
        # all vectors, used or not: a sum is then rounded alike whatever other slots do
        basis = self.basis[slots]
        # against all earlier vectors, twice, so that no rounding brings them back
        overlap = torch.bmm(basis, product[:, :, None])
        rest = product - torch.bmm(overlap.transpose(1, 2), basis).squeeze(1)
        again = torch.bmm(basis, rest[:, :, None])
        rest = rest - torch.bmm(again.transpose(1, 2), basis).squeeze(1)
        beta = rest.norm(dim=1)
        own = overlap.squeeze(2).gather(1, step[:, None]).squeeze(1)
        self.matrix[slots, step, step] = own.double()

        before = self.value[slots]
        matrix = self.matrix[slots]
        values, vectors = torch.linalg.eigh(matrix)
        value = values[:, 0]
        self.value[slots] = value
        used = step + 1
        settled = (value - before).abs() < tolerance * value.abs()
        done = (settled & (used >= least)) | (used >= most) | (beta < EXHAUSTED)
        mode = torch.bmm(vectors[:, None, :, 0].to(basis.dtype), basis).squeeze(1)

        on = (~done).nonzero().squeeze(1)
        going, at = slots[on], step[on]
        self.basis[going, at + 1] = rest[on] / beta[on, None]
        self.matrix[going, at, at + 1] = self.matrix[going, at + 1, at] = beta[on].double()
        self.step[going] = at + 1
        return done, mode

    def keep(self, slots: Tensor) -> None:
        """Drop all other slots."""
        for name in ("basis", "matrix", "step", "value"):
            setattr(self, name, getattr(self, name)[slots].clone())
