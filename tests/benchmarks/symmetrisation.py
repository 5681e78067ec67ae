"""What symmetrisation contributes to SymGNN: where, with what transforms, and how many.

    mgsym fetch
    mgsym build-graph data/cu64zr36/train*.pickle -o graphs
    python tests/benchmarks/symmetrisation.py --graphs graphs --out symmetrisation

The paper's network (species and displacements, width 32, heads 8, 4, 2, 1) under the preset's
schedule, each glass left out once; K stands at the end of the names. It is a benchmark of mgsym:
`mgsym benchmark --resume symmetrisation` goes on with it, and OUT holds its table.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from mgsym.benchmark import run_benchmark
from mgsym.benchmark.plan import BenchmarkPlan
from mgsym.data_tools.workflows.graphs import read_graphs
from mgsym.training.config import Config, ModelConfig, preset

CASES: dict[str, dict[str, Any]] = {
    "edge-von-mises-2": {},
    "edge-von-mises-fixed-2": {"transforms": "von-mises-fixed"},
    "edge-haar-2": {"transforms": "haar"},
    "edge-haar-16": {"transforms": "haar", "samples": 16},
    "edge-exact": {"edge_input": "length"},
    "output-von-mises-2": {"symmetrisation": "output"},
    "output-haar-2": {"symmetrisation": "output", "transforms": "haar"},
    "augmented": {"transforms": "augment"},
    "none": {"transforms": "none"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graphs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--glasses", nargs="*", default=[], help="leave out these only")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    asked = parser.parse_args()
    plan = BenchmarkPlan(
        {name: settings(options, asked.epochs) for name, options in CASES.items()},
        seeds=tuple(asked.seeds),
        glasses=tuple(asked.glasses),
        rotations=8,
        graphs=str(asked.graphs),
    )
    resume = (asked.out / "plan.json").exists()
    run_benchmark(read_graphs([asked.graphs]), plan, asked.out, device="cpu", resume=resume)
    print((asked.out / "table.md").read_text(encoding="utf-8"))


def settings(options: dict[str, Any], epochs: int) -> Config:
    """The paper's model, with some options changed, under the preset's schedule."""
    fast = preset("fast")
    training = replace(fast.training, epochs=epochs)
    return replace(fast, model=ModelConfig("symgnn", options), training=training)


if __name__ == "__main__":
    main()
