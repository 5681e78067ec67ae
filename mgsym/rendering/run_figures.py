"""Pictures of a trained run for its report; they need the extra ``plot``.

Pictures of points are drawn with matplotlib and embedded as SVG whose points are pixels, so that
ten thousand atoms weigh no more than a hundred; what can be turned is drawn with plotly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import product
from math import nan
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mgsym.graph import Graph
from mgsym.graph.operations import wrapped_positions
from mgsym.nn.rotations import ANGLES, HALVES
from mgsym.rendering.figures import (
    COLOURS,
    OTHER_SIZE,
    SIZES,
    element_colour,
    new_figure,
    parity_panel,
    plotly_objects,
)
from mgsym.uncertainty.reliability import Reliability

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHAPES = ("circle", "diamond", "square", "cross", "x")  # of elements, in a view to turn
SLAB = 5.0  # Å, thickness of a slice
MOST_ATOMS = 10_000  # in a view that can be turned
CURVES = {
    "train_loss": "training loss",
    "validation_pearson": "validation Pearson",
    "learning_rate": "learning rate",
}


def curves_of_training(
    histories: Mapping[str, Sequence[Mapping[str, float]]],
    best: Mapping[str, int | None],
    validated: bool,
) -> Figure:
    """Training loss, validation Pearson and learning rate against the epoch, a line per seed.

    Args:
        histories: by seed, the rows of metrics.csv.
        best: by seed, the epoch that was kept.
        validated: whether there were validation structures.
    """
    names = [name for name in CURVES if validated or not name.startswith("validation")]
    figure = new_figure((3.6 * len(names), 3.0))
    for place, name in enumerate(names, start=1):
        axes = figure.add_subplot(1, len(names), place)
        for row, (seed, history) in enumerate(histories.items()):
            colour = COLOURS[(row + 1) % len(COLOURS)]
            epochs = [point["epoch"] for point in history]
            axes.plot(epochs, [point[name] for point in history], color=colour, label=seed)
            if validated and best.get(seed):
                axes.axvline(best[seed] or 0, color=colour, linewidth=0.8, linestyle=":")
        axes.set_xlabel("epoch")
        axes.set_title(CURVES[name])
    if len(histories) > 1:
        axes.legend(frameon=False, fontsize=8)
    return figure


def curves_of_transforms(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Locations and concentrations of learned von Mises distributions against the epoch.

    A row per seed; a colour per angle, the half of O(3) with reflections dashed.

    Args:
        histories: by seed, the rows of metrics.csv, with the columns that
            `mgsym.nn.rotations.Transforms.distributions` names.
    """
    figure = new_figure((8.6, 2.8 * len(histories)))
    titles = {"location": "location (rad)", "concentration": "concentration"}
    for row, (seed, history) in enumerate(histories.items()):
        epochs = [point["epoch"] for point in history]
        for column, (kind, title) in enumerate(titles.items()):
            axes = figure.add_subplot(len(histories), 2, 2 * row + column + 1)
            for (half, angle), style in zip(
                product(HALVES, ANGLES), ["-"] * 3 + ["--"] * 3, strict=True
            ):
                unit = "_rad" if kind == "location" else ""
                values = [point.get(f"{kind}_{half}_{angle}{unit}", nan) for point in history]
                colour = COLOURS[1 + ANGLES.index(angle)]
                axes.plot(epochs, values, style, color=colour, label=f"{half} {angle}")
            axes.set_xlabel("epoch")
            axes.set_title(title if len(histories) == 1 else f"{plain(seed)}: {title}")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def parity_grid(predictions: Sequence[Tensor], graphs: Sequence[Graph]) -> Figure:
    """Predicted against labelled barriers: a row per structure, all atoms and each element.

    Args:
        predictions: [n] eV per structure.
        graphs: one structure each.
    """
    species = graphs[0].species
    figure = new_figure((3.3 * (1 + len(species)), 3.2 * len(graphs)))
    columns = 1 + len(species)
    for row, (predicted, graph) in enumerate(zip(predictions, graphs, strict=True)):
        first = row * columns + 1
        axes = figure.add_subplot(len(graphs), columns, first)
        parity_panel(axes, predicted, graph, plain(graph.names[0]))
        for t, symbol in enumerate(graph.species):
            axes = figure.add_subplot(len(graphs), columns, first + 1 + t)
            parity_panel(axes, predicted, graph, f"{symbol} alone", graph.types == t)
    return figure


