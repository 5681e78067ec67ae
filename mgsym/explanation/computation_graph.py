"""What a prediction can depend on: the computation graph of one node.

After L layers a node has heard from the nodes at most L edges away. An edge matters only when
its target is less than L edges from the node: the last layer uses edges that arrive at the node
itself, the one before also those that arrive at its neighbours, and so on down to the first.
Nodes exactly L edges away give their features and nothing that arrives at them counts. In a
3000-atom box four hops of 5 Å reach most atoms, but only about a quarter of the edges matter.

An explanation weighs *bonds*: both directions of a pair of atoms are one bond and have one weight,
one importance and one place in the order (where only one direction matters, that one). Whatever
explains, draws or measures takes weights and numbers of bonds from here, so that all count alike.
A graph cut out as `directed` has a bond for each edge.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from mgsym.errors import MgsymError, UsageError
from mgsym.explanation.explanation import Explanation
from mgsym.graph import Graph, collate
from mgsym.models.base import BarrierModel, device_of, evaluating
from mgsym.structure.cell import nearest_image
from mgsym.utils.devices import one_thread


@dataclass(frozen=True, eq=False)
class ComputationGraph:
    """The part of a graph that can change the prediction of one node.

    Attributes:
        graph: the nodes within reach and the edges that matter.
        node: the node explained, in `graph`.
        edges: [m] int64, for each edge of `graph` the edge of the parent graph.
        nodes: [n] int64, for each node of `graph` the node of the parent graph.
        hop: [m] int64, 1 + how many edges lead from the edge's target to the node
            (0 where none do, which occurs only if the model sees the whole structure).
        depth: how many hops count; None for the whole structure.
        parent: the graph that it was cut out of.
        directed: whether each direction counts by itself.
    """

    graph: Graph
    node: int
    edges: Tensor
    nodes: Tensor
    hop: Tensor
    depth: int | None
    parent: Graph
    directed: bool = True

    @cached_property
    def _pairs(self) -> tuple[Tensor, Tensor]:
        """The bond of each edge [m], and the first edge of each bond [b]."""
        if self.directed:
            own = torch.arange(len(self.edges), device=self.edges.device)
            return own, own
        return bonds_of(self.graph, self.hop)

    @property
    def bond(self) -> Tensor:
        """[m] int64, the bond that each edge is a direction of."""
        return self._pairs[0]

    @property
    def first(self) -> Tensor:
        """[b] int64, rising: of each bond the edge that arrives nearer the node, in hops."""
        return self._pairs[1]

    @property
    def bonds(self) -> int:
        """How many bonds there are."""
        return len(self.first)

    def edges_of(self, bonds: Tensor) -> Tensor:
        """[e] int64, rising: the edges of some bonds."""
        chosen = torch.zeros(self.bonds, dtype=torch.bool, device=self.bond.device)
        chosen[bonds] = True
        return chosen[self.bond].nonzero().squeeze(1)

    def summed(self, values: Tensor) -> Tensor:
        """[b], values of edges [m] added up over the directions of each bond."""
        return torch.zeros_like(values[: self.bonds]).index_add(0, self.bond, values)

    def nearness(self) -> Tensor:
        """[b], larger the nearer a bond is to the node, in hops and then by its length."""
        return (-self.hop.float() - self.graph.edge_length / self.graph.cutoff)[self.first]

    def predict(self, model: BarrierModel, weight: Tensor | None = None) -> Tensor:
        """The node's barrier, eV, as a 0-d tensor; weights [b] in 0 … 1, of bonds."""
        edge_weight = None if weight is None else weight[self.bond]
        barrier: Tensor = model(self.graph, edge_weight)[self.node]
        return barrier

    def predict_deleted(self, model: BarrierModel, kept: Tensor) -> Tensor:
        """The node's barrier when bonds are deleted, for several choices of bonds at once.

        The same as `predict` with weights of 0 and 1, in less time: with the deleted edges goes
        whatever can no longer reach the node.

        Args:
            kept: [choices, b] bool.

        Returns:
            [choices] eV, without gradients.
        """
        parts = [
            computation_graph(self.graph.with_edges(row), self.node, self.depth)
            for row in kept[:, self.bond]
        ]
        sizes = torch.tensor([0, *(part.graph.num_nodes for part in parts)])
        nodes = torch.tensor([part.node for part in parts]) + sizes.cumsum(0)[:-1]
        batch = collate([part.graph for part in parts])
        with torch.no_grad():
            barriers: Tensor = model(batch)[nodes.to(kept.device)]
        return barriers

    def explanation(
        self,
        method: str,
        importance: Tensor,
        *,
        prediction: float,
        masked_prediction: float | None = None,
        spread: Tensor | None = None,
        agreement: float | None = None,
        value: Tensor | None = None,
    ) -> Explanation:
        """An Explanation on the CPU, with the facts of every bond; all values are [b]."""
        graph, ends = self.graph, self.graph.edge_index[:, self.first]
        label = float(graph.target[self.node])
        return Explanation(
            structure=graph.names[int(graph.structure_index[self.node])],
            node=int(self.nodes[self.node]),
            node_id=int(graph.ids[self.node]),
            element=graph.species[int(graph.types[self.node])],
            method=method,
            prediction=prediction,
            masked_prediction=masked_prediction,
            label=None if math.isnan(label) else label,
            edges=self.edges[self.first].cpu(),
            importance=importance.detach().float().cpu(),
            spread=None if spread is None else spread.detach().float().cpu(),
            endpoints=self.nodes[ends].cpu(),
            endpoint_ids=graph.ids[ends].cpu(),
            endpoint_types=graph.types[ends].cpu(),
            species=graph.species,
            distance=graph.edge_length[self.first].cpu(),
            hop=self.hop[self.first].cpu(),
            agreement=agreement,
            value=None if value is None else value.detach().float().cpu(),
            reverse=None if self.directed else self._reverse().cpu(),
        )

    def _reverse(self) -> Tensor:
        """[b] int64, the second edge of each bond in the parent graph; −1 where none matters."""
        second = torch.ones(len(self.edges), dtype=torch.bool, device=self.edges.device)
        second[self.first] = False
        reverse = torch.full((self.bonds,), -1, dtype=torch.int64, device=self.edges.device)
        reverse[self.bond[second]] = self.edges[second]
        return reverse


