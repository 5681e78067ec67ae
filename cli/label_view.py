"""How labels are shown."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mgsym.cli import console

if TYPE_CHECKING:
    from mgsym.data_tools.simulation.labelling.barriers import Labels
    from mgsym.data_tools.workflows.label_averages import AveragedLabels
    from mgsym.data_tools.workflows.labelling import Labelled


def label_view(labelled: Labelled, as_json: bool = False) -> None:
    """Labels as facts or JSON, then their warnings and files."""
    labels = labelled.labels
    if as_json:
        console.emit_json(labelled.to_dict())
    else:
        console.facts(labels.structure.name, label_facts(labels))
    for warning in labels.warnings:
        console.warn(warning)
    console.wrote(labelled.paths)


def average_view(averaged: AveragedLabels, as_json: bool = False) -> None:
    """Averaged labels as facts or JSON, then their file."""
    if as_json:
        console.emit_json(averaged.to_dict())
    else:
        each = [f"{noise:.4f}" for noise in averaged.noise]
        others = [f"{difference:+.4f}" for difference in averaged.differences[1:]]
        items: dict[str, console.Cell] = {
            "atoms labelled": f"{averaged.labelled} of {len(averaged.structure)}",
            "more than once": averaged.repeated,
            "agreement": _number(averaged.pearson, "Pearson between labellings"),
            "standard errors": f"{', '.join(each)} eV",
            "of the average": f"{averaged.stderr:.4f} eV",
            "against the first": f"{', '.join(others)} eV (mean difference)",
        }
        console.facts(averaged.structure.name, items)
    if averaged.path is not None:
        console.wrote(averaged.path)


def label_facts(labels: Labels) -> dict[str, console.Cell]:
    """What is to be said of labels, by name."""
    s = labels.statistics()
    failures = [f"{n} {status}" for status, n in labels.statuses.items() if status != "found"]
    rate = labels.made / labels.seconds if labels.made and labels.seconds else math.nan
    return {
        "atoms labelled": f"{len(labels.rows) - len(labels.unlabelled)} of {len(labels.rows)}",
        "searches": labels.searches,
        "successful": None if not labels.searches else f"{100 * labels.success:.0f} %",
        "failed": ", ".join(failures),
        "force calls": None if math.isnan(labels.calls) else f"{labels.calls:.0f} a search",
        "mean barrier": _energy(s["mean"]),
        "between atoms": _energy(s["sd"], "standard deviation"),
        "standard error": _energy(s["mean_stderr"], "mean over atoms"),
        "noise ceiling": _number(
            s["ceiling"],
            f"95 % interval {s['ceiling_low']:.2f} to {s['ceiling_high']:.2f}, Pearson that a "
            "perfect predictor would reach",
        ),
        "this run": None if math.isnan(rate) else f"{labels.made} searches, {rate:.3g} a second",
    }


def _energy(value: float, note: str = "") -> str | None:
    return None if math.isnan(value) else f"{value:.4f} eV{f' ({note})' if note else ''}"


def _number(value: float, note: str) -> str | None:
    return None if math.isnan(value) else f"{value:.3f} ({note})"
