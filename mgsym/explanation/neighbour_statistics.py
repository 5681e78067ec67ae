"""What the neighbours that raise and lower predicted barriers have in common, over many atoms.

The values are those of the whole prediction (mgsym.explanation.whole). Each atom is asked

- **where** what acts is: the share of all |value| in each shell, beside the share of the neighbours
  there (``alike``: if all counted the same) and beside a model with ``shuffled`` weights;
- whether a distance **stands out** from those around it (``flanks``), per neighbour;
- what its strongest neighbours **are**: element, Voronoi polyhedron, predicted barrier, beside
  others as far away and, but for the share of an element, of the same element (``matched``), and
  those that raise beside those that lower (``lowering``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from mgsym.errors import InputError, UsageError
from mgsym.explanation.computation_graph import frozen_eval
from mgsym.explanation.controls import matchable, matched_rows, shuffled_weights
from mgsym.explanation.statistics import Effect, effects_of
from mgsym.explanation.whole import (
    ENVIRONMENTS,
    SHELLS,
    Attribution,
    Reference,
    attributions,
    reference_of,
)
from mgsym.graph import Graph
from mgsym.models.base import BarrierModel
from mgsym.prediction import predict_graph
from mgsym.structure.voronoi import Polyhedra, voronoi_polyhedra
from mgsym.utils.progress import Progress

STRONGEST = 20  # neighbours of an atom
PEAKS = (2.6, 5.2, 7.0)  # Å, where the paper saw its edges' atoms
WIDTH = 0.3  # Å, half a peak; its flanks are as wide on either side
STEP, FARTHEST = 0.2, 14.0  # Å, bins and end of the profile
APART = 1000.0  # Å, keeps elements in bins of their own
UNITS = {"distance": "Å", "volume": "Å³", "predicted barrier": "eV"}


@dataclass(frozen=True, eq=False)
class Profile:
    """What one neighbour adds or takes at a distance, means over atoms with 95 % intervals.

    Attributes:
        distance: [b] Å, middles of the bins.
        neighbours: [b] neighbours of an atom in the bin.
        size: by model (``whole``, ``shuffled``), [3, b] mean |value| of a neighbour and its
            interval, as a share of all |value| of the atom, in %; NaN in empty bins.
    """

    distance: Tensor
    neighbours: Tensor
    size: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class NeighbourStatistics:
    """Statistics of neighbours over many atoms.

    Attributes:
        strongest: how many neighbours of each atom the comparisons are of.
        nodes: how many atoms.
        effects: every property, group and control.
        profile: what acts, by distance.
        missing: what could not be compared, in one line each.
    """

    strongest: int
    nodes: int
    effects: tuple[Effect, ...]
    profile: Profile
    missing: tuple[str, ...] = ()

    def table(self) -> list[dict[str, Any]]:
        """One row per effect, for JSON and CSV."""
        return [asdict(effect) for effect in self.effects]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        profile = {
            "distance_angstrom": self.profile.distance.tolist(),
            "neighbours": self.profile.neighbours.tolist(),
            **{
                f"{kind}_percent": [[None if math.isnan(x) else x for x in row] for row in v]
                for kind, v in ((k, size.tolist()) for k, size in self.profile.size.items())
            },
        }
        return {"strongest": self.strongest, "effects": self.table(), "profile": profile}


def neighbour_statistics(
    model: BarrierModel,
    graph: Graph,
    groups: Mapping[str, Sequence[int]],
    reference: Reference,
    *,
    strongest: int = STRONGEST,
    shuffled: bool = True,
    draws: int = 3,
    seed: int = 0,
    progress: Progress | None = None,
) -> NeighbourStatistics:
    """Attribute the predictions of many atoms to their neighbours, and compare these.

    Args:
        model: with edges, pairs of atoms or both (`WholePrediction`).
        graph: one structure.
        groups: the atoms, by group.
        reference: of the model.
        strongest: how many neighbours of each atom to compare with others.
        shuffled: whether to attribute a model with shuffled weights, too.
        draws: how many matched sets the control of an atom is the mean of.
        seed: of the draws and of the shuffling.
        progress: called with the atoms done and in all.

    Raises:
        UsageError: as for `WholePrediction`.
    """
    generator = torch.Generator().manual_seed(seed)
    every = [node for group in groups.values() for node in group]
    predicted = predict_graph(model, graph).double().cpu()
    properties, missing = _properties(graph, predicted)
    with frozen_eval(model) as where:
        here = graph.to(where)
        ours = list(attributions(model, here, every, reference, progress))
    theirs: list[Attribution] = []
    if shuffled:
        other = shuffled_weights(model, torch.Generator().manual_seed(seed))
        with frozen_eval(other) as where:
            typical = reference_of(other, [graph.to(where)], ENVIRONMENTS)
            theirs = list(attributions(other, graph.to(where), every, typical))
    rows: list[dict[tuple[str, str, str], tuple[float, float]]] = []
    for place, told in enumerate(ours):
        found = dict(_where(told, theirs[place] if theirs else None))
        found |= dict(_what(told, properties, strongest, draws, generator))
        rows.append(found)
    return NeighbourStatistics(
        strongest,
        len(every),
        tuple(_effects(rows, groups, generator)),
        _profile(ours, theirs, generator),
        missing,
    )


def _properties(graph: Graph, predicted: Tensor) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """[n] of each property of an atom, and what is not known."""
    found = {"predicted barrier": predicted}
    for kind, symbol in enumerate(graph.species):
        found[f"share of {symbol}"] = (graph.types.cpu() == kind).double()
    try:
        solid = _polyhedra(graph)
    except (UsageError, InputError) as error:
        return found, (str(error),)
    found |= {
        "faces": solid.coordination,
        "five-edged faces": solid.fivefold,
        "icosahedra": solid.icosahedral,
        "volume": solid.volume,
    }
    return found, ()


def _polyhedra(graph: Graph) -> Polyhedra:
    x, y, z = graph.periodic[0].tolist()
    return voronoi_polyhedra(graph.positions, graph.cell[0], (x, y, z))


Compared = Iterator[tuple[tuple[str, str, str], tuple[float, float]]]  # property, unit, control


def _where(told: Attribution, other: Attribution | None) -> Compared:
    """How far away what acts is."""
    size, distance = told.value.abs(), told.distance
    ends = (0.0, *SHELLS, math.inf)
    for low, high in pairwise(ends):
        name = f"{low:g}–{high:g} Å" if high < math.inf else f"beyond {low:g} Å"
        inside = (distance > low) & (distance <= high)
        share = float(size[inside].sum() / size.sum())
        yield (f"share {name}", "", "alike"), (share, float(inside.double().mean()))
        if other is not None:
            control, there = other.value.abs(), (other.distance > low) & (other.distance <= high)
            yield (
                (f"share {name}", "", "shuffled"),
                (share, float(control[there].sum() / control.sum())),
            )
    for peak in PEAKS:
        off = (distance - peak).abs()
        inside, flanks = size[off <= WIDTH], size[(off > WIDTH) & (off <= 2 * WIDTH)]
        if len(inside) and len(flanks):
            values = (1e3 * float(inside.mean()), 1e3 * float(flanks.mean()))
            yield (f"a neighbour at {peak:g} Å", "meV", "flanks"), values


def _what(
    told: Attribution,
    properties: Mapping[str, Tensor],
    strongest: int,
    draws: int,
    generator: torch.Generator,
) -> Compared:
    """What the strongest neighbours are, beside others and by their sign."""
    apart = told.distance + APART * told.types
    ranked = torch.arange(len(told))
    for distance, names in (
        (told.distance, [name for name in properties if name.startswith("share of")]),
        (apart, [name for name in properties if not name.startswith("share of")]),
    ):
        chosen = matchable(distance, ranked, strongest)
        others = torch.cat([matched_rows(distance, chosen, generator).rows for _ in range(draws)])
        for name in names:
            values = properties[name][told.atoms]
            yield (
                (name, UNITS.get(name, ""), "matched"),
                (_mean(values[chosen]), _mean(values[others])),
            )
    top = ranked[:strongest]
    raising = told.value[top] > 0
    yield (
        ("distance", "Å", "lowering"),
        (_mean(told.distance[top][raising]), _mean(told.distance[top][~raising])),
    )
    for name, of_atoms in properties.items():
        values = of_atoms[told.atoms]
        if not name.startswith("share of"):  # elements differ in all of these
            name, values = f"{name} beyond its element's", _beyond(of_atoms, told)
        yield (
            (name, UNITS.get(name.partition(" beyond")[0], ""), "lowering"),
            (_mean(values[top][raising]), _mean(values[top][~raising])),
        )


def _beyond(of_atoms: Tensor, told: Attribution) -> Tensor:
    """[m] a property of neighbours less the mean over neighbours of the element."""
    values = of_atoms[told.atoms].clone()
    for kind in told.types.unique():
        values[told.types == kind] -= _mean(values[told.types == kind])
    return values


def _mean(values: Tensor) -> float:
    """Of what is known."""
    return float(values.double().nanmean())


def _effects(
    rows: Sequence[Mapping[tuple[str, str, str], tuple[float, float]]],
    groups: Mapping[str, Sequence[int]],
    generator: torch.Generator,
) -> Iterator[Effect]:
    """Every property and control, over all atoms and group by group."""
    places = {"all": range(len(rows))}
    if len(groups) > 1:
        first = 0
        for group, nodes in groups.items():
            places[group] = range(first, first + len(nodes))
            first += len(nodes)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    for group, some in places.items():
        for name, unit, null in keys:
            pairs = [rows[i][name, unit, null] for i in some if (name, unit, null) in rows[i]]
            values = [({name: a}, {name: b}) for a, b in pairs]
            if values:
                yield from effects_of(values, group, null, generator, {name: unit})


def _profile(
    ours: Sequence[Attribution], theirs: Sequence[Attribution], generator: torch.Generator
) -> Profile:
    """What one neighbour adds or takes, by distance."""
    bins = round(FARTHEST / STEP)
    counts, sizes = [], {}
    for kind, several in (("whole", ours), ("shuffled", theirs)):
        each = []
        for told in several:
            place = (told.distance / STEP).long()
            inside = place < bins
            number = torch.bincount(place[inside], minlength=bins).double()
            share = 100 * told.value.abs() / told.value.abs().sum()
            total = torch.bincount(place[inside], share[inside], minlength=bins)
            each.append(torch.stack([total, number]))
        if each:
            sizes[kind] = _ratio(torch.stack(each), generator)
            counts.append(torch.stack(each)[:, 1].mean(0))
    middles = (torch.arange(bins, dtype=torch.float64) + 0.5) * STEP
    return Profile(middles, counts[0], sizes)


def _ratio(parts: Tensor, generator: torch.Generator, resamples: int = 1000) -> Tensor:
    """[3, b] Σ first / Σ second of parts [atoms, 2, b], and its 95 % interval over atoms."""
    rows = torch.randint(len(parts), (resamples, len(parts)), generator=generator)
    weight = torch.zeros(resamples, len(parts), dtype=torch.float64)
    weight.scatter_add_(1, rows, torch.ones_like(rows, dtype=torch.float64))
    drawn = torch.einsum("ra,apb->rpb", weight, parts)
    ratio = drawn[:, 0] / drawn[:, 1]
    ends = ratio.nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    total = parts.sum(0)
    return torch.cat([(total[0] / total[1])[None], ends])
