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
from mgsym.explanation.computation_graph import vectors_from
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
    figure = new_figure((7.0, 5.6))
    axes: Any = figure.add_subplot(projection="3d")
    axes.computed_zorder = False  # surroundings, edges, atoms, the explained atom: in this order
    places = unwrapped_edges(graph, explanation)
    drawn: dict[tuple[int, tuple[int, ...]], Tensor] = {}
    for row in explanation.ranking.tolist():
        for side, place in enumerate(places[row]):
            drawn[int(explanation.endpoint_types[side, row]), _key(place)] = place
    far = max((float(place.norm()) for place in drawn.values()), default=0.0)
    _surroundings(axes, graph, explanation.node, far)
    _bonds(figure, axes, explanation, places)
    for t, symbol in enumerate(explanation.species):
        found = [place for (kind, _), place in drawn.items() if kind == t]
        if found:
            axes.scatter(
                *torch.stack(found).T.numpy(), s=60, color=element_colour(symbol), zorder=3,
                edgecolors="white", linewidths=0.5, label=symbol, depthshade=False,
            )  # fmt: skip
    axes.scatter(
        [0], [0], [0], s=230, marker="*", color="black", edgecolors="white", zorder=4,
        label="explained atom",
    )  # fmt: skip
    axes.set_xlabel("x (Å)")
    axes.set_ylabel("y (Å)")
    axes.set_zlabel("z (Å)")
    axes.set_aspect("equal")
    axes.legend(frameon=False, loc="upper left")
    axes.set_title(
        f"{explanation.structure}, {explanation.element} atom id {explanation.node_id}: "
        f"predicted {explanation.prediction:.2f} eV, {bonds_drawn(explanation, places)}"
    )
    write_figure(figure, path)


def _key(place: Tensor) -> tuple[int, ...]:
    """A place to 0.01 Å."""
    return tuple((place * 100).round().int().tolist())


def bonds_drawn(explanation: Explanation, places: list[tuple[Tensor, Tensor]]) -> str:
    """How many bonds are drawn, and for how many edges where those are directed."""
    lines = f"{len(one_line_each(explanation, places))} bonds"
    return lines if explanation.reverse is not None else f"{len(explanation)} edges on {lines}"


def bond_of(ends: tuple[Tensor, Tensor]) -> frozenset[tuple[int, ...]]:
    """The two places that an edge joins, whatever its direction."""
    return frozenset(_key(place) for place in ends)


def one_line_each(explanation: Explanation, places: list[tuple[Tensor, Tensor]]) -> list[int]:
    """Edges by falling importance, of both directions of a bond the more important alone."""
    seen: set[frozenset[tuple[int, ...]]] = set()
    rows = []
    for row in explanation.ranking.tolist():
        bond = bond_of(places[row])
        if bond not in seen:
            rows.append(row)
        seen.add(bond)
    return rows


def _bonds(
    figure: Figure, axes: Any, explanation: Explanation, places: list[tuple[Tensor, Tensor]]
) -> None:
    """Lines whose colour and width tell the importance, the most important on top, and a key."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    top = float(explanation.importance.abs().max()) if len(explanation) else 1.0
    scale: Any = ScalarMappable(Normalize(-top / 3, top), _colour_map())  # the least still shows
    for row in reversed(one_line_each(explanation, places)):
        value = float(explanation.importance[row])
        axes.plot(
            *torch.stack(places[row]).T.numpy(), color=scale.to_rgba(value), zorder=2,
            linewidth=0.6 + 2.2 * abs(value) / max(top, 1e-12), solid_capstyle="round",
        )  # fmt: skip
    bar = figure.colorbar(scale, ax=axes, shrink=0.6, pad=0.08)
    bar.ax.set_ylim(0, top)
    unit = "" if explanation.value is None else " (eV)"
    one = "an edge" if explanation.reverse is None else "a bond"
    bar.set_label(f"importance of {one}{unit}; the line's width grows with it")


def _surroundings(axes: Any, graph: Graph, node: int, far: float) -> None:
    """The other atoms no farther away than those that edges join, faintly."""
    vectors = vectors_from(graph, node)
    distance = vectors.norm(dim=1)
    near = (distance > 0) & (distance <= far)
    near &= graph.structure_index == graph.structure_index[node]
    for kind, symbol in enumerate(graph.species):
        own = vectors[near & (graph.types == kind)]
        axes.scatter(
            *own.T.numpy(), s=14, color=element_colour(symbol), alpha=0.13, linewidths=0,
            depthshade=False, zorder=1,
        )  # fmt: skip


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
