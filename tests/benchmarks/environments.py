"""Seconds of one core that descriptors and averages of a structure cost.

python tests/benchmarks/environments.py --atoms 8000
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch

from mgsym.descriptors.neighborhoods import gaussian_mean
from mgsym.descriptors.power_spectrum import Environment
from mgsym.graph import Graph, build_graph
from mgsym.structure import Structure

CASES = {
    "power spectrum, 8 radial, l ≤ 6, 6.5 Å": Environment(6.5, 8, 6),
    "power spectrum, 6 radial, l ≤ 6, 5 Å": Environment(5.0, 6, 6),
    "and 24 radial densities to 9 Å": Environment(5.0, 6, 6, wide_radial=24),
}
DENSITY = 0.058  # atoms per Å³, as Cu64Zr36 has


def disordered(atoms: int) -> Graph:
    """A jittered lattice of Cu and Zr as dense as the glass."""
    generator = torch.Generator().manual_seed(0)
    side = round(atoms ** (1 / 3))
    step = DENSITY ** (-1 / 3)
    sites = torch.cartesian_prod(*[torch.arange(side, dtype=torch.float64)] * 3) * step
    positions = sites + 0.4 * torch.rand(len(sites), 3, generator=generator, dtype=torch.float64)
    types = (torch.rand(len(sites), generator=generator) < 0.36).long()
    cell = side * step * torch.eye(3, dtype=torch.float64)
    return build_graph(Structure(positions, cell, types, ("Cu", "Zr")), 3.0)


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def describe(environment: Environment, graph: Graph) -> None:
    """All of it, and keep nothing."""
    for _ in environment.describe(graph):
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--atoms", type=int, default=8000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    graph = disordered(given.atoms)
    print(f"| {graph.num_nodes} atoms | numbers per atom | processor s |\n| --- | --- | --- |")
    for name, environment in CASES.items():
        spent = seconds(partial(describe, environment, graph))
        print(f"| {name} | {environment.count(2)} | {spent:.1f} |", flush=True)
    values = torch.randn(graph.num_nodes, 600)
    for length in (1.5, 2.5):
        spent = seconds(partial(gaussian_mean, graph, values, length))
        print(f"| average over {length:g} Å | 600 | {spent:.1f} |", flush=True)


if __name__ == "__main__":
    main()
