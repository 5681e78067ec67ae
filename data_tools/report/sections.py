"""What a report says, section by section: facts in tables and pictures, with words to read them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from mgsym.data_tools.report.explanation_sections import explanations, statistics
from mgsym.data_tools.report.facts import HELD_OUT, ReportedStructure, ReportFacts
from mgsym.data_tools.workflows.graphs import summarise
from mgsym.prediction import spread_of
from mgsym.rendering import tables
from mgsym.rendering.page import (
    Html,
    Section,
    facts,
    folded,
    heading,
    paragraph,
    picture,
    table,
    view,
)
from mgsym.rendering.run_figures import (
    SLAB,
    atoms_figure,
    curves_of_training,
    curves_of_transforms,
    middle_atoms,
    parity_grid,
    reliability_figure,
    rotation_figure,
    slice_figure,
)
from mgsym.rendering.tables import Cell
from mgsym.training.runs import read_summary, run_home
from mgsym.version import __version__

ROUNDING = 1e-4  # label standard deviations; float32 moves predictions by less
MOST_ROWS = 6  # structures of one role in a parity plot
MEANING = {
    "test": "Test structures taught nothing and chose nothing: they are scored once, with the "
    "weights that were kept when training had ended.",
    "validation": "Validation structures taught nothing, but the best epoch was chosen by them, so "
    "their scores are a little flattering.",
    "train": "Training structures taught the model: how well it fits them says nothing of others.",
    HELD_OUT: "These structures did not train the model. Whether they chose its epoch is not "
    "known: it has no run directory here.",
}
FOLLOWED = """Points of a perfect prediction of perfect labels would lie on the line; r is the
correlation within the panel. Labels carry noise of their own, so that even a perfect model would
scatter."""


def report_sections(report: ReportFacts) -> list[Section]:
    """The report's sections, in order."""
    makers: list[tuple[str, str, Callable[[ReportFacts], list[Html]]]] = [
        ("summary", "Summary", summary),
        ("data", "Data and split", data),
        ("training", "Learning curves", training),
        ("agreement", "Scores and parity", agreement),
        ("calibration", "Calibration", calibration),
        ("maps", "Barrier maps", maps),
        ("rotations", "Rotation spread", rotations),
        ("explanations", "Explanations", explanations),
        ("statistics", "Statistics of explanations", statistics),
    ]
    return [Section(key, title, tuple(make(report))) for key, title, make in makers]


def summary(report: ReportFacts) -> list[Html]:
    """The model, how it was trained, and by what."""
    models = report.ensemble.models
    names = [m.metadata.model.name for m in report.ensemble.members if m.metadata is not None]
    about: dict[str, Cell] = {
        "run": str(report.run),
        "model": ", ".join(dict.fromkeys(names)),
        "models": len(models) if len(models) > 1 else None,
        "parameters": _joined([m.num_parameters for m in models]),
        "cutoff": f"{report.ensemble.cutoff:g} Å",
        "reach": _reach([m.receptive_field for m in models]),
    }
    members = report.ensemble.members
    records = list(report.records.values()) or [m.metadata.extra for m in members if m.metadata]
    about["preset"] = _joined([r.get("preset") for r in records])
    about["seed" if len(records) == 1 else "seeds"] = _joined(
        [r.get("seed") for r in records], True
    )
    about["best epoch"] = _joined([r.get("best_epoch", r.get("epoch")) for r in records], True)
    if report.records:
        seconds = sum(r.get("seconds") or 0.0 for r in records)
        about |= {
            "epochs": _joined([r.get("epochs") for r in records]),
            "training": f"{seconds:.0f} s" + (" in all" if len(records) > 1 else ""),
            "status": _joined([r.get("status") for r in records]),
            "stopped": _joined([r.get("stopped") for r in records]),
            "started": records[0].get("started"),
            "device": _joined([r.get("device") for r in records]),
            "platform": _joined([r.get("platform") for r in records]),
            "versions": _joined([_versions(r) for r in records]),
            "command": records[0].get("command"),
        }
    parts = [facts(about)]
    headline = _headline(report)
    if headline:
        parts.insert(0, paragraph(headline))
    parts += [paragraph(f"Mind: {text}.") for text in report.warnings]
    return parts