def reliability_figure(found: Mapping[str, Reliability]) -> Figure:
    """Found against predicted errors, binned by the predicted standard deviation.

    Args:
        found: by the role of the structures.
    """
    figure = new_figure((4.4, 3.8))
    axes = figure.add_subplot()
    ends = [value for r in found.values() for b in r.bins for value in (b.predicted, b.found)]
    line = [0.95 * min(ends), 1.05 * max(ends)]
    axes.plot(line, line, color="0.6", linewidth=0.8, label="honest")
    for row, (role, one) in enumerate(found.items()):
        axes.plot(
            [b.predicted for b in one.bins], [b.found for b in one.bins], "o-", markersize=4,
            color=COLOURS[row], label=role,
        )  # fmt: skip
    axes.set_xlabel("predicted standard deviation of a label (eV)")
    axes.set_ylabel("rms of label − prediction (eV)")
    axes.set_aspect("equal")
    axes.legend(frameon=False)
    return figure


def slice_figure(graph: Graph, predicted: Tensor, thickness: float = SLAB) -> Figure:
    """Barriers of the atoms of a slab across the middle of a structure, seen along z.

    Predicted, labelled and their difference side by side; only predicted where there is no label.

    Args:
        graph: one structure.
        predicted: [n] eV.
        thickness: Å.
    """
    place = wrapped_positions(graph)
    height = place[:, 2]
    inside = (height - (height.min() + height.max()) / 2).abs() <= thickness / 2
    panels = [("predicted (eV)", predicted, "viridis")]
    if bool(graph.labelled[inside].any()):
        panels += [
            ("labelled (eV)", graph.target, "viridis"),
            ("predicted − labelled (eV)", predicted - graph.target, "RdBu_r"),
        ]
    shown = torch.cat([values[inside] for _, values, _ in panels[:2]])
    shown = shown[~shown.isnan()]
    low, high = shown.double().quantile(torch.tensor([0.02, 0.98]).double()).tolist()
    span = (place.amax(0) - place.amin(0)).max()
    size = (1.6 * 200 / float(span)) ** 2  # points²: touching neighbours, about 2.5 Å wide
    figure = new_figure((4.2 * len(panels), 3.6))
    for column, (title, values, colours) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), column)
        ends = (low, high)
        if colours == "RdBu_r":
            reach = float(values[inside & graph.labelled].abs().double().quantile(0.98))
            ends = (-reach, reach)
        known = inside & ~values.isnan()
        kinds = sorted(enumerate(graph.species), key=lambda k: -SIZES.get(k[1], OTHER_SIZE))
        for kind, symbol in kinds:  # small ones on top; the rim tells the element
            own = known & (graph.types == kind)
            grown = size * (SIZES.get(symbol, OTHER_SIZE) / OTHER_SIZE) ** 2
            drawn = axes.scatter(
                place[own, 0], place[own, 1], c=values[own], s=grown, cmap=colours, vmin=ends[0],
                vmax=ends[1], linewidths=0.8, edgecolors=element_colour(symbol), rasterized=True,
            )  # fmt: skip
            axes.scatter(
                [], [], s=30, facecolors="none", edgecolors=element_colour(symbol), label=symbol
            )
        figure.colorbar(drawn, ax=axes, shrink=0.8)
        if column == 1:
            axes.legend(
                loc="lower center", bbox_to_anchor=(0.5, 1.1), ncols=4, frameon=False,
                title="rim",
            )  # fmt: skip
        axes.set_aspect("equal")
        axes.set_title(title)
        axes.set_xlabel("x (Å)")
        axes.set_ylabel("y (Å)")
    return figure