def bonds_of(graph: Graph, hop: Tensor) -> tuple[Tensor, Tensor]:
    """Pair the edges of a graph that are two directions of one bond.

    Args:
        graph: its edges are the same pair of atoms, and opposite images, in both directions.
        hop: [m] int64, by which the first edge of a bond is chosen; of equals, the lower one.

    Returns:
        [m] int64, the bond of each edge; [b] int64, rising, the first edge of each bond.
    """
    source, target = graph.edge_index
    shift = graph.edge_shift.long()
    far = int(shift.abs().max()) if len(shift) else 0
    places = torch.tensor([(2 * far + 1) ** 2, 2 * far + 1, 1], device=shift.device)
    there, back = ((sign * shift + far).mul(places).sum(1) for sign in (1, -1))
    images = (2 * far + 1) ** 3
    keys = torch.minimum(
        (source * graph.num_nodes + target) * images + there,
        (target * graph.num_nodes + source) * images + back,
    )
    _, pair = keys.unique(return_inverse=True)
    order = (pair * (int(hop.max()) + 1 if len(hop) else 1) + hop).argsort(stable=True)
    leads = torch.ones(len(pair), dtype=torch.bool, device=pair.device)
    leads[1:] = pair[order][1:] != pair[order][:-1]
    first, rank = order[leads].sort()  # of the pairs in the order of keys
    number = torch.empty_like(rank)
    number[rank] = torch.arange(len(rank), device=rank.device)
    return number[pair], first


