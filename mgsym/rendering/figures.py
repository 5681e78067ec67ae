"""Pictures for papers and talks; they need the extra ``plot`` (matplotlib).

The suffix of the path decides the format: .png, .pdf, .svg.
"""

from __future__ import annotations

import base64
import colorsys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mgsym.errors import UsageError, missing_extra
from mgsym.evaluation.metrics import pearson
from mgsym.explanation import Explanation
from mgsym.graph import Graph
from mgsym.structure.cell import nearest_image
from mgsym.structure.elements import ATOMIC_NUMBER
from mgsym.utils.files import atomic_path, refuse_existing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".pdf", ".svg")
# Okabe & Ito's colours, told apart by every kind of eyesight
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
# of elements that glasses are often made of; black is for the atom that is explained
_ELEMENTS = dict(zip(("Cu", "Zr", "Al", "Ni", "Fe", "Ag", "Ti"), COLOURS, strict=False))


def element_colour(symbol: str) -> str:
    """The colour of an element, ``#rrggbb``: the same in every picture, whatever is beside it."""
    if symbol in _ELEMENTS:
        return _ELEMENTS[symbol]
    # neighbours in the periodic table are far apart on the wheel of hues, by the golden ratio
    hue = ATOMIC_NUMBER.get(symbol, 0) * 0.618034 % 1
    parts = colorsys.hls_to_rgb(hue, 0.45, 0.55)
    return "#" + "".join(f"{round(255 * part):02X}" for part in parts)


def check_figure(path: str | Path, overwrite: bool = False) -> Path:
    """Refuse a figure that could not be written, before any long work.

    Raises:
        UsageError: matplotlib is missing, the suffix names no format, or the file exists.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{path}: a figure is {', '.join(FORMATS)}, found {path.suffix!r}")
    new_figure((1.0, 1.0))
    return refuse_existing(path, overwrite)


def parity_figure(predictions: Sequence[Tensor], graphs: Sequence[Graph], path: str | Path) -> None:
    """Predicted against labelled barriers, one panel per structure, coloured by element.

    Args:
        predictions: [n] eV per structure.
        graphs: one structure each; atoms without a label are left out.
        path: where to write.
    """
    figure = new_figure((3.4 * len(graphs), 3.4))
    for i, (predicted, graph) in enumerate(zip(predictions, graphs, strict=True)):
        parity_panel(figure.add_subplot(1, len(graphs), i + 1), predicted, graph, graph.names[0])
    write_figure(figure, path)


def parity_panel(
    axes: Any, predicted: Tensor, graph: Graph, title: str, chosen: Tensor | None = None
) -> None:
    """Draw predicted against labelled barriers of one structure, coloured by element.

    Args:
        axes: where to draw.
        predicted: [n] eV.
        graph: the structure; atoms without a label are left out.
        title: the correlation is added to it.
        chosen: [n] bool, which atoms; None takes all.
    """
    known = graph.labelled if chosen is None else graph.labelled & chosen
    size = min(max(4000 / max(int(known.sum()), 1), 3.0), 10.0)
    for t, symbol in enumerate(graph.species):
        own = known & (graph.types == t)
        if bool(own.any()):
            axes.scatter(
                graph.target[own], predicted[own], s=size, alpha=0.4, label=symbol,
                color=element_colour(symbol), linewidths=0, rasterized=True,
            )  # fmt: skip
    ends = torch.cat([graph.target[known], predicted[known]])
    line = [float(ends.min()), float(ends.max())] if len(ends) else [0.0, 1.0]
    axes.plot(line, line, color="0.4", linewidth=0.8)
    axes.set_title(f"{title}, r = {pearson(predicted[known], graph.target[known]):.3f}")
    axes.set_xlabel("barrier (eV)")
    axes.set_ylabel("predicted barrier (eV)")
    axes.set_aspect("equal")
    if len(ends):
        axes.legend(markerscale=2, frameon=False, loc="upper left")


def explanation_figure(graph: Graph, explanation: Explanation, path: str | Path) -> None:
    """The atom, the edges its prediction rests on, and their atoms, in three dimensions.

    Edges are drawn from the atom outwards along their true vectors, so that one which crosses
    the boundary of the cell ends at the image where it really goes. Colour and width tell the
    importance.

    Args:
        graph: the graph that was explained.
        explanation: its edges are those drawn.
        path: where to write.
    """
    figure = new_figure((6.4, 5.6))
    axes: Any = figure.add_subplot(projection="3d")
    places = unwrapped_edges(graph, explanation)
    importance = explanation.importance / explanation.importance.abs().max().clamp(min=1e-12)
    colours = _colour_map()(0.25 + 0.75 * importance.numpy())
    drawn: dict[tuple[int, tuple[int, ...]], Tensor] = {}
    for row in reversed(explanation.ranking.tolist()):
        start, end = places[row]
        axes.plot(
            *torch.stack([start, end]).T.numpy(), color=colours[row],
            linewidth=0.6 + 2.2 * float(importance[row].abs()),
        )  # fmt: skip
        for side, place in enumerate((start, end)):
            key = tuple((place * 100).round().int().tolist())
            drawn[int(explanation.endpoint_types[side, row]), key] = place
    for t, symbol in enumerate(explanation.species):
        found = [place for (kind, _), place in drawn.items() if kind == t]
        if found:
            axes.scatter(
                *torch.stack(found).T.numpy(), s=60, color=element_colour(symbol),
                edgecolors="white", linewidths=0.5, label=symbol, depthshade=True,
            )  # fmt: skip
    axes.scatter([0], [0], [0], s=190, marker="*", color="black", label="explained atom")
    axes.set_xlabel("x (Å)")
    axes.set_ylabel("y (Å)")
    axes.set_zlabel("z (Å)")
    axes.set_aspect("equal")
    axes.legend(frameon=False, loc="upper left")
    axes.set_title(
        f"{explanation.structure}, {explanation.element} atom id {explanation.node_id}: "
        f"predicted {explanation.prediction:.2f} eV, {len(explanation)} edges"
    )
    write_figure(figure, path)


def unwrapped_edges(graph: Graph, explanation: Explanation) -> list[tuple[Tensor, Tensor]]:
    """Source and target of each edge relative to the atom, taking each target's image nearest."""
    structure = int(graph.structure_index[explanation.node])
    away = graph.positions[graph.destination[explanation.edges]] - graph.positions[explanation.node]
    targets = nearest_image(away, graph.cell[structure], graph.periodic[structure])
    sources = targets + graph.edge_vector[explanation.edges].double()
    return list(zip(sources, targets, strict=True))


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty figure of so many inches.

    Raises:
        UsageError: matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("matplotlib", "plot", "drawing a figure") from error
    # a Figure of its own, without pyplot: no global state, no window, no display needed
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _colour_map() -> Any:
    from matplotlib import colormaps

    return colormaps["viridis_r"]


def write_figure(figure: Figure, path: str | Path | None) -> Figure:
    """Write a figure whole or not at all, where a path is given, and return it."""
    if path is not None:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=160)
    return figure


SIZES = {"Cu": 7.0, "Zr": 10.0}  # points, after the elements' radii of 1.28 and 1.60 Å

OTHER_SIZE = 8.5


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


def svg_source(figure: Figure) -> str:
    """A figure as the source of an ``<img>``: nothing else to load, no ids that could clash."""
    buffer = BytesIO()
    figure.savefig(buffer, format="svg", dpi=130, metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
