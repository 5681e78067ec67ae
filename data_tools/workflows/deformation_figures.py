"""Stress–strain curves and maps of D²min (extra ``plot``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mgsym.data_tools.simulation.deformation.batch import VOIGT, Deformed
from mgsym.data_tools.simulation.units import GPA
from mgsym.data_tools.workflows.plasticity import Foretold
from mgsym.rendering.figures import COLOURS, new_figure
from mgsym.structure import Structure
from mgsym.structure.cell import fractional, heights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SLAB = 6.0  # Å, thickness of the slice that a map shows


def stress_strain_figure(deformed: Sequence[Deformed]) -> Figure:
    """Draw the stress that resists each direction against the strain, one curve a glass."""
    figure = new_figure((5.2, 3.8))
    axes = figure.add_subplot()
    for number, glass in enumerate(deformed):
        row, column = sorted(glass.direction.component)
        place = VOIGT.index((row, column))
        axes.plot(
            [100 * each.strain for each in glass.rows],
            [GPA * each.stress[place] for each in glass.rows],
            color=COLOURS[number % len(COLOURS)], linewidth=1.0, label=glass.name,
        )  # fmt: skip
    axes.set_xlabel("strain (%)")
    axes.set_ylabel("stress (GPa)")
    if len(deformed) <= 12:
        axes.legend(frameon=False, fontsize="small")
    return figure


def foretelling_figure(foretold: Sequence[Foretold]) -> Figure:
    """Draw how well each number foretells D²min against the strain, with 95 % intervals."""
    figure = new_figure((7.2, 3.4))
    panels = (("spearman", "Spearman with D²min"), ("auc", "AUC of the 5 % most mobile"))
    names = list(dict.fromkeys(each.name for each in foretold))
    for column, (measure, label) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, 2, column)
        for number, name in enumerate(names):
            own = [each for each in foretold if each.name == name]
            means = [getattr(each, measure) for each in own]
            strains = [100 * each.strain for each in own]
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(strains, [m.mean for m in means], "o-", color=colour, label=name, ms=3)
            low, high = [m.low for m in means], [m.high for m in means]
            axes.fill_between(strains, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.axhline(0.5 if measure == "auc" else 0.0, color="0.5", linewidth=0.6)
        axes.set_xlabel("strain (%)")
        axes.set_ylabel(label)
    lines, names = axes.get_legend_handles_labels()
    figure.legend(lines, names, loc="outside upper center", ncols=len(names), frameon=False)
    return figure


def d2min_map(frame: Structure, thickness: float = SLAB) -> Figure:
    """Draw D²min of the atoms of a slab across the middle of the cell, seen along z."""
    place = frame.positions - frame.origin
    across = (fractional(place, frame.cell)[:, 2] - 0.5) * heights(frame.cell)[2]
    inside = across.abs() <= thickness / 2
    moved = frame.columns["d2min"].values[inside]
    figure = new_figure((4.8, 4.2))
    axes = figure.add_subplot()
    span = float((place[inside].amax(0) - place[inside].amin(0)).max())
    drawn = axes.scatter(
        place[inside, 0], place[inside, 1], c=moved.clamp(min=1e-6).log10(),
        s=(1.6 * 220 / span) ** 2, cmap="magma", linewidths=0.2, edgecolors="0.3", rasterized=True,
    )  # fmt: skip
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="log₁₀ D²min (Å²)")
    axes.set_aspect("equal")
    axes.set_title(frame.name)
    axes.set_xlabel("x (Å)")
    axes.set_ylabel("y (Å)")
    return figure
