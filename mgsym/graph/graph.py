"""Graph: atoms as nodes, pairs within the cutoff as directed edges, barriers as targets.

A batch is a Graph too: `collate` puts several side by side, and `structure_index` tells whose
atom each node is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from mgsym.errors import InputError
from mgsym.graph.files import EDGE_FIELDS, NODE_FIELDS, label_problem, read_fields, write_fields
from mgsym.graph.prepared import Owner, Prepared, same_owner
from mgsym.structure import Structure
from mgsym.structure.columns import BARRIER, STDERR
from mgsym.structure.neighbors import neighbor_pairs

SHORTEST_DISTANCE = 0.5  # Å; closer atoms are an error in the file, not physics


@dataclass(frozen=True, eq=False)
class Graph:
    """The radius graph of one structure, or of several side by side.

    Attributes:
        types: [n] int64, indices into `species`.
        species: element symbols.
        edge_index: [2, e] int64; row 0 source, row 1 target; sorted by target, then source.
        edge_shift: [e, 3] int16, the periodic image of the source.
        edge_vector: [e, 3] float32, Å: positions[source] + shift · cell − positions[target].
        cutoff: Å.
        positions: [n, 3] float64, Å.
        ids: [n] int64, atom ids of the file.
        target: [n] float32, barrier in eV; NaN where there is no label.
        target_stderr: [n] float32, standard error of the target in eV; NaN where not known.
        node_features: named inputs per atom, [n] or [n, k] float32.
        feature_units: units of node features, by name; those without one are left out.
        label_weight: [n] float32, how much each label counts in training; None where they count
            alike.
        structure_index: [n] int64, which structure each node belongs to.
        names, glasses, splits: one string per structure.
        cell: [structures, 3, 3] float64, Å; rows are the cell vectors.
        periodic: [structures, 3] bool.
        prepared: what one model has computed of this graph; never written, hashed, or looked at by
            another model.
    """

    types: Tensor
    species: tuple[str, ...]
    edge_index: Tensor
    edge_shift: Tensor
    edge_vector: Tensor
    cutoff: float
    positions: Tensor
    ids: Tensor
    target: Tensor
    target_stderr: Tensor
    structure_index: Tensor
    names: tuple[str, ...]
    glasses: tuple[str, ...]
    splits: tuple[str, ...]
    cell: Tensor
    periodic: Tensor
    node_features: Mapping[str, Tensor] = field(default_factory=dict)
    feature_units: Mapping[str, str] = field(default_factory=dict)
    label_weight: Tensor | None = None
    prepared: Prepared | None = None

    def __post_init__(self) -> None:
        for name in ("node_features", "feature_units"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def num_nodes(self) -> int:
        return int(self.types.shape[0])

    @property
    def num_edges(self) -> int:
        return int(self.edge_index.shape[1])

    @property
    def num_structures(self) -> int:
        return len(self.names)

    @property
    def source(self) -> Tensor:
        """[e] int64, where each edge comes from."""
        return self.edge_index[0]

    @property
    def destination(self) -> Tensor:
        """[e] int64, where each edge arrives (its target node)."""
        return self.edge_index[1]

    @cached_property
    def offsets(self) -> Tensor:
        """[n + 1] int64: the edges that arrive at node i are offsets[i] … offsets[i + 1] − 1."""
        counts = torch.bincount(self.destination, minlength=self.num_nodes)
        return torch.cat([counts.new_zeros(1), counts.cumsum(0)])

    @cached_property
    def edge_length(self) -> Tensor:
        """[e] float32, Å."""
        return self.edge_vector.norm(dim=1)

    @cached_property
    def labelled(self) -> Tensor:
        """[n] bool, which nodes have a target."""
        return ~torch.isnan(self.target)

    def __repr__(self) -> str:
        title = self.names[0] if self.num_structures == 1 else f"{self.num_structures} structures"
        return (
            f"Graph({title or 'unnamed'}: {self.num_nodes} atoms, {self.num_edges} edges, "
            f"cutoff {self.cutoff:g} Å)"
        )

    def replace(self, **changes: Any) -> Graph:
        """A copy with some fields changed.

        What a model prepared from positions stays where only edges change; else it goes, since it
        belongs to this graph.
        """
        if self.prepared is not None and "prepared" not in changes:
            same_atoms = changes.keys() <= set(EDGE_FIELDS)
            changes["prepared"] = self.prepared.without_edges() if same_atoms else None
        return replace(self, **changes)

    def to(self, device: torch.device | str) -> Graph:
        """This graph with every tensor on `device`."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {n: value.to(device) for n, value in values.items() if isinstance(value, Tensor)}
        features = {name: feature.to(device) for name, feature in self.node_features.items()}
        prepared = None if self.prepared is None else self.prepared.to(device)
        return self.replace(**moved, node_features=features, prepared=prepared)

    def with_edges(self, keep: Tensor) -> Graph:
        """This graph with only some of its edges.

        Args:
            keep: [e] bool, or the int64 indices of the edges to keep.
        """
        index = torch.nonzero(keep).squeeze(1) if keep.dtype == torch.bool else keep.sort().values
        return self.replace(
            edge_index=self.edge_index[:, index],
            edge_shift=self.edge_shift[index],
            edge_vector=self.edge_vector[index],
        )

    def subgraph(self, nodes: Tensor) -> tuple[Graph, Tensor]:
        """The graph on some nodes and the edges between them.

        Args:
            nodes: [m] int64, distinct; they are numbered in this order.

        Returns:
            The subgraph, and [e'] int64: the edge of this graph that each of its edges was.
        """
        new_index = torch.full((self.num_nodes,), -1, dtype=torch.int64, device=nodes.device)
        new_index[nodes] = torch.arange(len(nodes), device=nodes.device)
        renumbered = new_index[self.edge_index]
        edges = torch.nonzero((renumbered >= 0).all(dim=0)).squeeze(1)
        order = _by_target(renumbered[:, edges], len(nodes))
        edges = edges[order]
        kept = {name: getattr(self, name)[nodes] for name in NODE_FIELDS}
        graph = self.replace(
            **kept,
            edge_index=renumbered[:, edges],
            edge_shift=self.edge_shift[edges],
            edge_vector=self.edge_vector[edges],
            node_features={name: v[nodes] for name, v in self.node_features.items()},
            label_weight=None if self.label_weight is None else self.label_weight[nodes],
            prepared=None if self.prepared is None else self.prepared.at(nodes),
        )
        return graph, edges

    def hops_to(self, node: int, limit: int) -> Tensor:
        """[n] int64: how many edges lead from each node to `node`; −1 beyond `limit`."""
        hops = torch.full((self.num_nodes,), -1, dtype=torch.int64, device=self.types.device)
        hops[node] = 0
        for hop in range(1, limit + 1):
            reached = hops >= 0
            sources = self.source[reached[self.destination]]
            fresh = sources[hops[sources] < 0]
            if len(fresh) == 0:
                break
            hops[fresh] = hop
        return hops

    def prepared_for(self, owner: Owner) -> Prepared | None:
        """What this owner has prepared of the graph; None where nobody or somebody else has."""
        if self.prepared is None or not same_owner(self.prepared.owner, owner):
            return None
        return self.prepared

    def save(self, path: str | Path, overwrite: bool = True) -> None:
        """Write an .npz file whose arrays are named as the fields."""
        write_fields(path, {f.name: getattr(self, f.name) for f in fields(self)}, overwrite)

    @classmethod
    def load(cls, path: str | Path) -> Graph:
        """Read what `save` wrote.

        Raises:
            InputError: the file is missing, damaged, or not a graph of this version.
        """
        return cls(**read_fields(path))


