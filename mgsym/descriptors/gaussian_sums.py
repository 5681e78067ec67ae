"""Gaussian averages over the surroundings of atoms whose values become known slab by slab."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mgsym.descriptors.neighbor_sums import CompiledSums
from mgsym.descriptors.neighborhoods import GAUSSIAN_REACH, Neighborhoods
from mgsym.graph import Graph
from mgsym.structure.cell import central_image


class GaussianSums:
    """The averages of `gaussian_mean` for values that become known some atoms at a time.

    Neighbours count for one another alike, so an atom's value is given to its neighbours, whose
    own need not be known yet.

    Args:
        graph: whose atoms.
        lengths: Å, r of them.
        like: [n, k], of the values' width, precision and device.
    """

    def __init__(self, graph: Graph, lengths: Sequence[float], like: Tensor) -> None:
        self.graph, self.lengths = graph, tuple(lengths)
        self.sums = [torch.zeros_like(like) for _ in self.lengths]
        self.weights = [like.new_ones(len(like)) for _ in self.lengths]

    @property
    def reach(self) -> float:
        """Å; no neighbour farther away counts."""
        return GAUSSIAN_REACH * max(self.lengths, default=0.0)

    def add(self, near: Neighborhoods, values: Sequence[Tensor]) -> None:
        """Take in values [m, k], for each length, of the atoms of `near`, which reaches as far."""
        compiled = CompiledSums.of(near, self.graph.types, len(self.graph.species))
        square = near.vector.double().square_().sum(1) if self.lengths else None
        for length, value, sums, weights in zip(
            self.lengths, values, self.sums, self.weights, strict=True
        ):
            assert square is not None
            cutoff = GAUSSIAN_REACH * length
            # a weight ends at a step of 1 %: which pairs are beyond it float32 cannot tell
            doubtful = ((square - cutoff**2).abs() < 1e-5 * cutoff**2).nonzero().squeeze(1)
            square[doubtful] = _exact_square(self.graph, near, doubtful)
            sums[near.nodes] += value
            if compiled is not None and value.dtype == torch.float32:
                compiled.gaussian_sums(length, cutoff, square, value, sums, weights)
                continue
            pairs = (square < cutoff**2).nonzero().squeeze(1)
            source, owner = near.source[pairs], near.owner[pairs]
            weight = torch.exp(-0.5 * square[pairs] / length**2).to(value)
            weights.index_add_(0, source, weight)
            sums.index_add_(0, source, weight[:, None] * value[owner])

    def means(self) -> list[Tensor]:
        """[n, k] of each length, when all atoms were taken in."""
        return [
            sums / weights[:, None] for sums, weights in zip(self.sums, self.weights, strict=True)
        ]


def _exact_square(graph: Graph, near: Neighborhoods, pairs: Tensor) -> Tensor:
    """Å², float64: squared distances of some pairs of one structure, from positions."""
    owner, source = near.nodes[near.owner[pairs]], near.source[pairs]
    structure = graph.structure_index[near.nodes[0]]
    vector = near.vector[pairs].double()
    between = graph.positions[source] - graph.positions[owner]  # less whole cells
    rounding = central_image(vector - between, graph.cell[structure], graph.periodic[structure])
    return (vector - rounding).square().sum(1)
