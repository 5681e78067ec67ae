"""The lowest curvature of many energy surfaces at once (Lanczos, J. Res. Natl. Bur. Stand. 45, 255
(1950); for saddle points: Malek & Mousseau, Phys. Rev. E 62, 7723 (2000)).

One call per step: the caller gives the Hessian times the vector that was asked for last.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mgsym.utils.devices import sent

UNUSED = 1e9  # eV/Å²; stands for directions not yet looked at
EXHAUSTED = 1e-6  # eV/Å²; a smaller remainder means that the space is used up


class Advance(NamedTuple):
    """What a product tells, on the device.

    Attributes:
        value: [c] float64, the lowest eigenvalue, eV/Å².
        remainder: [c] length of what the vectors so far do not span, eV/Å².
        mode: [c, n] the eigenvector.
        rest: [c, n] that remainder.
    """

    value: Tensor
    remainder: Tensor
    mode: Tensor
    rest: Tensor


class Lanczos:
    """Recursions in slots, each at its own step.

    Vectors and small matrices are on the device, what decides on the CPU: nothing here waits
    for the device but `eigh`.

    Args:
        slots: how many, b.
        size: coordinates of each, n.
        most: vectors of one recursion, k.
        device: where to compute.
        dtype: of the vectors; the small matrices are float64.

    Attributes:
        step: [b] int64, on the CPU, how many products each recursion has had.
        value: [b] float64, on the CPU, the lowest eigenvalue so far, eV/Å².
    """

    def __init__(
        self,
        slots: int,
        size: int,
        most: int,
        device: torch.device,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.most, self.device = most, device
        self.basis = torch.zeros(slots, most, size, dtype=dtype, device=device)
        self.matrix = torch.zeros(slots, most, most, dtype=torch.float64, device=device)
        self.step = torch.zeros(slots, dtype=torch.int64)
        self.value = torch.full((slots,), torch.nan, dtype=torch.float64)

    def start(self, slots: Tensor, vector: Tensor) -> None:
        """Begin in some slots [c], from vectors [c, n]."""
        there = sent(slots, self.device)
        self.basis[there] = 0.0
        self.basis[there, 0] = vector / vector.norm(dim=1, keepdim=True)
        self.matrix[there] = UNUSED * torch.eye(
            self.most, dtype=torch.float64, device=vector.device
        )
        self.step[slots] = 0
        self.value[slots] = torch.nan

    def asked(self, slots: Tensor) -> Tensor:
        """The vectors [c, n] whose product with the Hessian is wanted next."""
        return self.basis[sent(slots, self.device), sent(self.step[slots], self.device)]

    def advance(self, slots: Tensor, product: Tensor) -> Advance:
        """Take in Hessian × asked vector [c, n], eV/Å², of some slots [c].

        `decide` must follow.
        """
        there, step = sent(slots, self.device), sent(self.step[slots], self.device)
        # all vectors, used or not: a sum is then rounded alike whatever other slots do
        basis = self.basis[there]
        # against all earlier vectors, twice, so that no rounding brings them back
        overlap = torch.bmm(basis, product[:, :, None])
        rest = product - torch.bmm(overlap.transpose(1, 2), basis).squeeze(1)
        again = torch.bmm(basis, rest[:, :, None])
        rest = rest - torch.bmm(again.transpose(1, 2), basis).squeeze(1)
        own = overlap.squeeze(2).gather(1, step[:, None]).squeeze(1)
        self.matrix[there, step, step] = own.double()
        values, vectors = torch.linalg.eigh(self.matrix[there])
        mode = torch.bmm(vectors[:, None, :, 0].to(basis.dtype), basis).squeeze(1)
        return Advance(values[:, 0], rest.norm(dim=1), mode, rest)

    def decide(
        self,
        slots: Tensor,
        advance: Advance,
        value: Tensor,
        remainder: Tensor,
        least: Tensor,
        most: Tensor,
        tolerance: Tensor,
    ) -> Tensor:
        """Which recursions are done [c]; the others go on.

        Args:
            slots: [c].
            advance: what `advance` gave for them.
            value, remainder: [c] its numbers, on the CPU.
            least, most: [c] how many vectors a recursion uses.
            tolerance: [c] of the lowest eigenvalue, relative.
        """
        before, used = self.value[slots], self.step[slots] + 1
        self.value[slots] = value
        settled = (value - before).abs() < tolerance * value.abs()
        done = (settled & (used >= least)) | (used >= most) | (remainder < EXHAUSTED)

        on = (~done).nonzero().squeeze(1)
        going = slots[on]
        self.step[going] = used[on]
        on, there, at = (sent(x, self.device) for x in (on, going, used[on]))
        beta = advance.remainder[on]
        self.basis[there, at] = advance.rest[on] / beta[:, None]
        self.matrix[there, at - 1, at] = self.matrix[there, at, at - 1] = beta.double()
        return done

    def keep(self, slots: Tensor) -> None:
        """Drop all other slots."""
        there = sent(slots, self.device)
        self.basis, self.matrix = self.basis[there].clone(), self.matrix[there].clone()
        self.step, self.value = self.step[slots].clone(), self.value[slots].clone()