def build_graph(
    structure: Structure,
    cutoff: float = 5.0,
    target: str = BARRIER,
    device: str | torch.device = "cpu",
) -> Graph:
    """The radius graph of a structure.

    Args:
        structure: atoms in a cell.
        cutoff: Å; every pair closer than this is joined, both ways. In a small cell an atom may
            be joined to several images of another, and to images of itself.
        target: the column that holds the label in eV; where there is none, targets are NaN.
            Standard errors come from the column ``<target>_stderr``.
        device: where the neighbours are searched; the graph is on the CPU.

    Raises:
        InputError: two atoms are closer than 0.5 Å, a label is infinite or beyond float32, or a
            standard error infinite or negative.
    """
    labels = [_label(structure, target), _label(structure, target + STDERR, stderr=True)]
    pairs = neighbor_pairs(
        structure.positions, structure.cell, structure.periodic, cutoff, device=device
    )
    graph = Graph(
        types=structure.types,
        species=structure.species,
        edge_index=pairs.edge_index,
        edge_shift=pairs.shift,
        edge_vector=pairs.vector,
        cutoff=float(cutoff),
        positions=structure.positions,
        ids=structure.ids,
        target=labels[0],
        target_stderr=labels[1],
        structure_index=torch.zeros(len(structure), dtype=torch.int64),
        names=(structure.name,),
        glasses=(structure.glass,),
        splits=(structure.split,),
        cell=structure.cell[None],
        periodic=torch.tensor([structure.periodic]),
    )
    _refuse_overlaps(graph, structure.source or structure.name or None)
    return graph


