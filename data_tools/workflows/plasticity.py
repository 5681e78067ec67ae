"""Whether a number per atom of the unstrained glass foretells where it yields.

The field compared with is D²min at a strain. A number's score has the sign with which it is held
to foretell motion: low barriers, high energies, low coordination and high compliance are soft.
Each glass and direction is one sample; intervals are bootstrapped over glasses, as directions of
one glass are not independent (over directions where there is one glass only).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mgsym.data_tools.simulation.deformation.batch import Deformed
from mgsym.data_tools.simulation.dynamics.glass_structure import coordination
from mgsym.data_tools.simulation.potentials.eam import EAM
from mgsym.data_tools.simulation.potentials.evaluation import Potential
from mgsym.data_tools.simulation.vibrations.compliance import compliance
from mgsym.errors import InputError
from mgsym.evaluation.metrics import auc, spearman
from mgsym.structure import Structure
from mgsym.utils.seeds import derived_seed

SHARE = 0.05  # of the atoms: the most mobile, and the softest
CLUSTER = 6.0  # Å, around an atom, for its compliance
RESAMPLED = 1000
NAN = float("nan")


class Sample(NamedTuple):
    """One number of one glass against one direction and strain; NaN where not defined.

    Attributes:
        glass, direction: of which.
        strain: of the start.
        name: of the number.
        spearman: of its score with D²min; positive where it foretells.
        overlap: share of the 5 % of the atoms with the largest D²min that are among the 5 % with
            the highest score; 0.05 by chance.
        auc: chance that one of those 5 % has a higher score than one of the others; 0.5 by chance.
    """

    glass: str
    direction: str
    strain: float
    name: str
    spearman: float
    overlap: float
    auc: float


class Mean(NamedTuple):
    """A measure averaged over samples, with its 95 % interval."""

    mean: float
    low: float
    high: float


class Foretold(NamedTuple):
    """How well one number foretells yielding at one strain, over all glasses and directions."""

    name: str
    strain: float
    samples: int
    spearman: Mean
    overlap: Mean
    auc: Mean


def scores_of(
    start: Structure, rest: Structure, columns: Sequence[str], potential: Potential, seed: int = 0
) -> dict[str, Tensor]:
    """Return the score [n] of each column and control, by name; NaN where an atom has none.

    Args:
        start: as given, with the columns.
        rest: the same at its minimum, with the column ``energy``.
        columns: of barriers, eV: the lower, the softer.
        potential: for the compliance; a calculator of ASE gives none, nor, where it has no
            energies of atoms, these.
        seed: of the random control.

    Raises:
        InputError: the structure lacks a column, or is not at a minimum.
    """
    scores = {name: -_column(start, name) for name in columns}
    generator = torch.Generator().manual_seed(derived_seed(seed, "random score", start.name))
    energy = rest.columns["energy"].values.double()
    if not bool(energy.isnan().all()):
        scores["energy"] = energy
    scores["coordination"] = -coordination(rest).double()
    if isinstance(potential, EAM):
        scores["compliance"] = compliance(potential, rest, (CLUSTER,))[:, 0]
    scores["random"] = torch.rand(len(start), generator=generator, dtype=torch.float64)
    return scores


def check_columns(structures: Sequence[Structure], columns: Sequence[str]) -> None:
    """Refuse, before long work, a column that a structure lacks or that is no number per atom."""
    for structure in structures:
        for name in columns:
            _column(structure, name)


def compare(
    deformed: Deformed, frames: Sequence[Structure], scores: Mapping[str, Tensor]
) -> list[Sample]:
    """Compare scores with D²min in every frame after the first.

    Args:
        deformed: the glass and its direction.
        frames: of `frame_structures`.
        scores: [n] by name, NaN where an atom has none.
    """
    samples = []
    for frame, structure in zip(deformed.frames[1:], frames[1:], strict=True):
        strain = deformed.rows[frame.step].strain
        moved = structure.columns["d2min"].values
        for name, score in scores.items():
            scored = ~score.isnan()
            measures = foretelling(score[scored], moved[scored])
            samples.append(
                Sample(deformed.start.name, deformed.direction.name, strain, name, *measures)
            )
    return samples


def foretelling(score: Tensor, moved: Tensor, share: float = SHARE) -> tuple[float, float, float]:
    """Return Spearman's correlation, the overlap of the highest `share` of both, and the AUC."""
    count = round(share * len(moved))
    if count == 0:
        return NAN, NAN, NAN
    mobile = torch.zeros(len(moved), dtype=torch.bool)
    mobile[moved.argsort(descending=True, stable=True)[:count]] = True
    soft = score.argsort(descending=True, stable=True)[:count]
    return spearman(score, moved), float(mobile[soft].double().mean()), auc(score, mobile)


def summarise(samples: Sequence[Sample], seed: int = 0) -> list[Foretold]:
    """Average over glasses and directions, for each number and size of the strain."""
    summaries = []
    names = dict.fromkeys(sample.name for sample in samples)
    for strain in sorted({round(abs(sample.strain), 9) for sample in samples}):
        for name in names:
            own = [s for s in samples if s.name == name and abs(abs(s.strain) - strain) < 1e-9]
            means = (_mean(own, measure, seed) for measure in ("spearman", "overlap", "auc"))
            summaries.append(Foretold(name, strain, len(own), *means))
    return summaries


def _column(structure: Structure, name: str) -> Tensor:
    column = structure.columns.get(name)
    if column is None or column.values.dim() != 1:
        there = ", ".join(k for k, c in structure.columns.items() if c.values.dim() == 1)
        raise InputError(
            f"no column {name!r} to compare with, found {there or 'none'}: predict one with "
            "mgsym predict, or label the structure with mgsym label",
            path=structure.name or None,
        )
    values = column.values.double()
    if int((~values.isnan()).sum()) < 20:
        raise InputError(f"column {name!r} has fewer than 20 values", path=structure.name or None)
    return values


def _mean(samples: Sequence[Sample], measure: str, seed: int) -> Mean:
    """The mean over glasses of their means over directions, and its bootstrapped interval."""
    by_glass: dict[str, list[float]] = {}
    for sample in samples:
        by_glass.setdefault(sample.glass, []).append(getattr(sample, measure))
    units = [sum(v) / len(v) for v in by_glass.values()]
    if len(units) == 1:
        units = next(iter(by_glass.values()))
    values = torch.tensor(units, dtype=torch.float64)
    if len(values) < 2:
        return Mean(float(values.mean()), NAN, NAN)
    generator = torch.Generator().manual_seed(derived_seed(seed, "bootstrap", measure))
    drawn = torch.randint(len(values), (RESAMPLED, len(values)), generator=generator)
    ends = values[drawn].mean(1).quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    return Mean(float(values.mean()), *ends)
