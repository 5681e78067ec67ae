"""What every pair of atoms adds to a ridge regression's prediction, exactly.

The regression is linear in radial densities and power spectra of the atom and, averaged with fixed
Gaussian weights, of the atoms around it. With a weight s on every pair (an atom and a neighbour
within the descriptors' cutoff) its prediction is a polynomial of second degree,

    f(s) = c + Σ_p l_p s_p + Σ_pq Q_pq s_p s_q,

so that the integrated gradient from s = 0 to s = 1 (Sundararajan, Taly & Yan, ICML 2017, eq. 1) is
the gradient at s = 1/2, and equals the Shapley value (Shapley 1953) of the game in which pairs are
there or not: l_p + Q_pp + Σ_q≠p (Q_pq + Q_qp)/2.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from mgsym.descriptors.neighborhoods import GAUSSIAN_REACH, Neighborhoods, neighborhoods
from mgsym.graph import Graph
from mgsym.models.regression.ridge import Ridge


@dataclass(frozen=True, eq=False)
class PairValues:
    """What makes up a ridge regression's prediction for one atom, in units of the label's sd.

    Attributes:
        node: the atom.
        ends: [2, p] int64, each pair's neighbour (0) and the atom whose descriptors it enters (1).
        vector: [p, 3] Å, from the atom of end 1 to that of end 0.
        value: [p] float64, the pairs' exact attributions.
        atoms: [m] int64, atoms that enter by their element (and physical inputs) themselves.
        atom_value: [m] float64, what they add by that.
        constant: what no atom changes.
    """

    node: int
    ends: Tensor
    vector: Tensor
    value: Tensor
    atoms: Tensor
    atom_value: Tensor
    constant: float

    @property
    def prediction(self) -> float:
        """The sum: the prediction, standardised."""
        return self.constant + float(self.value.sum()) + float(self.atom_value.sum())


@dataclass(frozen=True, eq=False)
class PairFunction:
    """A ridge regression's standardised prediction for one atom, by weights on its pairs.

    Attributes:
        ends, vector: as of `PairValues`.
        predict: takes weights [p] float64 to a 0-d float64, differentiable.
    """

    ends: Tensor
    vector: Tensor
    predict: Callable[[Tensor], Tensor]

    def __call__(self, weight: Tensor) -> Tensor:
        return self.predict(weight)


class RidgePairs:
    """The pairs of a structure's atoms that a ridge regression sees.

    Args:
        ridge: fitted.
        graph: with the regression's species; its edges play no part.
    """

    def __init__(self, ridge: Ridge, graph: Graph) -> None:
        self.ridge, self.graph, self.source = ridge, graph, ridge
        inputs = ridge.inputs
        self.near = _together(graph, ridge.options.environment.reach)
        self.around = [_together(graph, GAUSSIAN_REACH * x) for x in ridge.options.lengths]
        weight = torch.zeros(inputs.used.shape, dtype=torch.float64)
        weight[inputs.used] = ridge.weight.double()
        self.weight = weight / inputs.scale.double()  # [1 + lengths, count], of raw inputs
        self.constant = float(ridge.intercept.double() - (self.weight @ inputs.mean.double()).sum())
        own = [one_hot(graph.types, len(graph.species)).double()]
        if inputs.physical is not None:
            own.append(inputs.physical(graph).double())
        self._counts = torch.bincount(self.near.owner, minlength=graph.num_nodes)
        self.own = torch.cat(own, dim=1)  # [n, inputs that no neighbour changes]

    def values(self, node: int) -> PairValues:
        """What every pair adds to the prediction for `node`."""
        atoms, share = self._shares(node)
        near = self._near(atoms)
        weight = torch.full((len(near.source),), 0.5, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(self._of_pairs(near, share, weight), weight)
        first = self.own.shape[1]
        return PairValues(
            node,
            torch.stack([near.source, atoms[near.owner]]),
            near.vector,
            slope,
            atoms,
            (share * (self.own[atoms] @ self.weight[:, :first].T)).sum(1),
            self.constant,
        )

    def function(self, node: int) -> PairFunction:
        """The prediction for `node` as a function of weights on its pairs."""
        atoms, share = self._shares(node)
        near = self._near(atoms)
        first = self.own.shape[1]
        own = float((share * (self.own[atoms] @ self.weight[:, :first].T)).sum())
        ends = torch.stack([near.source, atoms[near.owner]])
        return PairFunction(
            ends,
            near.vector,
            lambda weight: self.constant + own + self._of_pairs(near, share, weight),
        )

    def predict(self, values: PairValues, weight: Tensor) -> float:
        """The standardised prediction with the pairs of `values` weighted, [p] in 0 … 1."""
        atoms, share = self._shares(values.node)
        rest = self.constant + float(values.atom_value.sum())
        return rest + float(self._of_pairs(self._near(atoms), share, weight.double()))

    def _of_pairs(self, near: Neighborhoods, share: Tensor, weight: Tensor) -> Tensor:
        """0-d, what the descriptors of the pairs, weighted, add to the prediction."""
        described = self.ridge.options.environment.of_neighbours(
            self.graph, near._replace(weight=weight)
        )
        return (share * (described @ self.weight[:, self.own.shape[1] :].T)).sum()

    def _shares(self, node: int) -> tuple[Tensor, Tensor]:
        """Atoms [m] that count for `node`, and how much each does in every average [m, rows]."""
        n = self.graph.num_nodes
        share = torch.zeros(n, 1 + len(self.around), dtype=torch.float64)
        share[node, 0] = 1.0
        for row, (length, near) in enumerate(
            zip(self.ridge.options.lengths, self.around, strict=True), start=1
        ):
            mine = _slice(near, node)
            weight = torch.exp(-0.5 * (near.vector[mine].double().norm(dim=1) / length) ** 2)
            share[:, row].index_add_(0, near.source[mine], weight)
            share[node, row] += 1.0
            share[:, row] /= 1.0 + weight.sum()
        atoms = share.any(dim=1).nonzero().squeeze(1)
        return atoms, share[atoms]

    def _near(self, atoms: Tensor) -> Neighborhoods:
        """Neighbours of some atoms, vectors in float64."""
        rows = self._rows(atoms)
        owner = torch.searchsorted(atoms, self.near.owner[rows])
        return Neighborhoods(atoms, owner, self.near.source[rows], self.near.vector[rows].double())

    def _rows(self, atoms: Tensor) -> Tensor:
        """[p] int64, the pairs whose owners are among `atoms` (ascending)."""
        counts = self._counts
        first, number = (counts.cumsum(0) - counts)[atoms], counts[atoms]
        start = torch.repeat_interleave(first - (number.cumsum(0) - number), number)
        return start + torch.arange(int(number.sum()))


def _together(graph: Graph, cutoff: float) -> Neighborhoods:
    """All atoms of a graph with their neighbours, owners ascending."""
    parts = list(neighborhoods(graph, cutoff))
    owner = torch.cat([part.nodes[part.owner] for part in parts])
    order = owner.argsort(stable=True)
    return Neighborhoods(
        torch.arange(graph.num_nodes),
        owner[order],
        torch.cat([part.source for part in parts])[order],
        torch.cat([part.vector for part in parts])[order],
    )


def _slice(near: Neighborhoods, node: int) -> slice:
    """Where an atom's neighbours lie."""
    first, last = torch.searchsorted(near.owner, torch.tensor([node, node + 1])).tolist()
    return slice(first, last)


def on_cpu(ridge: Ridge) -> Ridge:
    """The regression on the CPU, where its pairs are found."""
    if ridge.weight.device.type == "cpu":
        return ridge
    return copy.deepcopy(ridge).cpu()
