"""The ridge regression that goes along with a network: a planted truth, and its promises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mgsym.graph import Graph, build_graph
from mgsym.models import create_model
from mgsym.models.companion import (
    BOUND,
    Companion,
    CompanionSize,
    average_rounds,
    surroundings_average,
)
from mgsym.physical import edge_average
from mgsym.prediction import transformed
from mgsym.rotations import random_orthogonal
from mgsym.structure import Structure

GLASSES = 12
SIZE = CompanionSize(radial=3, l_max=2, lengths=(1.2,))


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
    return found.replace(target=edge_average(found, number[:, None], 1.2).squeeze(1))


def no_others(graph: Graph) -> Tensor:
    return torch.zeros(graph.num_nodes, 0)


def standard(graph: Graph) -> Tensor:
    return graph.target - 6.0


@pytest.fixture(scope="module")
def companion() -> Companion:
    found = Companion(SIZE, 2, 0)
    found.fit([graph(seed) for seed in range(GLASSES)], no_others, standard)
    return found


def predicted(companion: Companion, of: Graph, edge_weight: Tensor | None = None) -> Tensor:
    found: Tensor = companion(of, no_others(of), edge_weight)
    return found


def pearson(values: Tensor, of: Graph) -> float:
    return float(torch.corrcoef(torch.stack([values, of.target]))[0, 1])


def test_the_label_of_an_unseen_glass(companion: Companion) -> None:
    unseen = graph(99)
    found = predicted(companion, unseen)
    assert pearson(found, unseen) > 0.95
    assert float((found - standard(unseen)).abs().mean()) < 0.3 * float(unseen.target.std())


def test_other_inputs_join_and_are_averaged() -> None:
    known: dict[str, Tensor] = {}
    graphs = []
    for seed in range(GLASSES):
        one = graph(seed)
        own = torch.randn(one.num_nodes, 1, generator=torch.Generator().manual_seed(seed))
        known[one.names[0]] = own
        graphs.append(one.replace(target=edge_average(one, own, 1.2).squeeze(1)))
    companion = Companion(SIZE, 2, 1)
    *train, unseen = graphs
    companion.fit(train, lambda g: known[g.names[0]], lambda g: g.target)
    assert pearson(companion(unseen, known[unseen.names[0]]), unseen) > 0.97


def test_an_atom_without_neighbours_is_bounded(companion: Companion) -> None:
    whole = graph(0)
    alone = predicted(companion, whole, torch.zeros(whole.num_edges))
    assert float(alone.abs().max()) <= BOUND


def test_weight_zero_is_deletion_and_has_a_gradient(companion: Companion) -> None:
    whole = graph(7)
    keep = torch.arange(whole.num_edges) % 7 != 0
    masked = predicted(companion, whole, keep.float())
    deleted = predicted(companion, whole.with_edges(keep))
    torch.testing.assert_close(masked, deleted, atol=2e-4, rtol=1e-4)
    weight = torch.ones(whole.num_edges, requires_grad=True)
    (slope,) = torch.autograd.grad(predicted(companion, whole, weight)[3], weight)
    edge = int(slope.abs().argmax())
    ends = []
    for step in (-0.05, 0.05):
        moved = torch.ones(whole.num_edges)
        moved[edge] += step
        ends.append(float(predicted(companion, whole, moved)[3]))
    assert (ends[1] - ends[0]) / 0.1 == pytest.approx(float(slope[edge]), rel=0.02)


def test_rotation_changes_nothing(companion: Companion) -> None:
    whole = graph(8)
    matrix = random_orthogonal(1, torch.Generator().manual_seed(3))[0]
    turned = predicted(companion, transformed(whole, matrix))
    torch.testing.assert_close(turned, predicted(companion, whole), atol=2e-4, rtol=1e-4)


def test_a_wide_gaussian_is_made_of_narrower_ones() -> None:
    """Two rounds of σ/√2 spread a number as far as one of σ would: the mean square distance."""
    assert average_rounds(1.5, 5.0) == 1
    assert average_rounds(2.5, 5.0) == 2
    steps = torch.arange(9, dtype=torch.float64) * 2.0
    place = torch.cartesian_prod(steps, steps, steps)
    structure = Structure(place, 18.0 * torch.eye(3), torch.zeros(729), ("Cu",))
    lattice = build_graph(structure, 5.0)
    centre = 364
    start = torch.zeros(729, 1)
    start[centre] = 1.0
    spread = surroundings_average(lattice, start, 2.5).squeeze(1).double()
    square = float((spread * (place - place[centre]).square().sum(1)).sum() / spread.sum())
    assert square == pytest.approx(3 * 2.5**2, rel=0.15)
    assert float(spread.sum()) == pytest.approx(1.0, rel=1e-5)


def test_the_share_of_a_prediction() -> None:
    """In evaluation the mean of network and companion; in training the network alone."""
    options = {"width": 8, "heads": (1,), "decoder_layers": 1, "edge_input": "length"}
    options |= {"node_input": "descriptors", "l_max": 2, "companion": 0.25, "dropout": 0.0}
    graphs = [graph(seed) for seed in range(3)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_model("symgnn", ("Cu", "Zr"), 4.0, options)
    model.fit_statistics(graphs)
    model.eval()
    with torch.no_grad():
        both = model.standardised(graphs[0], None, None)
        beside = model.companion(graphs[0], no_others(graphs[0]))  # type: ignore[operator]
        model.training = False
        model.companion, companion = None, model.companion
        alone = model.standardised(graphs[0], None, None)
        torch.testing.assert_close(both, 0.75 * alone + 0.25 * beside)
        model.companion, model.training = companion, True
        torch.testing.assert_close(model.standardised(graphs[0], None, None), alone)
