"""Pictures of explanations and of their statistics; they need the extra ``plot`` (matplotlib)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mgsym.errors import UsageError
from mgsym.explanation import Explanation
from mgsym.explanation.faithfulness import NodeFaithfulness
from mgsym.explanation.neighbors import NearAtom, nearest_atoms
from mgsym.explanation.neighbour_statistics import PEAKS, NeighbourStatistics
from mgsym.explanation.statistics import EdgeStatistics, Effect
from mgsym.explanation.whole import Attribution
from mgsym.graph import Graph
from mgsym.rendering.figures import (
    COLOURS,
    OTHER_SIZE,
    SIZES,
    bond_of,
    bonds_drawn,
    element_colour,
    new_figure,
    one_line_each,
    plotly_objects,
    unwrapped_edges,
    write_figure,
)
from mgsym.utils.files import atomic_path, refuse_existing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KIND_COLOURS = {
    "explanation": COLOURS[0],
    "selected": COLOURS[0],
    "matched": COLOURS[1],
    "random": "0.55",
    "shuffled": COLOURS[3],
}
STEP = 0.25  # Å, bins of distances


def local_figure(graph: Graph, explanation: Explanation, path: str | Path | None = None) -> Figure:
    """The ten nearest atoms around the explained one; selected bonds black, others grey.

    Atoms are drawn in three dimensions at their nearest image, with their element and id.

    Args:
        graph: the graph that was explained.
        explanation: its edges are those that count as selected.
        path: where to write: .png, .pdf or .svg; None only draws.
    """
    figure = new_figure((6.4, 5.6))
    axes: Any = figure.add_subplot(projection="3d")
    axes.computed_zorder = False
    near = nearest_atoms(graph, explanation)
    _edges_among(axes, graph, explanation, near)
    for atom in near:
        chosen = [value for value in (atom.to_atom, atom.from_atom) if value is not None]
        axes.plot(
            *zip((0.0, 0.0, 0.0), atom.place, strict=True),
            color="black" if chosen else "0.8",
            linewidth=2.5 if chosen else 0.8,
            linestyle="-" if chosen else ":",
            zorder=2,
        )
    for symbol in graph.species:
        places = [atom.place for atom in near if atom.element == symbol]
        if places:
            axes.scatter(
                *zip(*places, strict=True), s=90, color=element_colour(symbol),
                edgecolors="white", label=symbol, depthshade=False, zorder=3,
            )  # fmt: skip
    axes.scatter(
        [0], [0], [0], s=230, marker="*", color="black", edgecolors="white", zorder=4,
        label="explained atom",
    )  # fmt: skip
    axes.plot([], [], [], color="black", linewidth=2.5, label="bond with it selected")
    axes.plot([], [], [], color="black", linewidth=1.0, label="bond between others selected")
    axes.plot([], [], [], color="0.8", linestyle=":", label="bond with it not selected")
    for name in "xyz":
        getattr(axes, f"set_{name}label")(f"{name} (Å)")
    axes.set_aspect("equal")
    axes.legend(frameon=False, loc="upper left", fontsize=8)
    among = sum(atom.to_atom is not None or atom.from_atom is not None for atom in near)
    axes.set_title(
        f"{explanation.structure}, {explanation.element} atom id {explanation.node_id}: "
        f"{among} of its {len(near)} nearest atoms joined by a selected bond"
    )
    _label(figure, axes, [(atom.place, f"{atom.element} {atom.node_id}") for atom in near])
    return write_figure(figure, path)


def _edges_among(
    axes: Any, graph: Graph, explanation: Explanation, near: Sequence[NearAtom]
) -> None:
    """The selected edges that join two of the nearest atoms, each bond once."""
    drawn = {_rounded(atom.place) for atom in near}
    places = unwrapped_edges(graph, explanation)
    for row in one_line_each(explanation, places):
        start, end = places[row]
        if {_rounded(start.tolist()), _rounded(end.tolist())} <= drawn:
            axes.plot(*torch.stack([start, end]).T.numpy(), color="black", linewidth=1, zorder=2)


def _rounded(place: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(x, 2) + 0.0 for x in place)


LABEL = 8  # points, height of a letter
AROUND = 12  # directions in which a label may lie from its atom, the first free one being taken


def _label(figure: Figure, axes: Any, texts: Sequence[tuple[Sequence[float], str]]) -> None:
    """Write beside each place what is there, where no label covers another or an atom."""
    figure.draw_without_rendering()  # lays out the axes, and so tells where places fall
    points = figure.dpi / 72
    seen = [axes.get_proj() @ (*place, 1.0) for place, _ in texts]  # homogeneous coordinates
    projected = [(x / w, y / w) for x, y, _, w in seen]
    pixels = [tuple(axes.transData.transform(p)) for p in projected]
    (x0, y0, _, w0) = axes.get_proj() @ (0.0, 0.0, 0.0, 1.0)
    here = axes.transData.transform((x0 / w0, y0 / w0))
    bonds = [  # points on the lines from the explained atom to the others, itself first
        tuple(float(h + (p - h) * step / 5) for h, p in zip(here, end, strict=True))
        for end in pixels
        for step in range(5)
    ]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in (*pixels, *bonds)]
    for place, (x, y), (_, text) in zip(projected, pixels, texts, strict=True):
        half = 0.32 * LABEL * points * len(text), 0.7 * LABEL * points
        choices = [
            (radius * math.cos(angle) * half[0], radius * math.sin(angle) * half[1] * 1.6)
            for radius in (1.4, 2.0, 2.8)
            for angle in (2 * math.pi * i / AROUND for i in range(AROUND))
        ]
        boxes = [
            (x + dx - half[0], y + dy - half[1], x + dx + half[0], y + dy + half[1])
            for dx, dy in choices
        ]
        best = min(range(len(boxes)), key=lambda i: (sum(_overlap(boxes[i], t) for t in taken), i))
        taken.append(boxes[best])
        offset = tuple(d / points for d in choices[best])
        axes.annotate(
            text, place, offset, textcoords="offset points", fontsize=LABEL, ha="center",
            va="center", zorder=5,
            bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.6},
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.5, "shrinkB": 5},
        )  # fmt: skip


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Pixels² that two boxes (left, bottom, right, top) share."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)


BARS = 24  # neighbours in a ranking


def ranking_figure(told: Attribution, path: str | Path | None = None) -> Figure:
    """What the neighbours add to the whole prediction, as signed bars in their elements' colours.

    Args:
        told: of one atom; its strongest neighbours are drawn.
        path: where to write: .png, .pdf or .svg; None only draws.
    """
    rows = told.table(BARS)
    figure = new_figure((5.6, 1.2 + 0.21 * (len(rows) + 1)))
    axes = figure.add_subplot()
    others = float(told.value[len(rows) :].sum())
    values = [row["adds_eV"] for row in rows] + [others]
    colours = [element_colour(row["element"]) for row in rows] + ["0.7"]
    axes.barh(range(len(values)), values, color=colours, height=0.75)
    names = [f"{r['element']} {r['id']}, {r['distance_angstrom']:.2f} Å" for r in rows]
    axes.set_yticks(range(len(values)), [*names, f"{len(told) - len(rows)} others"], fontsize=8)
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set_xlabel("adds to the predicted barrier, beyond a typical neighbour (eV)")
    for symbol in dict.fromkeys(row["element"] for row in rows):
        axes.plot([], [], "s", color=element_colour(symbol), label=symbol)
    axes.legend(frameon=False, loc="best")
    axes.set_title(
        f"{told.structure}: {told.element} atom, id {told.node_id}\n"
        f"{told.reference:.3f} eV usually, {told.prediction:.3f} eV predicted",
        fontsize=10,
    )
    return write_figure(figure, path)


def curves_figure(nodes: Sequence[NodeFaithfulness], path: str | Path | None = None) -> Figure:
    """Insertion and deletion curves, medians over nodes, beside those of other edges.

    Args:
        nodes: what was measured of one node or more.
        path: where to write; None only draws.
    """
    figure = new_figure((7.2, 3.2))
    sizes = min((node.sizes for node in nodes), key=len)
    parts = (
        (f"these {nodes[0].counted} alone", [node.insertion for node in nodes]),
        (f"without these {nodes[0].counted}", [node.deletion for node in nodes]),
    )
    for place, (title, curves) in enumerate(parts, start=1):
        axes = figure.add_subplot(1, 2, place)
        for kind in curves[0]:
            steps = zip(*(curve[kind][: len(sizes)] for curve in curves), strict=True)
            middle = [median(values) for values in steps]
            axes.plot(sizes, middle, "o-", color=KIND_COLOURS[kind], label=kind, ms=3)
        axes.set_xscale("log")
        axes.set_xlabel(nodes[0].counted)
        axes.set_ylabel("change of the prediction (label sd)")
        axes.set_title(title if len(nodes) == 1 else f"{title}, median of {len(nodes)}")
    axes.legend(frameon=False)
    return write_figure(figure, path)


def statistics_figure(found: EdgeStatistics, path: str | Path | None = None) -> Figure:
    """Distances and lengths of selected edges beside the nulls, and effect sizes by group.

    Args:
        found: of the nodes.
        path: where to write; None only draws.
    """
    figure = new_figure((11.0, 3.8))
    for place, (name, values) in enumerate(
        (("distance to the atom (Å)", found.distances), ("length (Å)", found.lengths)), start=1
    ):
        axes = figure.add_subplot(1, 3, place)
        top = max(float(v.max()) for v in values.values())
        edges = torch.arange(0, top + STEP, STEP).tolist()
        for kind, numbers in values.items():
            axes.hist(
                numbers.tolist(), bins=edges, density=True, histtype="step", label=kind,
                color=KIND_COLOURS[kind],
            )  # fmt: skip
        axes.set_xlabel(name)
        axes.set_ylabel("density (1/Å)")
    axes.legend(frameon=False)
    _forest(figure.add_subplot(1, 3, 3), [e for e in found.effects if e.null == "matched"])
    return write_figure(figure, path)


def neighbours_figure(found: NeighbourStatistics, path: str | Path | None = None) -> Figure:
    """What one neighbour adds or takes by distance, and what the strongest neighbours are.

    Args:
        found: of many atoms.
        path: where to write; None only draws.
    """
    figure = new_figure((11.0, 3.8))
    axes: Any = figure.add_subplot(1, 3, (1, 2))
    profile = found.profile
    colours = {"whole": COLOURS[0], "shuffled": COLOURS[3]}
    for kind, (middle, low, high) in ((k, v.numpy()) for k, v in profile.size.items()):
        name = "the model" if kind == "whole" else "shuffled weights"
        axes.plot(profile.distance, middle, color=colours[kind], label=name, zorder=3)
        axes.fill_between(profile.distance, low, high, color=colours[kind], alpha=0.25, lw=0)
    for peak in PEAKS:
        axes.axvline(peak, color="0.6", linewidth=0.8, linestyle=":")
    axes.set_yscale("log")
    axes.set_xlim(2, float(profile.distance[-1]))
    axes.set_xlabel("distance to the atom (Å); dotted: the paper's peaks")
    axes.set_ylabel("a neighbour's share of all |value| (%)")
    counts = axes.twinx()
    counts.fill_between(profile.distance, profile.neighbours, color="0.6", alpha=0.25, step="mid")
    counts.set_ylabel("neighbours in 0.2 Å (grey)")
    axes.set_zorder(counts.get_zorder() + 1)
    axes.patch.set_visible(False)
    axes.legend(frameon=False)
    own = [e for e in found.effects if e.null == "matched"]
    _forest(figure.add_subplot(1, 3, 3), own)
    return write_figure(figure, path)


def _forest(axes: Any, effects: list[Effect]) -> None:
    """Cohen's d of each property, one marker per group."""
    names = list(dict.fromkeys(e.property for e in effects))
    groups = list(dict.fromkeys(e.group for e in effects))
    for row, group in enumerate(groups):
        own = [e for e in effects if e.group == group and e.effect is not None]
        for effect in own:
            scale = effect.effect / effect.difference if effect.difference else 0.0  # type: ignore[operator]
            y = names.index(effect.property) + 0.15 * (row - (len(groups) - 1) / 2)
            ends = [(e or 0.0) * scale for e in (effect.low, effect.high)]
            axes.plot(ends, [y, y], color=COLOURS[row % len(COLOURS)], linewidth=1)
            axes.plot(effect.effect, y, "o", color=COLOURS[row % len(COLOURS)], markersize=3)
        axes.plot([], [], "o", color=COLOURS[row % len(COLOURS)], label=group, markersize=3)
    axes.axvline(0, color="0.6", linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("effect against matched (Cohen's d)")
    axes.legend(frameon=False, fontsize=8)


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
            f"{bonds_drawn(explanation, places)} by {explanation.method}"
        ),
        scene={f"{axis}axis": {"title": f"{axis} (Å)"} for axis in "xyz"} | {"aspectmode": "data"},
        legend={"itemsizing": "constant"},
        margin={"l": 0, "r": 0, "b": 0, "t": 48},
        template="plotly_white",
    )
    return figure


