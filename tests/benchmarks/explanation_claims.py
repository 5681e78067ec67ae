"""Where the atoms behind predictions lie: a histogram of their distances, with its controls.

    mgsym explain-stats STRUCTURE --run RUN --nodes 20 --faithfulness -o stats
    python tests/benchmarks/explanation_claims.py STRUCTURE --run RUN --statistics stats

For the atoms that `mgsym explain-stats` explained: the atoms at which selected edges start, by
their distance from the explained atom; the same of edges whose middles lie as far away; and all
atoms that could matter. A peak that all of them have is the structure's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from mgsym.data_tools.formats import parse_types
from mgsym.data_tools.workflows.explanation_target import explained_system
from mgsym.explanation import explain_nodes
from mgsym.explanation.computation_graph import (
    ComputationGraph,
    distance_to_atom,
)
from mgsym.explanation.controls import matched_rows
from mgsym.explanation.faithfulness import part_of, ranked_bonds
from mgsym.utils.files import read_json

STEP, FARTHEST = 0.4, 10.0  # Å
K = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("structure", type=Path)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--types", type=parse_types)
    parser.add_argument("--statistics", type=Path, required=True)
    asked = parser.parse_args()
    system = explained_system(asked.run, asked.structure, types=asked.types)
    groups = read_json(asked.statistics / "statistics.json")["nodes"]
    nodes = [node for group in groups.values() for node in group]
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(3, round(FARTHEST / STEP))
    for explanation in explain_nodes(system.graph, system.model, nodes, topk=K):
        part = part_of(system.graph, system.model, explanation)
        chosen = ranked_bonds(part, explanation)[:K]
        matched = matched_rows(distance_to_atom(part), chosen, generator).rows
        distance = atom_distances(part)
        for row, bonds in enumerate((chosen, matched)):
            counts[row] += histogram(distance[part.graph.source[part.first[bonds]].unique()])
        counts[2] += histogram(distance)
    shares = 100 * counts / counts.sum(1, keepdim=True)
    print("distance/Å  selected  as far away  all atoms  (% of the atoms within 10 Å)")
    for i, row in enumerate(shares.T.tolist()):
        cells = "".join(f"{value:11.1f}" for value in row)
        print(f"{i * STEP:4.1f}–{(i + 1) * STEP:4.1f} {cells}")


def atom_distances(part: ComputationGraph) -> Tensor:
    """[n] Å, from the explained atom to the nearest image of each."""
    graph = part.graph
    cell = graph.cell[0]
    fraction = torch.linalg.solve(cell.T, (graph.positions - graph.positions[part.node]).T).T
    fraction = fraction - fraction.round() * graph.periodic[0].double()
    return (fraction @ cell).norm(dim=1)


def histogram(distance: Tensor) -> Tensor:
    """How many lie in each step, the atom itself left out."""
    found = distance[distance > 0].float()
    return torch.histc(found, round(FARTHEST / STEP), 0, FARTHEST)


if __name__ == "__main__":
    main()
