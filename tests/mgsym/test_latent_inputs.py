"""Latent inputs: a planted truth, and what their docstring promises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mgsym.errors import InputError
from mgsym.graph import Graph, build_graph
from mgsym.latent_inputs import BOUND, LatentInputs, LatentSize
from mgsym.physical import edge_average
from mgsym.prediction import transformed
from mgsym.rotations import random_orthogonal
from mgsym.structure import Structure

GLASSES = 12
SIZE = LatentSize(count=6, radial=3, l_max=2, lengths=(1.5,))


def graph(seed: int) -> Graph:
    """125 atoms; the label is the average over neighbours of how many Zr neighbours they have."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.arange(5, dtype=torch.float64) * 2.6
    place = torch.cartesian_prod(steps, steps, steps)
    place = place + 0.9 * torch.rand(125, 3, generator=generator, dtype=torch.float64)
    types = torch.randint(2, (125,), generator=generator)
    cell = 13.0 * torch.eye(3, dtype=torch.float64)
    found = build_graph(Structure(place, cell, types, ("Cu", "Zr"), name=f"glass{seed}"), 4.0)
    near = found.edge_length < 3.5
    seen = (near & (found.types[found.source] == 1)).float()
    number = torch.zeros(125).index_add(0, found.destination, seen)
    return found.replace(target=edge_average(found, number[:, None], 1.5).squeeze(1))


def no_others(graph: Graph) -> Tensor:
    return torch.zeros(graph.num_nodes, 0)


def least_squares(scores: list[Tensor], graphs: list[Graph]) -> Tensor:
    """Weights of the scores that fit the labels, both less their means."""
    z, label = torch.cat(scores), torch.cat([one.target for one in graphs])
    return torch.linalg.lstsq(z - z.mean(0), (label - label.mean())[:, None]).solution[:, 0]


def pearson(values: Tensor, of: Graph) -> float:
    return float(torch.corrcoef(torch.stack([values, of.target]))[0, 1])


@pytest.fixture(scope="module")
def inputs() -> LatentInputs:
    found = LatentInputs(SIZE, 2, 0)
    found.fit([graph(seed) for seed in range(GLASSES)], no_others)
    return found


def scores(inputs: LatentInputs, of: Graph, edge_weight: Tensor | None = None) -> Tensor:
    return inputs(of, no_others(of), edge_weight)


def test_the_label_of_an_unseen_glass_is_linear_in_the_scores(inputs: LatentInputs) -> None:
    """Fitted by least squares on training glasses; the first score alone tells most of it."""
    train = [graph(seed) for seed in range(GLASSES)]
    weight = least_squares([scores(inputs, one) for one in train], train)
    unseen = graph(99)
    z = scores(inputs, unseen)
    assert pearson(z @ weight, unseen) > 0.95
    assert pearson(z[:, 0], unseen) > 0.8


def test_scores_are_of_variance_one_and_bounded(inputs: LatentInputs) -> None:
    train = torch.cat([scores(inputs, graph(seed)) for seed in range(GLASSES)])
    assert float(train.std(0).min()) > 0.7
    assert float(train.std(0).max()) < 1.1
    empty = graph(0)
    gone = scores(inputs, empty, torch.zeros(empty.num_edges))
    assert float(gone.abs().max()) <= BOUND


def test_weight_zero_is_deletion_and_has_a_gradient(inputs: LatentInputs) -> None:
    whole = graph(7)
    keep = torch.arange(whole.num_edges) % 7 != 0
    masked = scores(inputs, whole, keep.float())
    torch.testing.assert_close(masked, scores(inputs, whole.with_edges(keep)), atol=2e-4, rtol=1e-4)
    weight = torch.ones(whole.num_edges, requires_grad=True)
    (slope,) = torch.autograd.grad(scores(inputs, whole, weight)[3].sum(), weight)
    edge = int(slope.abs().argmax())
    ends = []
    for step in (-0.05, 0.05):
        moved = torch.ones(whole.num_edges)
        moved[edge] += step
        ends.append(float(scores(inputs, whole, moved)[3].sum()))
    assert (ends[1] - ends[0]) / 0.1 == pytest.approx(float(slope[edge]), rel=0.02)


def test_rotation_changes_nothing(inputs: LatentInputs) -> None:
    whole = graph(8)
    matrix = random_orthogonal(1, torch.Generator().manual_seed(3))[0]
    turned = scores(inputs, transformed(whole, matrix))
    torch.testing.assert_close(turned, scores(inputs, whole), atol=2e-4, rtol=1e-4)


def test_other_inputs_join_and_are_averaged() -> None:
    """Where the label is the average of another input, the scores find it."""
    known: dict[str, Tensor] = {}
    graphs = []
    for seed in range(GLASSES):
        one = graph(seed)
        own = torch.randn(one.num_nodes, 1, generator=torch.Generator().manual_seed(seed))
        known[one.names[0]] = own
        graphs.append(one.replace(target=edge_average(one, own, 1.5).squeeze(1)))
    inputs = LatentInputs(SIZE, 2, 1)
    *train, unseen = graphs
    inputs.fit(train, lambda g: known[g.names[0]])
    weight = least_squares([inputs(one, known[one.names[0]]) for one in train], train)
    assert pearson(inputs(unseen, known[unseen.names[0]]) @ weight, unseen) > 0.95


def test_labels_are_needed() -> None:
    bare = graph(0).replace(target=torch.full((125,), float("nan")))
    with pytest.raises(InputError, match="no atom of the training structures has a label"):
        LatentInputs(SIZE, 2, 0).fit([bare], no_others)
