"""The whole prediction for an atom as a function of weights on its edges.

An edge carries a message in the network, and in a regression that has a share of the prediction
(mgsym.models.with_ridge) its atoms are a pair of neighbours. A weight counts in both, so that an
edge can be weakened, or deleted, in the prediction as a whole. Pairs beyond the graph's cutoff are
no edges and stay as they are.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from mgsym.explanation.computation_graph import ComputationGraph
from mgsym.explanation.ridge_pairs import PairFunction, RidgePairs, on_cpu
from mgsym.graph import Graph, match_species
from mgsym.models.base import BarrierModel
from mgsym.models.with_ridge import FARTHEST, NetworkWithRidge

SAME = 1e-3  # Å, between the vectors of an edge and of a pair that are one

# the pairs of the structure explained last, as they are the same for all of its atoms
_known: WeakKeyDictionary[Graph, RidgePairs] = WeakKeyDictionary()


class WholeEdges:
    """A model and the computation graph of one atom, with weights on its bonds.

    Args:
        model: frozen (`frozen_eval`).
        part: the computation graph, cut from the whole structure.
    """

    def __init__(self, model: BarrierModel, part: ComputationGraph) -> None:
        self.model, self.part = model, part
        self.share = 0.0
        self.pairs: PairFunction | None = None
        if isinstance(model, NetworkWithRidge) and model.ridge is not None:
            self.share = float(model.label_scale) * model.options.ridge_share
            node = int(part.nodes[part.node])
            self.pairs = _pairs(model, part.parent).function(node)
            self.edge, self.pair = _same(part, self.pairs)
            with torch.no_grad():
                self.whole = self._regression(torch.ones(part.bonds))

    def predict(self, weight: Tensor) -> Tensor:
        """The atom's barrier, eV, 0-d, differentiable; weights [b] in 0 … 1."""
        found = self.part.predict(self.model, weight)
        if self.pairs is None:
            return found
        return found + (self.share * (self._regression(weight) - self.whole)).to(found)

    def _regression(self, weight: Tensor) -> Tensor:
        """0-d, the regression's prediction as the model takes it, standardised."""
        assert self.pairs is not None
        of_pairs = torch.ones(len(self.pairs.vector), dtype=torch.float64)
        of_pairs = of_pairs.index_put(
            (self.pair,), weight[self.part.bond[self.edge]].double().cpu()
        )
        return self.pairs(of_pairs).clamp(-FARTHEST, FARTHEST)


def _pairs(model: NetworkWithRidge, graph: Graph) -> RidgePairs:
    """The pairs of a structure that the model's regression sees."""
    assert model.ridge is not None
    found = _known.get(graph)
    if found is None or found.source is not model.ridge:
        ridge = on_cpu(model.ridge)
        found = RidgePairs(ridge, match_species(graph.to("cpu"), ridge.species))
        found.source = model.ridge
        _known.clear()
        _known[graph] = found
    return found


def _same(part: ComputationGraph, pairs: PairFunction) -> tuple[Tensor, Tensor]:
    """Edges of the computation graph that are pairs of the regression, and these pairs."""
    count = int(part.parent.num_nodes)
    source, target = part.nodes[part.graph.edge_index].cpu()
    vector = part.graph.edge_vector.double().cpu()
    keys, order = (pairs.ends[1] * count + pairs.ends[0]).sort(stable=True)
    wanted = target * count + source
    first = torch.searchsorted(keys, wanted)
    number = torch.searchsorted(keys, wanted, right=True) - first
    edges, found = [], []
    for image in range(int(number.max()) if len(number) else 0):  # of a small cell
        edge = (number > image).nonzero().squeeze(1)
        pair = order[first[edge] + image]
        same = (pairs.vector[pair] - vector[edge]).norm(dim=1) < SAME
        edges.append(edge[same])
        found.append(pair[same])
    none = torch.zeros(0, dtype=torch.int64)
    return torch.cat([none, *edges]), torch.cat([none, *found])
