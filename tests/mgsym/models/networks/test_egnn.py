"""EGNN: displacements turn with the structure, and a step is what its equation says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mgsym.graph import Graph, build_graph
from mgsym.graph.operations import transformed
from mgsym.models import create_model
from mgsym.models.networks.egnn import EGNN, EGNNLayer
from mgsym.nn.rotations import random_orthogonal
from mgsym.structure import Structure


@pytest.fixture(scope="module")
def graph(disordered: Structure) -> Graph:
    return build_graph(disordered, cutoff=3.6)


def egnn(**options: object) -> EGNN:
    """Atoms of an untrained model hardly move: let them take steps of some 0.1 Å."""
    torch.manual_seed(0)
    model = create_model("egnn", ("Cu", "Zr"), 3.6, options).eval()
    assert isinstance(model, EGNN)
    for layer in model.layers:
        if layer.step is not None:
            nn.init.normal_(layer.step[-1].weight, std=0.3)  # type: ignore[index]
    return model


def test_displacements_turn_with_the_structure(graph: Graph) -> None:
    model = egnn()
    features, moved = model.features(graph)
    assert 0.02 < float(moved.detach().norm(dim=1).mean()) < 1
    for matrix in random_orthogonal(4, torch.Generator().manual_seed(0)):
        turned_features, turned = model.features(transformed(graph, matrix))
        torch.testing.assert_close(turned, moved @ matrix.T.float(), atol=1e-5, rtol=0)
        torch.testing.assert_close(turned_features, features, atol=1e-4, rtol=0)


def test_an_atom_steps_away_from_the_mean_of_its_neighbours() -> None:
    positions = torch.tensor([[0.0, 0, 0], [2.0, 0, 0], [0, 3.0, 0]], dtype=torch.float64)
    cell = 30 * torch.eye(3, dtype=torch.float64)
    structure = Structure(positions, cell, torch.tensor([0, 0, 0]), ("Cu",))
    graph = build_graph(structure, cutoff=3.5)
    layer = EGNNLayer(4, 3.5, gate=False, move=True)
    assert layer.step is not None
    layer.step = nn.Sequential(_Constant(0.1))
    _, moved = layer(torch.randn(3, 4), torch.zeros(3, 3), graph, None)
    # φ_x = 0.1 in units of the cutoff; atom 0 has two neighbours, the others one
    expected = 0.35 * torch.tensor([[-0.5, -0.5, 0], [1, 0, 0], [0, 1, 0]])
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)


class _Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, message: torch.Tensor) -> torch.Tensor:
        return message.new_full((len(message), 1), self.value)


def test_the_next_layer_reads_the_moved_coordinates(graph: Graph) -> None:
    model = egnn(layers=2)
    features, moved = model.features(graph)
    vector = graph.edge_vector + moved[graph.source] - moved[graph.destination]
    first, second = model.layers
    nodes, _ = first(model.node_encoder(graph.types), torch.zeros(64, 3), graph, None)
    again, _ = second(nodes, torch.zeros(64, 3), graph.replace(edge_vector=vector), None)
    torch.testing.assert_close(again, features, atol=1e-5, rtol=0)
    unmoved, _ = second(nodes, torch.zeros(64, 3), graph, None)
    assert (unmoved - features).abs().max() > 1e-3


def test_the_last_layer_moves_nothing_and_all_parameters_learn(graph: Graph) -> None:
    model = egnn()
    assert [layer.step is None for layer in model.layers] == [False, False, False, True]
    model(graph).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert torch.equal(egnn(move=False).features(graph)[1], torch.zeros(64, 3))
