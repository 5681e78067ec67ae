"""SchNet against its equations, written out atom by atom."""

from __future__ import annotations

import math

import pytest
import torch

from mgsym.graph import Graph, build_graph
from mgsym.models import create_model
from mgsym.models.networks.schnet import SchNet
from mgsym.structure import Structure


def schnet(cutoff: float, **options: object) -> SchNet:
    torch.manual_seed(0)
    model = create_model("schnet", ("Cu", "Zr"), cutoff, options)
    assert isinstance(model, SchNet)
    return model.eval()


def ssp(x: torch.Tensor) -> torch.Tensor:
    return torch.log(0.5 * x.exp() + 0.5)


def test_one_interaction_by_hand(disordered: Structure) -> None:
    graph = build_graph(disordered, cutoff=4.0)
    model = schnet(4.0, width=6, layers=1, radial=5)
    model.sum.fit([graph])
    layer, head = model.layers[0], model.decoder
    types, out = graph.types, []
    for i in range(8):
        total = torch.zeros(6)
        for e in torch.nonzero(graph.destination == i).squeeze(1).tolist():
            r = graph.edge_vector[e].norm()
            g = torch.exp(-0.5 * (r - torch.arange(5.0)) ** 2)
            w = ssp(layer.filter[2](ssp(layer.filter[0](g))))
            fading = 0.5 * (1 + math.cos(math.pi * float(r) / 4))
            total = total + layer.before(model.embedding(types[graph.source[e]])) * w * fading
        v = layer.norm(total[None] * graph.num_nodes / graph.num_edges)
        first, second = layer.update[0], layer.update[2]
        x = model.embedding(types[i]) + second(ssp(first(v)))
        out.append(head[2](ssp(head[0](x))).reshape(()))
    torch.testing.assert_close(model(graph)[:8], torch.stack(out), atol=1e-5, rtol=0)


def pair_of(distance: float) -> Graph:
    positions = torch.tensor([[0.0, 0, 0], [distance, 0, 0]], dtype=torch.float64)
    cell = 30.0 * torch.eye(3, dtype=torch.float64)
    return build_graph(Structure(positions, cell, torch.tensor([0, 1]), ("Cu", "Zr")), 5.0)


def test_a_neighbour_comes_in_smoothly_at_the_cutoff() -> None:
    model = schnet(5.0, width=8)
    alone, almost, near = (model(pair_of(r)) for r in (5.5, 4.99, 3.0))
    assert float((almost - alone).abs().max()) < 1e-3 * float((near - alone).abs().max())


def test_size_is_the_papers() -> None:
    """Per interaction: filters 25·64 + 64 + 64² + 64, L 64², B 2·(64² + 64), norm 128."""
    interaction = (25 * 64 + 64) + (64**2 + 64) + 64**2 + 2 * (64**2 + 64) + 128
    read_out = (64 * 32 + 32) + (32 + 1)
    assert schnet(5.0).num_parameters == 2 * 64 + 3 * interaction + read_out
    assert schnet(5.0).receptive_field == pytest.approx(15.0)
