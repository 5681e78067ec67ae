"""What more labels and more glasses buy: the ridge regression on parts of the training data.

    mgsym fetch
    mgsym build-graph data/cu64zr36/train*.pickle -o graphs
    python tests/benchmarks/learning_curve.py --graphs graphs

Each glass is left out once; one, two or all of the others train, in every combination, with some
of their labels, drawn at random. Scored is the Pearson per structure of the glass left out,
averaged over structures, combinations and glasses. Features are standardised, so one penalty serves
all numbers of labels.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean

import torch

from mgsym.data_tools.workflows.graphs import read_graphs
from mgsym.graph import Graph
from mgsym.graph.operations import glass_of
from mgsym.models import create_model
from mgsym.models.regression.moments import Moments, ridge_weights
from mgsym.models.regression.ridge import Ridge

SHARES = (1 / 64, 1 / 16, 1 / 4, 1.0)
PRIOR_DEGREES_OF_FREEDOM = 30.0

Parts = Mapping[str, Mapping[float, list[Moments]]]  # by glass and share, of each structure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graphs", type=Path, required=True)
    graphs = read_graphs([parser.parse_args().graphs])
    parts = moments(graphs)
    print("glasses that train  " + "".join(f"{share:>10.1%}" for share in SHARES) + "  of labels")
    for count in range(1, len(parts)):
        row = [score(parts, count, share) for share in SHARES]
        print(f"{count:<20d}" + "".join(f"{value:>10.3f}" for value in row))


def moments(graphs: Sequence[Graph]) -> Parts:
    """Second moments of features and labels for every share of the labels."""
    model = create_model("ridge", graphs[0].species, graphs[0].cutoff, {"physical_inputs": ()})
    assert isinstance(model, Ridge)
    model.fit_statistics(graphs)
    model.inputs.fit(graphs)
    generator = torch.Generator().manual_seed(0)
    found: dict[str, dict[float, list[Moments]]] = {}
    for graph in graphs:
        features, target = model.inputs.features(graph), model.standard_target(graph)
        known = graph.labelled.nonzero().squeeze(1)
        order = known[torch.randperm(len(known), generator=generator)]
        for share in SHARES:
            some = order[: round(share * len(order))]
            of_glass = found.setdefault(glass_of(graph), {}).setdefault(share, [])
            of_glass.append(Moments.of(features[some], target[some]))
    return found


def score(parts: Parts, count: int, share: float) -> float:
    """Mean Pearson of glasses left out when `count` others train with `share` of their labels."""
    scores = []
    for left_out in parts:
        others = [glass for glass in parts if glass != left_out]
        for chosen in combinations(others, count):
            together = Moments.sum(m for glass in chosen for m in parts[glass][share])
            (weight,) = ridge_weights(together, [PRIOR_DEGREES_OF_FREEDOM])
            scores.append(fmean(m.pearson(weight) for m in parts[left_out][1.0]))
    return fmean(scores)


if __name__ == "__main__":
    with torch.no_grad():
        main()
