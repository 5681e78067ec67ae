"""Time and memory of one training step of the preset `paper` beside a stack of DGL's EGATConv.

    OMP_NUM_THREADS=1 python tests/benchmarks/training_step.py [--data FOLDER] [--steps 3]

A step is forward, backward and update (Adam with AMSGrad, clipped) on one 8,000-atom graph, on
one core. The peer has the same heads and widths, and the two fixed rotations of the published
code in place of our four drawn transforms. Ours runs with its passes over edges compiled and with
PyTorch alone. It needs DGL 1.1.3 (pip install dgl==1.1.3), which
also runs with newer versions of torch; without DGL only our own figures are printed. Each case
runs in its own process, which reports the processor time of its fastest step and its peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import mgsym
from mgsym.graph import Graph
from mgsym.models import create_model
from mgsym.structure import Structure
from mgsym.training.config import preset

HEADS, WIDTH = (8, 4, 2, 1), 32


def graph_of(folder: str | None) -> Graph:
    """train0 of the public dataset, or a stand-in of the same size and density."""
    if folder:
        return mgsym.build_graph(mgsym.read(Path(folder) / "train0.pickle"))
    generator = torch.Generator().manual_seed(0)
    steps = torch.arange(20, dtype=torch.float64) * 2.513
    positions = torch.cartesian_prod(steps, steps, steps)
    positions = positions + 0.8 * torch.rand(8000, 3, generator=generator, dtype=torch.float64)
    cell = 50.26 * torch.eye(3, dtype=torch.float64)
    types = (torch.rand(8000, generator=generator) < 0.36).long()
    structure = Structure(positions, cell, types, ("Cu", "Zr"))
    return mgsym.build_graph(structure.with_column("barrier", 1.8 + 0.3 * torch.randn(8000), "eV"))


class DGLLayer(nn.Module):
    """The published layer around DGL's EGATConv."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        from dgl.nn import EGATConv

        self.conv = EGATConv(WIDTH, WIDTH, WIDTH, WIDTH, heads)
        self.norms = nn.ModuleList(nn.BatchNorm1d(heads * WIDTH) for _ in range(2))
        self.back = nn.ModuleList(nn.Linear(heads * WIDTH, WIDTH) for _ in range(2))

    def forward(self, graph: object, nodes: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        new = [t.flatten(1) for t in self.conv(graph, nodes, edges)]
        new = [back(norm(t)) for back, norm, t in zip(self.back, self.norms, new, strict=True)]
        return (
            nn.functional.dropout(nodes + new[0], 0.25),
            nn.functional.dropout(edges + new[1], 0.25),
        )


class DGLStack(nn.Module):
    """The published network: encodings under two rotations, four layers, decoder."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        import dgl

        self.graph = dgl.graph((graph.source, graph.destination), num_nodes=graph.num_nodes)
        self.embed = nn.Embedding(len(graph.species), WIDTH)
        self.edge_in = nn.Linear(3, WIDTH)
        self.encode = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm1d(WIDTH),
                nn.ReLU(),
                nn.Linear(WIDTH, WIDTH),
                nn.BatchNorm1d(WIDTH),
                nn.ReLU(),
            )
            for _ in range(2)
        )
        self.layers = nn.ModuleList(DGLLayer(heads) for heads in HEADS)
        hidden = [
            m
            for _ in range(4)
            for m in (nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.PReLU())
        ]
        self.decode = nn.Sequential(*hidden, nn.Linear(WIDTH, 1))
        self.rotations = torch.linalg.qr(torch.randn(2, 3, 3)).Q

    def forward(self, graph: Graph) -> Tensor:
        nodes = self.encode[0](self.embed(graph.types))
        edges = sum(self.encode[1](self.edge_in(graph.edge_vector @ r.T)) for r in self.rotations)
        for layer in self.layers:
            nodes, edges = layer(self.graph, nodes, edges)
        return self.decode(nodes).squeeze(-1)


def our_model(graph: Graph) -> nn.Module:
    settings = preset("paper").model
    model = create_model(settings.name, graph.species, graph.cutoff, settings.options)
    model.fit_statistics([graph])
    return model


CASES: dict[str, tuple[Callable[[Graph], nn.Module], dict[str, str]]] = {
    "mgsym": (our_model, {"MGSYM_COMPILE": "1"}),
    "mgsym, PyTorch alone": (our_model, {"MGSYM_COMPILE": "0"}),
    "DGL": (DGLStack, {"DGLBACKEND": "pytorch"}),
}


def measure(name: str, folder: str | None, steps: int) -> dict[str, float]:
    """Seconds of processor time of the fastest of some steps, and peak memory in GB."""
    graph = graph_of(folder)
    model = CASES[name][0](graph).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, amsgrad=True)
    times = []
    for _ in range(steps + 1):
        start = time.process_time()
        optimizer.zero_grad()
        (model(graph) - graph.target).square().mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        times.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"seconds": min(times[1:]), "gigabytes": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of the public dataset")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--case", choices=CASES, help="run this one only, and print JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.case:
        print(json.dumps(measure(given.case, given.data, given.steps)))
        return
    found = {}
    for name, (_, environment) in CASES.items():
        command = [sys.executable, __file__, *sys.argv[1:], "--case", name]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        run = subprocess.run(command, capture_output=True, text=True, env=environment)
        if run.returncode == 0:
            found[name] = json.loads(run.stdout.splitlines()[-1])
        else:
            print(f"{name} did not run: {run.stderr.strip().splitlines()[-1]}", file=sys.stderr)
    print("| program | s per step | peak GB |\n| --- | --- | --- |")
    for name, row in found.items():
        print(f"| {name} | {row['seconds']:.2f} | {row['gigabytes']:.2f} |")
    if {"mgsym", "DGL"} <= found.keys():
        ratio = {k: found["DGL"][k] / found["mgsym"][k] for k in ("seconds", "gigabytes")}
        print(f"\n{ratio['seconds']:.1f}× faster, {ratio['gigabytes']:.1f}× less memory")


if __name__ == "__main__":
    main()
