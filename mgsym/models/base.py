"""What every model is: a function from a Graph to one barrier per atom, with its properties said.

The shared tests in tests/mgsym/models/test_model_contract.py hold each model to what it declares.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from mgsym.errors import InputError
from mgsym.graph import Graph, match_species
from mgsym.graph.prepared import Owner, Prepared
from mgsym.utils.progress import Progress

LEAST_SPREAD = 1e-6  # eV, standard deviation of labels that differ at all

Invariance = Literal["yes", "no", "in expectation"]


class BarrierModel(nn.Module):
    """A model of the energy barrier around every atom.

    A subclass implements `standardised`; this class keeps the label's mean and scale, so that
    ``model(graph)`` is in eV.

    Attributes:
        species: the elements the model knows; graphs are matched to them by symbol.
        cutoff: Å; the cutoff of the graphs it takes.
        source: the paper that the model follows.
        invariant: whether a prediction stays under rotation and reflection of the structure.
        uses_edges: whether edges matter at all.
        edges_share: of the prediction that comes along edges; the rest reads positions.
        receptive_field: Å; nothing farther from an atom changes its prediction
            (infinite: the whole structure).
        hops: how many edges a message can travel, which is `receptive_field` in edges.
    """

    source: str = ""
    invariant: Invariance = "yes"
    uses_edges: bool = True
    edges_share: float = 1.0
    label_mean: Tensor
    label_scale: Tensor

    def __init__(self, species: tuple[str, ...], cutoff: float, hops: int) -> None:
        super().__init__()
        self.species, self.cutoff, self.hops = tuple(species), float(cutoff), hops
        self.register_buffer("label_mean", torch.zeros(()))
        self.register_buffer("label_scale", torch.ones(()))

    @property
    def receptive_field(self) -> float:
        """Å."""
        return self.cutoff * self.hops

    def fit_statistics(self, graphs: Sequence[Graph]) -> None:
        """Take the label's mean and standard deviation from the training structures.

        Models with standardised inputs take those too. Called once, before training.

        Raises:
            InputError: no atom has a label, one is infinite, or all are the same.
        """
        labels = torch.cat([g.target[g.labelled] for g in graphs]).double()
        if len(labels) == 0:
            raise InputError(
                "no atom of the training structures has a label: give --target or --labels "
                "to mgsym build-graph"
            )
        scale = float(labels.std(correction=0))
        if not math.isfinite(scale):
            raise InputError(_infinite(graphs))
        if scale < LEAST_SPREAD:
            raise InputError(
                f"all {len(labels)} labels of the training structures are {float(labels[0]):g} eV: "
                "there is nothing to learn from labels that are the same"
            )
        self.label_mean.copy_(labels.mean())
        self.label_scale.fill_(scale)

    # ---- what is computed of a graph once ----

    @torch.no_grad()
    def prepare(self, graph: Graph) -> Graph:
        """The graph with whatever the model needs of it that no parameter changes.

        Training calls this once per structure instead of once per step. The prediction is the
        same for a graph that was not prepared, or that another model prepared.
        """
        graph = self.prepare_whole(graph)
        own = self.prepared_of(graph)
        if own is None or own.from_edges:
            return graph
        from_edges = self.from_edges(graph)
        return graph.replace(prepared=replace(own, from_edges=from_edges)) if from_edges else graph

    @torch.no_grad()
    def prepare_whole(self, graph: Graph, progress: Progress | None = None) -> Graph:
        """The graph with what the model needs of it that no part of it would tell.

        Who gives a model parts of a structure (its receptive fields) calls this before.

        Args:
            graph: one structure or a batch.
            progress: called with the atoms done and in all.
        """
        graph, owner = match_species(graph, self.species), self.owner()
        if not owner or self.prepared_of(graph) is not None:
            return graph
        kept = tuple(v.clone() if isinstance(v, Tensor) else v for v in owner)
        return graph.replace(prepared=Prepared(kept, self.from_positions(graph, progress)))

    def prepared_of(self, graph: Graph) -> Prepared | None:
        """What this model, or one that would to the same bits, has prepared of the graph."""
        return graph.prepared_for(self.owner())

    def owner(self) -> Owner:
        """All that `from_positions` and `from_edges` depend on; empty where they give nothing."""
        return ()

    def from_positions(self, graph: Graph, progress: Progress | None = None) -> dict[str, Tensor]:
        """What can be prepared, [n, …] by name, from positions; edges play no part in it."""
        return {}

    def from_edges(self, graph: Graph) -> dict[str, Tensor]:
        """What can be prepared, [n, …] by name, along all edges."""
        return {}

    # ---- the prediction ----

    def forward(self, graph: Graph, edge_weight: Tensor | None = None) -> Tensor:
        """Predict the barrier of every atom.

        Args:
            graph: one structure or a batch.
            edge_weight: [e] in 0 … 1. A weight of 0 equals deleting the edge, 1 changes nothing.

        Returns:
            [n] eV.

        Raises:
            InputError: the graph has an element the model does not know, or another cutoff.
        """
        if abs(graph.cutoff - self.cutoff) > 1e-6:
            raise InputError(
                f"the graph's cutoff is {graph.cutoff:g} Å, the model was made for "
                f"{self.cutoff:g} Å: build the graph again with --cutoff {self.cutoff:g}"
            )
        graph = match_species(graph, self.species)
        return self.label_mean + self.label_scale * self.standardised(graph, edge_weight)

    def standardised(self, graph: Graph, edge_weight: Tensor | None) -> Tensor:
        """[n], the prediction in units of the label's standard deviation, mean subtracted."""
        raise NotImplementedError

    @property
    def readout(self) -> nn.Linear | None:
        """The last layer: it turns an atom's hidden representation into the prediction.

        It is the end of ``decoder`` unless a model says otherwise; None where there is no such
        layer. `hidden_features` shows what enters it.
        """
        decoder = getattr(self, "decoder", None)
        last = decoder[-1] if isinstance(decoder, nn.Sequential) else None
        return last if isinstance(last, nn.Linear) else None

    @property
    def num_parameters(self) -> int:
        """How many numbers are trained."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


@contextmanager
def hidden_features(model: BarrierModel) -> Iterator[list[Tensor]]:
    """Gather what enters the readout of a model that has one, [n, width] a pass, in a list."""
    seen: list[Tensor] = []
    assert model.readout is not None
    handle = model.readout.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()


def _infinite(graphs: Sequence[Graph]) -> str:
    """Which label is not a finite number."""
    for graph in graphs:
        wrong = torch.nonzero(torch.isinf(graph.target)).squeeze(1)
        if len(wrong):
            row = int(wrong[0])
            name, atom = graph.names[0] or "a structure", int(graph.ids[row])
            return f"{name}: the label of atom id {atom} is {float(graph.target[row])}, expected eV"
    return "the labels are too large for their spread to be a number"


def device_of(model: BarrierModel) -> torch.device:
    """Where a model's numbers are."""
    return model.label_mean.device


@contextmanager
def evaluating(model: BarrierModel) -> Iterator[None]:
    """Have a model in eval mode; its modes and the random state are put back after."""
    modes = [(module, module.training) for module in model.modules()]
    device = device_of(model)
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            model.eval()
            yield
    finally:
        for module, training in modes:
            module.training = training
