"""Planted truth: a model whose reasons are known, and how many of them each explainer finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from mgsym.errors import UsageError
from mgsym.explanation.computation_graph import model_computation_graph
from mgsym.explanation.explain import METHODS, explain, method_settings
from mgsym.graph import Graph
from mgsym.models.base import BarrierModel
from mgsym.nn.egat import attention_scale
from mgsym.nn.scatter import segment_sum
from mgsym.utils.progress import Progress

SHARE = 0.12  # of all edges that are planted, and again that are decoys
REACH = 0.2  # how much the second hop counts beside the first
STEEP = 3.0  # slope of a decoy
PRIME = 2**31 - 1  # so that squares fit into 64 bits


class PlantedModel(BarrierModel):
    """A known function of known edges.

    A tenth of all edges, chosen by the ids of their ends, are planted with strengths a_e of
    0.5 … 1 and either sign. The prediction for atom i is

        f_i = Σ a_e w_e (1 + 0.2 Σ a_e′ w_e′),

    e over planted edges into i, e′ over planted edges into the source of e. As many others are
    decoys: each adds 3 w (1 − w), which has a slope where the edge is whole, but is nothing both
    with the edge and without it.

    Args:
        species, cutoff: of the graphs.
    """

    source = "mgsym's own"

    def __init__(self, species: tuple[str, ...], cutoff: float) -> None:
        super().__init__(species, cutoff, hops=2)

    def standardised(self, graph: Graph, edge_weight: Tensor | None) -> Tensor:
        strength, decoy = planted_edges(graph)
        weight = torch.ones_like(strength)
        for given in (edge_weight, attention_scale()):
            weight = weight if given is None else weight * given
        sent = strength * weight
        heard = segment_sum(sent, graph.destination, graph.num_nodes)
        sent = sent * (1 + REACH * heard[graph.source]) + STEEP * decoy * weight * (1 - weight)
        return segment_sum(sent, graph.destination, graph.num_nodes)


def planted_edges(graph: Graph) -> tuple[Tensor, Tensor]:
    """Strengths [e] of the planted edges, 0 for others, and [e] 1 for decoys, 0 for others."""
    source, target = graph.ids[graph.edge_index]
    # a hash of the two ids and the image, so that an edge stays itself in any subgraph
    image = graph.edge_shift.long() @ torch.tensor([3, 5, 7], device=source.device)
    mixed = (source * 40503 + target * 69069 + image * 1664525 + 12345) % PRIME
    for factor in (16807, 48271):  # squares, since neighbours' ids differ by regular steps
        mixed = (mixed * mixed % PRIME * factor + 1013904223) % PRIME
    draws = [mixed / PRIME, mixed * mixed % PRIME / PRIME]
    planted = (draws[0] < SHARE).float()
    decoy = ((draws[0] >= SHARE) & (draws[0] < 2 * SHARE)).float()
    signed = 2 * draws[1].float() - 1
    return planted * (0.5 + 0.5 * signed.abs()) * signed.sign(), decoy


def planted_truth(graph: Graph, node: int) -> Tensor:
    """[k] int64: the edges on which the planted model's prediction for a node rests."""
    planted = planted_edges(graph)[0] != 0
    first = planted & (graph.destination == node)
    sources = torch.zeros(graph.num_nodes, dtype=torch.bool)
    sources[graph.source[first]] = True
    return (first | (planted & sources[graph.destination])).nonzero().squeeze(1)


@dataclass(frozen=True)
class PlantedScores:
    """How many planted bonds each method found: those with a planted edge in either direction.

    Attributes:
        structure: name of the structure.
        nodes: atoms explained.
        k: how many bonds are planted for each; as many are taken of each explanation.
        precision_at_k: by method, the share of those that are planted: mean over nodes.
        lowest: by method, of the worst node.
    """

    structure: str
    nodes: tuple[int, ...]
    k: tuple[int, ...]
    precision_at_k: dict[str, float]
    lowest: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def planted_benchmark(
    graph: Graph,
    *,
    nodes: int = 5,
    methods: Sequence[str] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> PlantedScores:
    """Explain the planted model at random nodes, and count the planted bonds found.

    Args:
        graph: one structure.
        nodes: how many atoms, drawn among those with planted edges.
        methods: of METHODS; by default all but ``attention``, which the planted model lacks.
        seed: of the atoms and the methods.
        progress: called with the explanations done and in all.

    Raises:
        UsageError: no such method, or `nodes` is less than 1.
    """
    chosen = list(methods) or [name for name in METHODS if name != "attention"]
    for name in chosen:
        method_settings(name)
    if nodes < 1:
        raise UsageError(f"nodes is {nodes}, expected at least 1")
    model = PlantedModel(graph.species, graph.cutoff)
    order = torch.randperm(graph.num_nodes, generator=torch.Generator().manual_seed(seed))
    truths: dict[int, set[int]] = {}
    for node in order.tolist():
        truth = planted_truth(graph, node)
        if len(truth) > 0:
            part = model_computation_graph(graph, model, node)
            bonds = part.bond[torch.searchsorted(part.edges, truth)].unique()
            truths[node] = set(part.edges[part.first[bonds]].tolist())
        if len(truths) == nodes:
            break
    found: dict[str, list[float]] = {name: [] for name in chosen}
    for done, (node, truth_of) in enumerate(truths.items()):
        for i, name in enumerate(chosen, start=1):
            top = explain(graph, model, node, name, topk=len(truth_of), seed=seed)
            found[name].append(len(truth_of & set(top.edges.tolist())) / len(truth_of))
            if progress is not None:
                progress(done * len(chosen) + i, len(truths) * len(chosen))
    return PlantedScores(
        graph.names[0],
        tuple(truths),
        tuple(map(len, truths.values())),
        {name: sum(values) / len(values) for name, values in found.items()},
        {name: min(values) for name, values in found.items()},
    )