def rotation_figure(predictions: Tensor) -> Figure:
    """How far each atom's prediction moves with the orientation of its structure.

    Args:
        predictions: [orientations, n] eV.
    """
    mean = predictions.mean(0)
    moved = predictions - mean
    scale, unit = (1e6, "µeV") if float(moved.abs().max()) < 1e-4 else (1e3, "meV")
    moved = scale * moved
    figure = new_figure((7.6, 3.2))
    axes = figure.add_subplot(1, 2, 1)
    for row, values in enumerate(moved):
        axes.scatter(
            mean, values, s=3, alpha=0.4, linewidths=0, color=COLOURS[row % len(COLOURS)],
            rasterized=True,
        )  # fmt: skip
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set_xlabel("mean prediction (eV)")
    axes.set_ylabel(f"one orientation − mean ({unit})")
    axes = figure.add_subplot(1, 2, 2)
    axes.hist(moved.std(0, correction=0).tolist(), bins=40, color=COLOURS[1])
    axes.set_xlabel(f"standard deviation over orientations ({unit})")
    axes.set_ylabel("atoms")
    return figure


def middle_atoms(graph: Graph, most: int = MOST_ATOMS) -> Tensor:
    """Rows of the atoms to show: all, or a slab around the middle height of so many; sorted."""
    if graph.num_nodes <= most:
        return torch.arange(graph.num_nodes)
    height = wrapped_positions(graph)[:, 2]
    off = (height - (height.min() + height.max()) / 2).abs()
    return off.argsort(stable=True)[:most].sort().values


def atoms_figure(graph: Graph, predicted: Tensor, rows: Tensor) -> Any:
    """Atoms in three dimensions coloured by predicted barrier: a plotly figure.

    Args:
        graph: one structure.
        predicted: [n] eV.
        rows: [m] int64, the atoms to show.
    """
    plotly = plotly_objects()
    place = wrapped_positions(graph)
    traces = []
    for t, symbol in enumerate(graph.species):
        own = rows[graph.types[rows] == t]
        if not len(own):
            continue
        x, y, z = (_short(place[own, axis], 2) for axis in range(3))
        traces.append(
            plotly.Scatter3d(
                x=x, y=y, z=z, mode="markers", name=escape(symbol),
                customdata=list(zip(graph.ids[own].tolist(), _labels(graph, own), strict=True)),
                hovertemplate=(
                    f"{escape(symbol)} %{{customdata[0]}}<br>predicted %{{marker.color:.3f}} eV"
                    "<br>label %{customdata[1]}<extra></extra>"
                ),
                marker={
                    "size": SIZES.get(symbol, OTHER_SIZE) * (0.75 if len(rows) < 2000 else 0.45),
                    "color": _short(predicted[own], 4), "coloraxis": "coloraxis",
                    "symbol": SHAPES[t % len(SHAPES)],
                    "line": {"color": element_colour(symbol), "width": 3},
                },
            )
        )  # fmt: skip
    figure = plotly.Figure(data=traces)
    figure.update_layout(
        scene={f"{axis}axis": {"title": f"{axis} (Å)"} for axis in "xyz"} | {"aspectmode": "data"},
        coloraxis={"colorscale": "Viridis", "colorbar": {"title": "barrier (eV)"}},
        legend={"itemsizing": "constant", "x": 0, "y": 1, "title": {"text": "element"}},
        margin={"l": 0, "r": 0, "b": 0, "t": 36},
        template="plotly_white",
    )
    return figure


def _labels(graph: Graph, rows: Tensor) -> list[str]:
    return ["not known" if v != v else f"{v:.3f} eV" for v in graph.target[rows].tolist()]


def _short(values: Tensor, digits: int) -> list[float]:
    return [round(value, digits) for value in values.tolist()]


def plain(name: str) -> str:
    """A name for a picture: dollar signs, which would begin mathematics, are taken as they are."""
    return name.replace("$", r"\$")