def _headline(report: ReportFacts) -> str:
    """The score that counts, in a sentence."""
    for role, scores in report.scores().items():
        if role == "train":
            continue
        limits = [
            (s.ceiling, s.ceiling_low, s.ceiling_high)
            for s in scores.structures.values()
            if not math.isnan(s.ceiling)
        ]
        mean, low, high = (
            (fmean(ends) for ends in zip(*limits, strict=True)) if limits else (0,) * 3
        )
        reach = f"; labels of this noise let a perfect model reach {mean:.3f}"
        most = f"{reach} (95 % interval {low:.2f} to {high:.2f})" if limits else ""
        single = len(scores.structures) == 1
        quoted = ", ".join(f"“{name}”" for name in scores.structures)
        where = f"{role} structure{'' if single else 's'} {quoted}"
        return (
            f"On the {where}, predicted and labelled barriers correlate with a Pearson coefficient "
            f"of {scores.mean_pearson:.3f}{'' if single else ' (mean within structures)'}{most}. "
            f"The mean absolute error is {scores.pooled.mae:.3f} eV. {MEANING[role]}"
        )
    return ""


def data(report: ReportFacts) -> list[Html]:
    """A row per structure."""
    rows: list[list[Cell]] = []
    for structure in report.structures:
        s = summarise(structure.graph, "")
        scores, usual = structure.scores, structure.ood
        far = (None, None) if usual.median is None else (usual.median, usual.upper)
        rows.append([
            s.name, s.atoms, tables.formula(s.composition), structure.role, s.glass, s.edges,
            s.labelled, tables.mean_sd(s.label_mean, s.label_sd),
            tables.with_interval(scores.ceiling, scores.ceiling_low, scores.ceiling_high),
            *(None if x is None else f"{x:.2f}" for x in far),
        ])  # fmt: skip
    names = (
        "structure", "atoms", "formula", "role", "glass", "edges", "labels", "barrier/eV",
        "ceiling", "distance", "95 %",
    )  # fmt: skip
    split = (
        "Whole glasses are held out: atoms of one glass see nearly the same surroundings, so a "
        "split atom by atom would measure memory."
        if report.records
        else "The model has no run directory here; roles follow from the names of the structures "
        "that trained it."
    )
    caption = (
        "Barriers are mean ± standard deviation over labelled atoms. Ceiling: the Pearson "
        "coefficient of a perfect model, given the standard errors of the labels (a dash where "
        "they are not known). Distance: how far the surroundings of atoms lie from those of the "
        "training atoms, median and 95 % of the atoms; 1 is usual."
    )
    return [paragraph(split), table(names, rows, caption)]


def training(report: ReportFacts) -> list[Html]:
    """Curves of metrics.csv."""
    histories = histories_of(report.records)
    if not histories:
        why = (
            "The model was fitted in one go, or for one epoch only: there is no curve to show."
            if report.records
            else "The model has no run directory here, so nothing tells how it was trained."
        )
        return [paragraph(why), *learned_transforms(report, histories)]
    first = next(iter(report.records.values()))
    validated = bool(first.get("split", {}).get("validation"))
    best = {name: record.get("best_epoch") for name, record in report.records.items()}
    caption = "The training loss (of labels in standard deviations) should fall. "
    if validated:
        caption += (
            "The validation Pearson is the mean within validation structures; the epoch where it "
            "is highest was kept (dotted line). A loss that still falls while validation does not "
            "rise tells of learning by heart. "
        )
    else:
        caption += "There was no validation structure, so the last epoch was kept. "
    caption += "The learning rate is the one that was set."
    drawn = curves_of_training(histories, best, validated)
    curves = picture(drawn, caption, "Learning curves against the epoch")
    return [curves, *learned_transforms(report, histories)]


def learned_transforms(
    report: ReportFacts, histories: Mapping[str, Sequence[Mapping[str, float]]]
) -> list[Html]:
    """What a model learned of the transforms that it averages over; nothing of other models."""
    learned = {n: r["transforms"] for n, r in report.records.items() if r.get("transforms")}
    if not learned:
        return []
    caption = (
        "The angles α, β and γ of the transforms that the model averages over are drawn from "
        "von Mises distributions, three for rotations and three for the other half of O(3). Their "
        "locations and concentrations are learned; a concentration of 0 is a uniform angle."
    )
    parts: list[Html] = []
    if shown := {name: histories[name] for name in learned if name in histories}:
        drawn = curves_of_transforms(shown)
        parts.append(picture(drawn, caption, "Learned transforms against the epoch"))
    for name, transforms in learned.items():
        title = tables.transforms_title(transforms)
        prefix = "" if len(learned) == 1 else f"{name}: "
        text = f"{prefix}{title}. Moved: since the start of the training."
        parts.append(table(*tables.transforms(transforms), text))
    return parts


