"""MGCN against its equations, written out edge by edge."""

from __future__ import annotations

import torch

from mgsym.graph import Graph, build_graph
from mgsym.models import create_model
from mgsym.models.networks.mgcn import MGCN, unordered_pair
from mgsym.structure import Structure


def mgcn(**options: object) -> MGCN:
    torch.manual_seed(0)
    model = create_model("mgcn", ("Cu", "Zr"), 4.0, options)
    assert isinstance(model, MGCN)
    return model.eval()


def ssp(x: torch.Tensor) -> torch.Tensor:
    return torch.log(0.5 * x.exp() + 0.5)


def gaussians(graph: Graph) -> torch.Tensor:
    return torch.exp(-0.5 * (graph.edge_vector.norm(dim=1)[:, None] - torch.arange(5.0)) ** 2)


def test_pairs_of_types_have_one_number_both_ways_round(disordered: Structure) -> None:
    graph = build_graph(disordered, cutoff=4.0).replace(species=("Cu", "Zr", "Al"))
    graph = graph.replace(types=torch.arange(graph.num_nodes) % 3)
    number = {}
    ends = torch.stack([graph.types[graph.source], graph.types[graph.destination]], dim=1)
    for pair, found in zip(ends.tolist(), unordered_pair(graph).tolist(), strict=True):
        assert number.setdefault(tuple(sorted(pair)), found) == found
    assert sorted(number.values()) == list(range(6))


def test_two_interactions_by_hand(disordered: Structure) -> None:
    graph = build_graph(disordered, cutoff=4.0)
    model = mgcn(width=6, layers=2, radial=5, keep=0.7)
    model.sum.fit([graph])
    source, target, g = graph.source, graph.destination, gaussians(graph)
    arriving = torch.nn.functional.one_hot(target, graph.num_nodes).T.float()
    a = model.atom_embedding.weight[graph.types]
    # Cu–Cu is pair 0, Cu–Zr 1, Zr–Zr 2
    e = model.pair_embedding.weight[graph.types[source] + graph.types[target]]
    levels = [a]
    for layer in model.layers:
        product = layer.atom(a)[source] * layer.distance(g)
        message = torch.tanh((product + layer.pair(e)) @ layer.mix.weight.T)
        summed = arriving @ message * graph.num_nodes / graph.num_edges
        norm, first, _, second = layer.update
        e = 0.7 * e + 0.3 * (a[source] * a[target]) @ model.pair_updates[0].weight.T
        a = a + second(ssp(first(norm(summed))))
        levels.append(a)
    head = model.decoder
    expected = head[2](ssp(head[0](torch.cat(levels, dim=1)))).squeeze(1)
    torch.testing.assert_close(model(graph), expected, atol=1e-5, rtol=0)


def test_pairs_that_are_kept_are_never_updated(disordered: Structure) -> None:
    graph = build_graph(disordered, cutoff=4.0)
    for keep, changes in ((1.0, False), (0.8, True)):
        model = mgcn(width=6, layers=2, keep=keep)
        before = model(graph)
        with torch.no_grad():
            model.pair_updates[0].weight.mul_(2.0)
        assert bool((model(graph) != before).any()) is changes
