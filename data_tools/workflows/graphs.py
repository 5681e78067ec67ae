"""From structure files to a folder of graph files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mgsym.data_tools.formats import file_stem, read_files
from mgsym.data_tools.formats.label_table import with_labels
from mgsym.data_tools.formats.species import warn_unused_types
from mgsym.data_tools.sample import sample_structures
from mgsym.data_tools.simulation.potentials.eam import EAM
from mgsym.data_tools.simulation.vibrations.compliance import physical_inputs
from mgsym.errors import InputError, UsageError
from mgsym.graph import Graph, build_graph
from mgsym.graph.files import FORMAT
from mgsym.structure import Column, Structure
from mgsym.structure.columns import BARRIER, BARRIER_STDERR
from mgsym.utils.files import atomic_folder, holds_output, kind_of
from mgsym.utils.names import file_in
from mgsym.utils.progress import Progress


@dataclass(frozen=True)
class GraphSummary:
    """What a graph holds, for tables.

    Attributes:
        path: its file.
        name: of the structure.
        atoms: how many nodes.
        composition: atoms of each species.
        edges: how many directed edges.
        coordination: edges per atom.
        cutoff: Å.
        labelled: how many atoms have a target.
        label_mean, label_sd: of the targets, eV; None without labels.
        split: train, validation, test or empty.
        glass: the group for splits.
        features: unit of each node feature.
    """

    path: Path
    name: str
    atoms: int
    composition: dict[str, int]
    edges: int
    coordination: float
    cutoff: float
    labelled: int
    label_mean: float | None
    label_sd: float | None
    split: str
    glass: str
    features: dict[str, str] = field(default_factory=dict)


def read_structures(
    files: Sequence[str | Path],
    types: Mapping[int, str] | None = None,
    frames: str | None = None,
    split: str | None = None,
    glass: str | None = None,
) -> list[Structure]:
    """Read and check all files.

    A structure that names no glass belongs to a glass called as its file, so that the frames of
    one trajectory never straddle a split.

    Args:
        files: structure files of any known format; none takes the sample that ships with mgsym.
        types: element of each type number, for files that have numbers only.
        frames: which frames of each file, as `mgsym.data_tools.formats.read_frames` takes them;
            None takes the last one.
        split: the split of all structures, whatever the files say.
        glass: the glass of all structures, whatever the files say.

    Raises:
        InputError: a file is missing, damaged or inconsistent.
    """
    structures = [] if files else sample_structures()
    if not files:
        warn_unused_types(types, "the sample that ships with mgsym")
    for structure in read_files(files, types, frames or "-1"):
        stem = file_stem(Path(structure.source))
        structures.append(structure.replace(glass=structure.glass or stem))
    groups = {"split": split, "glass": glass}
    groups = {name: value for name, value in groups.items() if value is not None}
    return [structure.replace(**groups) for structure in structures]


def join_labels(
    structures: Sequence[Structure], table: str | Path, target: str | None = None
) -> list[Structure]:
    """Add the labels of a CSV table to the one structure that they belong to.

    Raises:
        UsageError: there are several structures.
        InputError: the table does not fit the structure.
    """
    if len(structures) != 1:
        raise UsageError(
            f"a table of labels belongs to one structure, {len(structures)} are given: build "
            "them one at a time, into the same folder"
        )
    return [with_labels(structures[0], table, target or BARRIER)]


@holds_output("folder")
def build_graphs(
    structures: Sequence[Structure],
    folder: str | Path,
    cutoff: float = 5.0,
    target: str | None = None,
    overwrite: bool = False,
    *,
    potential: EAM | None = None,
    device: str | torch.device = "cpu",
    jobs: int = 1,
    progress: Progress | None = None,
) -> list[GraphSummary]:
    """Build the graph of each structure and write them to ``folder/<name>.npz``, all or none.

    Args:
        structures: with different names.
        folder: made when missing.
        cutoff: Å.
        target: the column to learn, eV; None takes ``barrier`` where a structure has it.
        overwrite: replace existing files.
        potential: where given, what it says of each atom (see simulation.stiffness) is computed
            and stored as node features; structures must be at its energy minima.
        device: where to compute.
        jobs: how many structures are worked on at once.
        progress: called with the number of graphs done (or parts of one) and in all.

    Raises:
        InputError: two atoms are too close, no structure has the column `target`, or a structure
            does not suit the potential.
        UsageError: a file exists already, or two structures have one name.
    """
    folder = Path(folder)
    _check_names(structures)
    _check_folder(folder, structures, overwrite)
    _check_target(structures, target)

    share = dict.fromkeys((structure.name for structure in structures), 0.0)

    def step(name: str, done: float) -> None:
        share[name] = done
        if progress is not None:
            progress(sum(share.values()), len(structures))

    with atomic_folder(folder) as temporary:

        def write(structure: Structure) -> GraphSummary:
            graph = build_graph(structure, cutoff, target=target or BARRIER, device=device)
            if potential is not None:

                def report(done: float, total: float | None = None, **info: object) -> None:
                    step(structure.name, done / total if total else 0.0)

                graph = with_physical_inputs(graph, structure, potential, device, report)
            graph.save(temporary / f"{structure.name}.npz")
            step(structure.name, 1.0)
            return summarise(graph, folder / f"{structure.name}.npz")

        return list(_in_order(write, structures, jobs))


def with_physical_inputs(
    graph: Graph,
    structure: Structure,
    potential: EAM,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> Graph:
    """The graph of a structure with what a potential says of its atoms as node features.

    Raises:
        InputError: the structure is not at a minimum, or has an element the potential lacks.
    """
    columns = physical_inputs(potential, structure, device=device, progress=progress)
    values = {name: column.values.float() for name, column in columns.items()}
    units = {name: column.unit for name, column in columns.items()}
    return graph.replace(
        node_features={**graph.node_features, **values},
        feature_units={**graph.feature_units, **units},
    )


def structure_of(graph: Graph, index: int = 0) -> Structure:
    """The atoms of one structure of a graph, without columns."""
    rows = (graph.structure_index == index).nonzero().squeeze(1)
    return Structure(
        positions=graph.positions[rows],
        cell=graph.cell[index],
        types=graph.types[rows],
        species=graph.species,
        periodic=tuple(graph.periodic[index].tolist()),
        ids=graph.ids[rows],
        name=graph.names[index],
        glass=graph.glasses[index],
        split=graph.splits[index],
    )


def labelled_structure(graph: Graph) -> Structure:
    """The atoms of a graph of one structure, with its labels as the columns barrier and its error.

    The cell's corner is where the graph put it; other columns are not in a graph.
    """
    structure = structure_of(graph)
    if not bool(graph.labelled.any()):
        return structure
    columns = {BARRIER: Column(graph.target, "eV")}
    if bool(graph.target_stderr.isfinite().any()):
        columns[BARRIER_STDERR] = Column(graph.target_stderr, "eV")
    return structure.replace(columns=columns)


def _in_order(
    work: Callable[[Structure], GraphSummary], structures: Sequence[Structure], jobs: int
) -> Iterator[GraphSummary]:
    """Results in order; one job works in this thread, which an interruption stops at once."""
    if jobs == 1:
        yield from map(work, structures)
        return
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(work, structures)  # closing it cancels what has not begun


def graph_files(folder: str | Path) -> list[Path]:
    """Find the graph files of a folder, train2 before train10, none that is being written."""
    files = [file for file in Path(folder).glob("*.npz") if not file.name.startswith(".")]
    return sorted(files, key=_numbers_in_order)


def read_graphs(paths: Sequence[str | Path]) -> list[Graph]:
    """Graphs from graph files, and from every graph file of folders, numbers in names in order.

    Raises:
        InputError: a file or folder is missing, damaged, or holds no graphs.
    """
    graphs = []
    for path in map(Path, paths):
        files = graph_files(path) if path.is_dir() else [path]
        if not files or not path.exists():
            raise InputError("no graphs here: make some with mgsym build-graph", path=path)
        graphs += [Graph.load(file) for file in files]
    return graphs


def read_systems(
    paths: Sequence[str | Path],
    types: Mapping[int, str] | None = None,
    frames: str | None = None,
    labels: str | Path | None = None,
) -> list[Structure | Graph]:
    """Whatever `paths` hold: graphs where they are graph files or folders, else structures.

    Raises:
        InputError: a file is missing, damaged or inconsistent.
    """
    systems: list[Structure | Graph] = []
    for path in map(Path, paths):
        if path.is_dir() or is_graph_file(path):
            warn_unused_types(types, path)
            systems += read_graphs([path])
        else:
            structures = read_structures([path], types, frames)
            systems += join_labels(structures, labels) if labels else structures
    return systems


def sample_graphs(cutoff: float = 5.0) -> list[Graph]:
    """Graphs of the sample that ships with mgsym, with this cutoff in Å."""
    return [build_graph(structure, cutoff) for structure in sample_structures()]


def is_graph_file(path: str | Path) -> bool:
    """Whether a file holds a graph, not a structure."""
    return Path(path).suffix == ".npz" and kind_of(Path(path)) == FORMAT


def _numbers_in_order(path: Path) -> list[tuple[int, str]]:
    """train2 before train10: digits compare as numbers."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def summarise(graph: Graph, path: str | Path) -> GraphSummary:
    """What the graph of one structure holds."""
    labels = graph.target[graph.labelled].double()
    counts = torch.bincount(graph.types, minlength=len(graph.species)).tolist()
    return GraphSummary(
        path=Path(path),
        name=graph.names[0],
        atoms=graph.num_nodes,
        composition=dict(zip(graph.species, counts, strict=True)),
        edges=graph.num_edges,
        coordination=graph.num_edges / graph.num_nodes,
        cutoff=graph.cutoff,
        labelled=len(labels),
        label_mean=float(labels.mean()) if len(labels) else None,
        label_sd=float(labels.std(correction=0)) if len(labels) else None,
        split=graph.splits[0],
        glass=graph.glasses[0],
        features={name: graph.feature_units.get(name, "") for name in graph.node_features},
    )


