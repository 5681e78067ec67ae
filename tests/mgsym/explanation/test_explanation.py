"""What an Explanation holds and how it is kept."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mgsym.errors import InputError, UsageError
from mgsym.explanation import Explanation, explain
from mgsym.graph import Graph
from mgsym.models.base import BarrierModel


@pytest.fixture
def found(lattice: Graph, planted: BarrierModel, node: int) -> Explanation:
    """An explanation with a spread."""
    return explain(lattice, planted, node, "edge-mask", steps=10, initialisations=2, seed=3)


def test_topk_is_most_important_first(found: Explanation) -> None:
    top = found.topk(10)
    assert torch.equal(top.importance, found.importance.sort(descending=True).values[:10])
    where = torch.searchsorted(found.edges, top.edges)
    for name in ("edges", "importance", "spread", "distance", "hop"):
        assert torch.equal(getattr(top, name), getattr(found, name)[where])
    assert torch.equal(top.endpoints, found.endpoints[:, where])
    assert torch.equal(top.topk(4).edges, top.edges[:4])
    assert len(found.topk(10**6)) == len(found)
    with pytest.raises(UsageError, match="expected at least 1"):
        found.topk(0)


def test_equals_are_ranked_by_edge(lattice: Graph, planted: BarrierModel, node: int) -> None:
    """Edges that the model does not look at all have gradient zero."""
    ranked = explain(lattice, planted, node, "gradient").topk(10**6)
    unused = ranked.edges[ranked.importance == 0]
    assert len(unused) > 100
    assert torch.equal(unused, unused.sort().values)


def test_edges_are_told_in_the_terms_of_the_graph(
    found: Explanation, lattice: Graph, node: int
) -> None:
    assert (found.structure, found.node, found.node_id) == ("lattice", node, node + 100)
    assert found.element == "Zr"
    assert found.label == pytest.approx(float(lattice.target[node]))
    for rank, row in enumerate(found.topk(20).table(), start=1):
        source, target = lattice.edge_index[:, row["edge"]].tolist()
        assert row["rank"] == rank
        assert (row["source"], row["target"]) == (source, target)
        assert (row["source_id"], row["target_id"]) == (source + 100, target + 100)
        assert row["source_element"] == ("Cu", "Zr")[source % 2]
        assert row["target_element"] == ("Cu", "Zr")[target % 2]
        length = float(lattice.edge_length[row["edge"]])
        assert row["distance_angstrom"] == pytest.approx(length)
        assert row["hop"] == 1 + int(lattice.hops_to(node, 3)[target])


def test_an_atom_without_a_label_has_none(lattice: Graph, planted: BarrierModel) -> None:
    assert explain(lattice, planted, 1, "random").label is None


def test_json_holds_everything(found: Explanation, tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    found.topk(30).save(path, fidelity={"draws": 5})
    data = json.loads(path.read_text())
    assert (data["format"], data["format_version"]) == ("mgsym-explanation", 1)
    assert data["prediction_eV"] == pytest.approx(found.prediction)
    assert data["settings"]["steps"] == 10
    assert data["settings"]["seed"] == 3
    assert data["fidelity"] == {"draws": 5}
    assert [row["rank"] for row in data["edges"]] == list(range(1, 31))
    loaded = Explanation.load(path)
    assert loaded.to_dict() == found.topk(30).to_dict()
    assert torch.equal(loaded.importance, found.topk(30).importance)
    assert loaded.spread is not None


def test_csv_has_a_line_per_edge(found: Explanation, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    found.topk(5).save(path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = found.topk(5).table()
    found = [{k: "" if v is None else str(v) for k, v in row.items()} for row in expected]
    assert found == rows


def test_files_are_guarded(found: Explanation, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    found.save(path)
    with pytest.raises(UsageError, match="exists already"):
        found.save(path, overwrite=False)
    with pytest.raises(UsageError, match=r"cannot write an explanation as a\.txt"):
        found.save(tmp_path / "a.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("{", "expected an explanation in JSON"),
        ("[" * 200_000, "expected an explanation in JSON, found: maximum recursion depth"),
        ('{"a": 1' + 5000 * "0" + "}", "expected an explanation in JSON"),
        ("[]", "expected mgsym-explanation version 1"),
        ('{"format": "mgsym-explanation", "format_version": 2}', "version 1"),
        ('{"format": "mgsym-explanation", "format_version": 1}', "a damaged explanation"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "a.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        Explanation.load(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["edges"][0].update(edge=10**30),
        lambda data: data["edges"][0].update(hop=1e400),
        lambda data: data["edges"][0].update(importance="much"),
        lambda data: data["edges"][0].update(importance=10**400),
        lambda data: data["edges"][0].update(source_element="Xx"),
        lambda data: data["edges"][0].update(spread={}),
        lambda data: data.update(edges=[1, 2]),
        lambda data: data.update(edges=7),
        lambda data: data.update(species=7),
    ],
)
def test_damaged_values_are_refused(
    change: Callable[[dict[str, Any]], None], found: Explanation, tmp_path: Path
) -> None:
    path = tmp_path / "a.json"
    found.topk(3).save(path)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"a\.json: a damaged explanation: ") as caught:
        Explanation.load(path)
    assert len(str(caught.value)) < 400 + len(str(path))
    assert "\n" not in str(caught.value)
