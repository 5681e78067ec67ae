"""Predictions of large structures, layer by layer over slabs, every atom computed once.

The atoms are cut into slabs. A slab may go through a layer as soon as the slabs that its edges
come from have been through the one before; whichever can go on does, before another is begun. So
the edges' hidden values, nearly all the memory, are there for a few neighbouring slabs at a time.
Batch norms use running statistics in evaluation, hence a slab gets what the whole would give it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from mgsym.graph import Graph
from mgsym.graph.files import EDGE_FIELDS, NODE_FIELDS
from mgsym.graph.operations import wrapped_positions
from mgsym.utils.progress import Progress
from mgsym.utils.threads import thread_map

Result = TypeVar("Result")
Done = Callable[[Tensor, Tensor], None]  # atoms [m], and their predictions [models, m] in eV


@runtime_checkable
class Layered(Protocol):
    """A model that can be run layer by layer on some of the atoms.

    In a part, the first atoms are computed (they have all their edges), and those after them only
    send messages.
    """

    @property
    def num_layers(self) -> int: ...

    def prepare(self, graph: Graph) -> Graph: ...

    def begin(self, part: Graph, count: int) -> tuple[Tensor, list[Tensor]]:
        """Hidden nodes [count, width], and edges [e, width] of each pass of the network."""
        ...

    def advance(
        self, layer: int, nodes: Tensor, edges: Tensor, part: Graph
    ) -> tuple[Tensor, Tensor]:
        """Nodes [n, width] (of which the first hold) and edges [e, width] after a layer."""
        ...

    def finish(self, passes: Sequence[Tensor], part: Graph) -> Tensor:
        """Barriers [count] in eV of the last layer's nodes [count, width] of each pass."""
        ...


@dataclass
class _Slab:
    """One slab on its way.

    Attributes:
        nodes: [m] int64, its atoms, then those that send to them.
        count: how many are its own.
        part: their graph.
        edges: of each model and pass.
        level: layers that it has been through.
    """

    nodes: Tensor
    count: int
    part: Graph
    edges: list[list[Tensor]]
    level: int = 0


