"""Do error bars tell sure atoms from unsure ones, and does it pay to search where they are large?

    mgsym fetch
    mgsym build-graph data/cu64zr36/train*.pickle -o graphs
    OMP_NUM_THREADS=1 python tests/benchmarks/error_bars.py --graphs graphs

The model is the ridge regression, which sees nothing of the glass that it predicts; spreads are
those between regressions that leave out one more glass each. Three tables:

- *Glass by glass*: σ calibrated on three glasses and measured on the fourth, with features (as
  `mgsym ensemble --calibrate` chooses them), with all features whether they help or not, and
  constant: log-likelihood, correlation of σ with |error|, errors of the fifths by σ, coverage.
- *Without noise*: train0 and train1 are one glass labelled twice, so that the product of both
  residuals is the squared error of the model alone. By fifths of each feature, and the noise too.
- *Chosen atoms*: train0's labels of atoms chosen as `mgsym label --choose` does, or at random,
  refine the prediction, which is scored against train1's labels.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mgsym.data_tools.workflows.graphs import read_graphs
from mgsym.evaluation.metrics import pearson
from mgsym.graph import Graph
from mgsym.graph.operations import glass_of
from mgsym.models.regression.base import strength_for
from mgsym.models.regression.moments import Moments, ridge_weights
from mgsym.models.regression.ridge import Ridge, RidgeOptions
from mgsym.structure import Structure
from mgsym.uncertainty import error_features as known
from mgsym.uncertainty.active_learning import select_atoms
from mgsym.uncertainty.calibration import Calibration
from mgsym.uncertainty.error_covariance import ErrorCovariance
from mgsym.uncertainty.out_of_distribution import TrainingSet
from mgsym.uncertainty.posterior import Observed, condition

FIRST, SECOND = "train0", "train1"
PARTS = 5


class Case(NamedTuple):
    """A structure as it was predicted by regressions that saw nothing of its glass."""

    graph: Graph
    mean: Tensor
    spread: Tensor
    features: dict[str, Tensor]


def out_of_glass(graphs: Sequence[Graph]) -> list[Case]:
    """Predict every structure by what the other glasses teach."""
    model = Ridge(graphs[0].species, graphs[0].cutoff, RidgeOptions())
    model.fit_statistics(graphs)
    prepared = [model.prepare(graph) for graph in graphs]
    model.inputs.fit(prepared)
    x = [model.inputs.features(graph).double() for graph in prepared]
    moments: dict[str, Moments] = {}
    for graph, features in zip(graphs, x, strict=True):
        own, glass = Moments.of(features, model.standard_target(graph)), glass_of(graph)
        moments[glass] = Moments.sum([moments[glass], own]) if glass in moments else own
    cases = []
    for glass in moments:
        others = [name for name in moments if name != glass]
        sets = [others, *([o for o in others if o != left] for left in others)]
        fits = [_fitted([moments[name] for name in names]) for names in sets]
        training = TrainingSet.of([g for g in graphs if glass_of(g) != glass])
        for graph, features in zip(graphs, x, strict=True):
            if glass_of(graph) == glass:
                found = torch.stack([features @ weight + level for weight, level in fits])
                found = found * model.label_scale + model.label_mean
                told = known.error_features(graph, found[0], training)
                cases.append(Case(graph, found[0], found[1:].std(0, correction=0), told))
    return cases


def _fitted(glasses: Sequence[Moments]) -> tuple[Tensor, float]:
    together = Moments.sum(glasses)
    (weight,) = ridge_weights(together, [strength_for(0.0, glasses)])
    mean, level = together.centre()
    return weight, float(level - mean @ weight)


def fitted(cases: Sequence[Case], noise: float, features: bool = True) -> Calibration:
    """The calibration that some structures give."""
    told = [case.features for case in cases] if features else None
    return Calibration.fit(
        [case.mean for case in cases], [case.spread for case in cases],
        [case.graph for case in cases], noise, told,
    )  # fmt: skip


def all_features(cases: Sequence[Case], noise: float) -> Calibration:
    """The calibration with every feature, as if each helped."""
    usual, known._beyond_chance = known._beyond_chance, lambda *_: True
    try:
        return fitted(cases, noise)
    finally:
        known._beyond_chance = usual


def fifths(values: Tensor, of: Tensor) -> list[float]:
    """Root mean square of `of` (squares) in fifths by `values`, lowest first."""
    order = values.argsort(stable=True)
    return [math.sqrt(max(float(of[part].mean()), 0.0)) for part in order.tensor_split(PARTS)]


def _row(items: Sequence[object]) -> None:
    print(f"| {' | '.join(f'{x:.3f}' if isinstance(x, float) else str(x) for x in items)} |")


def glass_by_glass(cases: Sequence[Case], noise: float) -> None:
    """Calibrate on all glasses but one and measure on that one."""
    print("\nGlass by glass; gain: log-likelihood over constant σ, thousandths of a nat an atom\n")
    print("| structure | σ | gain | corr(σ, error) | fifths by σ, eV | 68 % | 95 % | uses |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    totals: dict[str, list[float]] = {}
    for glass in dict.fromkeys(glass_of(case.graph) for case in cases):
        others = [case for case in cases if glass_of(case.graph) != glass]
        chosen, every = fitted(others, noise), all_features(others, noise)
        constant = replace(fitted(_without_spread(others), noise, False), scale=0.0)
        for case in (case for case in cases if glass_of(case.graph) == glass):
            base = _measured(case, constant)
            for name, fit in (("constant", constant), ("chosen", chosen), ("all", every)):
                one = _measured(case, fit)
                gain = 1e3 * (base["surprise"] - one["surprise"])
                totals.setdefault(name, []).append(gain)
                parts = " ".join(f"{x:.3f}" for x in one["fifths"])
                uses = ", ".join(feature.name for feature in fit.used)
                _row([case.graph.names[0], name, f"{gain:+.2f}", one["correlation"], parts,
                      one["68"], one["95"], uses])  # fmt: skip
    for name, gains in totals.items():
        print(f"{name}: mean gain {sum(gains) / len(gains):+.2f}")


def _without_spread(cases: Sequence[Case]) -> list[Case]:
    return [case._replace(spread=torch.zeros_like(case.spread)) for case in cases]


def _measured(case: Case, fit: Calibration) -> dict[str, Any]:
    error = (case.graph.target.double() - case.mean).double()
    std = fit.label_std(case.spread, features=case.features)
    centred = error - error.mean()
    z = error / std
    return {
        "surprise": float((std.square().log() + z.square()).mean() / 2),
        "correlation": pearson(std, centred.abs()),
        "fifths": fifths(std, centred.square()),
        "68": float((z.abs() <= 1).double().mean()),
        "95": float((z.abs() <= 1.96).double().mean()),
    }


def without_noise(cases: Mapping[str, Case], fit: Calibration, every: Calibration) -> None:
    """Errors of the model alone, by fifths of what is known of atoms."""
    first, second = cases[FIRST], cases[SECOND]
    residual = [case.graph.target.double() - case.mean for case in (first, second)]
    own = residual[0] * residual[1]
    noise = (first.graph.target.double() - second.graph.target.double()).square() / 2
    print(f"\nWithout noise ({FIRST}, {SECOND}): model {math.sqrt(own.mean()):.3f} eV, ", end="")
    print(f"noise {math.sqrt(noise.mean()):.3f} eV; fifths, lowest value first\n")
    print("| by | model's error, eV | noise, eV |")
    print("| --- | --- | --- |")
    columns = {"spread": first.spread, **first.features}
    columns["σ, chosen"] = fit.std(first.spread, first.features)
    columns["σ, all features"] = every.std(first.spread, first.features)
    for name, values in columns.items():
        _row([name, *(" ".join(f"{x:.3f}" for x in fifths(values, of)) for of in (own, noise))])


def chosen_atoms(
    cases: Mapping[str, Case], fits: Mapping[str, Calibration], counts: Sequence[int], draws: int
) -> None:
    """Labels of chosen and of random atoms, each put into the prediction."""
    first, second = cases[FIRST], cases[SECOND]
    label, truth = (case.graph.target.double() for case in (first, second))
    graph = first.graph
    structure = Structure(
        graph.positions, graph.cell[0], graph.types, graph.species, ids=graph.ids, name=FIRST
    )
    noise = float((label - truth).var() / 2)

    def refined(fit: Calibration, rows: Tensor) -> tuple[float, float]:
        std = fit.std(first.spread, first.features)
        seen = Observed(rows, label[rows], torch.full((len(rows),), noise).double())
        mean = condition(structure, first.mean, std, seen, fit).mean
        error = (mean - truth).square().mean() - noise
        return math.sqrt(max(float(error), 0.0)), pearson(mean, truth)

    print(f"\nChosen atoms: {FIRST}'s labels, scored with {SECOND}'s; error without its noise\n")
    print("| σ | atoms | chosen: error/eV, Pearson | random: error/eV, Pearson | sd of random |")
    print("| --- | --- | --- | --- | --- |")
    for name, fit in fits.items():
        std = fit.std(first.spread, first.features)
        field = ErrorCovariance.of(structure, std, fit)
        for count in counts:
            ours = refined(fit, select_atoms(field, count, noise))
            drawn = [
                refined(fit, torch.randperm(len(label), generator=torch.Generator().manual_seed(i))[
                    :count
                ])
                for i in range(draws)
            ]  # fmt: skip
            random = torch.tensor(drawn, dtype=torch.float64)
            middle, sd = random.mean(0).tolist(), random.std(0).tolist()
            _row([name, count, f"{ours[0]:.4f}, {ours[1]:.4f}",
                  f"{middle[0]:.4f}, {middle[1]:.4f}", f"{sd[0]:.4f}, {sd[1]:.4f}"])  # fmt: skip
    mean = first.mean
    error = math.sqrt(float((mean - truth).square().mean()) - noise)
    print(f"without any label: {error:.4f}, {pearson(mean, truth):.4f}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graphs", type=Path, required=True, help="graphs of train0 … train6")
    parser.add_argument("--noise", type=float, default=0.142, help="of published labels, eV")
    parser.add_argument("--counts", default="400,1600,4000", help="atoms that are chosen")
    parser.add_argument("--draws", type=int, default=5, help="random choices")
    given = parser.parse_args()
    cases = out_of_glass(read_graphs([given.graphs]))
    glass_by_glass(cases, given.noise)
    by_name = {case.graph.names[0]: case for case in cases}
    others = [case for case in cases if glass_of(case.graph) != glass_of(by_name[FIRST].graph)]
    fit, every = fitted(others, given.noise), all_features(others, given.noise)
    without_noise(by_name, fit, every)
    counts = [int(count) for count in given.counts.split(",")]
    flat = replace(fitted(_without_spread(others), given.noise, False), scale=0.0)
    fits = {"constant": flat, "chosen": fit, "all": every}
    chosen_atoms(by_name, fits, counts, given.draws)


if __name__ == "__main__":
    main()
