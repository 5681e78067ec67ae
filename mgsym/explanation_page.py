"""An explanation as one HTML page to turn and to look into; it needs the extra ``plot`` (plotly).

The page holds its own script, so that it opens without a network.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mgsym.atomic import atomic_path, refuse_existing
from mgsym.errors import UsageError, missing_extra
from mgsym.explanation import Explanation
from mgsym.figures import element_colour, unwrapped_edges
from mgsym.graph import Graph

SIZES = {"Cu": 7.0, "Zr": 10.0}  # points, after the elements' radii of 1.28 and 1.60 Å
OTHER_SIZE = 8.5
CLASSES = 5  # edges are drawn in so many classes of importance


def check_page(path: str | Path, overwrite: bool = False) -> Path:
    """Refuse a page that could not be written, before any long work.

    Raises:
        UsageError: plotly is missing, the suffix is not .html, or the file exists.
    """
    path = Path(path)
    if path.suffix.lower() != ".html":
        raise UsageError(f"{path}: a page is .html, found {path.suffix!r}")
    plotly_objects()
    return refuse_existing(path, overwrite)


def explanation_page(graph: Graph, explanation: Explanation, path: str | Path) -> None:
    """Write the selected edges and their atoms as a page.

    Edges go from the atom outwards along their true vectors, so that one which crosses the
    boundary of the cell ends at the image where it really goes; such an image is drawn as a hollow
    mark, since the atom itself lies elsewhere in the cell. The pointer shows what an atom or an
    edge is; the legend hides and shows elements and classes of importance.

    Args:
        graph: the graph that was explained.
        explanation: its edges are those drawn.
        path: where to write.
    """
    figure = turning_figure(graph, explanation)
    with atomic_path(path) as temporary:
        text = figure.to_html(include_plotlyjs=True, full_html=True)
        temporary.write_text(text, encoding="utf-8")


def turning_figure(graph: Graph, explanation: Explanation) -> Any:
    """The plotly figure of `explanation_page`."""
    plotly = plotly_objects()
    places = unwrapped_edges(graph, explanation)
    figure = plotly.Figure(
        data=[*_edges(plotly, explanation, places), *_atoms(plotly, graph, explanation, places)]
    )
    label = "" if explanation.label is None else f", label {explanation.label:.3f} eV"
    figure.update_layout(
        title=(
            f"{escape(explanation.structure)}: {explanation.element} atom, "
            f"id {explanation.node_id}; predicted {explanation.prediction:.3f} eV{label}; "
            f"{len(explanation)} edges by {explanation.method}"
        ),
        scene={f"{axis}axis": {"title": f"{axis} (Å)"} for axis in "xyz"} | {"aspectmode": "data"},
        legend={"itemsizing": "constant"},
        margin={"l": 0, "r": 0, "b": 0, "t": 48},
        template="plotly_white",
    )
    return figure


def _edges(plotly: Any, explanation: Explanation, places: list[tuple[Tensor, Tensor]]) -> list[Any]:
    """Lines by class of importance, and points in their middles that tell of them."""
    ranking = explanation.ranking.tolist()
    rows = explanation.table()
    traces, middles, texts = [], [], []
    each = max(-(-len(ranking) // CLASSES), 1)
    for first in range(0, len(ranking), each):
        x: list[list[float | None]] = [[], [], []]
        for rank in range(first, min(first + each, len(ranking))):
            start, end = places[ranking[rank]]
            for axis in range(3):
                x[axis] += [float(start[axis]), float(end[axis]), None]
            middles.append((start + end) / 2)
            texts.append(_edge_text(rows[rank]))
        share = 1 - first / max(len(ranking), 1)
        traces.append(
            plotly.Scatter3d(
                x=x[0], y=x[1], z=x[2], mode="lines", hoverinfo="skip",
                line={"width": 2 + 6 * share, "color": _shade(share)},
                name=f"edges {first + 1} to {min(first + each, len(ranking))} by importance",
            )
        )  # fmt: skip
    points = torch.stack(middles).T.tolist() if middles else [[], [], []]
    traces.append(
        plotly.Scatter3d(
            x=points[0], y=points[1], z=points[2], mode="markers", text=texts, hoverinfo="text",
            marker={"size": 3, "color": "rgba(60,60,60,0.35)"}, name="point here to read an edge",
        )
    )  # fmt: skip
    return traces


def _edge_text(row: dict[str, Any]) -> str:
    return (
        f"edge {row['rank']}: {row['source_element']} {row['source_id']} → "
        f"{row['target_element']} {row['target_id']}<br>length {row['distance_angstrom']:.3f} Å, "
        f"hop {row['hop']}<br>importance {row['importance']:.4g}"
    )


def _atoms(
    plotly: Any, graph: Graph, explanation: Explanation, places: list[tuple[Tensor, Tensor]]
) -> list[Any]:
    """One trace per element, one for periodic images, and the explained atom."""
    drawn: dict[tuple[int, tuple[int, ...]], Tensor] = {}
    for row, ends in enumerate(places):
        for side, place in enumerate(ends):
            key = tuple((place * 100).round().int().tolist())
            drawn[int(explanation.endpoints[side, row]), key] = place
    traces = []
    for kind, symbol in enumerate(graph.species):
        for image in (False, True):
            found = [
                (node, place)
                for (node, _), place in drawn.items()
                if int(graph.types[node]) == kind
                and node != explanation.node
                and _is_image(graph, explanation, node, place) == image
            ]
            if found:
                traces.append(_element(plotly, graph, symbol, kind, image, found))
    traces.append(
        plotly.Scatter3d(
            x=[0], y=[0], z=[0], mode="markers", name="explained atom", hoverinfo="text",
            text=[f"{explanation.element} {explanation.node_id}, explained"],
            marker={"size": 13, "color": "black", "symbol": "diamond"},
        )
    )  # fmt: skip
    return traces


def _element(
    plotly: Any,
    graph: Graph,
    symbol: str,
    kind: int,
    image: bool,
    found: list[tuple[int, Tensor]],
) -> Any:
    points = torch.stack([place for _, place in found])
    texts = [
        f"{symbol} {int(graph.ids[node])}{' (periodic image)' if image else ''}<br>"
        f"{float(place.norm()):.2f} Å from the atom"
        for node, place in found
    ]
    x, y, z = points.T.tolist()
    return plotly.Scatter3d(
        x=x, y=y, z=z, mode="markers", text=texts, hoverinfo="text",
        name=f"{symbol}, periodic image" if image else symbol,
        marker={
            "size": SIZES.get(symbol, OTHER_SIZE), "color": element_colour(symbol),
            "symbol": "circle-open" if image else "circle", "opacity": 0.9,
        },
    )  # fmt: skip


def _is_image(graph: Graph, explanation: Explanation, node: int, place: Tensor) -> bool:
    """Whether an atom is drawn elsewhere than it lies in the file."""
    there = graph.positions[node] - graph.positions[explanation.node]
    return bool((there - place).norm() > 0.1)


def _shade(share: float) -> str:
    """From light (0) to dark red (1)."""
    light, dark = (250, 200, 170), (165, 15, 21)
    mixed = [round(a + (b - a) * share) for a, b in zip(light, dark, strict=True)]
    return f"rgb({mixed[0]},{mixed[1]},{mixed[2]})"


def plotly_objects() -> Any:
    """The module plotly.graph_objects.

    Raises:
        UsageError: plotly is missing.
    """
    try:
        from plotly import graph_objects
    except ImportError as error:
        raise missing_extra("plotly", "plot", "drawing a page") from error
    return graph_objects
