"""How far a structure lies from what a model was trained on: density, distances, surroundings."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mgsym.checkpoint import TrainingSet, number_density
from mgsym.graph import Graph
from mgsym.prediction import narrowed

DENSITY_TOLERANCE = 0.05  # relative
# Å; shortest distances of relaxed Cu64Zr36 glasses of 500 to 8000 atoms range from 2.15 to 2.25;
# random displacements of 0.1 Å, as at room temperature, take 0.17 to 0.31 off
DISTANCE_TOLERANCE = 0.15
# share of atoms beyond the distance that 95 % of the training atoms keep: 0.05 to 0.07 in other
# relaxed Cu64Zr36 glasses, 0.22 after random displacements of 0.05 Å or 2 % of compression
UNUSUAL_SHARE = 0.15


@dataclass(frozen=True, eq=False)
class Familiarity:
    """How one structure compares with the training structures.

    Attributes:
        distance: [n] float32, of each atom's surroundings (mgsym.surroundings; a training atom
            has 1 in the root mean square); None where the model does not tell.
        median, upper: of the distances, half and 95 % of the atoms below them.
        unusual: share of atoms farther than 95 % of the training atoms.
        warnings: one sentence for each reason not to trust a prediction.
    """

    distance: Tensor | None = None
    median: float | None = None
    upper: float | None = None
    unusual: float | None = None
    warnings: tuple[str, ...] = ()


def familiarity(graph: Graph, known: TrainingSet | None) -> Familiarity:
    """Compare a structure with the training set.

    Args:
        graph: one structure, with the model's cutoff or a larger one.
        known: what the model was trained on; without any nothing is known.

    Returns:
        With one warning for each of: number density more than 5 % outside the training
        structures' range, shortest distance more than 0.15 Å outside it, more than 15 % of the
        atoms farther than 95 % of the training atoms. (An unknown element is an error.)
    """
    if known is None:
        return Familiarity()
    name = graph.names[0] or "the structure"
    found = [_density_warning(graph, known), _distance_warning(graph, known)]
    around = known.surroundings
    if around is None or graph.num_nodes == 0:
        return Familiarity(warnings=tuple(f"{name} {text}" for text in found if text))
    distance = around.distance(narrowed(graph, around.cutoff))
    ordered = distance.sort().values
    median, upper = (float(ordered[int(q * (len(ordered) - 1))]) for q in (0.5, 0.95))
    unusual = float((distance > around.quantiles[1]).double().mean())
    if unusual > UNUSUAL_SHARE:
        found.append(
            f"has {unusual:.0%} of its atoms in surroundings farther from the training set than "
            "95 % of the training atoms: predictions may be far off"
        )
    warnings = tuple(f"{name} {text}" for text in found if text)
    return Familiarity(distance, median, upper, unusual, warnings)


def _density_warning(graph: Graph, known: TrainingSet) -> str:
    density = number_density(graph)
    if density is None or not known.number_density:
        return ""
    low, high = known.number_density
    if low * (1 - DENSITY_TOLERANCE) <= density <= high * (1 + DENSITY_TOLERANCE):
        return ""
    return (
        f"has {density:.4f} atoms/Å³, the training structures {low:.4f}–{high:.4f}: predictions "
        "may be far off"
    )


def _distance_warning(graph: Graph, known: TrainingSet) -> str:
    if not graph.num_edges or not known.shortest_distance:
        return ""
    low, high = known.shortest_distance
    shortest = float(graph.edge_length.min())
    if low - DISTANCE_TOLERANCE <= shortest <= high + DISTANCE_TOLERANCE:
        return ""
    return (
        f"has a shortest distance of {shortest:.2f} Å, the training structures "
        f"{low:.2f}–{high:.2f} Å: is it relaxed, with the same potential?"
    )
