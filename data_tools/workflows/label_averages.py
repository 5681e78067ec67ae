"""A glass that was labelled more than once: its labels averaged atom by atom."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mgsym.data_tools.formats import output_format, read_files, write
from mgsym.errors import InputError, UsageError
from mgsym.evaluation.label_noise import SearchNoise, same_atoms
from mgsym.evaluation.metrics import pearson
from mgsym.graph import build_graph
from mgsym.structure import Structure
from mgsym.structure.columns import BARRIER, BARRIER_STDERR, EVENTS
from mgsym.utils.files import refuse_existing

LEAST_VARIANCE = 1e-4  # eV²
_NO_EDGES = 0.6  # Å; atoms are matched by place alone


@dataclass(frozen=True, eq=False)
class AveragedLabels:
    """What came out.

    Attributes:
        structure: the first of those given, with the averaged barrier and barrier_stderr (eV),
            and events where all have them.
        labelled: atoms with a label.
        repeated: of these, atoms with more than one.
        pearson: mean correlation of two labellings.
        noise: root mean square standard error of each labelling, eV.
        stderr: the same of the average, eV.
        differences: mean difference of each labelling to the first, eV.
        path: where it was written.
    """

    structure: Structure
    labelled: int
    repeated: int
    pearson: float
    noise: tuple[float, ...]
    stderr: float
    differences: tuple[float, ...]
    path: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON; energies in eV."""
        return {k: v for k, v in vars(self).items() if k != "structure"}


def average_labels(structures: Sequence[Structure]) -> AveragedLabels:
    """Average the labels of atoms by inverse variance.

    The variance of a label comes from its standard error (with the column events, pooled over
    atoms: mgsym.evaluation.label_noise). Labels without one get, all alike, what the difference to
    the other labellings leaves for them.

    Args:
        structures: of one glass, each with the column barrier; atoms are matched by id, and those
            that have moved (mgsym.evaluation.label_noise) keep the first structure's label.

    Raises:
        UsageError: fewer than two are given.
        InputError: a structure has no labels, or is another glass.
    """
    if len(structures) < 2:
        raise UsageError("averaging labels takes two labelled structures or more")
    values = _aligned(structures, [_column(s, BARRIER) for s in structures])
    variances = _aligned(structures, [_variance(s) for s in structures])
    variances = _completed(values, variances).where(values.isfinite(), math.nan)
    weight = (1 / variances).nan_to_num(nan=0.0)
    total = weight.sum(0)
    mean = (weight * values.nan_to_num(nan=0.0)).sum(0) / total  # 0/0 is NaN: no label
    stderr = (1 / total).sqrt().where(total > 0, math.nan)
    labelled = (
        structures[0].with_column(BARRIER, mean, "eV").with_column(BARRIER_STDERR, stderr, "eV")
    )
    if all(EVENTS in s.columns for s in structures):
        counts = _aligned(structures, [_column(s, EVENTS) for s in structures])
        labelled = labelled.with_column(EVENTS, counts.nan_to_num(nan=0.0).sum(0).long())
    elif EVENTS in labelled.columns:
        kept = {k: v for k, v in labelled.columns.items() if k != EVENTS}
        labelled = labelled.replace(columns=kept)
    return AveragedLabels(
        labelled,
        int((total > 0).sum()),
        int((values.isfinite().sum(0) > 1).sum()),
        _agreement(values),
        tuple(variances.nanmean(1).sqrt().tolist()),
        float(stderr.square().nanmean().sqrt()),
        tuple((values - values[0]).nanmean(1).tolist()),
    )


def average_files(
    files: Sequence[str | Path],
    out: str | Path,
    types: Mapping[int, str] | None = None,
    frames: str | None = None,
    overwrite: bool = False,
) -> AveragedLabels:
    """As `average_labels`, from files to a file.

    Args:
        files: labelled structures.
        out: the first of them with the averaged labels, its suffix choosing the format.
        types, frames: as `formats.read_frames` takes them.
        overwrite: replace an existing file.

    Raises:
        UsageError: `out` exists.
        InputError: a file is wrong, or not of the same glass.
    """
    out = Path(out)
    output_format(out)
    refuse_existing(out, overwrite)
    averaged = average_labels(read_files(files, types, frames or "-1"))
    write(averaged.structure, out, overwrite=True)
    return AveragedLabels(**{**vars(averaged), "path": out})


def _column(structure: Structure, name: str) -> Tensor:
    """[n] float64."""
    if name not in structure.columns:
        raise InputError(f"has no column {name}: label it first", path=structure.name or None)
    return structure.columns[name].values.double()


def _variance(structure: Structure) -> Tensor:
    """[n] eV², of each label; NaN where nothing tells."""
    barrier = _column(structure, BARRIER)
    if BARRIER_STDERR not in structure.columns:
        return torch.full_like(barrier, math.nan)
    stderr = _column(structure, BARRIER_STDERR)
    if EVENTS in structure.columns:
        count = _column(structure, EVENTS)
        return SearchNoise.fit(stderr, count).of_means(stderr, count).clamp(min=LEAST_VARIANCE)
    typical = stderr[barrier.isfinite()].nanmedian()
    return stderr.where(stderr.isfinite(), typical).square().clamp(min=LEAST_VARIANCE)


def _aligned(structures: Sequence[Structure], columns: Sequence[Tensor]) -> Tensor:
    """[structures, n] in the rows of the first structure; NaN where an atom is elsewhere."""
    graphs = [build_graph(structure, _NO_EDGES) for structure in structures]
    aligned = torch.full((len(structures), len(structures[0])), math.nan, dtype=torch.float64)
    aligned[0] = columns[0]
    for i in range(1, len(structures)):
        rows = same_atoms(graphs[0], graphs[i])
        if rows is None:
            raise InputError(
                f"is another glass than {structures[0].name}: expected the same atoms (by id and "
                "element), nine of ten of them within 0.3 Å",
                path=structures[i].name or None,
            )
        aligned[i, rows[0]] = columns[i][rows[1]]
    return aligned


def _completed(values: Tensor, variances: Tensor) -> Tensor:
    """Variances [k, n] eV²; rows of which nothing is known get one number each."""
    unknown = variances.isnan().all(1)
    completed = variances.clone()
    for i in unknown.nonzero().squeeze(1).tolist():
        left = []
        for j in [j for j in range(len(values)) if j != i]:
            difference = values[i] - values[j]
            spread = float(difference[difference.isfinite()].var())
            left.append(spread / 2 if unknown[j] else spread - float(variances[j].nanmean()))
        completed[i] = max(math.fsum(left) / len(left), LEAST_VARIANCE)
    return completed


def _agreement(values: Tensor) -> float:
    """Mean Pearson correlation of two rows of [k, n]."""
    correlations = []
    for i in range(len(values)):
        for j in range(i):
            both = values[[i, j]].isfinite().all(0)
            correlations.append(pearson(values[i, both], values[j, both]))
    return math.fsum(correlations) / len(correlations)
