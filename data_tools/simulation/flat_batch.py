"""The coordinates of many systems in one list, and sums over those of each system."""

from __future__ import annotations

import torch
from torch import Tensor


class FlatBatch:
    """How coordinates [k] lie: those of all atoms, then a few more of each system.

    Flat lists of numbers are summed and scaled several times faster than [n, 3] ones.

    Args:
        system: [n] int64, ascending: the system of each atom.
        systems: how many there are.
        extra: further coordinates of each system.
    """

    def __init__(self, system: Tensor, systems: int, extra: int = 0) -> None:
        self.systems, self.extra, self.atoms = systems, extra, len(system)
        self.sizes = torch.bincount(system, minlength=systems)
        rest = torch.arange(systems, device=system.device).repeat_interleave(extra)
        self.system = torch.cat([system.repeat_interleave(3), rest])  # [k]

    def sum(self, values: Tensor) -> Tensor:
        """Sums [b] of coordinates [k]; in a fixed order, so that a GPU repeats itself."""
        cut = 3 * self.atoms
        total = torch.segment_reduce(values[:cut], "sum", lengths=3 * self.sizes, unsafe=True)
        if self.extra:
            total = total + values[cut:].view(self.systems, self.extra).sum(1)
        return total

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """Scalar products [b] of lists [k]."""
        return torch.dot(a, b).view(1) if self.systems == 1 else self.sum(a * b)

    def largest(self, values: Tensor) -> Tensor:
        """The length [b] of the longest vector, three coordinates each, in each system."""
        cut = 3 * self.atoms
        found = self.largest_of_atoms(values[:cut].view(-1, 3))
        if self.extra:
            rest = _squared_length(values[cut:].view(-1, 3)).view(self.systems, -1)
            found = torch.maximum(found, rest.amax(1).sqrt())
        return found

    def largest_of_atoms(self, vectors: Tensor) -> Tensor:
        """The length [b] of the longest of each system's vectors [n, 3]."""
        squares = _squared_length(vectors)
        if self.systems == 1:
            return squares.amax().sqrt().view(1)
        return torch.segment_reduce(squares, "max", lengths=self.sizes, unsafe=True).sqrt()

    def spread(self, values: Tensor) -> Tensor:
        """What multiplies coordinates [k]: each system's value [b] at all of its coordinates."""
        return values if self.systems == 1 else values.index_select(0, self.system)


def _squared_length(vectors: Tensor) -> Tensor:
    squares = vectors * vectors
    return squares[:, 0] + squares[:, 1] + squares[:, 2]  # faster than sum(1) over three
