"""Neighbours of atoms within a distance of one's choice, whatever the edges of their graph.

They come from positions and cell, a part of a structure at a time, so that memory grows no faster
than the number of atoms.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from mgsym.graph import Graph
from mgsym.structure.cell import fractional, heights, wrap_fraction
from mgsym.structure.neighbors import neighbor_pairs

GAUSSIAN_REACH = 3.0  # standard deviations; the weight there is 1 % of that at the centre
_SEARCH = 20_000  # atoms whose neighbours are found at once, where the structure can be cut


class Neighborhoods(NamedTuple):
    """The neighbours of some atoms.

    Attributes:
        nodes: [m] int64, the atoms, ascending.
        owner: [p] int64, whose neighbour each is: a place in `nodes`, ascending.
        source: [p] int64, the neighbours.
        vector: [p, 3] float32, Å, from owner to neighbour.
        weight: [p], how much each neighbour counts; None where all count alike.
    """

    nodes: Tensor
    owner: Tensor
    source: Tensor
    vector: Tensor
    weight: Tensor | None = None

    @property
    def number(self) -> Tensor:
        """[m] int64, how many neighbours each atom has."""
        return torch.bincount(self.owner, minlength=len(self.nodes))

    def pieces(self, size: int) -> Iterator[Neighborhoods]:
        """The same, `size` atoms at a time."""
        starts = torch.arange(0, len(self.nodes) + size, size, device=self.owner.device)
        ends = torch.searchsorted(self.owner, starts).tolist()
        for i, (first, last) in enumerate(pairwise(ends)):
            nodes = self.nodes[i * size : (i + 1) * size]
            owner = self.owner[first:last] - i * size
            weight = None if self.weight is None else self.weight[first:last]
            part = slice(first, last)
            yield Neighborhoods(nodes, owner, self.source[part], self.vector[part], weight)

    def closer(self, cutoff: float) -> Neighborhoods:
        """The same with the neighbours closer than `cutoff` (Å) only."""
        keep = self.vector.norm(dim=1) < cutoff
        weight = None if self.weight is None else self.weight[keep]
        return self._replace(
            owner=self.owner[keep],
            source=self.source[keep],
            vector=self.vector[keep],
            weight=weight,
        )


def of_edges(graph: Graph, edge_weight: Tensor | None = None) -> Neighborhoods:
    """The neighbours along a graph's own edges, which count as `edge_weight` [e] says."""
    nodes = torch.arange(graph.num_nodes, device=graph.types.device)
    return Neighborhoods(nodes, graph.destination, graph.source, graph.edge_vector, edge_weight)


class Slab(NamedTuple):
    """Some atoms of one structure of a graph, and all that may be near them.

    Attributes:
        structure: its number.
        around: [k] int64, ascending, the atoms and those near them.
        own: [k] bool, which of these are in the slab.
    """

    structure: int
    around: Tensor
    own: Tensor


def slabs(graph: Graph, cutoff: float) -> Iterator[Slab]:
    """Cut the structures of a graph into slabs, for neighbours closer than `cutoff` (Å)."""
    for i in range(graph.num_structures):
        members = (graph.structure_index == i).nonzero().squeeze(1)
        if len(members):
            parts = _slabs(graph.positions[members], graph.cell[i], graph.periodic[i], cutoff)
            for own, around in parts:
                yield Slab(i, members[around], own)


def neighbors_of(graph: Graph, slab: Slab, cutoff: float) -> Neighborhoods:
    """The atoms of a slab with their neighbours closer than `cutoff` (Å).

    An atom that has images of itself within the cutoff has them among its neighbours.
    """
    first, second, third = graph.periodic[slab.structure].tolist()
    pairs = neighbor_pairs(
        graph.positions[slab.around],
        graph.cell[slab.structure],
        (first, second, third),
        cutoff,
        targets=slab.own.nonzero().squeeze(1),
        device=graph.positions.device,
    )
    source, owner = pairs.edge_index.to(graph.positions.device)
    place = slab.own.cumsum(0) - 1
    return Neighborhoods(
        slab.around[slab.own], place[owner], slab.around[source], pairs.vector.to(slab.own.device)
    )


def neighborhoods(graph: Graph, cutoff: float) -> Iterator[Neighborhoods]:
    """All atoms of a graph with their neighbours closer than `cutoff` (Å), slab by slab."""
    for slab in slabs(graph, cutoff):
        yield neighbors_of(graph, slab, cutoff)


def gaussian_mean(graph: Graph, values: Tensor, length: float) -> Tensor:
    """The average of values over an atom and its neighbours, weighted with a Gaussian.

    Σ w v / Σ w with w = exp(−r² / 2 length²), over neighbours closer than three lengths and the
    atom itself (r = 0).

    Args:
        graph: positions and cell are used, edges are not.
        values: [n, k].
        length: Å.

    Returns:
        [n, k].
    """
    result = torch.empty_like(values)
    for near in neighborhoods(graph, GAUSSIAN_REACH * length):
        weight = torch.exp(-0.5 * (near.vector.to(values.dtype).norm(dim=1) / length) ** 2)
        number = near.number
        summed = embedding_bag(
            near.source,
            values,
            number.cumsum(0) - number,
            mode="sum",
            per_sample_weights=weight,
        )
        total = weight.new_zeros(len(near.nodes)).index_add(0, near.owner, weight)
        result[near.nodes] = (values[near.nodes] + summed) / (1 + total[:, None])
    return result


def _slabs(
    positions: Tensor, cell: Tensor, periodic: Tensor, cutoff: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut a large structure into slabs at least a cutoff thick.

    Yields:
        Of the atoms in or near a slab, which are in it [k] bool; and those atoms [k], ascending.
    """
    along, thickness, repeats = _coordinate(positions, cell, periodic)
    every = torch.arange(len(positions), device=positions.device)
    count = max(1, min(int(thickness / cutoff), -(-len(positions) // _SEARCH)))
    if count == 1:
        yield torch.ones_like(every, dtype=torch.bool), every
        return
    slab = (along * count).long().clamp(max=count - 1)
    for i in range(count):
        distance = (along - (i + 0.5) / count).abs()
        if repeats:
            distance = torch.minimum(distance, 1 - distance)
        # a little farther than need be: rounding may not cost a neighbour
        around = every[distance <= 0.5 / count + cutoff / thickness * (1 + 1e-6)]
        yield slab[around] == i, around


def _coordinate(positions: Tensor, cell: Tensor, periodic: Tensor) -> tuple[Tensor, float, bool]:
    """Where atoms lie across the structure's longest extent.

    Returns:
        [n] float64, 0 … 1; the extent in Å, at right angles to the planes of equal coordinate;
        and whether the structure repeats there.
    """
    vectors = cell[periodic].double()
    # directions that do not repeat stand at right angles to those that do
    normals = torch.linalg.qr(vectors.T, mode="complete")[0][:, len(vectors) :]
    whole = torch.cat([vectors, normals.T])
    repeats = torch.arange(3, device=whole.device) < len(vectors)
    fraction = wrap_fraction(fractional(positions.double(), whole), repeats)
    low = torch.where(repeats, 0.0, fraction.amin(0))
    span = torch.where(repeats, 1.0, (fraction.amax(0) - low).clamp(min=1e-9))
    thickness = span * heights(whole)
    axis = int(thickness.argmax())
    along = (fraction[:, axis] - low[axis]) / span[axis]
    return along, float(thickness[axis]), bool(repeats[axis])
