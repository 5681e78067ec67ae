"""What explanations are worth at every k: many atoms, three controls, three perturbations.

    OMP_NUM_THREADS=1 python tests/benchmarks/explanation_curves.py data/cu64zr36/test0.dump \
        --types 1=Cu,2=Zr --run shipped --nodes 40

Atoms are drawn at random; k counts bonds. For each perturbation (mgsym.explanation.perturbations)
the change of the prediction with the first k bonds alone and without them, in standard deviations
of the label: medians over atoms with 95 % bootstrap intervals, beside bonds as far away, random
ones and those of a model with shuffled weights. Then, for every k: in how many atoms the bonds
suffice better than random ones, whether the error falls from one k to the next, and how many times
farther their loss moves the prediction than that of matched bonds. Tables are printed after every
batch of atoms. `--save FOLDER` keeps the explanations (their first bonds) and what was measured;
found there, an explanation is read instead of made. `--figure FILE` draws the curves of the first
perturbation.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mgsym.cli.options import chosen_run
from mgsym.data_tools.formats import parse_types
from mgsym.data_tools.workflows.explanation_target import ExplainedSystem, explained_system
from mgsym.explanation.explain import DEFAULT, explain_nodes
from mgsym.explanation.explanation import Explanation
from mgsym.explanation.faithfulness import NodeFaithfulness, evaluate_explanations
from mgsym.explanation.perturbations import PERTURBATIONS
from mgsym.rendering.explanation_figures import curves_figure

SIZES = (1, 2, 5, 10, 20, 30, 50, 70, 100)
BATCH = 5
RESAMPLED = 2000
KEPT = 400  # bonds of an explanation in a file


def interval(values: Tensor) -> tuple[float, float, float]:
    """Median over atoms with its 95 % bootstrap interval."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(len(values), (RESAMPLED, len(values)), generator=generator)
    drawn = values[rows].median(dim=1).values
    low, high = torch.quantile(drawn, torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
    return float(values.median()), low, high


def column(nodes: Sequence[NodeFaithfulness], side: str, kind: str) -> Tensor:
    """[atoms, sizes] changes in label sd."""
    return torch.tensor([getattr(node, side)[kind] for node in nodes], dtype=torch.float64)


def table(nodes: Sequence[NodeFaithfulness]) -> None:
    """Curves of all kinds, and what holds at every k."""
    kinds = list(nodes[0].insertion)
    for side, title in (("insertion", "these alone"), ("deletion", "without these")):
        print(f"\n{title}, label sd\n\n| k | {' | '.join(kinds)} |")
        print("| --- |" + " --- |" * len(kinds))
        for i, size in enumerate(nodes[0].sizes):
            cells = [interval(column(nodes, side, kind)[:, i]) for kind in kinds]
            row = " | ".join(f"{m:.3f} ({a:.3f} to {b:.3f})" for m, a, b in cells)
            print(f"| {size} | {row} |")
    alone = column(nodes, "insertion", "explanation")
    better = (alone < column(nodes, "insertion", "random")).double().mean(0)
    needed = column(nodes, "deletion", "explanation")
    ratio = needed / column(nodes, "deletion", "matched").clamp(min=1e-3)
    print("\n| k | suffice better than random | no worse than at the k before | necessity ratio |")
    print("| --- | --- | --- | --- |")
    for i, size in enumerate(nodes[0].sizes):
        falls = "" if i == 0 else f"{(alone[:, i] <= alone[:, i - 1]).double().mean():.2f}"
        middle, low, high = interval(ratio[:, i])
        print(f"| {size} | {better[i]:.2f} | {falls} | {middle:.1f} ({low:.1f} to {high:.1f}) |")
    areas = [node.measures() for node in nodes]
    for name in ("insertion_area", "deletion_area"):
        cells = [interval(torch.tensor([a[name][k] for a in areas]).double()) for k in kinds]
        text = ", ".join(f"{k} {m:.3f} ({a:.3f} to {b:.3f})" for k, (m, a, b) in
                         zip(kinds, cells, strict=True))  # fmt: skip
        print(f"{name}: {text}")
    shuffled = [n.shuffled_agreement for n in nodes if n.shuffled_agreement is not None]
    if shuffled:
        print(f"agreement with the shuffled model: {interval(torch.tensor(shuffled).double())}")


def explained(
    system: ExplainedSystem, nodes: Sequence[int], method: str, folder: Path | None
) -> list[Explanation]:
    """Explanations of some atoms: read where they are, else made, and then kept."""
    found = []
    for node in nodes:
        path = None if folder is None else folder / f"{system.graph.names[0]}-{node}.json"
        if path is not None and path.exists():
            found.append(Explanation.load(path))
            continue
        (made,) = explain_nodes(system.graph, system.model, [node], method)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            made.topk(KEPT).save(path)
        found.append(made)
    return found


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("structure", type=Path)
    parser.add_argument("--types", type=parse_types)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--nodes", type=int, default=40)
    parser.add_argument("--method", default=DEFAULT)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--perturbations", default=",".join(PERTURBATIONS))
    given = parser.parse_args()
    system = explained_system(chosen_run(given.run), given.structure, types=given.types)
    generator = torch.Generator().manual_seed(0)
    nodes = torch.randperm(system.graph.num_nodes, generator=generator)[: given.nodes].tolist()
    found: dict[str, list[NodeFaithfulness]] = {p: [] for p in given.perturbations.split(",")}
    start = time.process_time()
    for first in range(0, len(nodes), BATCH):
        some = nodes[first : first + BATCH]
        made = explained(system, some, given.method, given.save)
        for perturbation, measured in found.items():
            told = evaluate_explanations(
                system.graph, system.model, some, given.method, explanations=made,
                sizes=SIZES, draws=given.draws, perturbation=perturbation,
                shuffled=perturbation == "weakened",
            )  # fmt: skip
            measured += told.nodes
            seconds = time.process_time() - start
            print(f"\n## {system.graph.names[0]}, {perturbation}: {len(measured)} atoms, ", end="")
            print(f"{seconds:.0f} s of processor time in all")
            table(measured)
            print(flush=True)
            if given.save is not None:
                path = given.save / f"{system.graph.names[0]}-{perturbation}.jsonl"
                with path.open("a") as file:
                    file.writelines(json.dumps(vars(node)) + "\n" for node in told.nodes)
    if given.figure is not None:
        curves_figure(next(iter(found.values())), given.figure)


if __name__ == "__main__":
    main()
