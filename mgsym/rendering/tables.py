"""Columns and rows of the tables that the terminal and the report show alike."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mgsym.evaluation.metrics import Scores, SplitScores
    from mgsym.explanation import Explanation
    from mgsym.explanation.faithfulness import Faithfulness
    from mgsym.explanation.neighbour_statistics import NeighbourStatistics
    from mgsym.explanation.statistics import EdgeStatistics, Effect
    from mgsym.explanation.whole import Attribution
    from mgsym.uncertainty.reliability import Reliability

Cell = str | int | float | None
Table = tuple[tuple[str, ...], list[list[Cell]]]

# fmt: off
AGREEMENT_COLUMNS = (
    "", "structure", "atoms", "Pearson", "Spearman", "MAE/eV", "RMSE/eV", "R²", "bias/eV",
    "ceiling",
)
# fmt: on
MEASURES = {
    "sufficiency": "these alone (small is good)",
    "necessity": "without these (large is good)",
    "insertion_area": "area under insertion",
    "deletion_area": "area under deletion",
}
CONTROLS = {
    "explanation": "explained",
    "matched": "as far away",
    "random": "random",
    "shuffled": "shuffled model",
}


def formula(composition: Mapping[str, int]) -> str:
    """``{"Cu": 320, "Zr": 180}`` as Cu320Zr180."""
    return "".join(f"{symbol}{count}" for symbol, count in composition.items() if count)


def mean_sd(mean: float | None, sd: float | None) -> str | None:
    """``1.53 ± 0.30``, or None where there is no mean."""
    return None if mean is None or sd is None else f"{mean:.2f} ± {sd:.2f}"


def agreement(scores: Mapping[str, SplitScores]) -> Table:
    """Scores of each structure, their mean, and all atoms pooled; by role where there are some.

    Columns in which nothing is known are left out.
    """
    rows: list[list[Cell]] = []
    for role, found in scores.items():
        rows += [_agreement(role, name, s) for name, s in found.structures.items()]
        if len(found.structures) > 1:
            mean = f"{found.mean_pearson:.4f}"
            rows.append([role, "mean", None, mean, *[None] * 6])
            rows.append(_agreement(role, "pooled", found.pooled))
    kept = [i for i in range(10) if any(row[i] not in (None, "") for row in rows)]
    return tuple(AGREEMENT_COLUMNS[i] for i in kept), [[row[i] for i in kept] for row in rows]


def transforms(learned: Mapping[str, Any]) -> Table:
    """Learned von Mises distributions of transforms, and how far they moved from their start.

    Args:
        learned: as `mgsym.data_tools.workflows.inspection.inspect` tells of a run.
    """
    names = ("location", "location_moved", "concentration", "concentration_moved")
    rows: list[list[Cell]] = [
        [row["half"], row["angle"], *(None if row[n] is None else f"{row[n]:.3f}" for n in names)]
        for row in learned["angles"]
    ]
    return ("half of O(3)", "angle", "location/rad", "moved", "concentration", "moved"), rows


def transforms_title(learned: Mapping[str, Any]) -> str:
    """What `transforms` is of."""
    many = "" if learned["samples"] is None else f", {learned['samples']} drawn of each half"
    return f"Learned transforms at epoch {learned['epoch']:g}{many}"


def extremes(found: SplitScores) -> Table:
    """How well the 5 % of the atoms with the highest and lowest labels are told from others."""
    rows: list[list[Cell]] = [_extremes(name, s) for name, s in found.structures.items()]
    if len(rows) > 1:
        rows.append(_extremes("pooled", found.pooled))
    return ("structure", "AUC, highest 5 %", "AUC, lowest 5 %"), rows


def _extremes(name: str, s: Scores) -> list[Cell]:
    return [name, *(None if n != n else f"{n:.4f}" for n in (s.auc_high, s.auc_low))]


def _agreement(role: str, name: str, s: Scores) -> list[Cell]:
    numbers = (s.pearson, s.spearman, s.mae, s.rmse, s.r2, s.bias)
    missing = "nan" if s.undefined else None  # what no number can be given for, or what is wrong
    shown = [missing if n != n else f"{n:.4f}" for n in numbers]
    return [role, name, s.count, *shown, with_interval(s.ceiling, s.ceiling_low, s.ceiling_high)]


def with_interval(value: float, low: float, high: float) -> str | None:
    """``0.676 (0.614–0.732)``, a number and its 95 % interval; None where it is not known."""
    return None if value != value else f"{value:.3f} ({low:.3f}–{high:.3f})"


def seeds(summary: Mapping[str, Mapping[str, float]]) -> Table:
    """Show mean and standard deviation over seeds, by role, of `prediction.seeds.summarize`."""
    names = ("mean_pearson", "pooled_pearson", "pooled_mae")
    rows: list[list[Cell]] = [
        [role, *(f"{values.get(n, nan):.4f} ± {values.get(f'{n}_sd', nan):.4f}" for n in names)]
        for role, values in summary.items()
    ]
    return ("", "Pearson", "pooled", "MAE/eV"), rows


def reliability_facts(found: Reliability) -> dict[str, str]:
    """How honest predicted standard deviations are; what an honest one gives in brackets."""
    return {
        "z = (label − prediction)/sd": f"mean {found.z_mean:.3f}, sd {found.z_sd:.3f} (0 and 1)",
        "within 1 sd": f"{found.coverage_68:.3f} (0.683)",
        "within 1.96 sd": f"{found.coverage_95:.3f} (0.950)",
        "label noise allowed for": f"{found.noise:.3f} eV" if found.noise else "not known",
    }


def reliability_bins(found: Reliability) -> Table:
    """Predicted standard deviation and error found, bin by bin."""
    rows: list[list[Cell]] = [[b.count, f"{b.predicted:.4f}", f"{b.found:.4f}"] for b in found.bins]
    return ("atoms", "predicted sd/eV", "rms error/eV"), rows


def edges(told: Explanation) -> Table:
    """The bonds, or directed edges, of an explanation, most important first."""
    rows: list[list[Cell]] = [
        [
            row["rank"],
            *(f"{row[f'{end}_element']} {row[f'{end}_id']}" for end in ("source", "target")),
            f"{row['distance_angstrom']:.3f}",
            row["hop"],
            f"{row['importance']:.4g}",
            *([] if told.value is None else [f"{row['adds_eV']:+.5f}"]),
        ]
        for row in told.table()
    ]
    ends = ("from (id)", "to (id)") if told.reverse is None else ("far end (id)", "near end (id)")
    names = ("rank", *ends, "distance/Å", "hop", "importance")
    return names if told.value is None else (*names, "adds/eV"), rows


def neighbours(told: Attribution, count: int) -> Table:
    """What neighbours add to a prediction, most first, from its reference to the prediction."""
    total = told.reference + told.own
    rows: list[list[Cell]] = []
    for row in told.table(count):
        total += row["adds_eV"]
        rows.append(
            [
                row["rank"],
                f"{row['element']} {row['id']}",
                f"{row['distance_angstrom']:.3f}",
                "raises" if row["adds_eV"] > 0 else "lowers",
                f"{row['adds_eV']:+.4f}",
                f"{row['network_eV']:+.4f}",
                f"{row['regression_eV']:+.4f}",
                *([] if told.spread is None else [f"{row['spread_eV']:.4f}"]),
                f"{total:.4f}",
            ]
        )
    parts = [v[count:] for v in (told.value, told.network, told.regression)]
    if len(parts[0]):
        sums = [f"{float(part.sum()):+.4f}" for part in parts]
        sums += [] if told.spread is None else [""]
        rows.append(["", f"{len(parts[0])} others", "", "", *sums, f"{told.prediction:.4f}"])
    names = ("rank", "neighbour (id)", "distance/Å", "", "adds/eV", "network", "regression")
    return (*names, *([] if told.spread is None else ["sd of models"]), "sum/eV"), rows


def faithfulness_medians(found: Faithfulness) -> Table:
    """Medians over atoms of what explanations are worth, beside other edges."""
    medians = found.medians()
    kinds = [kind for kind in CONTROLS if kind in medians["sufficiency"]]
    rows: list[list[Cell]] = [
        [text, *(f"{medians[measure][kind]:.3f}" for kind in kinds)]
        for measure, text in MEASURES.items()
    ]
    return ("with", *(CONTROLS[kind] for kind in kinds)), rows


def effects(found: EdgeStatistics) -> Table:
    """Properties of selected edges against those of edges as far away."""
    rows = [[_property(e), e.group, *_effect(e)] for e in found.effects if e.null == "matched"]
    names = ("property", "barriers", "atoms", "selected", "matched", "difference", "95 %", "effect")
    return names, rows


BESIDE = {
    "alike": "if all counted alike",
    "flanks": "those a little off",
    "matched": "others as far away",
    "lowering": "of those that lower",
    "shuffled": "shuffled model",
}


def neighbour_effects(found: NeighbourStatistics) -> Table:
    """Where what acts is and what the strongest neighbours are, over all atoms."""
    rows = [
        [f"{_property(e)}{' of those that raise' if e.null == 'lowering' else ''}",
         BESIDE[e.null], *_effect(e)]
        for e in found.effects if e.group == "all"
    ]  # fmt: skip
    names = ("property", "beside", "atoms", "found", "control", "difference", "95 %", "effect")
    return names, rows


def _property(effect: Effect) -> str:
    return f"{effect.property} ({effect.unit})" if effect.unit else effect.property


def _effect(effect: Effect) -> list[Cell]:
    """Atoms, both means, their difference with its interval, and Cohen's d."""
    low, high = effect.low, effect.high
    return [
        effect.nodes,
        f"{effect.selected:.3f}",
        f"{effect.control:.3f}",
        f"{effect.difference:+.3f}",
        None if low is None else f"{low:+.3f} … {high:+.3f}",
        None if effect.effect is None else f"{effect.effect:+.2f}",
    ]
