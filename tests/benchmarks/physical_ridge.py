"""Leave-one-group-out accuracy of the ridge regression with and without physical inputs.

    mgsym fetch
    mgsym build-graph data/cu64zr36/train*.pickle --potential Cu-Zr_2.eam.fs -o graphs
    python tests/benchmarks/physical_ridge.py --graphs graphs

The ridge regression of symgnn alone, nothing trained beyond it; scored as `mgsym benchmark` does.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from mgsym.data_tools.graphs import read_graphs
from mgsym.models import create_model
from mgsym.splits import Split, leave_one_group_out

NAMES = ("energy", "pressure", "von_mises", "compliance_6", "compliance_9")
NAMES += tuple(f"stiffness_{axis}" for axis in (1, 2, 3))
CASES: dict[str, dict[str, Any]] = {
    "descriptors": {},
    "and physical inputs": {"physical_inputs": NAMES},
    "and these smoothed at 1.5 and 2.5 Å": {"physical_inputs": NAMES, "smoothing": (1.5, 2.5)},
}
BASE = {"node_input": "descriptors", "edge_input": "length", "heads": (2, 2), "decoder_layers": 1}


def score(fold: Split, options: dict[str, Any]) -> float:
    """Pearson per structure of the glass left out, averaged; the untrained network adds nothing."""
    train = fold.train + fold.validation
    model = create_model("symgnn", train[0].species, train[0].cutoff, {**BASE, **options})
    model.fit_statistics(train)
    model.eval()
    with torch.no_grad():
        pairs = [torch.stack([model(g), g.target])[:, g.labelled] for g in fold.test]
    return fmean(float(torch.corrcoef(pair)[0, 1]) for pair in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graphs", type=Path, required=True, help="graphs of train0 … train6")
    parser.add_argument("--strength", type=float, default=1000.0, help="of the ridge")
    given = parser.parse_args()
    folds = leave_one_group_out(read_graphs([given.graphs]))
    glasses = [fold.test[0].glasses[0] for fold in folds]
    print(f"| inputs | {' | '.join(glasses)} | mean | processor s per glass |")
    print("| --- " * (len(folds) + 3) + "|")
    for name, options in CASES.items():
        start = time.process_time()
        scores = [score(fold, {"ridge": given.strength, **options}) for fold in folds]
        seconds = (time.process_time() - start) / len(folds)
        cells = " | ".join(f"{s:.3f}" for s in scores)
        print(f"| {name} | {cells} | {fmean(scores):.4f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
