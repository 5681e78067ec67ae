"""The compiled passes over edges give what PyTorch gives, forward and backward."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mgsym.graph import Graph
from mgsym.models import create_model
from mgsym.models.base import BarrierModel
from mgsym.nn import edge_passes
from mgsym.nn.edge_passes import compiled_passes
from mgsym.nn.egat import EGATBlock, recorded_attention, scaled_attention
from mgsym.nn.layers import EdgeEncoder
from mgsym.utils import compilation

pytestmark = pytest.mark.usefixtures("compiler")


def random_graph(nodes: int, edges: int) -> Graph:
    """Edges in all directions, some nodes with none."""
    source = torch.randint(0, nodes, (edges,))
    target = torch.randint(0, nodes, (edges,)) // 2 * 2
    target = target.clamp(max=nodes - 1).sort().values
    return Graph(
        types=torch.randint(0, 2, (nodes,)),
        species=("Cu", "Zr"),
        edge_index=torch.stack([source, target]),
        edge_shift=torch.zeros(edges, 3, dtype=torch.int16),
        edge_vector=torch.randn(edges, 3),
        cutoff=5.0,
        positions=torch.zeros(nodes, 3, dtype=torch.float64),
        ids=torch.arange(nodes),
        target=torch.randn(nodes),
        target_stderr=torch.full((nodes,), torch.nan),
        structure_index=torch.zeros(nodes, dtype=torch.int64),
        names=("random",),
        glasses=("random",),
        splits=("train",),
        cell=10 * torch.eye(3, dtype=torch.float64)[None],
        periodic=torch.ones(1, 3, dtype=torch.bool),
    )


Results = dict[str, Tensor | None]


def compare(results: list[Results]) -> None:
    """Compiled passes are as near to numbers in float64 as PyTorch is, or within 1e-5 of them."""
    compiled, eager, exact = results
    assert compiled.keys() == eager.keys() == exact.keys()
    largest = max(float(x.abs().max()) for x in exact.values() if x is not None and x.numel())
    for name, expected in exact.items():
        found, torchs = compiled[name], eager[name]
        assert (found is None) == (expected is None), name
        if found is None or torchs is None or expected is None or not expected.numel():
            continue
        rounding = float((torchs - expected).abs().max())
        # some gradients are zero but for rounding
        bound = 1e-5 * float(expected.abs().max()) + 3 * rounding + 1e-6 * largest
        assert float((found - expected).abs().max()) <= bound, name


def both(
    monkeypatch: pytest.MonkeyPatch, module: torch.nn.Module, call: object, *inputs: Tensor
) -> list[Results]:
    """Outputs, gradients and buffers of one call from one state: compiled, and by PyTorch in
    float32 and in float64."""
    results = []
    for switch, dtype in (("1", torch.float32), ("0", torch.float32), ("0", torch.float64)):
        monkeypatch.setenv("MGSYM_COMPILE", switch)
        own = copy.deepcopy(module).to(dtype)
        leaves = [x.detach().to(dtype, copy=True).requires_grad_(x.requires_grad) for x in inputs]
        torch.manual_seed(5)
        outputs = call(own, *leaves)  # type: ignore[operator]
        steps = [torch.linspace(-1, 1, out.numel()).to(dtype).view_as(out) for out in outputs]
        loss = sum((out * step).sum() for out, step in zip(outputs, steps, strict=True))
        if torch.is_tensor(loss) and loss.requires_grad:
            loss.backward()
        found: Results = {f"output {i}": out.detach() for i, out in enumerate(outputs)}
        found |= {f"input {i}": leaf.grad for i, leaf in enumerate(leaves)}
        found |= {name: parameter.grad for name, parameter in own.named_parameters()}
        found |= dict(own.named_buffers())
        results.append(found)
    return results


def call_model(graph: Graph) -> object:
    def call(model: BarrierModel) -> tuple[Tensor]:
        vector = graph.edge_vector.to(model.label_mean.dtype)
        return (model(graph.replace(edge_vector=vector)),)

    return call


def block_of(
    heads: int, width: int = 32, dropout: float = 0.25, attention: str = "softmax"
) -> EGATBlock:
    torch.manual_seed(heads)
    block = EGATBlock(width, heads, dropout, attention)
    with torch.no_grad():
        for norm in (block.edge_norm, block.node_norm):
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.uniform_(-0.5, 0.5)
        block.edge_norm.running_mean.uniform_(0, 0.5)
        block.edge_norm.running_var.uniform_(0.5, 1.5)
    return block


def call_block(graph: Graph, last: bool, weight: Tensor | None = None) -> object:
    def call(block: EGATBlock, nodes: Tensor, edges: Tensor) -> tuple[Tensor, ...]:
        with recorded_attention() as seen:
            found = block(nodes, edges, graph, weight, last=last)
        return (*found[: 1 if last else 2], *seen)

    return call


def inputs_of(graph: Graph, width: int = 32) -> tuple[Tensor, Tensor]:
    nodes = torch.randn(graph.num_nodes, width, requires_grad=True)
    return nodes, torch.randn(graph.num_edges, width, requires_grad=True)


@pytest.mark.parametrize("stored", [True, False], ids=["z stored", "z made again"])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("heads", [1, 3, 8])
@pytest.mark.parametrize("edges", [0, 17, 1003])
def test_a_layer(
    monkeypatch: pytest.MonkeyPatch, edges: int, heads: int, last: bool, stored: bool
) -> None:
    if not stored:
        monkeypatch.setattr("mgsym.nn.egat_kernel._STORED", 0)
    graph = random_graph(30, edges)
    compare(both(monkeypatch, block_of(heads), call_block(graph, last), *inputs_of(graph)))


@pytest.mark.parametrize("width", [16, 32, 64])
def test_other_widths(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    graph = random_graph(30, 500)
    block = block_of(3, width)
    compare(both(monkeypatch, block, call_block(graph, False), *inputs_of(graph, width)))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dropout_draws_the_same(monkeypatch: pytest.MonkeyPatch, dropout: float) -> None:
    graph = random_graph(30, 500)
    block = block_of(4, dropout=dropout)
    compare(both(monkeypatch, block, call_block(graph, False), *inputs_of(graph)))


@pytest.mark.parametrize("attention", ["softmax", "softplus"])
def test_weights_of_edges_and_scaled_attention(
    monkeypatch: pytest.MonkeyPatch, attention: str
) -> None:
    graph = random_graph(30, 500)
    weight = torch.rand(500)
    weight[::7] = 0
    block = block_of(4, attention=attention)
    compare(both(monkeypatch, block, call_block(graph, False, weight), *inputs_of(graph)))
    with scaled_attention(weight):
        compare(both(monkeypatch, block, call_block(graph, False), *inputs_of(graph)))


def test_frozen_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """A norm in evaluation inside a layer in training normalises with what it has."""
    graph, block = random_graph(30, 500), block_of(4)
    block.edge_norm.eval()
    compare(both(monkeypatch, block, call_block(graph, False), *inputs_of(graph)))


def test_threads_share_the_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_passes, "_SHARE", 100)
    monkeypatch.setattr("torch.get_num_threads", lambda: 3)
    graph, model = random_graph(30, 1003), create_model("symgnn", ("Cu", "Zr"), 5.0)
    compare(both(monkeypatch, block_of(4), call_block(graph, False), *inputs_of(graph)))
    compare(both(monkeypatch, model, call_model(graph)))


@pytest.mark.parametrize("inputs", [3, 16, 21])
@pytest.mark.parametrize("views", [1, 4])
@pytest.mark.parametrize("edges", [0, 5, 1003])
def test_the_encoder(monkeypatch: pytest.MonkeyPatch, edges: int, views: int, inputs: int) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(views, inputs, inputs, requires_grad=True)
    shares = torch.full((views,), 1 / views)
    x = torch.randn(edges, inputs) + 0.3

    def call(encoder: EdgeEncoder, matrices: Tensor) -> tuple[Tensor]:
        dtype = matrices.dtype
        return (encoder(x.to(dtype), matrices, shares.to(dtype)),)

    compare(both(monkeypatch, EdgeEncoder(inputs, 32), call, matrices))


@pytest.mark.parametrize("name", ["symgnn", "egat", "egat-length"])
def test_a_model(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    torch.manual_seed(0)
    graph, model = random_graph(60, 2000), create_model(name, ("Cu", "Zr"), 5.0)
    compare(both(monkeypatch, model, call_model(graph)))


@pytest.mark.parametrize("name", ["symgnn", "egat", "egat-length"])
def test_a_prediction_of_very_many_edges(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    torch.manual_seed(0)
    graph, model = random_graph(60, 2000), create_model(name, ("Cu", "Zr"), 5.0).eval()
    for module in model.modules():  # as after some training
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(module.running_mean, -0.3, 0.3)  # type: ignore[arg-type]
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    with torch.no_grad():
        eager = model(graph)
        monkeypatch.setattr(edge_passes, "_MANY", 2000)
        compiled = model(graph)
    assert not torch.equal(compiled, eager)
    torch.testing.assert_close(compiled, eager, atol=1e-5, rtol=1e-5)


def test_who_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    edges = torch.zeros(5, 32)
    assert compiled_passes(edges, 32, training=True) is not None
    assert compiled_passes(edges.double(), 32, training=True) is None
    assert compiled_passes(edges.to("meta"), 32, training=True) is None
    assert compiled_passes(edges, 24, training=True) is None
    with torch.no_grad():
        assert compiled_passes(edges, 32, training=True) is None
        assert compiled_passes(edges, 32, training=False) is None
        monkeypatch.setattr(edge_passes, "_MANY", 5)
        assert compiled_passes(edges, 32, training=False) is not None
    assert compiled_passes(edges, 32, training=False) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert compiled_passes(edges, 32, training=True) is None
    monkeypatch.setenv("MGSYM_COMPILE", "0")
    assert compiled_passes(edges, 32, training=True) is None


def test_evaluation_compiles_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compilation, "_library", None)  # calling it would fail
    model = create_model("symgnn", ("Cu", "Zr"), 5.0).eval()
    assert model(random_graph(20, 200)).shape == (20,)


def test_models_are_copied_and_saved_as_ever(tmp_path: Path) -> None:
    graph, model = random_graph(20, 200), create_model("symgnn", ("Cu", "Zr"), 5.0)
    model(graph).sum().backward()
    expected = model.eval()(graph)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301
        assert torch.equal(other(graph), expected)


def test_a_second_backward_pass_gives_the_same() -> None:
    graph, block = random_graph(30, 500), block_of(4)
    nodes, edges = inputs_of(graph)
    new = block(nodes, edges, graph)[1].square().sum()
    first, again = (torch.autograd.grad(new, edges, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.parametrize("name", ["edge_encoder.first.bias", "layers.0.conv.edge.weight"])
def test_what_is_no_number_reaches_the_loss(name: str) -> None:
    """ReLU lets NaN pass as PyTorch's does, so that the trainer sees it."""
    torch.manual_seed(0)
    graph, model = random_graph(20, 200), create_model("symgnn", ("Cu", "Zr"), 5.0)
    with torch.no_grad():
        model.get_parameter(name).fill_(torch.nan)
    assert model(graph).isnan().all()
