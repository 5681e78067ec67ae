"""Leave-one-group-out accuracy on the public glasses.

    mgsym fetch
    python tests/benchmarks/leave_one_group_out.py --data data/cu64zr36 --protocol fixed

Each of the four glasses is left out once and scored against the published labels, with a model
that saw nothing of it: per-structure Pearson, averaged within the glass, then over the glasses.

- ``fixed``: the other three glasses train for a schedule set beforehand (--epochs);
- ``early``: two train, and the next glass in the list stops training early.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch

import mgsym
from mgsym.config import Config, load_config
from mgsym.graph import Graph
from mgsym.splits import Split, leave_one_group_out
from mgsym.training import train

STRUCTURES = [f"train{i}" for i in range(7)]


def graphs_of(folder: Path) -> list[Graph]:
    return [mgsym.build_graph(mgsym.read(folder / f"{name}.pickle")) for name in STRUCTURES]


def prepared(split: Split, config: Config, protocol: str) -> tuple[Split, Config]:
    """The fold and the settings as the protocol wants them."""
    if protocol == "early":
        return split, config
    schedule = replace(config.training, patience=0, evaluate_every=config.training.epochs)
    everything = replace(split, train=split.train + split.validation, validation=[])
    return everything, replace(config, training=schedule)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the public dataset")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--protocol", choices=["fixed", "early"], default="fixed")
    parser.add_argument("--epochs", type=int, help="of the preset, unless given")
    parser.add_argument("--seeds", default="0:1", help="first:end, such as 0:4")
    parser.add_argument("--folds", help="glasses to leave out, such as glass_3 (default: all)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    changes = [*given.set, *([f"training.epochs={given.epochs}"] if given.epochs else [])]
    folds = leave_one_group_out(graphs_of(given.data))
    rows: dict[str, list[float]] = {}
    for seed in range(*map(int, given.seeds.split(":"))):
        config = replace(load_config(None, changes, given.preset), seed=seed)
        for fold in folds:
            glass = fold.test[0].glasses[0]
            if given.folds and glass not in given.folds.split(","):
                continue
            start = time.perf_counter()
            split, settings = prepared(fold, config, given.protocol)
            result = train(split.train + split.validation + split.test, settings, split=split)
            scores = result.scores["test"]
            rows.setdefault(glass, []).append(scores.mean_pearson)
            row = {
                "seed": seed,
                "glass": glass,
                "pearson": round(scores.mean_pearson, 4),
                "pooled": round(scores.pooled.pearson, 4),
                "mae_eV": round(scores.pooled.mae, 4),
                "best_epoch": result.best_epoch,
                "seconds": round(time.perf_counter() - start),
            }
            print(json.dumps(row), file=sys.stderr, flush=True)
    print("| glass left out | Pearson |\n| --- | --- |")
    for glass, values in rows.items():
        print(f"| {glass} | {fmean(values):.3f} |")
    print(f"| mean | {fmean(fmean(v) for v in rows.values()):.4f} |")


if __name__ == "__main__":
    main()
