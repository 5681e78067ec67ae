"""Accuracy against cost of predictions refined by searches, on a public glass labelled twice.

    mgsym fetch
    mgsym build-graph data/cu64zr36/train*.pickle --potential Cu-Zr_2.eam.fs -o graphs
    mgsym label train0.xyz --atoms random:100 --searches 40 -o labelled.xyz
    python tests/benchmarks/refine.py --graphs graphs --events labelled.events.csv

The model is a ridge regression on descriptors and physical inputs that saw nothing of the glass;
its calibration comes from the glasses left out in the other folds. Two tables:

- *Searches made*: the searches of the events file, in as many disjoint blocks of N as there are,
  each fused and scored against the published labels of their atoms (mean over blocks).
- *Searches everywhere, drawn*: train0's published label of an atom is its true barrier plus noise
  of known variance; as much noise is added as brings it to that of a mean over the successes of N
  searches (0.56 N on average, single searches spreading by 0.57 eV). The result is scored against
  train1's labels, the same glass labelled independently. Beyond N = 30 the label itself is noisier
  than the searches would be, so this ends there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from mgsym.data_tools.simulation.labelling.barriers import aggregate
from mgsym.data_tools.simulation.labelling.event_files import Events, read_events
from mgsym.data_tools.simulation.labelling.schedule import Plan
from mgsym.data_tools.workflows.graphs import read_graphs
from mgsym.data_tools.workflows.posterior import observed_in
from mgsym.evaluation.label_noise import SUCCESS, TYPICAL_VARIANCE
from mgsym.evaluation.metrics import pearson
from mgsym.evaluation.splits import leave_one_group_out
from mgsym.graph import Graph
from mgsym.models.regression.ridge import Ridge, RidgeOptions
from mgsym.structure import Structure
from mgsym.uncertainty.calibration import Calibration
from mgsym.uncertainty.posterior import Observed, condition

PHYSICAL = (
    "energy", "pressure", "von_mises", "compliance_6", "compliance_9",
    *(f"stiffness_{axis}" for axis in (1, 2, 3)),
)  # fmt: skip
FIRST, SECOND = "train0", "train1"


def out_of_glass(graphs: Sequence[Graph], cache: Path | None) -> dict[str, Tensor]:
    """[n] eV for each structure, by a model that saw nothing of its glass."""
    if cache is not None and cache.exists():
        return dict(torch.load(cache, weights_only=True))
    found: dict[str, Tensor] = {}
    for fold in leave_one_group_out(graphs):
        train = fold.train + fold.validation
        model = Ridge(train[0].species, train[0].cutoff, RidgeOptions(physical_inputs=PHYSICAL))
        model.fit(train)
        with torch.no_grad():
            found.update({g.names[0]: model.eval()(g) for g in fold.test})
    if cache is not None:
        torch.save(found, cache)
    return found


def calibration(graphs: Sequence[Graph], means: dict[str, Tensor], noise: float) -> Calibration:
    """Of the glasses that are neither train0 nor train1."""
    others = [g for g in graphs if g.names[0] not in (FIRST, SECOND)]
    predicted = [means[g.names[0]] for g in others]
    return Calibration.fit(predicted, [torch.zeros_like(p) for p in predicted], others, noise)


def blocks(events: Events, size: int) -> Iterator[Events]:
    """The searches in disjoint blocks of so many of each atom, as if each were all there is."""
    for start in range(0, int(events["attempt"].max()) + 2 - size, size):
        chosen = (events["attempt"] >= start) & (events["attempt"] < start + size)
        part = events[chosen].copy()
        part["attempt"] -= start
        yield part


def table_of_searches(
    structure: Structure, label: Tensor, mean: Tensor, fit: Calibration, events: Events
) -> None:
    """What searches that were made are worth."""
    rows = np.unique(events["atom"]).tolist()
    std = fit.std(torch.zeros_like(mean))
    print(f"\nSearches made, {len(rows)} atoms; Pearson with the published labels\n")
    print("| searches | events | searches alone | inverse variance | with neighbours |")
    print("| --- | --- | --- | --- | --- |")
    print(f"| 0 | 0 | – | {pearson(mean[rows], label[rows]):.3f} | |")
    for size in (1, 2, 5, 10, 20, 40):
        scores = []
        for part in blocks(events, size):
            labelled = aggregate(structure, part, rows, Plan(size)).structure
            seen = observed_in(labelled)
            alone = pearson(seen.values, label[seen.rows])
            fused = [condition(structure, mean, std, seen, c).mean for c in (None, fit)]
            count = float(labelled.columns["events"].values[rows].double().mean())
            scores.append([count, alone, *(pearson(f[rows], label[rows]) for f in fused)])
        count, *cells = map(fmean, zip(*scores, strict=True))
        print(f"| {size} | {count:.1f} | {' | '.join(f'{c:.3f}' for c in cells)} |", flush=True)


def drawn(label: Tensor, searches: int, share: float, noise: float, seed: int) -> Observed:
    """What so many searches from a share of the atoms would find, from a label of known noise."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.rand(len(label), searches, generator=generator) < SUCCESS
    searched = torch.rand(len(label), generator=generator) < share
    rows = (found.any(1) & searched).nonzero().squeeze(1)
    variance = TYPICAL_VARIANCE / found.sum(1)[rows].double()
    extra = (variance - noise**2).clamp(min=0).sqrt()
    values = label[rows] + extra * torch.randn(len(rows), generator=generator).double()
    return Observed(rows, values, variance.clamp(min=noise**2))


