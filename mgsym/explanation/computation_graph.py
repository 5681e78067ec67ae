"""What a prediction can depend on: the computation graph of one node.

After L layers a node has heard from the nodes at most L edges away. An edge matters only when
its target is less than L edges from the node: the last layer uses edges that arrive at the node
itself, the one before also those that arrive at its neighbours, and so on down to the first.
Nodes exactly L edges away give their features and nothing that arrives at them counts. In a
3000-atom box four hops of 5 Å reach most atoms, but only about a quarter of the edges matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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
    """

    graph: Graph
    node: int
    edges: Tensor
    nodes: Tensor
    hop: Tensor
    depth: int | None
    parent: Graph

    def predict(self, model: BarrierModel, edge_weight: Tensor | None = None) -> Tensor:
        """The node's barrier, eV, as a 0-d tensor; weights [m] as in `BarrierModel.forward`."""
        barrier: Tensor = model(self.graph, edge_weight)[self.node]
        return barrier

    def predict_deleted(self, model: BarrierModel, kept: Tensor) -> Tensor:
        """The node's barrier when edges are deleted, for several choices of edges at once.

        The same as `predict` with weights of 0 and 1, in less time: with the deleted edges goes
        whatever can no longer reach the node.

        Args:
            kept: [choices, m] bool.

        Returns:
            [choices] eV, without gradients.
        """
        parts = [
            computation_graph(self.graph.with_edges(row), self.node, self.depth) for row in kept
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
        """An Explanation on the CPU, with the facts of every edge."""
        graph, ends = self.graph, self.graph.edge_index
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
            edges=self.edges.cpu(),
            importance=importance.detach().float().cpu(),
            spread=None if spread is None else spread.detach().float().cpu(),
            endpoints=self.nodes[ends].cpu(),
            endpoint_ids=graph.ids[ends].cpu(),
            endpoint_types=graph.types[ends].cpu(),
            species=graph.species,
            distance=graph.edge_length.cpu(),
            hop=self.hop.cpu(),
            agreement=agreement,
            value=None if value is None else value.detach().float().cpu(),
        )


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


def model_computation_graph(graph: Graph, model: BarrierModel, node: int) -> ComputationGraph:
    """The computation graph of `node` under `model`.

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
    return found


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
    """Measure from the atom to the middle of each edge, at each target's nearest image, [m] Å."""
    graph = part.graph
    target = vectors_from(graph, part.node)[graph.destination]
    return (target + graph.edge_vector.double() / 2).norm(dim=1)


def distance_between_atoms(graph: Graph, node: int) -> Tensor:
    """Measure from an atom to the nearest image of each atom of its structure, [n] Å."""
    return vectors_from(graph, node).norm(dim=1)


def vectors_from(graph: Graph, node: int) -> Tensor:
    """[n, 3] Å, from an atom to the nearest image of each."""
    structure = int(graph.structure_index[node])
    away = graph.positions - graph.positions[node]
    return nearest_image(away, graph.cell[structure], graph.periodic[structure])
