"""Explain the prediction of one atom of a structure or graph file, and keep the explanation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mgsym.data_tools.workflows.explanation_files import check_export, export_explanation
from mgsym.data_tools.workflows.explanation_target import Method, explained_system
from mgsym.data_tools.workflows.model_inputs import Potential
from mgsym.errors import UsageError
from mgsym.explanation import (
    Explanation,
    Fidelity,
    explain,
    fidelity,
)
from mgsym.explanation.computation_graph import check_node
from mgsym.explanation.fidelity import SIZES
from mgsym.explanation.neighbors import NearAtom, nearest_atoms
from mgsym.graph import Graph
from mgsym.rendering.explanation_figures import check_page, explanation_page, local_figure
from mgsym.rendering.figures import check_figure, explanation_figure
from mgsym.uncertainty.out_of_distribution import ood_report
from mgsym.utils.files import refuse_existing
from mgsym.utils.names import file_in


@dataclass(frozen=True)
class Explained:
    """What `explain_atom` found and wrote.

    Attributes:
        explanation: the edges asked for, most important first.
        fidelity: what they are worth.
        near: the nearest atoms, and which of their edges were selected.
        paths: the files written.
        notes: what was chosen for the caller.
        warnings: why it may not be trusted.
    """

    explanation: Explanation
    fidelity: Fidelity
    near: tuple[NearAtom, ...]
    paths: tuple[Path, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The explanation with what was measured, for JSON."""
        return {**self.explanation.to_dict(), **self.measured()}

    def measured(self) -> dict[str, Any]:
        """What the edges are worth, and the atoms next to the explained one."""
        near = [{**asdict(atom), "place": list(atom.place)} for atom in self.near]
        return {"fidelity": self.fidelity.to_dict(), "nearest_atoms": near}


@dataclass(frozen=True)
class Output:
    """Where an explanation goes.

    Attributes:
        folder: for ``<structure>-node<row>.json`` and ``.csv``; by default ``explanations`` in the
            run directory, or here for the shipped model.
        figure: a picture of the edges to write, too; .html makes a page to turn.
        local: a picture of the nearest atoms.
        exports: .local (edges, LAMMPS dump local) or files of structures (importance per atom).
        overwrite: replace existing files.
    """

    folder: str | Path | None = None
    figure: str | Path | None = None
    local: str | Path | None = None
    exports: Sequence[str | Path] = ()
    overwrite: bool = False


def explain_atom(
    run: str | Path,
    path: str | Path | None = None,
    *,
    node: int | None = None,
    atom_id: int | None = None,
    method: Method | None = None,
    out: Output | None = None,
    types: Mapping[int, str] | None = None,
    graphs: str | Path | None = None,
    potential: Potential = None,
) -> Explained:
    """Explain one atom, measure what the explanation is worth, and write both.

    Args:
        run: a run directory, a checkpoint or an ensemble; of several models the first is explained.
        path: a structure or graph file; None takes the run's (first) test structure.
        node, atom_id: the atom, by its zero-based row or by its id in the file; one of them.
        method: how it is explained.
        out: where the explanation goes.
        types: element of each type number, for files that have numbers only.
        graphs: where the run's graphs are; None takes the folder it was trained on, or ``graphs``.
        potential: what computes physical inputs, where the model takes some.

    Raises:
        UsageError: no atom or two are named, there is none such, or output exists.
        InputError: a file or the run is missing or damaged, or has an unknown element.
    """
    if (node is None) == (atom_id is None):
        raise UsageError("name one atom: by its row (--node) or by its id in the file (--id)")
    method, out = method or Method(), out or Output()
    system = explained_system(
        run, path, types=types, graphs=graphs, potential=potential, around=(node, atom_id)
    )
    graph, model = system.graph, system.model
    row = system.row_of(node, atom_id)
    check_node(graph, row)
    folder = system.home / "explanations" if out.folder is None else Path(out.folder)
    stem = file_in(folder, graph.names[0] or "structure", f"-node{system.in_file(row)}")
    paths = _outputs(stem, out)
    full = explain(
        graph, model, row, method.name, device=method.device, seed=method.seed,
        progress=method.progress, **method.all_settings(),
    )  # fmt: skip
    sizes = (*SIZES, method.topk)
    worth = fidelity(graph, model, full, sizes=sizes, device=method.device, seed=method.seed)
    top = full.topk(method.topk)
    near = [replace(a, node=system.in_file(a.node)) for a in nearest_atoms(graph, top)]
    # the edge of a cut does not look like a glass
    unusual = ood_report(graph, system.training_set).warnings if system.rows is None else ()
    told = top if system.rows is None else top.renumbered(system.rows)
    warnings = (*system.warnings, *unusual)
    found = Explained(told, worth, tuple(near), tuple(paths), tuple(system.notes), warnings)
    told.save(paths[0], out.overwrite, **found.measured())
    told.save(paths[1], out.overwrite)
    _draw(graph, top, out)
    for export in out.exports:
        export_explanation(graph, top, export, out.overwrite)
    return found


def _outputs(stem: Path, out: Output) -> list[Path]:
    """The files to write, none of which exists, or may be replaced."""
    files = [stem.with_name(stem.name + end) for end in (".json", ".csv")]
    paths = [refuse_existing(file, out.overwrite) for file in files]
    if out.figure is not None:
        check = check_page if Path(out.figure).suffix == ".html" else check_figure
        paths.append(check(out.figure, out.overwrite))
    if out.local is not None:
        paths.append(check_figure(out.local, out.overwrite))
    return [*paths, *(check_export(export, out.overwrite) for export in out.exports)]


def _draw(graph: Graph, top: Explanation, out: Output) -> None:
    if out.figure is not None:
        draw = explanation_page if Path(out.figure).suffix == ".html" else explanation_figure
        draw(graph, top, out.figure)
    if out.local is not None:
        local_figure(graph, top, out.local)
