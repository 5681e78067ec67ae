"""Figures: what is drawn where, and what is refused before any work."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

from mgsym.errors import UsageError
from mgsym.explanation import explain
from mgsym.graph import Graph
from mgsym.models import create_model
from mgsym.rendering import explanation_figures, figures
from mgsym.rendering import explanation_figures as explanation_page
from mgsym.rendering.figures import (
    check_figure,
    element_colour,
    explanation_figure,
    parity_figure,
    unwrapped_edges,
)
from mgsym.structure.elements import SYMBOLS

pytest.importorskip("matplotlib")
PNG = b"\x89PNG"


def test_parity(five_graphs: list[Graph], tmp_path: Path) -> None:
    graphs = five_graphs[:2]
    parity_figure([g.target + 0.1 for g in graphs], graphs, tmp_path / "parity.png")
    assert (tmp_path / "parity.png").read_bytes().startswith(PNG)
    parity_figure([g.target for g in graphs], graphs, tmp_path / "parity.svg")
    assert "<svg" in (tmp_path / "parity.svg").read_text()


def test_explanation_edges_lie_where_they_go(
    five_graphs: list[Graph], tiny: str, tmp_path: Path
) -> None:
    graph = five_graphs[0]
    torch.manual_seed(0)
    model = create_model(tiny, graph.species, graph.cutoff)
    found = explain(graph, model, 0, method="gradient", topk=20)
    explanation_figure(graph, found, tmp_path / "edges.pdf")
    assert (tmp_path / "edges.pdf").read_bytes().startswith(b"%PDF")
    half = graph.cell[0].diagonal() / 2
    for edge, (start, end) in zip(found.edges.tolist(), unwrapped_edges(graph, found), strict=True):
        torch.testing.assert_close((start - end).float(), graph.edge_vector[edge])
        assert (end.abs() <= half + 1e-9).all()  # the target's image nearest to the atom


def test_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"a figure is \.png, \.pdf, \.svg, found '\.jpeg'"):
        check_figure(tmp_path / "a.jpeg")
    (tmp_path / "a.png").touch()
    with pytest.raises(UsageError, match="exists already"):
        check_figure(tmp_path / "a.png")
    assert check_figure(tmp_path / "a.png", overwrite=True) == tmp_path / "a.png"
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r'pip install "mgsym\[plot\]"'):
        check_figure(tmp_path / "b.png")


def test_an_element_has_one_colour_whatever_is_beside_it(
    five_graphs: list[Graph], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = [element_colour(symbol) for symbol in ("Cu", "Zr", "Al", "Ni", "Fe", "Ag", "Ti", "Pd")]
    assert len(set(common)) == len(common)
    assert all(re.fullmatch("#[0-9A-F]{6}", element_colour(symbol)) for symbol in SYMBOLS)
    asked: list[str] = []

    def noted(symbol: str) -> str:
        asked.append(symbol)
        return element_colour(symbol)

    for module in (figures, explanation_figures, explanation_page):
        monkeypatch.setattr(module, "element_colour", noted)
    graph = five_graphs[0]
    swapped = graph.replace(types=1 - graph.types, species=("Zr", "Cu"))
    for one in (graph, swapped):
        asked.clear()
        parity_figure([one.target], [one], tmp_path / f"{one.species[0]}.svg")
        assert sorted(asked) == ["Cu", "Zr"]
        text = (tmp_path / f"{one.species[0]}.svg").read_text().lower()
        assert all(element_colour(symbol).lower() in text for symbol in ("Cu", "Zr"))
