"""Pairs of atoms within a cutoff."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Pairs(NamedTuple):
    """Directed pairs of atoms within a cutoff.

    Attributes:
        edge_index: [2, e] int64; row 0 source, row 1 target; sorted by target, then source,
            then shift.
        shift: [e, 3] int16, the periodic image of the source.
        vector: [e, 3] float32, Å: positions[source] + shift · cell − positions[target].
    """

    edge_index: Tensor
    shift: Tensor
    vector: Tensor


def neighbor_pairs(
    positions: Tensor,
    cell: Tensor,
    periodic: tuple[bool, bool, bool],
    cutoff: float,
    *,
    method: str = "auto",
    device: str | torch.device = "cpu",
) -> Pairs:
    raise NotImplementedError  # temporary: the neighbour search is being written
