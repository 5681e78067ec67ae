"""Edges, and models, that explanations stand beside."""

from __future__ import annotations

import math

import torch

from mgsym.explanation.computation_graph import distance_to_atom, model_computation_graph
from mgsym.explanation.controls import BIN, matched_rows, random_edges, shuffled_weights
from mgsym.graph import Graph
from mgsym.models import create_model
from mgsym.models.base import BarrierModel


def test_distances_are_to_the_middle_of_the_nearest_image(
    lattice: Graph, planted: BarrierModel, node: int
) -> None:
    """In a cube of 6 Å with atoms 1 Å apart every coordinate of a middle is a multiple of ½."""
    part = model_computation_graph(lattice, planted, node, directed=True)
    distance = distance_to_atom(part)
    arriving = part.hop == 1
    expected = part.graph.edge_length[arriving].double() / 2
    assert torch.allclose(distance[arriving], expected, atol=1e-6)
    assert distance.max() < 3 * math.sqrt(3) + 1
    assert torch.allclose((4 * distance**2).round(), 4 * distance**2, atol=1e-5)


def test_matched_edges_lie_in_the_same_bins_and_are_others() -> None:
    generator = torch.Generator().manual_seed(0)
    distance = torch.rand(500, generator=generator) * 10
    chosen = torch.randperm(500, generator=generator)[:40]
    found = matched_rows(distance, chosen, generator)
    assert found.missing == 0
    assert not set(found.rows.tolist()) & set(chosen.tolist())
    bins = [(distance[edges] / BIN).long().sort().values for edges in (chosen, found.rows)]
    assert torch.equal(*bins)


def test_bins_that_run_out_are_counted() -> None:
    distance = torch.tensor([1.0, 1.1, 1.2, 5.0, 5.1])
    found = matched_rows(distance, torch.tensor([0, 1, 3]), torch.Generator().manual_seed(0))
    assert sorted(found.rows.tolist()) == [2, 4]
    assert found.missing == 1


def test_random_edges_are_as_many() -> None:
    found = random_edges(30, torch.arange(7), torch.Generator().manual_seed(0))
    assert len(set(found.tolist())) == 7


def test_shuffled_weights_are_the_same_numbers_in_another_order() -> None:
    model = create_model("symgnn", ("Cu", "Zr"), 4.0, {"width": 8, "heads": (1,)})
    model.label_mean.fill_(1.5)
    shuffled = shuffled_weights(model, torch.Generator().manual_seed(0))
    moved = 0
    for (name, a), b in zip(
        model.named_parameters(), dict(shuffled.named_parameters()).values(), strict=True
    ):
        assert torch.equal(a.flatten().sort().values, b.flatten().sort().values), name
        moved += not torch.equal(a, b)
    assert moved > 3
    assert shuffled.label_mean == 1.5
