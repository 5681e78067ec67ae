"""Pictures of explanations and of their statistics; they need the extra ``plot`` (matplotlib)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from mgsym.explanation import Explanation
from mgsym.explanation.local_view import nearest_atoms
from mgsym.explanation.proof import NodeProof
from mgsym.explanation.statistics import EdgeStatistics, Effect
from mgsym.figures import COLOURS, element_colour, new_figure, write_figure
from mgsym.graph import Graph

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


def local_figure(graph: Graph, explanation: Explanation, path: str | Path) -> None:
    """The ten nearest atoms around the explained one; selected edges black, others grey.

    Atoms are drawn in three dimensions at their nearest image, with their element and id.

    Args:
        graph: the graph that was explained.
        explanation: its edges are those that count as selected.
        path: where to write: .png, .pdf or .svg.
    """
    figure = new_figure((6.4, 5.6))
    axes: Any = figure.add_subplot(projection="3d")
    near = nearest_atoms(graph, explanation)
    for atom in near:
        chosen = [value for value in (atom.to_atom, atom.from_atom) if value is not None]
        axes.plot(
            *zip((0.0, 0.0, 0.0), atom.place, strict=True),
            color="black" if chosen else "0.8",
            linewidth=2.5 if chosen else 0.8,
            linestyle="-" if chosen else ":",
        )
        axes.text(*atom.place, f" {atom.element} {atom.node_id}", fontsize=8)
    for symbol in graph.species:
        places = [atom.place for atom in near if atom.element == symbol]
        if places:
            axes.scatter(
                *zip(*places, strict=True), s=90, color=element_colour(symbol),
                edgecolors="white", label=symbol, depthshade=False,
            )  # fmt: skip
    axes.scatter([0], [0], [0], s=190, marker="*", color="black", label="explained atom")
    axes.plot([], [], [], color="black", linewidth=2.5, label="edge selected")
    axes.plot([], [], [], color="0.8", linestyle=":", label="edge not selected")
    for name in "xyz":
        getattr(axes, f"set_{name}label")(f"{name} (Å)")
    axes.set_aspect("equal")
    axes.legend(frameon=False, loc="upper left", fontsize=8)
    among = sum(atom.to_atom is not None or atom.from_atom is not None for atom in near)
    axes.set_title(
        f"{explanation.structure}, {explanation.element} atom id {explanation.node_id}: "
        f"{among} of its {len(near)} nearest atoms joined by a selected edge"
    )
    write_figure(figure, path)


def curves_figure(proofs: Sequence[NodeProof], path: str | Path | None = None) -> Figure:
    """Insertion and deletion curves, medians over nodes, beside those of other edges.

    Args:
        proofs: of one node or more.
        path: where to write; None only draws.
    """
    figure = new_figure((7.2, 3.2))
    sizes = min((proof.sizes for proof in proofs), key=len)
    parts = (
        ("these edges alone", [proof.insertion for proof in proofs]),
        ("these edges deleted", [proof.deletion for proof in proofs]),
    )
    for place, (title, curves) in enumerate(parts, start=1):
        axes = figure.add_subplot(1, 2, place)
        for kind in curves[0]:
            steps = zip(*(curve[kind][: len(sizes)] for curve in curves), strict=True)
            middle = [median(values) for values in steps]
            axes.plot(sizes, middle, "o-", color=KIND_COLOURS[kind], label=kind, ms=3)
        axes.set_xscale("log")
        axes.set_xlabel("edges")
        axes.set_ylabel("change of the prediction (label sd)")
        axes.set_title(title if len(proofs) == 1 else f"{title}, median of {len(proofs)}")
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
