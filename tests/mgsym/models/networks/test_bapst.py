"""The encode-process-decode network: its equations, its size, its turns in training."""

from __future__ import annotations

import pytest
import torch

from mgsym.graph import Graph, build_graph, collate
from mgsym.models import create_model
from mgsym.models.networks.bapst import Bapst
from mgsym.structure import Structure


@pytest.fixture(scope="module")
def graph(disordered: Structure) -> Graph:
    return build_graph(disordered, cutoff=4.0)


def bapst(**options: object) -> Bapst:
    torch.manual_seed(0)
    model = create_model("bapst", ("Cu", "Zr"), 4.0, options)
    assert isinstance(model, Bapst)
    return model.eval()


@pytest.mark.parametrize("residual", [False, True])
def test_steps_as_the_equations_read(residual: bool, graph: Graph) -> None:
    model = bapst(width=5, steps=3, residual=residual)
    model.sum.fit([graph])
    source, target = graph.source, graph.destination
    arriving = torch.nn.functional.one_hot(target, graph.num_nodes).T.float()
    v0, e0 = model.node_encoder(graph.types), model.edge_encoder(graph.edge_vector / 4.0)
    old, new = model.edge_encoded, model.edge_current
    parts = [(new.edge, old.edge), (new.source, old.source), (new.target, old.target)]
    first = torch.cat([layer.weight for pair in parts for layer in pair], dim=1)
    v, e = v0, e0
    for norm in model.norms:
        put = [e, e0, v[source], v0[source], v[target], v0[target]]
        hidden = torch.relu(torch.cat(put, dim=1) @ first.T + old.edge.bias)
        e = torch.relu(model.edge_second(hidden)) + (e if residual else 0)
        summed = norm(arriving @ e * graph.num_nodes / graph.num_edges)
        v = model.node_update(torch.cat([summed, v, v0], dim=1)) + (v if residual else 0)
    torch.testing.assert_close(model(graph), model.decoder(v).squeeze(1), atol=1e-5, rtol=0)


def test_every_step_shares_the_papers_layers() -> None:
    """Two layers of 64 in every encoder, update and decoder, and one to the label."""

    def two(inputs: int) -> int:
        return (inputs * 64 + 64) + (64 * 64 + 64)

    layers = two(64) + two(3) + two(2 * 3 * 64) + two(3 * 64) + two(64) + 65
    for steps in (1, 7):
        assert bapst(steps=steps, residual=False).num_parameters == 2 * 64 + layers
        assert bapst(steps=steps).num_parameters == 2 * 64 + layers + 2 * 64 * steps


def test_a_turn_is_drawn_for_each_structure_in_training_only(graph: Graph) -> None:
    model = bapst(width=8)
    batch = collate([graph, graph])
    own = batch.edge_vector / 4.0
    assert torch.equal(model._edge_input(batch), own)
    model.train()
    torch.manual_seed(1)
    first, second = model._edge_input(batch).split(graph.num_edges)
    half = own[: graph.num_edges]
    assert not torch.equal(first, second)
    # symmetries of the cube permute the components and change their signs
    for turned in (first, second):
        found, expected = turned.abs().sort(dim=1).values, half.abs().sort(dim=1).values
        torch.testing.assert_close(found, expected)
    assert torch.equal(bapst(width=8, augment="none").train()._edge_input(batch), own)


def test_haar_turns_are_any_rotation_or_reflection(graph: Graph) -> None:
    model = bapst(width=8, augment="haar").train()
    turns = model._turns(collate([graph] * 40)).double()
    torch.testing.assert_close(
        turns @ turns.transpose(1, 2), torch.eye(3).double().expand(40, 3, 3), atol=1e-6, rtol=0
    )
    assert {round(float(d)) for d in torch.linalg.det(turns)} == {-1, 1}
    assert int((turns.abs() < 1e-6).sum()) == 0