class Sweep:
    """One run of several models over one graph.

    Args:
        models: in evaluation mode, of one cutoff and device.
        graph: prepared as far as only the whole can be (`BarrierModel.prepare_whole`).
        most_edges: of a slab.
        wanted: [n] bool, the atoms to predict; None for all. Of the others only those are
            computed that a wanted slab needs, as far as it needs them.
    """

    def __init__(
        self,
        models: Sequence[Layered],
        graph: Graph,
        most_edges: int,
        wanted: Tensor | None = None,
    ) -> None:
        self.models, self.graph = models, graph
        self.slab = slab_numbers(graph, most_edges)
        self.slabs = int(self.slab.max()) + 1
        self.order = self.slab.argsort(stable=True)
        self.first = torch.cat(
            [self.order.new_zeros(1), torch.bincount(self.slab, minlength=self.slabs).cumsum(0)]
        ).tolist()
        self.senders = _senders(graph, self.slab, self.slabs)
        self.depth = max(model.num_layers for model in models)
        self.levels = self._levels(wanted)
        self.hidden: dict[tuple[int, int, int], Tensor] = {}
        self.place = torch.full_like(self.slab, -1)
        self.reached = [-1] * self.slabs

    def _levels(self, wanted: Tensor | None) -> list[int]:
        """How many layers each slab must go through; −1 where it is not needed at all."""
        levels = [self.depth] * self.slabs
        if wanted is not None:
            counts = torch.bincount(self.slab[wanted], minlength=self.slabs).tolist()
            levels = [self.depth if number else -1 for number in counts]
        for _ in range(self.depth):
            for slab, level in enumerate(list(levels)):
                for sender in self.senders[slab] if level > 0 else ():
                    levels[sender] = max(levels[sender], level - 1)
        return levels

    def run(self, done: Done, progress: Progress | None = None) -> None:
        """Predict, slab by slab.

        Args:
            done: called with each slab's atoms and their predictions as they come.
            progress: called with the steps done and in all; what it raises ends the run.
        """
        total = sum(1 + level for level in self.levels)
        live: dict[int, _Slab] = {}
        steps = 0
        for number in range(self.slabs):
            if self.levels[number] < 0:
                continue
            live[number] = self._begin(number)
            while True:
                steps += 1
                if progress is not None:
                    progress(steps, total)
                able = next((n for n in live if self._can_advance(n, live[n])), None)
                if able is None:
                    break
                self._advance(able, live[able], done)
                if self.reached[able] == self.levels[able]:
                    del live[able]
            for waiting in [n for n in live if self.levels[n] == 0]:
                del live[waiting]

    def _can_advance(self, number: int, slab: _Slab) -> bool:
        level = slab.level
        ready = all(self.reached[sender] >= level for sender in self.senders[number])
        return level < self.levels[number] and ready

    def _begin(self, number: int) -> _Slab:
        own = self.order[self.first[number] : self.first[number + 1]]
        nodes, part = self._part(own)
        for model in self.models:
            part = model.prepare(part)
        slab = _Slab(nodes, len(own), part, [])
        begun = self._each(lambda m: self.models[m].begin(part, slab.count))
        for m, (hidden, edges) in enumerate(begun):
            slab.edges.append(edges)
            for i in range(len(edges)):
                self._keep(m, i, 0, own, hidden)
        self.reached[number] = 0
        return slab

    def _advance(self, number: int, slab: _Slab, done: Done) -> None:
        own, level = slab.nodes[: slab.count], slab.level
        last = level + 1 == self.depth

        def passes_of(m: int) -> list[Tensor]:
            """One model's nodes after the layer, of each pass."""
            model, passes = self.models[m], []
            for i, edges in enumerate(slab.edges[m]):
                if level >= model.num_layers:  # it has fewer layers than another
                    passes.append(self.hidden[m, i, model.num_layers][own])
                    continue
                nodes, slab.edges[m][i] = model.advance(
                    level, self.hidden[m, i, level][slab.nodes], edges, slab.part
                )
                passes.append(nodes[: slab.count])
            return passes

        barriers = []
        for m, passes in enumerate(self._each(passes_of)):
            if last:
                barriers.append(self.models[m].finish(passes, slab.part).float().cpu())
                continue
            for i, nodes in enumerate(passes):
                self._keep(m, i, level + 1, own, nodes)
        slab.level += 1
        self.reached[number] = slab.level
        if last:
            done(own.cpu(), torch.stack(barriers))

    def _each(self, work: Callable[[int], Result]) -> Iterable[Result]:
        """What a function gives for the number of each model, which have a thread each.

        Fewer models than threads come one after another, and each has all threads.
        """
        numbers = range(len(self.models))
        if len(numbers) < torch.get_num_threads():
            return map(work, numbers)
        return thread_map(work, numbers, self.slab.device)

    def _keep(self, model: int, track: int, level: int, own: Tensor, values: Tensor) -> None:
        """Have hidden values of some atoms at hand for the slabs next to them."""
        key = (model, track, level)
        if key not in self.hidden:
            self.hidden[key] = values.new_empty(self.graph.num_nodes, *values.shape[1:])
        self.hidden[key][own] = values

    def _part(self, own: Tensor) -> tuple[Tensor, Graph]:
        """Some atoms with all edges that arrive at them, and after them the others that send."""
        graph, offsets = self.graph, self.graph.offsets
        number = offsets[own + 1] - offsets[own]
        start = offsets[own] - (number.cumsum(0) - number)
        edges = torch.arange(int(number.sum()), device=own.device)
        edges += torch.repeat_interleave(start, number)
        sources = graph.source[edges]
        self.place[own] = torch.arange(len(own), device=own.device)
        outside = sources[self.place[sources] < 0].unique()
        nodes = torch.cat([own, outside])
        self.place[outside] = torch.arange(len(own), len(nodes), device=own.device)
        target = torch.repeat_interleave(torch.arange(len(own), device=own.device), number)
        changed = {name: getattr(graph, name)[nodes] for name in NODE_FIELDS}
        changed |= {
            name: getattr(graph, name)[edges] for name in EDGE_FIELDS if name != "edge_index"
        }
        part = graph.replace(
            **changed,
            edge_index=torch.stack([self.place[sources], target]),
            node_features={name: v[nodes] for name, v in graph.node_features.items()},
            label_weight=None,
            prepared=None if graph.prepared is None else graph.prepared.at(nodes),
        )
        self.place[nodes] = -1
        return nodes, part


def slab_numbers(graph: Graph, most_edges: int) -> Tensor:
    """Which slab each atom is in, [n] int64: slabs across the longest axis, at most so many edges.

    Structures of a batch follow one another.
    """
    places = wrapped_positions(graph)
    extent = places.amax(0) - places.amin(0)
    along = places[:, int(extent.argmax())] - places[:, int(extent.argmax())].min()
    along += graph.structure_index * (2 * extent.max() + 1)
    order = along.argsort(stable=True)
    degree = graph.offsets.diff()[order]
    slabs = max(1, -(-int(degree.sum()) // most_edges))
    share = (degree.cumsum(0) - degree).double() / max(int(degree.sum()), 1)
    numbers = torch.empty_like(order)
    numbers[order] = (share * slabs).long().clamp(max=slabs - 1)
    return torch.unique(numbers, return_inverse=True)[1]


def _senders(graph: Graph, slab: Tensor, slabs: int) -> list[list[int]]:
    """The slabs from which edges lead to each slab, itself included."""
    pairs = [torch.arange(slabs, device=slab.device) * (slabs + 1)]
    for ends in graph.edge_index.split(1 << 22, dim=1):
        pairs.append(torch.unique(slab[ends[1]] * slabs + slab[ends[0]]))
    senders: list[list[int]] = [[] for _ in range(slabs)]
    for pair in torch.cat(pairs).unique().tolist():
        senders[pair // slabs].append(pair % slabs)
    return senders
