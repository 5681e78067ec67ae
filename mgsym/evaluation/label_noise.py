"""How noisy labels are, and the score that a perfect predictor would reach against them.

A label is a mean over a few searches, so it is the true barrier plus noise of variance σ². Against
labels of variance v, a predictor that knew every true barrier would have the Pearson correlation
√(1 − σ²/v) and the root mean square error σ: the noise ceiling. σ² comes from the labels' standard
errors, or from a glass that was labelled twice: the difference of two labels of one atom has
variance 2σ² (the attenuation of Spearman, Am. J. Psychol. 15, 72, 1904).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from mgsym.evaluation.metrics import noise_ceiling
from mgsym.graph import Graph
from mgsym.graph.operations import glass_of
from mgsym.structure.cell import fractional, nearest_image

# measured on Cu64Zr36 with the potential of Mendelev et al. 2009: single searches spread by 0.57 eV
# about their atom's mean, and this variance itself differs by 37 % between atoms
TYPICAL_VARIANCE = 0.33  # eV²
TYPICAL_WEIGHT = 30.0  # degrees of freedom that the typical variance counts as
SUCCESS = 0.56  # share of the searches that end at a saddle
PRIOR_DEGREES_OF_FREEDOM = (
    15.0  # degrees of freedom that the pooled variance counts as for each atom
)


@dataclass(frozen=True)
class SearchNoise:
    """How single searches scatter about the mean barrier of their atom.

    Attributes:
        variance: eV², pooled over atoms.
        prior_degrees_of_freedom: how many it counts as beside those of an atom itself.
    """

    variance: float = TYPICAL_VARIANCE
    prior_degrees_of_freedom: float = PRIOR_DEGREES_OF_FREEDOM

    @classmethod
    def fit(cls, stderr: Tensor, events: Tensor) -> SearchNoise:
        """Pool the variance within atoms; where there are few, towards what is typical.

        Args:
            stderr: [n] eV, of the means; NaN where there is none.
            events: [n], how many successful searches each mean rests on.
        """
        degrees_of_freedom, squares = _within(stderr, events)
        total = TYPICAL_WEIGHT + float(degrees_of_freedom.sum())
        return cls((TYPICAL_WEIGHT * TYPICAL_VARIANCE + float(squares.sum())) / total)

    def of_means(self, stderr: Tensor, events: Tensor) -> Tensor:
        """[n] eV²: the variance of each mean; infinite without a search.

        An atom's own scatter is taken together with the pooled one (an empirical Bayes estimate),
        since two or three searches tell little of it, and one nothing.

        Args:
            stderr, events: as for `fit`.
        """
        degrees_of_freedom, squares = _within(stderr, events)
        single = (squares + self.prior_degrees_of_freedom * self.variance) / (
            degrees_of_freedom + self.prior_degrees_of_freedom
        )
        return single / events.double()


def _within(stderr: Tensor, events: Tensor) -> tuple[Tensor, Tensor]:
    """[n] degrees of freedom and sums of squares about the mean; 0 where there are none."""
    count = events.double()
    squares = stderr.double().square() * count * (count - 1)
    defined = torch.isfinite(squares) & (count > 1)
    zero = torch.zeros_like(squares)
    return torch.where(defined, count - 1, zero), torch.where(defined, squares, zero)


SAME_PLACE = 0.3  # Å; the atoms of a glass relaxed twice mostly move by some hundredths of it

SAME_SHARE = 0.9  # of the atoms, so that two structures count as one labelled twice


@dataclass(frozen=True)
class RepeatedLabels:
    """Two structures that are one glass, atom by atom, each with labels of its own.

    Attributes:
        names: of the structures.
        atoms: labelled in both, at the same place.
        variance: eV², of the noise of one label: half the variance of the differences.
    """

    names: tuple[str, str]
    atoms: int
    variance: float


def repeated_labels(graphs: Sequence[Graph]) -> list[RepeatedLabels]:
    """Every pair of structures of one glass whose atoms match.

    Atoms are matched by id; they must be of the same elements, and nine of ten at most 0.3 Å
    apart (compared in fractions of the cell). The others have moved, so that their barriers
    differ, and are left out. An offset common to all labels of a structure is not noise here.

    Args:
        graphs: one structure each.
    """
    pairs = []
    for first, second in combinations(graphs, 2):
        difference = _differences(first, second) if glass_of(first) == glass_of(second) else None
        if difference is not None and len(difference) > 1:
            variance = float(difference.var()) / 2
            names = (first.names[0], second.names[0])
            pairs.append(RepeatedLabels(names, len(difference), variance))
    return pairs


def label_variance(graphs: Sequence[Graph]) -> float | None:
    """eV², the noise of one label as glasses labelled twice tell it; None without any."""
    pairs = repeated_labels(graphs)
    atoms = sum(pair.atoms for pair in pairs)
    return math.fsum(pair.atoms * pair.variance for pair in pairs) / atoms if atoms else None


def label_noise(graphs: Sequence[Graph]) -> float | None:
    """eV, the square root of `label_variance`; None where labels have their own standard errors."""
    if any(bool((~torch.isnan(g.target_stderr[g.labelled])).any()) for g in graphs):
        return None
    variance = label_variance(graphs)
    return None if variance is None else math.sqrt(variance)


@dataclass(frozen=True)
class Ceiling:
    """What a perfect predictor would reach.

    Attributes:
        atoms: labelled ones, all of which are scored.
        pearson: √(1 − σ²/v); NaN where it is not defined.
        rmse: σ, eV.
        low, high: 95 % interval of `pearson`.
    """

    atoms: int
    pearson: float
    rmse: float
    low: float = math.nan
    high: float = math.nan


def ceiling(graphs: Sequence[Graph], variance: float | None = None) -> Ceiling | None:
    """The noise ceiling of some structures, their atoms pooled; None where no noise is known.

    Args:
        graphs: one structure each.
        variance: eV², the noise of labels that have no standard error.
    """
    target = torch.cat([g.target[g.labelled] for g in graphs]).double()
    stderr = torch.cat([g.target_stderr[g.labelled] for g in graphs]).double()
    if variance is not None:
        stderr = torch.where(torch.isnan(stderr), math.sqrt(variance), stderr)
    if bool(torch.isnan(stderr).all()):
        return None
    bounds = noise_ceiling(target, stderr)
    return Ceiling(len(target), bounds.pearson, bounds.rmse, bounds.low, bounds.high)


def same_atoms(first: Graph, second: Graph) -> tuple[Tensor, Tensor] | None:
    """Rows [m] of the atoms of two structures that are at one place; None where few are.

    Args:
        first, second: one structure each; `repeated_labels` tells what is compared.
    """
    if first.num_nodes != second.num_nodes or first.num_nodes == 0:
        return None
    first_rows, second_rows = first.ids.argsort(), second.ids.argsort()
    elements = [[g.species[t] for t in g.types.tolist()] for g in (first, second)]
    same = all(
        elements[0][i] == elements[1][j] for i, j in zip(first_rows, second_rows, strict=True)
    )
    if not same or not torch.equal(first.ids[first_rows], second.ids[second_rows]):
        return None
    moved = _displacement(first, first_rows, second, second_rows)
    near = moved < SAME_PLACE
    if float(near.double().mean()) < SAME_SHARE:
        return None
    return first_rows[near], second_rows[near]


def _differences(first: Graph, second: Graph) -> Tensor | None:
    """[m] eV, the second label less the first, of atoms at one place; None where few are."""
    rows = same_atoms(first, second)
    if rows is None:
        return None
    difference = (second.target[rows[1]] - first.target[rows[0]]).double()
    return difference[~torch.isnan(difference)]


def _displacement(first: Graph, first_rows: Tensor, second: Graph, second_rows: Tensor) -> Tensor:
    """[n] Å, how far apart the atoms are, to the nearest image and without a change of the cell."""
    fractions = [
        fractional(graph.positions[order], graph.cell[0])
        for graph, order in ((first, first_rows), (second, second_rows))
    ]
    step = (fractions[1] - fractions[0]) @ first.cell[0]
    return nearest_image(step, first.cell[0], first.periodic[0]).norm(dim=1)
