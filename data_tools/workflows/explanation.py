"""Explain the prediction of one atom of a structure or graph file, and keep the explanation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mgsym.data_tools.workflows.attribution import attribute_atom, find_references
from mgsym.data_tools.workflows.explanation_files import (
    check_export,
    export_explanation,
    write_rows,
)
from mgsym.data_tools.workflows.explanation_target import (
    ExplainedSystem,
    Method,
    explained_system,
)
from mgsym.data_tools.workflows.model_inputs import Potential
from mgsym.errors import UsageError
from mgsym.explanation import (
    Explanation,
    NodeFaithfulness,
    evaluate_explanation,
    explain,
)
from mgsym.explanation.computation_graph import check_node
from mgsym.explanation.faithfulness import SIZES, usual_perturbation
from mgsym.explanation.neighbors import NearAtom, nearest_atoms
from mgsym.explanation.perturbations import PERTURBATIONS
from mgsym.explanation.whole import NEIGHBOUR_COLUMNS, Attribution
from mgsym.graph import Graph
from mgsym.rendering.explanation_figures import (
    check_page,
    explanation_page,
    local_figure,
    ranking_figure,
)
from mgsym.rendering.figures import check_figure, explanation_figure
from mgsym.uncertainty.out_of_distribution import ood_report
from mgsym.utils.files import refuse_existing
from mgsym.utils.names import file_in
from mgsym.utils.progress import Progress

DRAWS = 3  # random sets of edges that the edges of one atom are compared with


@dataclass(frozen=True)
class Explained:
    """What `explain_atom` found and wrote.

    Attributes:
        explanation: the bonds asked for, most important first.
        faithfulness: what they are worth when edges are weakened, or, of a method that seeks
            edges to delete, deleted.
        otherwise: the same when other things are done to edges
            (mgsym.explanation.perturbations).
        near: the nearest atoms, and which of their edges were selected.
        attribution: what every neighbour adds to the whole prediction; None of a model that has
            no gradient.
        paths: the files written.
        notes: what was chosen for the caller.
        warnings: why it may not be trusted.
    """

    explanation: Explanation
    faithfulness: NodeFaithfulness
    otherwise: tuple[NodeFaithfulness, ...]
    near: tuple[NearAtom, ...]
    attribution: Attribution | None
    paths: tuple[Path, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The explanation with what was measured, for JSON."""
        return {**self.explanation.to_dict(), **self.measured()}

    def measured(self) -> dict[str, Any]:
        """What the edges are worth, and the atoms next to the explained one."""
        near = [{**asdict(atom), "place": list(atom.place)} for atom in self.near]
        told = None if self.attribution is None else self.attribution.to_dict()
        worth = self.faithfulness.to_dict()
        return {
            "faithfulness": worth,
            "otherwise": [one.to_dict() for one in self.otherwise],
            "fidelity": worth,  # the old name, for one more release
            "nearest_atoms": near,
            "attribution": told,
        }


@dataclass(frozen=True)
class Output:
    """Where an explanation goes.

    Attributes:
        folder: for ``<structure>-node<row>.json`` and ``.csv`` and, of what neighbours add,
            ``-neighbours.csv``; by default ``explanations`` in the run directory, or here for the
            shipped model.
        figure: a picture of the edges to write, too; .html makes a page to turn.
        local: a picture of the nearest atoms.
        ranking: a picture of what the neighbours add, as signed bars.
        exports: .local (edges, LAMMPS dump local) or files of structures (importance per atom).
        overwrite: replace existing files.
    """

    folder: str | Path | None = None
    figure: str | Path | None = None
    local: str | Path | None = None
    ranking: str | Path | None = None
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
        progress=method.progress, directed=method.directed, **method.all_settings(),
    )  # fmt: skip
    sizes = (*SIZES, method.topk)
    usual = usual_perturbation(method.name)
    worth, *others = (
        evaluate_explanation(
            graph, model, full, sizes=sizes, draws=DRAWS, perturbation=name,
            device=method.device, seed=method.seed,
        )
        for name in (usual, *(name for name in PERTURBATIONS if name != usual))
    )  # fmt: skip
    top = full.topk(method.topk)
    near = [replace(a, node=system.in_file(a.node)) for a in nearest_atoms(graph, top)]
    attribution, notes, kept = _attribution(system, row, graphs, method.progress)
    # the edge of a cut does not look like a glass
    unusual = ood_report(graph, system.training_set).warnings if system.rows is None else ()
    told = top
    if system.rows is not None:
        told = top.renumbered(system.rows)
        attribution = None if attribution is None else attribution.renumbered(system.rows)
    found = Explained(
        told,
        worth,
        tuple(others),
        tuple(near),
        attribution,
        (*paths, *kept),
        (*system.notes, *notes),
        (*system.warnings, *unusual),
    )
    told.save(paths[0], out.overwrite, **found.measured())
    told.save(paths[1], out.overwrite)
    write_rows(paths[2], [] if attribution is None else attribution.table(), NEIGHBOUR_COLUMNS)
    _draw(graph, top, attribution, out)
    for export in out.exports:
        export_explanation(graph, top, export, out.overwrite)
    return found


def _attribution(
    system: ExplainedSystem, node: int, graphs: str | Path | None, progress: Progress | None
) -> tuple[Attribution | None, tuple[str, ...], list[Path]]:
    """What neighbours add to the whole prediction; notes, and the files written for it."""
    try:
        found = find_references(system, graphs, progress)
    except UsageError as error:  # trees have no gradient, and no pairs of atoms
        return None, (f"What neighbours add to the prediction is not known: {error}",), []
    written = [] if found.path is None else [found.path]
    notes = found.notes
    if len(system.members) > 1:
        many = len(system.members)
        of_models = (
            f"What neighbours add is the mean of the {many} models; bonds are of the first, as "
            "their proof is the prediction of one model"
        )
        notes = (of_models, *notes)
    return attribute_atom(system, node, found.references), notes, written


def _outputs(stem: Path, out: Output) -> list[Path]:
    """The files to write, none of which exists, or may be replaced."""
    ends = (".json", ".csv", "-neighbours.csv")
    files = [stem.with_name(stem.name + end) for end in ends]
    paths = [refuse_existing(file, out.overwrite) for file in files]
    if out.figure is not None:
        check = check_page if Path(out.figure).suffix == ".html" else check_figure
        paths.append(check(out.figure, out.overwrite))
    drawn = [path for path in (out.local, out.ranking) if path is not None]
    paths += [check_figure(path, out.overwrite) for path in drawn]
    return [*paths, *(check_export(export, out.overwrite) for export in out.exports)]


def _draw(graph: Graph, top: Explanation, told: Attribution | None, out: Output) -> None:
    if out.figure is not None:
        draw = explanation_page if Path(out.figure).suffix == ".html" else explanation_figure
        draw(graph, top, out.figure)
    if out.local is not None:
        local_figure(graph, top, out.local)
    if out.ranking is not None and told is not None:
        ranking_figure(told, out.ranking)