def _label(structure: Structure, column: str, stderr: bool = False) -> Tensor:
    """[n] float32, NaN where there is none."""
    if column not in structure.columns:
        return torch.full((len(structure),), float("nan"))
    values = structure.columns[column].values
    problem = f"column {column} is {list(values.shape)}, expected one value per atom"
    if values.numel() == len(structure):
        numbers, ids = values.double().reshape(-1).numpy(), structure.ids.numpy()
        problem = label_problem(numbers, ids, column, stderr=stderr)
        if not problem:
            return values.reshape(-1).to(torch.float32)
        problem = f"column {problem}"
    raise InputError(problem, path=structure.source or structure.name or None)


def _refuse_overlaps(graph: Graph, source: str | None) -> None:
    if graph.num_edges == 0:
        return
    shortest = int(graph.edge_length.argmin())
    length = float(graph.edge_length[shortest])
    if length < SHORTEST_DISTANCE:
        first, second = graph.ids[graph.edge_index[:, shortest]].tolist()
        raise InputError(
            f"atoms {first} and {second} are {length:.3f} Å apart, expected at least "
            f"{SHORTEST_DISTANCE} Å: look for a doubled atom or a wrong cell",
            path=source,
        )


def collate(graphs: Sequence[Graph]) -> Graph:
    """Put graphs side by side into one; nodes and edges keep their order.

    Raises:
        InputError: there are none, or species, cutoff or node features differ between them.
    """
    if len(graphs) == 0:
        raise InputError("no graphs to put together")
    if len(graphs) == 1:
        return graphs[0]
    first = graphs[0]
    for graph in graphs[1:]:
        _check_alike(first, graph)
    nodes = torch.tensor([0, *(g.num_nodes for g in graphs)]).cumsum(0).tolist()
    structures = torch.tensor([0, *(g.num_structures for g in graphs)]).cumsum(0).tolist()

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(g, name) for g in graphs])

    def texts(name: str) -> tuple[str, ...]:
        return tuple(text for g in graphs for text in getattr(g, name))

    plain = {n: joined(n) for n in ("types", "target", "target_stderr", "positions", "ids")}
    return first.replace(
        **plain,
        edge_index=torch.cat([g.edge_index + nodes[i] for i, g in enumerate(graphs)], dim=1),
        edge_shift=joined("edge_shift"),
        edge_vector=joined("edge_vector"),
        structure_index=torch.cat(
            [g.structure_index + structures[i] for i, g in enumerate(graphs)]
        ),
        names=texts("names"),
        glasses=texts("glasses"),
        splits=texts("splits"),
        cell=joined("cell"),
        periodic=joined("periodic"),
        node_features={
            name: torch.cat([g.node_features[name] for g in graphs]) for name in first.node_features
        },
        label_weight=None if first.label_weight is None else joined("label_weight"),
        prepared=Prepared.joined([g.prepared for g in graphs]),
    )


def _check_alike(first: Graph, second: Graph) -> None:
    for quantity, ours, theirs in (
        ("species", first.species, second.species),
        ("cutoff", first.cutoff, second.cutoff),
        ("node features", sorted(first.node_features), sorted(second.node_features)),
        ("label weights", _weighted(first), _weighted(second)),
        ("units of node features", dict(first.feature_units), dict(second.feature_units)),
    ):
        if ours != theirs:
            raise InputError(
                f"{quantity} differ between graphs: {first.names[0]} has {ours}, "
                f"{second.names[0]} has {theirs}; build them alike"
            )


def _weighted(graph: Graph) -> str:
    return "none" if graph.label_weight is None else "some"


def match_species(graph: Graph, species: tuple[str, ...]) -> Graph:
    """The same graph with types that index `species`, matched by element symbol.

    Raises:
        InputError: an atom of the graph is of an element that `species` lacks.
    """
    if graph.species == species:
        return graph
    present = set(graph.types.unique().tolist())
    unknown = [s for i, s in enumerate(graph.species) if i in present and s not in species]
    if unknown:
        raise InputError(
            f"{graph.names[0] or 'the structure'} has {', '.join(unknown)}, but the model knows "
            f"only {', '.join(species)}: train one on structures with {', '.join(unknown)}"
        )
    rows = [species.index(s) if s in species else -1 for s in graph.species]  # −1: no atom is s
    lookup = torch.tensor(rows, dtype=torch.int64, device=graph.types.device)
    return graph.replace(types=lookup[graph.types], species=species)


def _by_target(edge_index: Tensor, num_nodes: int) -> Tensor:
    """The order that sorts edges by target, then source."""
    return torch.argsort(edge_index[1] * num_nodes + edge_index[0], stable=True)
