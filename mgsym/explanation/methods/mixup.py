"""Mix the explanation of one atom with what does not explain others.

RegExplainer (Zhang et al., NeurIPS 2024) puts the explanation of one graph into the rest of
another, so that the model sees as much as it was trained on. In a glass the other graphs are at
hand: every atom has its own surroundings. Atoms of one element stand in a ring, by hop and else
at random, and each gets the rest of the next one in place of its own,

    w_e  = m_e                  of the edges e into atom d, which explain,
    w_e′ = r_d (1 − m_e′)       of the edges e′ into the next of the ring, which now arrive at d,
    r_d  = (n_d − Σ m_e) / Σ (1 − m_e′), within 0 … 1,    n_d: how many edges arrive at d.

So every atom keeps its number of neighbours, at usual distances and of the usual elements, while
nothing outside the explanation tells of its own surroundings. An edge explains in the place of
another: the gradient goes through m_e and r_d, not through m_e′.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mgsym.explanation.computation_graph import ComputationGraph
from mgsym.graph import Graph
from mgsym.models.base import BarrierModel
from mgsym.nn.scatter import segment_sum


@dataclass(frozen=True, eq=False)
class Mixup:
    """A computation graph whose atoms have traded what does not explain them.

    Attributes:
        graph: the atoms of the computation graph, with the edges of both kinds.
        node: the atom explained.
        own: [p] int64, edges of the computation graph that may explain.
        rest: [q] int64, edges of the computation graph that arrive elsewhere now.
        order: [p + q] int64, edges of `graph` among own and rest, one after the other.
        degree: [n] int64, how many edges arrive at each atom of the computation graph.
    """

    graph: Graph
    node: int
    own: Tensor
    rest: Tensor
    order: Tensor
    degree: Tensor

    def predict(self, model: BarrierModel, mask: Tensor) -> Tensor:
        """The atom's barrier, eV, 0-d; its gradient goes to the edges that explain.

        Args:
            mask: [m] in 0 … 1, of every edge of the computation graph; those not in `own` count as
                rest only.
        """
        barrier: Tensor = model(self.graph, self.weights(mask))[self.node]
        return barrier

    def weights(self, mask: Tensor) -> Tensor:
        """[p + q] in 0 … 1, of the edges of `graph`."""
        target, count = torch.empty_like(self.order), self.graph.num_nodes
        target[self.order] = self.graph.destination
        at, now_at = target.split([len(self.own), len(self.rest)])
        kept, left = mask[self.own], 1 - mask.detach()[self.rest]
        room = self.degree - segment_sum(kept, at, count)
        share = room / segment_sum(left, now_at, count).clamp(min=1e-6)
        return torch.cat([kept, left * share.clamp(0, 1)[now_at]])[self.order]


def mixup(part: ComputationGraph, own: Tensor, generator: torch.Generator) -> Mixup:
    """Let atoms trade the rest of their edges, in rings drawn at random.

    Args:
        part: the computation graph of the atom explained.
        own: [p] int64, edges of the computation graph that may explain; the others count as rest
            only.
        generator: draws the rings. An atom that is the only one of its element at which edges
            arrive loses its rest: it has nobody to trade with.
    """
    graph = part.graph
    heir = _heirs(part, generator)
    target = heir[graph.destination]
    rest = torch.nonzero((target >= 0) & (target != graph.destination)).squeeze(1)
    source = graph.source[torch.cat([own, rest])]
    target = torch.cat([graph.destination[own], target[rest]])
    order = torch.argsort(target * graph.num_nodes + source, stable=True)
    edges = torch.cat([own, rest])[order]
    mixed = graph.replace(
        edge_index=torch.stack([source, target])[:, order],
        edge_shift=graph.edge_shift[edges],
        edge_vector=graph.edge_vector[edges],
    )
    return Mixup(mixed, part.node, own, rest, order, graph.offsets.diff())


def _heirs(part: ComputationGraph, generator: torch.Generator) -> Tensor:
    """[n] int64, the atom to which each one's rest goes; −1 where no edges arrive."""
    graph = part.graph
    hops = torch.full_like(graph.types, -1)
    hops[graph.destination] = part.hop  # the same of all edges that arrive at an atom
    atoms = torch.nonzero(hops >= 0).squeeze(1)
    atoms = atoms[torch.randperm(len(atoms), generator=generator).to(atoms.device)]
    types, hops = graph.types[atoms], hops[atoms]
    order = torch.argsort(types * (int(hops.max()) + 1) + hops, stable=True)
    ring, types = atoms[order], types[order].contiguous()
    place = torch.arange(len(ring), device=ring.device)
    first = torch.searchsorted(types, types)
    last = torch.searchsorted(types, types, right=True) - 1
    heir = torch.full_like(graph.types, -1)
    heir[ring] = ring[torch.where(place == first, last, place - 1)]
    return heir
