"""What symmetrisation contributes to SymGNN: where, with what transforms, and how many.

    mgsym fetch
    mgsym build-graph data/cu64zr36/train*.pickle -o graphs
    python tests/benchmarks/symmetrisation.py --graphs graphs --out symmetrisation

The paper's network under the schedule of the preset `symgnn`, one glass left out to look at every
ten epochs; nothing is chosen by it. OUT holds a run for each case, a table and a figure of accuracy
against seconds; a second call goes on with what is not finished.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any

from mgsym.data_tools.workflows.graphs import read_graphs
from mgsym.graph import Graph
from mgsym.rendering.figures import COLOURS, new_figure
from mgsym.training import train
from mgsym.training.config import preset
from mgsym.training.runs import read_run

CASES: dict[str, dict[str, Any]] = {
    "lengths (exact)": {"model.edge_input": "length"},
    "learned von Mises, K = 1": {"model.samples": 1},
    "learned von Mises, K = 2": {"model.samples": 2},
    "learned von Mises, K = 8": {"model.samples": 8},
    "von Mises that do not learn, K = 8": {"model.transforms": "von-mises-fixed"},
    "Haar, K = 8": {"model.transforms": "haar"},
    "outputs averaged, K = 2": {"model.symmetrisation": "output", "model.samples": 2},
    "augmentation": {"model.transforms": "augment"},
    "none": {"model.transforms": "none"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graphs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--glass", default="glass_3", help="the one left out")
    parser.add_argument("--cases", nargs="*", default=list(CASES))
    asked = parser.parse_args()
    graphs = read_graphs([asked.graphs])
    for name in asked.cases:
        train_case(graphs, CASES[name], asked.out / name, asked.epochs, asked.glass)
    done = [name for name in CASES if (asked.out / name / "best.pt").exists()]
    table(asked.out, done)
    figure(asked.out, done)


def train_case(
    graphs: list[Graph], changes: dict[str, Any], run: Path, epochs: int, glass: str
) -> None:
    """Train, or go on with, one run."""
    started = (run / "run.json").exists()
    if started and read_run(run)["status"] == "finished":
        return
    config = preset("symgnn").changed({**changes, "training.epochs": epochs})
    resume = started and (run / "last.pt").exists()
    begun, before = time.process_time(), len(history(run)) if resume else 0
    train(graphs, config, run=run, device="cpu", validation=[glass], test=[], resume=resume,
          overwrite=started and not resume)  # fmt: skip
    each = (time.process_time() - begun) / (len(history(run)) - before)
    (run / "processor_seconds.txt").write_text(f"{each}\n", encoding="utf-8")


def history(run: Path) -> list[dict[str, str]]:
    """The evaluations of a run."""
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def seconds(run: Path) -> float:
    """Processor seconds from one evaluation to the next, the evaluation included."""
    return float((run / "processor_seconds.txt").read_text(encoding="utf-8"))


def table(out: Path, names: list[str]) -> None:
    """Print and write the last evaluation of each case."""
    lines = ["| edges | left out | in training | prediction turned, eV | s |", "| --- " * 5 + "|"]
    for name in names:
        facts, rows = read_run(out / name), history(out / name)
        turned, spent = facts["rotation_rms_eV"], len(rows) * seconds(out / name)
        lines.append(
            f"| {name} | {float(rows[-1]['validation_pearson']):.3f} "
            f"| {facts['scores']['train']['mean_pearson']:.3f} "
            f"| {'0' if turned is None else f'{turned:.2g}'} | {spent:.0f} |"
        )
    text = "\n".join(lines)
    print(text)
    (out / "table.md").write_text(text + "\n", encoding="utf-8")


def figure(out: Path, names: list[str]) -> None:
    """Draw the accuracy on the glass left out against the time of the training."""
    drawing = new_figure((6.4, 3.6))
    axes = drawing.add_subplot()
    for number, name in enumerate(names):
        rows = history(out / name)
        axes.plot(
            [seconds(out / name) * (place + 1) for place in range(len(rows))],
            [float(row["validation_pearson"]) for row in rows],
            color=COLOURS[number % len(COLOURS)],
            linestyle="-" if number < len(COLOURS) else "--",
            label=name,
        )
    axes.set_xlabel("processor time of one thread (s)")
    axes.set_ylabel("Pearson, glass left out")
    drawing.legend(loc="outside right upper", frameon=False, fontsize="small")
    drawing.savefig(out / "curves.png", dpi=160)


if __name__ == "__main__":
    main()
