"""The table of a benchmark: means over folds, then mean and standard deviation over seeds.

Rows stand in the order in which models were asked for: nothing is ranked by a test figure.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from mgsym.benchmark.plan import CHOSEN_ON_TEST, PROTOCOLS, BenchmarkPlan, Fold
from mgsym.benchmark.trial import Trial
from mgsym.errors import MgsymError
from mgsym.evaluation.label_noise import Ceiling, ceiling, label_variance, repeated_labels
from mgsym.utils.files import write_json, write_text

METRICS = ("pearson", "spearman", "mae", "rmse", "auc_high", "auc_low")
HEADINGS = ("Pearson", "Spearman", "MAE/eV", "RMSE/eV", "AUC high 5 %", "AUC low 5 %")
CEILING = "noise ceiling"
# what a row is of, beside single structures
STRUCTURES, POOLED = "mean of structures", "pooled"
ROLES = ("train", "validation", CHOSEN_ON_TEST, "test")
MISSING = "–"


@dataclass(frozen=True)
class Value:
    """Mean over seeds, their sample standard deviation (None for one seed), a 95 % interval."""

    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is not None:
            return f"{self.mean:.3f} ({self.low:.3f}–{self.high:.3f})"
        return f"{self.mean:.3f}" if self.sd is None else f"{self.mean:.3f} ± {self.sd:.3f}"


@dataclass(frozen=True)
class Row:
    """Scores of one model on one set of atoms.

    Attributes:
        model: its label, or CEILING.
        role: ``train``, ``validation`` or ``test`` (CHOSEN_ON_TEST under ``published-code``).
        of: STRUCTURES (the mean over those of a fold, then over folds), POOLED (all atoms of a
            fold's structures, then the mean over folds), or the name of one structure.
        atoms: labelled ones, in all folds together.
        values: by METRICS; mae and rmse in eV. Not all are known of the ceiling.
    """

    model: str
    role: str
    of: str
    atoms: int
    values: Mapping[str, Value]


@dataclass(frozen=True)
class Facts:
    """What a model cost, over its trainings.

    Attributes:
        done, planned: trainings; the seeds that lack a fold count only where none is complete.
        failed: trainings that diverged or filled the memory.
        seeds: that the scores are of.
        parameters: trained numbers.
        seconds: mean of a training.
        peak_memory: GB, the highest.
        rotation: eV, the root mean square change under random rotations and reflections, mean.
        invariant: what the model declares.
        device: what it ran on.
        budget: of each training, as its settings say.
        epochs: mean of those that were run.
        cut: trainings that time ended.
    """

    done: int
    planned: int
    failed: int
    seeds: tuple[int, ...]
    parameters: int | None
    seconds: float | None
    peak_memory: float | None
    rotation: float | None
    invariant: str
    device: str
    budget: str
    epochs: float | None
    cut: int


@dataclass(frozen=True)
class Table:
    """What came of a benchmark.

    Attributes:
        protocol: a key of PROTOCOLS.
        rows: in the order of the models, then of the roles.
        facts: by model.
        ceiling: the noise ceiling of the scored structures; empty where no noise is known.
        noise: where the noise of the labels was taken from.
        failures: the name of each training that failed, and why.
    """

    protocol: str
    rows: tuple[Row, ...]
    facts: Mapping[str, Facts]
    ceiling: tuple[Row, ...] = ()
    noise: str = ""
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def scored(self) -> str:
        """The role that the summary shows: test where there is any, else validation."""
        roles = {row.role for row in self.rows} or {"test"}
        return next(role for role in reversed(ROLES) if role in roles)

    def value(self, model: str, metric: str, of: str = STRUCTURES, role: str = "") -> Value | None:
        """One figure, of the scored role unless said otherwise; None where there is none."""
        wanted = (model, role or self.scored, of)
        rows = (
            row for row in (*self.rows, *self.ceiling) if (row.model, row.role, row.of) == wanted
        )
        return next((row.values.get(metric) for row in rows), None)

    def summary(self) -> tuple[list[str], list[list[str]]]:
        """Headings and cells of one line per model, and one of the ceiling."""
        columns = ["model", f"Pearson, {self.scored}", "pooled", *HEADINGS[1:]]
        others = [
            (role, of)
            for role, of in (("train", STRUCTURES), ("train", POOLED), ("validation", STRUCTURES))
            if role != self.scored
        ]
        columns += [role if of == STRUCTURES else f"{role}, {of}" for role, of in others]
        columns += ["parameters", "seconds", "GB", "rotated/eV", "budget", "device", "trainings"]
        rows = []
        for model in (*self.facts, *([CEILING] if self.ceiling else [])):
            figures = [self.value(model, "pearson"), self.value(model, "pearson", POOLED)]
            figures += [self.value(model, metric) for metric in METRICS[1:]]
            figures += [self.value(model, "pearson", of, role) for role, of in others]
            facts = _fact_cells(self.facts[model]) if model in self.facts else [MISSING] * 7
            rows.append([model, *(MISSING if v is None else str(v) for v in figures), *facts])
        return columns, rows

    def details(self) -> tuple[list[str], list[list[str]]]:
        """Headings and cells of every row."""
        columns = ["model", "split", "of", "atoms", *HEADINGS]
        rows = []
        for row in (*self.rows, *self.ceiling):
            values = [row.values.get(metric) for metric in METRICS]
            cells = [MISSING if v is None else str(v) for v in values]
            rows.append([row.model, row.role, row.of, str(row.atoms), *cells])
        return columns, rows

    def notes(self) -> list[str]:
        """What must be known to read the figures, as sentences."""
        notes = [f"Protocol {self.protocol}. {PROTOCOLS[self.protocol]}"]
        seeds = {facts.seeds for facts in self.facts.values() if facts.seeds}
        seed_lists = "; ".join(", ".join(map(str, s)) for s in sorted(seeds)) or "none yet"
        notes.append(
            f"Seeds: {seed_lists}; ± is the standard deviation over them. Pearson, Spearman and "
            "errors are taken within each structure and averaged over a fold, then over the folds; "
            "pooled is over all atoms of a fold."
        )
        if self.noise:
            notes.append(f"{CEILING.capitalize()}: a perfect predictor's figures; {self.noise}.")
        if cut := [f"{m} {f.cut} of {f.done}" for m, f in self.facts.items() if f.cut]:
            notes.append(f"Trainings that their time limit ended: {', '.join(cut)}.")
        notes += [f"Failed: {name}: {why}." for name, why in self.failures.items()]
        return notes

    def markdown(self) -> str:
        """Notes, the summary, and every row."""
        parts = ["# Benchmark", *self.notes(), _markdown(*self.summary())]
        return "\n\n".join([*parts, "## Every figure", _markdown(*self.details())]) + "\n"

    def csv(self) -> str:
        """One line per row, unrounded; the facts of a model stand in each of its lines."""
        numbers = [name for metric in METRICS for name in (metric, f"{metric}_sd")]
        facts = [name for name in Facts.__dataclass_fields__ if name != "seeds"]
        text = io.StringIO()
        writer = csv.DictWriter(
            text, ["protocol", "model", "split", "of", "atoms", *numbers, "seeds", *facts]
        )
        writer.writeheader()
        for row in (*self.rows, *self.ceiling):
            line: dict[str, Any] = {"protocol": self.protocol, "model": row.model}
            line.update({"split": row.role, "of": row.of, "atoms": row.atoms})
            for metric, value in row.values.items():
                line.update({metric: value.mean, f"{metric}_sd": value.sd})
            if row.model in self.facts:
                model_facts = asdict(self.facts[row.model])
                line.update({**model_facts, "seeds": " ".join(map(str, model_facts["seeds"]))})
            writer.writerow(line)
        return text.getvalue()

    def as_dict(self) -> dict[str, Any]:
        """For JSON: everything, unrounded."""
        return {
            "protocol": self.protocol,
            "notes": self.notes(),
            "models": {model: asdict(facts) for model, facts in self.facts.items()},
            "rows": [asdict(row) for row in (*self.rows, *self.ceiling)],
            "failures": dict(self.failures),
        }

    def raise_failures(self) -> None:
        """MgsymError where a training failed."""
        for name, why in self.failures.items():
            more = f" (and {len(self.failures) - 1} more)" if len(self.failures) > 1 else ""
            raise MgsymError(f"a training failed{more}; --resume tries again: {name}: {why}")

    def save(self, folder: Path) -> None:
        """Write table.md, table.csv and table.json."""
        write_text(folder / "table.md", self.markdown())
        write_text(folder / "table.csv", self.csv())
        write_json(folder / "table.json", self.as_dict())


def make_table(plan: BenchmarkPlan, folds: Sequence[Fold], trials: Sequence[Trial]) -> Table:
    """The table of the trainings that are over.

    A seed counts once all its folds are there, so that means over folds are of the same folds;
    where no seed is complete, all that there is counts.
    """
    rows: list[Row] = []
    facts: dict[str, Facts] = {}
    for label in plan.models:
        own = [t for t in trials if t.model == label]
        good = [t for t in own if not t.error]
        counted = _complete(good, len(folds)) or good
        rows += _rows(label, counted)
        facts[label] = _facts(plan, label, len(folds), own, counted)
    limit, noise = _ceiling_rows(plan, folds)
    failures = {f"{t.model}, {t.fold}, seed {t.seed}": t.error for t in trials if t.error}
    return Table(plan.protocol, tuple(rows), facts, tuple(limit), noise, failures)


def _complete(trials: Sequence[Trial], folds: int) -> list[Trial]:
    seeds = [t.seed for t in trials]
    return [t for t in trials if seeds.count(t.seed) == folds]


def _rows(label: str, trials: Sequence[Trial]) -> list[Row]:
    rows = []
    for role in ROLES:
        scored = [t for t in trials if role in t.scores]
        structures = dict.fromkeys(name for t in scored for name in t.scores[role]["structures"])
        # records of older versions lack some figures
        metrics = [m for m in METRICS if all(m in t.scores[role]["pooled"] for t in scored)]
        for of in (STRUCTURES, POOLED, *structures) if scored else ():
            values = {metric: _value(scored, role, of, metric) for metric in metrics}
            rows.append(Row(label, role, of, _atoms(scored, role, of), values))
    return rows


def _value(trials: Sequence[Trial], role: str, of: str, metric: str) -> Value:
    """Mean over the folds of each seed, then over seeds."""
    by_seed: dict[int, list[float]] = {}
    for trial in trials:
        for value in _figures(trial.scores[role], of, metric):
            by_seed.setdefault(trial.seed, []).append(value)
    means = [fmean(values) for values in by_seed.values()]
    return Value(fmean(means), stdev(means) if len(means) > 1 else None)


def _figures(scores: Mapping[str, Any], of: str, metric: str) -> list[float]:
    """The figure of one fold; none where it has no such structure. What is undefined is what
    knowing nothing gives: a correlation of 0, an AUC of ½."""
    nothing = 0.5 if metric.startswith("auc") else 0.0
    if of == STRUCTURES:
        return [fmean(s[metric] or nothing for s in scores["structures"].values())]
    figures = scores["pooled"] if of == POOLED else scores["structures"].get(of)
    return [] if figures is None else [figures[metric] or nothing]


def _atoms(trials: Sequence[Trial], role: str, of: str) -> int:
    """Labelled atoms of the distinct structures that the role has in any fold."""
    counts = {
        name: int(scores["count"])
        for trial in trials
        for name, scores in trial.scores[role]["structures"].items()
    }
    return counts[of] if of in counts else sum(counts.values())


def _facts(
    plan: BenchmarkPlan, label: str, folds: int, own: Sequence[Trial], counted: Sequence[Trial]
) -> Facts:
    good = [t for t in own if not t.error]
    training = plan.settings(label, plan.seeds[0]).training
    budget = f"{training.epochs} epochs"
    if training.max_minutes:
        budget += f", {training.max_minutes:g} min"
    return Facts(
        done=len(good),
        planned=folds * len(plan.seeds),
        failed=len(own) - len(good),
        seeds=tuple(sorted({t.seed for t in counted})),
        parameters=good[-1].parameters if good else None,
        seconds=_mean(t.seconds for t in good),
        peak_memory=max((t.peak_memory for t in good if t.peak_memory is not None), default=None),
        rotation=_mean(float(t.rotation["rms"]) for t in good),
        invariant=good[-1].invariant if good else "",
        device="; ".join(dict.fromkeys(t.device for t in good)),
        budget=budget,
        epochs=_mean(t.epochs for t in good if t.epochs is not None),
        cut=sum("minutes are over" in t.stopped for t in good),
    )


def _mean(values: Iterable[float]) -> float | None:
    numbers = list(values)
    return fmean(numbers) if numbers else None


def _fact_cells(facts: Facts) -> list[str]:
    def cell(value: float | None, text: str) -> str:
        return MISSING if value is None else format(value, text)

    return [
        cell(facts.parameters, ","),
        cell(facts.seconds, ".0f" if (facts.seconds or 0) >= 10 else ".1f"),
        cell(facts.peak_memory, ".2f"),
        cell(facts.rotation, ".1g"),
        facts.budget,
        facts.device or MISSING,
        f"{facts.done}/{facts.planned}",
    ]


def _ceiling_rows(plan: BenchmarkPlan, folds: Sequence[Fold]) -> tuple[list[Row], str]:
    """What a perfect predictor would reach on the scored structures, and how that is known."""
    role = CHOSEN_ON_TEST if plan.protocol == "published-code" else "test"
    scored = [fold.split.test or fold.split.validation for fold in folds]
    if plan.protocol == "split" and not folds[0].split.test:
        role = "validation"
    every = {g.names[0]: g for fold in folds for _, gs in fold.split.items() for g in gs}
    graphs = list(every.values())
    variance = label_variance(graphs)
    single = [[ceiling([g], variance) for g in members] for members in scored]
    pooled = [ceiling(members, variance) for members in scored]
    if any(c is None for c in (*pooled, *(c for fold in single for c in fold))):
        return [], ""
    rows = [
        _ceiling_row(role, STRUCTURES, single),
        _ceiling_row(role, POOLED, [[c] for c in pooled]),
    ]
    rows += [
        _ceiling_row(role, g.names[0], [[c]])
        for members, ceilings in zip(scored, single, strict=True)
        for g, c in zip(members, ceilings, strict=True)
    ]
    return rows, _how_noise_is_known(graphs, variance)


def _ceiling_row(role: str, of: str, folds: Sequence[Sequence[Ceiling | None]]) -> Row:
    ceilings = [[c for c in fold if c is not None] for fold in folds]

    def mean(name: str) -> float:
        return fmean(fmean(getattr(c, name) for c in fold) for fold in ceilings)

    pearson = Value(mean("pearson"), low=mean("low"), high=mean("high"))
    values = {"pearson": pearson, "rmse": Value(mean("rmse"))}
    atoms = sum(c.atoms for fold in ceilings for c in fold)
    kept = {metric: value for metric, value in values.items() if not math.isnan(value.mean)}
    return Row(CEILING, role, of, atoms, kept)


def _how_noise_is_known(graphs: Sequence[Any], variance: float | None) -> str:
    sources = []
    if any(not bool(g.target_stderr[g.labelled].isnan().all()) for g in graphs):
        sources.append("the labels' standard errors")
    if variance is not None:
        pairs = [" and ".join(pair.names) for pair in repeated_labels(graphs)]
        sources.append(
            f"{', '.join(pairs)}, one glass labelled twice (noise variance {variance:.4f} eV²)"
        )
    return "from " + " and, where there are none, ".join(sources)


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
