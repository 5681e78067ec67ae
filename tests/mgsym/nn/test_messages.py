"""Sums over neighbours, maps of edges and their ends, norms: against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mgsym.errors import UsageError
from mgsym.graph import Graph, build_graph, collate
from mgsym.models import create_model
from mgsym.nn.messages import (
    AtomNorm,
    EdgeLinear,
    GraphNorm,
    NeighborSum,
    ShiftedSoftplus,
    mlp,
    transformed_edges,
    xavier,
)
from mgsym.nn.rotations import random_orthogonal
from mgsym.structure import Structure
from mgsym.training import train
from mgsym.training.config import Config, ModelConfig, TrainingConfig

MESSAGE_MODELS = ("schnet", "mgcn", "faenet", "bapst")


@pytest.fixture(scope="module")
def graph(disordered: Structure) -> Graph:
    return build_graph(disordered, cutoff=4.0)


def test_shifted_softplus_is_zero_at_zero_and_a_line_far_out() -> None:
    found = ShiftedSoftplus()(torch.tensor([0.0, 40.0, -40.0], dtype=torch.float64))
    expected = torch.tensor([0.0, 40 - math.log(2), -math.log(2)], dtype=torch.float64)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_mlp_activates_between_layers_and_last_on_request() -> None:
    kinds = [type(layer) for layer in mlp(3, 5, 1)]
    assert kinds == [nn.Linear, nn.ReLU, nn.Linear]
    assert [type(layer) for layer in mlp(3, 5, activate_last=True)] == [nn.Linear, nn.ReLU]


def test_neighbor_sum_counts_in_mean_neighbours(graph: Graph) -> None:
    summed = NeighborSum()
    summed.fit([graph, graph])
    mean = graph.num_edges / graph.num_nodes
    assert float(summed.neighbors) == pytest.approx(mean)
    weight = torch.linspace(0, 1, graph.num_edges)
    found = summed(torch.ones(graph.num_edges, 2), graph, weight)
    expected = torch.stack([weight[graph.destination == i].sum() for i in range(graph.num_nodes)])
    torch.testing.assert_close(found, (expected / mean)[:, None].expand(-1, 2))


def test_edge_linear_is_one_linear_layer_of_all_three(graph: Graph) -> None:
    torch.manual_seed(0)
    layer = EdgeLinear(3, 4, 5)
    nodes = torch.randn(graph.num_nodes, 4)
    whole = torch.cat([layer.edge.weight, layer.source.weight, layer.target.weight], dim=1)
    side_by_side = [graph.edge_vector, nodes[graph.source], nodes[graph.destination]]
    expected = nn.functional.linear(torch.cat(side_by_side, dim=1), whole, layer.edge.bias)
    torch.testing.assert_close(layer(graph.edge_vector, nodes, graph), expected)


def test_graph_norm_is_over_each_structure(graph: Graph) -> None:
    batch = collate([graph, graph])
    nodes = torch.randn(batch.num_nodes, 3, generator=torch.Generator().manual_seed(0))
    nodes[graph.num_nodes :] += 5.0
    norm = GraphNorm(3, eps=0.0)
    found = norm(nodes, batch).detach()
    for part in found.split(graph.num_nodes):
        torch.testing.assert_close(part.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
        torch.testing.assert_close(part.std(0, correction=0), torch.ones(3))
    norm.mean_scale.data.fill_(0.5)
    second = nodes[graph.num_nodes :]
    kept = second - 0.5 * second.mean(0)
    expected = kept / kept.square().mean(0).sqrt()
    torch.testing.assert_close(norm(nodes, batch)[graph.num_nodes :].detach(), expected)


def test_atom_norm_knows_its_statistics_after_one_batch() -> None:
    norm = AtomNorm(1)
    batch = torch.tensor([[3.0], [3.1], [3.2]])
    seen = norm(batch)
    norm.eval()
    assert norm.running_mean is not None
    assert norm.running_mean.item() == pytest.approx(3.1)
    torch.testing.assert_close(norm(batch), seen * math.sqrt(2 / 3), atol=1e-2, rtol=0)
    norm.train()
    for _ in range(20):
        norm(batch)
    assert norm.momentum == pytest.approx(0.1)


def test_each_structure_has_its_own_transform(graph: Graph) -> None:
    batch = collate([graph, graph])
    turn = random_orthogonal(1, torch.Generator().manual_seed(0))[0]
    found = transformed_edges(batch, torch.stack([torch.eye(3, dtype=torch.float64), turn]))
    own, turned = found.split(graph.num_edges)
    assert torch.equal(own, graph.edge_vector)
    torch.testing.assert_close(turned, graph.edge_vector @ turn.T.float(), atol=1e-5, rtol=0)


def test_xavier_starts_near_the_mean() -> None:
    torch.manual_seed(0)
    layers = mlp(400, 400, 400)
    xavier(layers, last=layers[-1])
    bound = math.sqrt(6 / 800)
    assert layers[0].weight.abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert layers[-1].weight.abs().max().item() == pytest.approx(0.1 * bound, rel=1e-3)
    assert all((layer.bias == 0).all() for layer in (layers[0], layers[-1]))


@pytest.mark.parametrize("name", MESSAGE_MODELS)
def test_every_parameter_learns(name: str, graph: Graph) -> None:
    torch.manual_seed(0)
    model = create_model(name, ("Cu", "Zr"), 4.0)
    model(graph).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", MESSAGE_MODELS)
def test_same_seed_same_bits(name: str, five_graphs: list[Graph]) -> None:
    config = Config("fast", ModelConfig(name, {"width": 8}), TrainingConfig(epochs=2))
    first, second = (train(five_graphs, config, device="cpu").model.state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", MESSAGE_MODELS)
def test_options_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"model\.width is 0, expected at least 1"):
        create_model(name, ("Cu",), 4.0, {"width": 0})


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("mgcn", {"keep": 1.5}, r"model.keep is 1\.5, expected 0 … 1"),
        ("faenet", {"frames": "se3"}, "model.frames is 'se3', expected stochastic or full"),
        ("faenet", {"norm": "layer"}, "model.norm is 'layer', expected graph or batch"),
        ("bapst", {"edge_input": "r"}, "model.edge_input is 'r', expected vector or length"),
        ("bapst", {"augment": "yes"}, "augment is 'yes', expected octahedral or haar or none"),
    ],
)
def test_unknown_choices_are_refused(name: str, option: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_model(name, ("Cu",), 4.0, option)


@pytest.mark.parametrize("name", ["schnet", "mgcn"])
def test_models_of_distances_alone_see_no_more(name: str) -> None:
    """Two crystals' worth of angles, one set of distances: cis and trans chains of four atoms.

    The ends lie beyond the cutoff of each other, so that only the dihedral angle differs.
    """
    torch.manual_seed(0)
    model = create_model(name, ("Cu", "Zr"), 3.0, {"width": 8}).eval()
    cis = [[0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [2.2, 0.0, 0.0], [2.2, 2.0, 0.0]]
    chains = [cis, [*cis[:3], [2.2, -2.0, 0.0]]]
    found = []
    for place in chains:
        positions = torch.tensor(place, dtype=torch.float64)
        positions[0, 0] -= 1.0
        positions[3, 0] += 1.0
        cell = 40.0 * torch.eye(3, dtype=torch.float64)
        structure = Structure(positions, cell, torch.tensor([0, 1, 1, 0]), ("Cu", "Zr"))
        chain = build_graph(structure, 3.0)
        assert chain.num_edges == 6
        found.append(model(chain))
    torch.testing.assert_close(found[0], found[1])
