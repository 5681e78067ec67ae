"""Layer by layer over slabs: the numbers of the whole, every atom once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mgsym.graph import Graph, collate
from mgsym.models import create_model
from mgsym.models.base import BarrierModel
from mgsym.prediction import predict_graph, predict_with_spread
from mgsym.prediction.sweep import Sweep, slab_numbers

Make = Callable[..., Graph]

SEVERAL_LAYERS = {"heads": (2, 1, 2), "width": 8}
OPTIONS: dict[str, dict[str, Any]] = {
    "the paper's": SEVERAL_LAYERS,
    "output": {**SEVERAL_LAYERS, "symmetrisation": "output"},
    "polar": {**SEVERAL_LAYERS, "edge_input": "polar"},
    "length": {**SEVERAL_LAYERS, "edge_input": "length"},
    "descriptors": {**SEVERAL_LAYERS, "node_input": "descriptors", "radial": 3, "l_max": 2},
}


def model_of(name: str, seed: int = 0) -> BarrierModel:
    torch.manual_seed(seed)
    model = create_model("symgnn", ("Cu", "Zr"), 4.0, OPTIONS[name])
    for module in model.modules():  # as after some training
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(module.running_mean, -0.3, 0.3)  # type: ignore[arg-type]
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    return model.eval()


@pytest.mark.parametrize("name", OPTIONS)
def test_equals_the_whole(name: str, make_graph: Make) -> None:
    graph, model = make_graph("big", side=12, seed=5), model_of(name)
    whole = predict_graph(model, graph)
    for parts in (3, 20):
        slabs = predict_graph(model, graph, graph.num_edges // parts)
        assert float((slabs - whole).abs().max()) < 2e-3 * float(whole.std())


def test_equals_the_whole_of_a_batch_and_of_several_models(make_graph: Make) -> None:
    graph = collate([make_graph("a", side=8, seed=1), make_graph("b", side=6, seed=2)])
    models = [model_of("the paper's", seed) for seed in (1, 2)]
    (whole,) = predict_with_spread([graph], models)
    (slabs,) = predict_with_spread([graph], models, max_edges=graph.num_edges // 5)
    torch.testing.assert_close(slabs.mean, whole.mean, atol=1e-5, rtol=0)
    torch.testing.assert_close(slabs.std, whole.std, atol=1e-5, rtol=0)


def count_computed(model: BarrierModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often atoms are begun, and go through a layer, from now on."""
    counted = [0, 0]
    begin, advance = model.begin, model.advance

    def begun(part: Graph, count: int) -> Any:
        counted[0] += count
        return begin(part, count)

    def advanced(layer: int, nodes: Any, edges: Any, part: Graph) -> Any:
        counted[1] += int(part.destination.unique().numel())
        return advance(layer, nodes, edges, part)

    monkeypatch.setattr(model, "begin", begun)
    monkeypatch.setattr(model, "advance", advanced)
    return counted


@torch.no_grad()
def test_every_atom_is_computed_once_and_only_what_is_wanted(
    make_graph: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, model = make_graph("big", side=12, seed=5), model_of("the paper's")
    counted = count_computed(model, monkeypatch)
    found = torch.full((graph.num_nodes,), torch.nan)

    def done(nodes: torch.Tensor, values: torch.Tensor) -> None:
        assert bool(found[nodes].isnan().all())
        found[nodes] = values[0]

    size = graph.num_edges // 24
    Sweep([model], graph, size).run(done)  # type: ignore[list-item]
    assert counted == [graph.num_nodes, 3 * graph.num_nodes]
    assert not bool(found.isnan().any())

    whole, wanted = found.clone(), torch.zeros(graph.num_nodes, dtype=torch.bool)
    wanted[0] = True
    found[:], counted[:] = torch.nan, [0, 0]
    told: list[tuple[float, float | None]] = []

    def tell(steps: float, total: float | None = None, **_: object) -> None:
        told.append((steps, total))

    Sweep([model], graph, size, wanted).run(  # type: ignore[list-item]
        done, tell
    )
    own = slab_numbers(graph, size) == slab_numbers(graph, size)[0]
    assert torch.equal(~found.isnan(), own)
    torch.testing.assert_close(found[own], whole[own], atol=1e-6, rtol=0)
    assert counted[1] < 1.5 * graph.num_nodes
    assert told[-1][0] == told[-1][1] == len(told)


def test_slabs_are_small_and_near_in_space(make_graph: Make) -> None:
    graph = make_graph("big", side=12, seed=5)
    numbers = slab_numbers(graph, graph.num_edges // 10)
    edges = torch.bincount(numbers[graph.destination])
    assert int(edges.max()) <= graph.num_edges // 10 + int(graph.offsets.diff().max())
    assert len(edges) in (10, 11)