def histories_of(
    records: Mapping[str, Mapping[str, Any]],
) -> dict[str, list[dict[str, float]]]:
    """The rows of metrics.csv as numbers, of the runs that have more than one."""
    return {
        name: [{key: _number(value) for key, value in row.items()} for row in record["history"]]
        for name, record in records.items()
        if len(record["history"]) > 1
    }


def agreement(report: ReportFacts) -> list[Html]:
    """Scores of each structure and element, and parity plots."""
    scores = report.scores()
    if not scores:
        return [paragraph("No atom of these structures has a label to compare with.")]
    parts = [
        paragraph(" ".join(MEANING[role] for role in scores)),
        table(
            *tables.agreement(scores),
            "Pearson within each structure; pooled over all atoms it flatters where structures "
            "differ. Ceiling: what a perfect model would reach, given the labels' errors. Bias is "
            "predicted − labelled.",
        ),
        *_seeds(report),
    ]
    rows: list[list[Cell]] = [
        [role, symbol, s.count, *(f"{x:.4f}" for x in (s.pearson, s.mae, s.bias))]
        for role, elements in report.element_scores().items()
        for symbol, s in elements.items()
    ]
    names = ("role", "element", "atoms", "Pearson", "MAE/eV", "bias/eV")
    parts.append(table(names, rows, "The same by element, over all structures of a role."))
    for role, several in report.roles.items():
        labelled = [structure for structure in several if structure.scores.count]
        if labelled:
            parts += [heading(f"Parity: {role}"), _parity(role, labelled)]
    return parts


def _seeds(report: ReportFacts) -> list[Html]:
    """Of several seeds, mean and standard deviation over them."""
    home = run_home(report.run)
    scores = None if home is None else read_summary(home).get("scores")
    if not scores:
        return []
    caption = (
        "Single models: mean ± standard deviation over seeds. The table above scores their mean "
        "prediction, which is better than a single model as a rule."
    )
    return [table(*tables.seeds(scores), caption)]


def _parity(role: str, labelled: Sequence[ReportedStructure]) -> Html:
    shown = labelled[:MOST_ROWS]
    more = (
        f" The first {MOST_ROWS} of {len(labelled)} structures."
        if len(labelled) > MOST_ROWS
        else ""
    )
    drawn = parity_grid(
        [structure.prediction.mean for structure in shown], [structure.graph for structure in shown]
    )
    caption = (
        f"Predicted against labelled barriers, one point per atom: all atoms coloured by element, "
        f"then each element alone.{more} {' '.join(FOLLOWED.split())} {MEANING[role]}"
    )
    return picture(drawn, caption, f"Predicted against labelled barriers of {role} structures")


def calibration(report: ReportFacts) -> list[Html]:
    """Whether predicted standard deviations are honest."""
    reliabilities = report.reliabilities()
    if not reliabilities:
        alone = len(report.ensemble) == 1 and report.ensemble.calibration is None
        why = (
            "One model without a calibration predicts no standard deviation, so there is nothing "
            "to compare. Train several seeds (mgsym train --seeds 0:4), or calibrate with mgsym "
            "ensemble --calibrate."
            if alone
            else "No structure that was held out has labels to compare predicted standard "
            "deviations with."
        )
        return [paragraph(why)]
    fit = report.ensemble.calibration
    parts = []
    if fit is not None:
        text = (
            f"The spread between {len(report.ensemble)} models is turned into a standard deviation "
            f"of the barrier: error² = ({fit.scale:.3f} × spread)² + ({fit.floor:.3f} eV)², fitted "
            f"to {fit.atoms} labels"
        )
        validated = bool(report.records)
        text += (
            " of the validation structures, so others put it to the proof." if validated else "."
        )
        parts.append(paragraph(f"{text} {fit.verdict}".strip()))
    else:
        parts.append(paragraph("The spread between the models is taken as it is, uncalibrated."))
    caption = (
        "Atoms are binned by the standard deviation that is predicted for their label (that of the "
        "barrier and the label's noise). On the line the error found is the one promised; above it "
        "the model is too sure of itself, below it too modest."
    )
    parts.append(
        picture(reliability_figure(reliabilities), caption, "Found against predicted errors")
    )
    for role, reliability in reliabilities.items():
        items: Mapping[str, Cell] = tables.reliability_facts(reliability)
        parts += [heading(f"{role}: {reliability.count} labels"), facts(items)]
        parts.append(folded("Bin by bin", table(*tables.reliability_bins(reliability))))
    return parts


