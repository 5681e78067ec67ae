"""Explanations in files for OVITO."""

from __future__ import annotations

from pathlib import Path

import pytest

from mgsym.data_tools.formats import read
from mgsym.data_tools.sample import sample_structures
from mgsym.data_tools.workflows.explanation_files import export_explanation
from mgsym.errors import UsageError
from mgsym.explanation import Explanation, explain
from mgsym.explanation.planted import PlantedModel
from mgsym.graph import Graph, build_graph


@pytest.fixture(scope="module")
def explained() -> tuple[Graph, Explanation]:
    graph = build_graph(sample_structures()[0])
    model = PlantedModel(graph.species, graph.cutoff)
    return graph, explain(graph, model, 42, "integrated-gradients", topk=12)


def test_atoms_carry_the_importance_of_their_edges(
    explained: tuple[Graph, Explanation], tmp_path: Path
) -> None:
    graph, found = explained
    export_explanation(graph, found, tmp_path / "a.extxyz")
    structure = read(tmp_path / "a.extxyz")
    importance = structure.columns["importance"].values
    assert float(importance.sum()) == pytest.approx(float(found.importance.sum()), rel=1e-5)
    assert structure.columns["explained"].values.nonzero().squeeze(1).tolist() == [42]
    assert structure.ids.tolist() == graph.ids.tolist()


def test_dump_local_has_a_line_per_edge(
    explained: tuple[Graph, Explanation], tmp_path: Path
) -> None:
    graph, found = explained
    path = tmp_path / "a.local"
    export_explanation(graph, found, path)
    lines = path.read_text().splitlines()
    assert lines[:4] == ["ITEM: TIMESTEP", "0", "ITEM: NUMBER OF ENTRIES", "12"]
    names = lines[4].split()[2:]
    rows = [dict(zip(names, line.split(), strict=True)) for line in lines[5:]]
    for row, expected in zip(rows, found.table(), strict=True):
        assert int(row["batom1"]) == expected["source_id"]
        assert int(row["batom2"]) == expected["target_id"]
        assert float(row["dist"]) == pytest.approx(expected["distance_angstrom"], rel=1e-5)
        assert float(row["importance"]) == pytest.approx(expected["importance"], rel=1e-5)
    with pytest.raises(UsageError, match="exists already"):
        export_explanation(graph, found, path)


def test_other_suffixes_are_refused(explained: tuple[Graph, Explanation], tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        export_explanation(*explained, tmp_path / "a.doc")