def table_of_drawn(
    structure: Structure,
    labels: tuple[Tensor, Tensor],
    mean: Tensor,
    fit: Calibration,
    noise: float,
    cases: Sequence[tuple[int, float]],
) -> None:
    """What searches from all atoms, or from a share, would be worth."""
    first, second = labels
    ceiling = pearson(first, second) ** 0.5
    std = fit.std(torch.zeros_like(mean))
    print(f"\nSearches everywhere, drawn; Pearson with {SECOND}'s labels (ceiling {ceiling:.3f})\n")
    print("| N | share | per atom | inverse variance | with neighbours | error, claimed | s |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    print(f"| 0 | 1 | 0 | {pearson(mean, second):.3f} | | | |")
    for searches, share in cases:
        seen = drawn(first, searches, share, noise, seed=searches)
        start = time.process_time()
        plain, kriged = (condition(structure, mean, std, seen, c) for c in (None, fit))
        seconds = time.process_time() - start
        error = kriged.mean - second
        true = (error.var() - noise**2).clamp(min=0).sqrt()
        claimed = kriged.std.square().mean().sqrt()
        scores = " | ".join(f"{pearson(found.mean, second):.3f}" for found in (plain, kriged))
        print(f"| {searches} | {share:g} | {searches * share:g} | {scores} ", end="")
        print(f"| {true:.3f}, {claimed:.3f} eV | {seconds:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graphs", type=Path, required=True, help="graphs of train0 … train6")
    parser.add_argument("--events", type=Path, help="searches in train0")
    parser.add_argument("--noise", type=float, default=0.14, help="of published labels, eV")
    parser.add_argument("--cache", type=Path, help="keep the model's predictions here")
    parser.add_argument("--searches", default="1,2,5,10,20", help="drawn from every atom")
    parser.add_argument("--shares", default="5:0.2,2:0.5", help="N:share, drawn from a share")
    given = parser.parse_args()
    graphs = read_graphs([given.graphs])
    means = out_of_glass(graphs, given.cache)
    fit = calibration(graphs, means, given.noise)
    print(f"Calibration: {fit}")
    by_name = {g.names[0]: g for g in graphs}
    graph, other = by_name[FIRST], by_name[SECOND]
    structure = Structure(
        graph.positions, graph.cell[0], graph.types, graph.species, ids=graph.ids, name=FIRST
    )
    labels = graph.target.double(), other.target.double()
    mean = means[FIRST].double()
    if given.events:
        table_of_searches(structure, labels[0], mean, fit, read_events(given.events)[1])
    cases = [(int(n), 1.0) for n in given.searches.split(",") if n]
    cases += [(int(n), float(s)) for n, s in (c.split(":") for c in given.shares.split(",") if c)]
    table_of_drawn(structure, labels, mean, fit, given.noise, cases)


if __name__ == "__main__":
    main()
