"""What explainers cost and what they are worth, on a trained model.

    OMP_NUM_THREADS=1 python tests/benchmarks/explain.py RUN STRUCTURE [--nodes 4] [--types 1=Cu]

For each method, over some nodes drawn at random: processor time, sufficiency and necessity of the
50 most important edges (in standard deviations of the label, medians), the same of random edges,
and the share of the 50 edges that two seeds agree on.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from mgsym.data_tools.formats import parse_types
from mgsym.data_tools.workflows.graphs import read_systems
from mgsym.explanation import METHODS, evaluate_explanation, explain
from mgsym.graph import Graph
from mgsym.graph.operations import as_graph
from mgsym.models.base import BarrierModel
from mgsym.training.checkpoint import load_checkpoint
from mgsym.training.runs import run_checkpoints

K = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("structure", type=Path)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--types", type=parse_types)
    asked = parser.parse_args()
    model, _ = load_checkpoint(run_checkpoints(asked.run)[0])
    graph = as_graph(read_systems([asked.structure], asked.types)[0], model.cutoff)
    generator = torch.Generator().manual_seed(0)
    nodes = torch.randperm(graph.num_nodes, generator=generator)[: asked.nodes].tolist()
    print(f"{graph}, nodes {nodes}")
    heads = f"{'method':10} {'cpu/s':>6} {'alone':>6} {'deleted':>7} {'agree':>6}"
    print(f"{heads}   random: alone deleted")
    for method in METHODS:
        measured = [measure(graph, model, node, method) for node in nodes]
        cpu, alone, deleted, agree, r_alone, r_deleted = map(median, zip(*measured, strict=True))
        print(
            f"{method:10} {cpu:6.2f} {alone:6.3f} {deleted:7.3f} {agree:6.2f}"
            f"           {r_alone:5.3f} {r_deleted:7.3f}"
        )


def measure(graph: Graph, model: BarrierModel, node: int, method: str) -> tuple[float, ...]:
    start = time.process_time()
    budget: dict[str, Any] = {"budget": K} if method.endswith("mask") else {}
    first = explain(graph, model, node, method, **budget)
    cpu = time.process_time() - start
    second = explain(graph, model, node, method, seed=1, **budget)
    tops = [set(e.topk(K).edges.tolist()) for e in (first, second)]
    (row,) = evaluate_explanation(graph, model, first, sizes=[K]).in_label_sd()
    agree = len(tops[0] & tops[1]) / K
    return (
        cpu, row.sufficiency, row.necessity, agree, row.random_sufficiency, row.random_necessity,
    )  # fmt: skip


if __name__ == "__main__":
    main()
