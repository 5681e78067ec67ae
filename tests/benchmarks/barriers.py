"""Own barriers against published labels of the same atoms, by the number of searches.

    mgsym label train0.pickle --potential Cu-Zr_2.eam.fs --atoms random:100 --seed 5 \
        --searches 40 --jobs 2 -o own.xyz
    python tests/benchmarks/barriers.py train0.pickle own.events.csv

A second labelling of the same glass (train1 for train0) shows what noise allows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from mgsym.data_tools.formats import read
from mgsym.data_tools.simulation.labelling.event_files import read_events

NUMBERS = (2, 5, 10, 20, 30, 40)
BOOTSTRAPS = 2000


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("file", type=Path, help="with published labels")
    options.add_argument("events", type=Path)
    asked = options.parse_args()
    published = read(asked.file).columns["barrier"].values.double().numpy()
    _, events, _ = read_events(asked.events)
    found = events["status"] == "found"
    print(f"{len(events)} searches of {len(np.unique(events['atom']))} atoms")
    print(f"successful: {found.mean():.1%}")
    kinds, counts = np.unique(events["status"], return_counts=True)
    print(", ".join(f"{k} {c / len(events):.1%}" for k, c in zip(kinds, counts, strict=True)))
    calls = [events[name].astype(float) for name in ("calls_leave", "calls_climb", "calls_refine")]
    print("force calls a search: leave {:.0f}, climb {:.0f}".format(*(c.mean() for c in calls)))
    print(f"force calls a success to refine: {calls[2][found].mean():.0f}")
    gap = events["barrier_local"][found] - events["barrier"][found]
    print(f"barrier with the boundary frozen less refined: {gap.mean():.3f} eV")
    shares = np.percentile(events["barrier"][found], (5, 25, 50, 75, 95))
    print("barriers, 5/25/50/75/95 %: " + " / ".join(f"{v:.2f}" for v in shares) + " eV")
    print("searches  events  atoms  own mean  published  Pearson  95 %          stderr/eV")
    for number in NUMBERS:
        if number > events["attempt"].max() + 1:
            break
        show(number, events[found & (events["attempt"] < number)], published)


def show(number: int, events: np.ndarray, published: np.ndarray) -> None:
    """One row: labels from the first `number` searches of each atom."""
    atoms, index, count = np.unique(events["atom"], return_inverse=True, return_counts=True)
    mean = np.bincount(index, events["barrier"]) / count
    square = np.bincount(index, (events["barrier"] - mean[index]) ** 2)
    stderr = np.sqrt(square / np.maximum(count - 1, 1) / count)[count > 1]
    label = published[atoms]
    generator = np.random.default_rng(0)
    draws = generator.integers(len(atoms), size=(BOOTSTRAPS, len(atoms)))
    spread = [np.corrcoef(mean[d], label[d])[0, 1] for d in draws]
    low, high = np.percentile(spread, (2.5, 97.5))
    print(
        f"{number:8} {count.mean():7.1f} {len(atoms):6} {mean.mean():9.3f} {label.mean():10.3f} "
        f"{np.corrcoef(mean, label)[0, 1]:8.3f}  {low:.2f} to {high:.2f} {stderr.mean():12.3f}"
    )


if __name__ == "__main__":
    main()