def computation_graph(graph: Graph, node: int, depth: int | None) -> ComputationGraph:
    """Cut out what can change the prediction of `node`.

    Args:
        graph: one structure or a batch.
        node: its row.
        depth: how many edges a message can travel; None for a model that sees all of the node's
            structure.
    """
    hops = graph.hops_to(node, graph.num_nodes if depth is None else depth)
    within = graph.structure_index == graph.structure_index[node] if depth is None else hops >= 0
    nodes = torch.nonzero(within).squeeze(1)
    part, edges = graph.subgraph(nodes)
    hop = hops[nodes][part.destination] + 1
    if depth is not None:
        matters = torch.nonzero(hop <= depth).squeeze(1)
        part, edges, hop = part.with_edges(matters), edges[matters], hop[matters]
    return ComputationGraph(part, int((nodes == node).nonzero()), edges, nodes, hop, depth, graph)


def model_computation_graph(
    graph: Graph, model: BarrierModel, node: int, *, directed: bool = False
) -> ComputationGraph:
    """The computation graph of `node` under `model`.

    Args:
        graph: one structure or a batch.
        model: it tells how far messages travel.
        node: its row.
        directed: count each direction of a bond by itself.

    Raises:
        UsageError: there is no such node, it has no neighbour, or the model uses no edges.
    """
    check_node(graph, node)
    if not model.uses_edges:
        raise UsageError("this model makes no use of edges, so there are none to explain it by")
    graph = model.prepare_whole(graph)
    found = computation_graph(
        graph, node, model.hops if math.isfinite(model.receptive_field) else None
    )
    if len(found.edges) == 0:
        raise UsageError(
            f"atom {node} has no neighbour within {graph.cutoff:g} Å: there are no edges to explain"
        )
    return replace(found, directed=directed)


def check_node(graph: Graph, node: int) -> None:
    """Raise UsageError unless `node` is a row of the graph."""
    if not 0 <= node < graph.num_nodes:
        raise UsageError(
            f"there is no node {node}: {graph.names[0] or 'the structure'} has nodes "
            f"0 … {graph.num_nodes - 1} (--id takes the file's atom ids)"
        )


def node_of_id(graph: Graph, atom_id: int) -> int:
    """The row of the atom with this id in the structure's file.

    Raises:
        UsageError: no atom has it, or, in a batch, several have.
    """
    rows = torch.nonzero(graph.ids == atom_id).squeeze(1).tolist()
    name = graph.names[0] or "the structure"
    if len(rows) == 0:
        low, high = int(graph.ids.min()), int(graph.ids.max())
        raise UsageError(f"no atom of {name} has id {atom_id}: its ids lie in {low} … {high}")
    if len(rows) > 1:
        raise UsageError(f"{len(rows)} atoms have id {atom_id}: choose one by its row, with --node")
    return int(rows[0])


@contextmanager
def frozen_eval(model: BarrierModel) -> Iterator[torch.device]:
    """Have the model in eval mode, without gradients for its parameters; yields its device.

    Afterwards modes, parameters, torch's random state and threads are as they were.
    """
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    with evaluating(model), one_thread():
        try:
            model.requires_grad_(False)
            yield device_of(model)
        finally:
            for parameter, want in wanted:
                parameter.requires_grad_(want)


def full_prediction(model: BarrierModel, part: ComputationGraph) -> float:
    """eV, with every edge.

    Raises:
        MgsymError: it is not a finite number.
    """
    with torch.no_grad():
        prediction = float(part.predict(model))
    if not math.isfinite(prediction):
        raise MgsymError(f"the model predicts {prediction} for this atom: was its training sound?")
    return prediction


def distance_to_atom(part: ComputationGraph) -> Tensor:
    """Measure from the atom to the middle of each bond, at its near end's nearest image, [b] Å."""
    graph = part.graph
    target = vectors_from(graph, part.node)[graph.destination[part.first]]
    return (target + graph.edge_vector[part.first].double() / 2).norm(dim=1)


def distance_between_atoms(graph: Graph, node: int) -> Tensor:
    """Measure from an atom to the nearest image of each atom of its structure, [n] Å."""
    return vectors_from(graph, node).norm(dim=1)


def vectors_from(graph: Graph, node: int) -> Tensor:
    """[n, 3] Å, from an atom to the nearest image of each."""
    structure = int(graph.structure_index[node])
    away = graph.positions - graph.positions[node]
    return nearest_image(away, graph.cell[structure], graph.periodic[structure])