def _check_names(structures: Sequence[Structure]) -> None:
    seen = set()
    for structure in structures:
        name = structure.name
        file_in("", name)
        if name in seen:
            raise UsageError(
                f"two structures are called {name}: rename a file, or build them into separate "
                "folders with -o"
            )
        seen.add(name)
    if not seen:
        raise UsageError("there are no structures to build graphs of")


def _check_folder(folder: Path, structures: Sequence[Structure], overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, expected a folder: choose another with -o")
    there = [p for s in structures if (p := folder / f"{s.name}.npz").exists()]
    if there and not overwrite:
        more = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise UsageError(
            f"{there[0]} exists already{more}: add --overwrite to build again, or choose another "
            "folder with -o"
        )


def _check_target(structures: Sequence[Structure], target: str | None) -> None:
    holders = [s for s in structures if (target or BARRIER) in s.columns]
    if target is not None and not holders:
        columns = sorted({name for s in structures for name in s.columns})
        raise InputError(
            f"no structure has a column {target!r}, found {', '.join(columns) or 'none at all'}: "
            "choose one with --target, or add a table with --labels"
        )
    for structure in holders:
        values = structure.columns[target or BARRIER].values
        if values.numel() != len(structure):
            raise InputError(
                f"{structure.name}: column {target or BARRIER!r} is {list(values.shape)}, "
                "expected one value per atom"
            )
