"""Pages and pictures of explanations."""

from __future__ import annotations

import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path

import pytest
import torch

from mgsym.data_tools.sample import sample_structures
from mgsym.errors import UsageError
from mgsym.explanation import Explanation, explain
from mgsym.explanation.computation_graph import frozen_eval
from mgsym.explanation.faithfulness import evaluate_explanations
from mgsym.explanation.neighbors import nearest_atoms
from mgsym.explanation.planted import PlantedModel
from mgsym.explanation.statistics import edge_statistics
from mgsym.explanation.whole import WholePrediction, attribute, reference_of
from mgsym.graph import Graph, build_graph
from mgsym.rendering.explanation_figures import (
    check_page,
    curves_figure,
    explanation_page,
    local_figure,
    ranking_figure,
    statistics_figure,
)
from mgsym.rendering.figures import COLOURS, element_colour, one_line_each, unwrapped_edges

pytest.importorskip("plotly")
pytest.importorskip("matplotlib")
NODE = 9  # near a face of the box: its neighbours are copper, zirconium and images of both
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def graph() -> Graph:
    return build_graph(sample_structures()[0])


@pytest.fixture(scope="module")
def model(graph: Graph) -> PlantedModel:
    model = PlantedModel(graph.species, graph.cutoff)
    model.fit_statistics([graph])
    return model


@pytest.fixture(scope="module")
def found(graph: Graph, model: PlantedModel) -> Explanation:
    return explain(graph, model, NODE, "integrated-gradients", topk=30)


def test_the_page_needs_no_network(graph: Graph, found: Explanation, tmp_path: Path) -> None:
    page = tmp_path / "edges.html"
    explanation_page(graph, found, page)
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"<(script|link)[^>]*(src|href)=", text)
    assert "periodic image" in text
    assert "bond 1: " in text
    assert f"{found.element} atom, id {found.node_id}; predicted" in text


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium to open a page in")
def test_a_browser_draws_the_page(graph: Graph, found: Explanation, tmp_path: Path) -> None:
    page = tmp_path / "edges.html"
    explanation_page(graph, found, page)
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--use-gl=swiftshader",
            "--enable-unsafe-swiftshader", f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=20000", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    drawn = done.stdout
    assert 'class="gl-container"' in drawn  # the scene was made
    legend = re.findall(r'class="legendtext"[^>]*>([^<]*)<', drawn)
    assert {"Cu", "Zr", "explained atom"} <= set(legend)
    assert any(name.startswith("bonds 1 to") for name in legend)


def test_nearest_atoms_are_those_of_the_graph(graph: Graph, model: PlantedModel) -> None:
    found = explain(graph, model, NODE, "integrated-gradients", topk=30, directed=True)
    near = nearest_atoms(graph, found)
    arriving = graph.edge_length[graph.destination == NODE].sort().values[:10]
    assert [a.distance for a in near] == pytest.approx(arriving.tolist())
    for atom in near:
        assert torch.tensor(atom.place).norm() == pytest.approx(atom.distance, rel=1e-5)
    selected = dict(zip(found.edges.tolist(), found.importance.tolist(), strict=True))
    into = {int(graph.source[e]): i for e, i in selected.items() if graph.destination[e] == NODE}
    out = {int(graph.destination[e]): i for e, i in selected.items() if graph.source[e] == NODE}
    everyone = nearest_atoms(graph, found, 10**6)
    assert {a.node: a.to_atom for a in everyone if a.to_atom is not None} == into
    assert {a.node: a.from_atom for a in everyone if a.from_atom is not None} == out
    bonds = explain(graph, model, NODE, "integrated-gradients", topk=30)
    assert all(a.to_atom == a.from_atom for a in nearest_atoms(graph, bonds))


def test_pictures_are_written(
    graph: Graph, model: PlantedModel, found: Explanation, tmp_path: Path
) -> None:
    local_figure(graph, found, tmp_path / "near.png")
    curves_figure(
        evaluate_explanations(graph, model, [NODE, 7], "gradient", k=20, sizes=(5,), draws=1).nodes,
        tmp_path / "curves.pdf",
    )
    statistics_figure(
        edge_statistics(graph, model, 3, "gradient", k=20, draws=1), tmp_path / "stats.png"
    )
    assert (tmp_path / "near.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "stats.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "curves.pdf").read_bytes().startswith(b"%PDF")


def test_bars_are_what_neighbours_add(graph: Graph, model: PlantedModel, tmp_path: Path) -> None:
    with frozen_eval(model):
        whole = WholePrediction(model, graph)
        told = attribute(whole, NODE, reference_of(model, [graph], environments=2))
    (axes,) = ranking_figure(told, tmp_path / "bars.svg").axes
    widths = [bar.get_width() for bar in axes.patches]
    assert widths[:-1] == pytest.approx(told.value[: len(widths) - 1].tolist(), abs=1e-8)
    assert sum(widths) == pytest.approx(float(told.value.sum()), abs=1e-6)
    first = axes.get_yticklabels()[0].get_text()
    assert first.startswith(f"{told.species[int(told.types[0])]} {int(told.ids[0])}, ")
    assert "<svg" in (tmp_path / "bars.svg").read_text(encoding="utf-8")


def test_both_directions_of_a_bond_are_one_line(graph: Graph, model: PlantedModel) -> None:
    every = explain(graph, model, NODE, "random", directed=True)
    places = unwrapped_edges(graph, every)
    rows = one_line_each(every, places)
    pairs = {
        frozenset(tuple((end * 100).round().int().tolist()) for end in places[r]) for r in rows
    }
    assert len(pairs) == len(rows) < len(every)
    kept = every.importance[rows]
    assert (kept.diff() <= 0).all()  # of either direction the more important, by importance
    assert float(kept[0]) == float(every.importance.max())


def test_labels_of_the_nearest_atoms_do_not_cover_each_other(
    graph: Graph, found: Explanation, tmp_path: Path
) -> None:
    figure = local_figure(graph, found, tmp_path / "near.png")
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 10
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_pages_are_checked_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a page is \.html"):
        check_page(tmp_path / "a.png")
    (tmp_path / "a.html").touch()
    with pytest.raises(UsageError, match="exists already"):
        check_page(tmp_path / "a.html")


def test_the_page_has_the_colours_of_the_pictures(tmp_path: Path) -> None:
    graph = build_graph(next(s for s in sample_structures() if s.split == "test"))
    model = PlantedModel(graph.species, graph.cutoff)
    found = explain(graph, model, NODE, method="gradient", topk=20)
    explanation_page(graph, found, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    for symbol in ("Cu", "Zr"):
        assert re.search(rf'"color":"{element_colour(symbol)}"', text)
    for other in COLOURS[2:6]:
        assert f'"color":"{other}","opacity"' not in text