def _edges(plotly: Any, explanation: Explanation, places: list[tuple[Tensor, Tensor]]) -> list[Any]:
    """Lines by class of importance, and points in their middles that tell of them.

    Both directions of a bond are one line, in the class of the more important.
    """
    ranking = one_line_each(explanation, places)
    rows = dict(zip(explanation.ranking.tolist(), explanation.table(), strict=True))
    bonds: dict[frozenset[tuple[int, ...]], list[str]] = {}
    for edge, row in rows.items():
        bonds.setdefault(bond_of(places[edge]), []).append(_edge_text(row))
    traces, middles, texts = [], [], []
    each = max(-(-len(ranking) // CLASSES), 1)
    for first in range(0, len(ranking), each):
        x: list[list[float | None]] = [[], [], []]
        for rank in range(first, min(first + each, len(ranking))):
            start, end = places[ranking[rank]]
            for axis in range(3):
                x[axis] += [float(start[axis]), float(end[axis]), None]
            middles.append((start + end) / 2)
            texts.append("<br>".join(bonds[bond_of(places[ranking[rank]])]))
        share = 1 - first / max(len(ranking), 1)
        traces.append(
            plotly.Scatter3d(
                x=x[0], y=x[1], z=x[2], mode="lines", hoverinfo="skip",
                line={"width": 2 + 6 * share, "color": _shade(share)},
                name=f"bonds {first + 1} to {min(first + each, len(ranking))} by importance",
            )
        )  # fmt: skip
    points = torch.stack(middles).T.tolist() if middles else [[], [], []]
    traces.append(
        plotly.Scatter3d(
            x=points[0], y=points[1], z=points[2], mode="markers", text=texts, hoverinfo="text",
            marker={"size": 3, "color": "rgba(60,60,60,0.35)"}, name="point here to read a bond",
        )
    )  # fmt: skip
    return traces


def _edge_text(row: dict[str, Any]) -> str:
    name, joins = ("edge", "→") if row["reverse_edge"] is None else ("bond", "–")
    return (
        f"{name} {row['rank']}: {row['source_element']} {row['source_id']} {joins} "
        f"{row['target_element']} {row['target_id']}<br>length {row['distance_angstrom']:.3f} Å, "
        f"hop {row['hop']}<br>importance {row['importance']:.4g}"
        + ("" if row["adds_eV"] is None else f", adds {row['adds_eV']:+.4f} eV")
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