def maps(report: ReportFacts) -> list[Html]:
    """A slice, and the atoms in three dimensions."""
    structure = report.shown
    predicted = structure.prediction.mean
    labelled = bool(structure.graph.labelled.any())
    sides = (
        "left as predicted, in the middle as labelled, and on the right the difference: red where "
        "the prediction is too high. Predictions are smoother than labels, which carry noise."
        if labelled
        else "as predicted; there are no labels to set beside them."
    )
    caption = (
        f"Barriers of the atoms in a slab {SLAB:g} Å thick across the middle of “{structure.name}” "
        f"({structure.role}), seen along z: {sides} Colours end at 2 and 98 % of the values."
    )
    rows, atoms = middle_atoms(structure.graph), structure.graph.num_nodes
    slab = (
        f"A slab of {len(rows):,} of its {atoms:,} atoms around the middle height, "
        "so that the page stays small. "
        if len(rows) < atoms
        else ""
    )
    turned = (
        f"The atoms of “{structure.name}” in their cell, coloured by predicted barrier. {slab}Drag "
        "to turn, scroll to come nearer; the pointer shows id and barriers of an atom; the legend "
        "hides an element."
    )
    drawn = slice_figure(structure.graph, predicted)
    return [
        picture(drawn, caption, f"Barriers in a slice of {structure.name}"),
        view(atoms_figure(structure.graph, predicted, rows), turned, "view-atoms"),
    ]


def rotations(report: ReportFacts) -> list[Html]:
    """How far predictions move when the structure is rotated and reflected."""
    structure, model = report.shown, report.ensemble.models[0]
    spread = spread_of(report.rotated, float(model.label_scale))
    declared = {
        "yes": "The model is invariant by construction.",
        "no": "The model is not invariant by construction.",
        "in expectation": "The model is invariant on average over its random transforms, of which "
        "it draws a few.",
    }[model.invariant]
    rounding = spread.relative_max < ROUNDING
    measured = (
        "What its predictions move is rounding."
        if rounding
        else "What its predictions move comes on top of all other errors."
    )
    items: dict[str, Cell] = {
        "orientations": spread.count,
        "root mean square": f"{1000 * spread.rms:.2g} meV ({spread.relative_rms:.2g} label sd)",
        "largest": f"{1000 * spread.max:.2g} meV ({spread.relative_max:.2g} label sd)",
    }
    text = (
        f"A barrier does not depend on how a structure is turned. “{structure.name}” was predicted "
        f"in {spread.count} random orientations, reflected ones among them. {declared} {measured}"
    )
    caption = (
        "Left: how far each atom's prediction in one orientation (a colour each) lies from its "
        "mean over them. Right: how many atoms move by how much. Set beside the error of the model "
        "it tells whether orientation matters."
    )
    drawn = rotation_figure(report.rotated)
    return [paragraph(text), facts(items), picture(drawn, caption, "Predictions under rotation")]


def foot() -> str:
    """The last line of a report."""
    return f"Written by mgsym {__version__}. Energies are in eV, lengths in Å."


def _joined(values: Sequence[Any], repeats: bool = False) -> str:
    """Values in words: each once, or all of them where it matters whose they are."""
    texts = [str(value) for value in values if value not in (None, "")]
    return ", ".join(texts if repeats else dict.fromkeys(texts))


def _versions(record: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in record.get("versions", {}).items())


def _reach(values: Sequence[float]) -> str:
    largest = max(values)
    return f"{largest:g} Å around an atom" if math.isfinite(largest) else "the whole structure"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
