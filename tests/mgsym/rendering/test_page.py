"""Pieces of a report: text, tables, pictures."""

from __future__ import annotations

import base64
import subprocess
import sys

import pytest
import torch

from mgsym.data_tools.sample import sample_structures
from mgsym.graph import Graph, build_graph
from mgsym.rendering.figures import svg_source
from mgsym.rendering.page import Section, facts, folded, page, paragraph, picture, table, view
from mgsym.rendering.run_figures import atoms_figure, middle_atoms, slice_figure

BAD = '<script src="http://example.org/x.js"></script>'


@pytest.fixture(scope="module")
def graph() -> Graph:
    return build_graph(sample_structures()[0])


def test_text_is_escaped_everywhere() -> None:
    parts = (
        paragraph(BAD), facts({BAD: BAD}), table([BAD], [[BAD]], BAD),
        folded(BAD, paragraph(BAD)),
    )  # fmt: skip
    text = page(BAD, BAD, [Section("one", BAD, parts)], BAD)
    assert "<script" not in text
    # 8 in the parts; title twice, lead, foot, contents and heading
    assert text.count("&lt;script") == 8 + 6


def test_only_a_page_with_views_holds_the_script() -> None:
    pytest.importorskip("plotly")
    from plotly.graph_objects import Figure

    words = Section("words", "Words", (paragraph("none"),))
    assert "Plotly" not in page("t", "l", [words], "f")
    parts = (view(Figure(), "c", "a"), folded("x", view(Figure(), "c", "b")))
    text = page("t", "l", [words, Section("views", "Views", parts)], "f")
    assert text.count("plotly.js v") == 1
    assert text.count("Plotly.newPlot(") == 2


def test_columns_of_numbers_are_aligned_to_the_right() -> None:
    text = table(("name", "value", "both"), [["a", 1.23456, "1"], ["b", None, "x"]]).text
    assert '<th>name</th><th class="n">value</th><th>both</th>' in text
    assert '<td class="n">1.235</td>' in text
    assert '<td class="n">–</td>' in text


def test_a_slab_of_a_large_structure(graph: Graph) -> None:
    assert middle_atoms(graph, 500).tolist() == list(range(500))
    rows = middle_atoms(graph, 120)
    assert len(rows) == 120
    assert rows.tolist() == sorted(rows.tolist())
    height = graph.positions[:, 2] % graph.cell[0, 2, 2]
    middle = (height.min() + height.max()) / 2
    others = torch.ones(500, dtype=torch.bool).index_fill(0, rows, False)
    assert (height[rows] - middle).abs().max() <= (height[others] - middle).abs().min()


def test_atoms_carry_their_barriers(graph: Graph) -> None:
    pytest.importorskip("plotly")
    predicted = torch.arange(500) / 1000
    rows = torch.arange(0, 500, 5)
    traces = atoms_figure(graph, predicted, rows).data
    assert [trace.name for trace in traces] == list(graph.species)
    told = {
        int(atom): float(value)
        for trace in traces
        for (atom, _), value in zip(trace.customdata, trace.marker.color, strict=True)
    }
    expected = dict(zip(graph.ids[rows].tolist(), predicted[rows].tolist(), strict=True))
    assert told == pytest.approx(expected, abs=1e-4)


def test_a_slice_shows_the_difference_only_of_labelled_atoms(graph: Graph) -> None:
    pytest.importorskip("matplotlib")
    drawn = slice_figure(graph, graph.target + 0.1)
    titles = [title for axes in drawn.axes if (title := axes.get_title())]  # colour bars have none
    assert titles == ["predicted (eV)", "labelled (eV)", "predicted − labelled (eV)"]
    unknown = graph.replace(target=torch.full_like(graph.target, torch.nan))
    drawn = slice_figure(unknown, graph.target)
    titles = [title for axes in drawn.axes if (title := axes.get_title())]
    assert titles == ["predicted (eV)"]


def test_a_picture_is_part_of_the_page() -> None:
    pytest.importorskip("matplotlib")
    from mgsym.rendering.figures import new_figure

    figure = new_figure((1.0, 1.0))
    kind, _, content = svg_source(figure).partition(",")
    assert kind == "data:image/svg+xml;base64"
    assert b"<svg" in base64.b64decode(content)
    assert 'alt="&quot;&lt;"' in picture(figure, "caption", '"<').text


def test_optional_libraries_are_loaded_only_to_draw() -> None:
    program = "import sys, mgsym.rendering.figures, mgsym.rendering.page;"
    program += "print({'matplotlib', 'plotly'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
