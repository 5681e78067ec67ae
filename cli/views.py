"""Tables that several commands show."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgsym.cli import console

if TYPE_CHECKING:
    from mgsym.data_tools.workflows.ensembles import EnsembleSummary
    from mgsym.data_tools.workflows.graphs import GraphSummary
    from mgsym.data_tools.workflows.predictions import PredictionSummary
    from mgsym.data_tools.workflows.quenching import Glass
    from mgsym.data_tools.workflows.relaxation import RelaxedFile
    from mgsym.evaluation.metrics import SplitScores
    from mgsym.training.runs import TrainedRun
    from mgsym.uncertainty.reliability import Reliability

ALIKE = 1.2  # ratio of the largest to the smallest error below which all atoms count as alike

# fmt: off
GRAPH_COLUMNS = (
    "name", "atoms", "formula", "edges", "coord.", "labels", "barrier/eV", "split", "glass",
)
# fmt: on


def graph_table(title: str, summaries: Collection[GraphSummary]) -> None:
    """What each graph holds, one row a graph."""
    from mgsym.rendering.tables import formula, mean_sd

    rows = [
        (
            s.name,
            s.atoms,
            formula(s.composition),
            s.edges,
            f"{s.coordination:.2f}",
            s.labelled,
            mean_sd(s.label_mean, s.label_sd),
            s.split or None,
            s.glass or None,
        )
        for s in summaries
    ]
    console.table(title, GRAPH_COLUMNS, rows)
    for text in dict.fromkeys(_features(s.features) for s in summaries):
        if text:
            console.result(f"Node features: {text}")


def _features(units: Mapping[str, str]) -> str:
    """``energy (eV), stiffness_1 (eV/Å²)``."""
    return ", ".join(f"{name} ({unit})" if unit else name for name, unit in units.items())


def structure_view(path: str, kind: str, structure: Mapping[str, Any]) -> None:
    """What a structure holds, as `mgsym.data_tools.workflows.inspection.describe` tells it."""
    from mgsym.rendering.tables import formula

    lengths = " × ".join(f"{length:.4f}" for length in structure["cell_lengths"])
    angles = " ".join(f"{angle:.2f}" for angle in structure["cell_angles"])
    axes = [axis for axis, p in zip("abc", structure["periodic"], strict=True) if p]
    items = {
        "name": structure["name"],
        "atoms": f"{structure['atoms']}, {formula(structure['composition'])}",
        "cell": f"{lengths} Å, angles {angles}°",
        "periodic": " ".join(axes) or "no",
        "density": (
            f"{structure['atoms_per_cubic_angstrom']:.5f} atoms/Å³, "
            f"{structure['grams_per_cubic_centimetre']:.3f} g/cm³"
        ),
        "split": structure["split"],
        "glass": structure["glass"],
    }
    console.facts(f"{path}: {kind}", items)
    if structure["columns"]:
        names = ("column", "unit", "values", "mean", "sd", "lowest", "highest")
        rows = [
            [column[name if name != "column" else "name"] for name in names]
            for column in structure["columns"]
        ]
        console.table("", names, rows)


def run_view(run: Mapping[str, Any]) -> None:
    """What a run is and how it scored."""
    epochs, turned = run.get("epochs"), run.get("rotation_rms_eV")
    items = {
        "status": run.get("status"),
        "started": run.get("started"),
        "model": run.get("model"),
        "preset": run.get("preset"),
        "seed": run.get("seed"),
        "device": run.get("device"),
        "parameters": run.get("parameters"),
        "epochs": None if epochs is None else f"{epochs}, the best was {run.get('best_epoch')}",
        "stopped": run.get("stopped"),
        "evaluations": len(run["history"]),
        "rotated": None if turned is None else f"predictions move by {turned:.2g} eV (rms)",
        **{role: ", ".join(names) for role, names in run.get("split", {}).items()},
        "command": run.get("command"),
    }
    console.facts(f"{run['path']}: run", items)
    score_table(run.get("scores") or {})
    transforms_table(run.get("transforms"))


def transforms_table(transforms: Mapping[str, Any] | None) -> None:
    """The von Mises distributions that a run learned of its transforms, and how far they moved."""
    from mgsym.rendering import tables

    if transforms is not None:
        console.table(tables.transforms_title(transforms), *tables.transforms(transforms))


def score_table(scores: Mapping[str, Mapping[str, Any]]) -> None:
    """Scores by role: mean Pearson within structures, and pooled Pearson and error."""
    rows = []
    for role, score in scores.items():
        pooled = score.get("pooled", {})
        cells = (score.get("mean_pearson"), pooled.get("pearson"), pooled.get("mae"))
        rows.append([role, *(None if c is None else f"{c:.4f}" for c in cells)])
    if rows:
        console.table("", ("split", "Pearson", "pooled", "MAE/eV"), rows)


def checkpoint_view(checkpoint: Mapping[str, Any]) -> None:
    """What a saved model is and was trained on."""
    from mgsym.rendering.tables import mean_sd

    trained = checkpoint["training_set"]
    items = {
        "model": checkpoint["model"]["name"],
        "options": ", ".join(f"{k} {v}" for k, v in checkpoint["model"]["options"].items()),
        "parameters": checkpoint["parameters"],
        "species": " ".join(checkpoint["species"]),
        "cutoff": f"{checkpoint['cutoff']:g} Å",
        "labels": f"{mean_sd(checkpoint['label_mean'], checkpoint['label_scale'])} eV",
        "trained on": f"{', '.join(trained['names'])} ({trained['atoms']} atoms)",
        "epoch": checkpoint["extra"].get("epoch"),
        "written by": f"mgsym {checkpoint['extra'].get('mgsym', 'of an unknown version')}",
    }
    console.facts(f"{checkpoint['path']}: checkpoint", items)
    score_table(checkpoint["extra"].get("scores") or {})


def ensemble_view(ensemble: EnsembleSummary) -> None:
    """The models of an ensemble, and what its standard deviation is worth."""
    rows = [
        (m.name, m.model, f"{m.weight:.3f}", m.parameters, ", ".join(m.training) or None)
        for m in ensemble.members
    ]
    columns = ("member", "model", "weight", "parameters", "trained on")
    console.table(f"{ensemble.path}: ensemble", columns, rows)
    fit = ensemble.calibration
    if fit is None:
        console.result("Not calibrated")
        return
    items: dict[str, console.Cell] = {
        "error²": f"({fit.scale:.3f} × spread)² + ({fit.floor:.3f} eV)²",
        "correlation": fit.formula,
        "label noise": f"{fit.noise:.3f} eV" if fit.noise else "not known, so part of the error",
        "atoms": fit.atoms,
    }
    console.facts("Calibration", items)
    if fit.verdict:
        console.result(fit.verdict)


def error_note(summaries: Sequence[PredictionSummary]) -> str:
    """What barrier_predicted_std is, and whether it tells atoms apart."""
    calibrated = summaries[0].calibrated
    quantity = "the true barrier, calibrated" if calibrated else "the models alone"
    low = min(s.error_lowest or 0.0 for s in summaries)
    high = max(s.error_highest or 0.0 for s in summaries)
    note = (
        f"barrier_predicted_std is the standard deviation of {quantity}: {low:.3f} to {high:.3f} eV"
    )
    if calibrated and high < ALIKE * low:
        note += ", nearly the same for all atoms: it tells no sure atom from an unsure one"
    return note


def reliability_table(reliability: Reliability) -> None:
    """Predicted standard deviations beside what was found."""
    from mgsym.rendering import tables

    source = "calibrated" if reliability.calibrated else "spread between the models, not calibrated"
    title = f"Predicted standard deviation ({source})"
    console.facts(title, tables.reliability_facts(reliability))
    console.table("", *tables.reliability_bins(reliability))


def agreement_table(title: str, scores: Mapping[str, SplitScores]) -> None:
    """Scores of each structure, their mean, and all atoms pooled; by role where there are some."""
    from mgsym.rendering import tables

    console.table(title, *tables.agreement(scores))


def extremes_table(scores: SplitScores) -> None:
    """AUC of the atoms with the highest and lowest labels, by structure."""
    from mgsym.rendering import tables

    console.table("", *tables.extremes(scores))


def seeds_table(title: str, summary: Mapping[str, Mapping[str, float]]) -> None:
    """Mean and standard deviation over seeds, by role."""
    from mgsym.rendering import tables

    console.table(title, *tables.seeds(summary))


def training_view(runs: Sequence[TrainedRun], out: Path, as_json: bool) -> None:
    """Scores of one run, or their mean and spread over seeds; why training stopped, what it
    wrote."""
    from mgsym.prediction.seeds import summarize

    if as_json:
        scores = {r.config.seed: {k: s.as_dict() for k, s in r.scores.items()} for r in runs}
        console.emit_json({"run": out, "scores_by_seed": scores})
    elif len(runs) > 1:
        seeds_table(f"{len(runs)} seeds, mean ± standard deviation", summarize(runs))
    else:
        best = runs[0].best_epoch  # 0: there were no epochs
        agreement_table(f"Best epoch {best}" if best else "Fitted in one go", runs[0].scores)
    if runs[0].stopped:
        console.say(f"Training stopped early: {runs[0].stopped}")
    console.wrote(out)


def glasses_table(glasses: Iterable[Glass]) -> None:
    """What each quenched glass is like, one row a glass."""
    rows = [
        (
            g.name,
            len(g.structure),
            f"{g.rate:g}",
            f"{g.density:.3f}",
            f"{g.energy:.4f}",
            f"{g.first_peak:.2f}",
            " ".join(f"{symbol} {value:.2f}" for symbol, value in g.coordination.items()),
        )
        for g in glasses
    ]
    columns = ("glass", "atoms", "rate/(K/s)", "g/cm³", "eV/atom", "g(r) peak/Å", "coord. 3.8 Å")
    console.table("", columns, rows)


def relaxation_table(relaxed: Iterable[RelaxedFile]) -> None:
    """What a relaxation changed, one row a structure."""
    rows = [
        (
            r.name,
            r.atoms,
            f"{r.energy_before:.6g}",
            f"{r.energy_after:.6f}",
            f"{r.largest_force:.1e}",
            f"{r.pressure:.3f}",
            f"{r.density_before:.3f}",
            f"{r.density_after:.3f}",
            f"{r.moved:.3f}",
            r.steps,
            r.converged,
        )
        for r in relaxed
    ]
    # fmt: off
    names = (
        "structure", "atoms", "eV/atom before", "after", "force eV/Å", "GPa", "g/cm³ before",
        "after", "moved/Å", "steps", "minimum",
    )
    # fmt: on
    console.table("", names, rows)
