"""The EGAT layer against DGL and against its own equations; basis functions."""

from __future__ import annotations

import copy
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mgsym.graph import Graph
from mgsym.nn.egat import EGATBlock, EGATConv, scaled_attention
from mgsym.nn.egat_kernel import _SUMMED, _add_product
from mgsym.nn.layers import Dropout, EdgeEncoder, radial_basis, smooth_cutoff

REFERENCE = Path(__file__).parents[2] / "reference" / "dgl_egatconv.npz"


def graph_of(source: Tensor, target: Tensor, nodes: int) -> Graph:
    """A graph with these edges, sorted by target; nothing else in it matters here."""
    edges = source.shape[0]
    return Graph(
        types=torch.zeros(nodes, dtype=torch.int64),
        species=("Cu",),
        edge_index=torch.stack([source, target]),
        edge_shift=torch.zeros(edges, 3, dtype=torch.int16),
        edge_vector=torch.ones(edges, 3),
        cutoff=5.0,
        positions=torch.zeros(nodes, 3, dtype=torch.float64),
        ids=torch.arange(1, nodes + 1),
        target=torch.zeros(nodes),
        target_stderr=torch.zeros(nodes),
        structure_index=torch.zeros(nodes, dtype=torch.int64),
        names=("",),
        glasses=("",),
        splits=("",),
        cell=torch.eye(3, dtype=torch.float64)[None],
        periodic=torch.ones(1, 3, dtype=torch.bool),
    )


def random_graph(nodes: int, edges: int, seed: int = 0) -> Graph:
    generator = torch.Generator().manual_seed(seed)
    # the last node receives nothing
    target = torch.randint(nodes - 1, (edges,), generator=generator).sort().values
    return graph_of(torch.randint(nodes, (edges,), generator=generator), target, nodes)


@pytest.fixture(scope="module")
def dgl() -> dict[str, Tensor]:
    with np.load(REFERENCE, allow_pickle=False) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.mark.parametrize("weighted", [False, True])
def test_egat_equals_dgl(dgl: dict[str, Tensor], weighted: bool) -> None:
    heads, out = dgl["node_out"].shape[1:]
    conv = EGATConv(5, 3, out, heads).double()
    with torch.no_grad():
        conv.source.weight.copy_(dgl["param_fc_ni.weight"])
        conv.target.weight.copy_(dgl["param_fc_nj.weight"])
        conv.edge.weight.copy_(dgl["param_fc_fij.weight"])
        conv.message.weight.copy_(dgl["param_fc_node_src.weight"])
        conv.bias.copy_(dgl["param_bias"].flatten())
        conv.attention.copy_(dgl["param_attn"].view(heads, out))
    order = torch.argsort(dgl["dst"], stable=True)
    graph = graph_of(dgl["src"][order], dgl["dst"][order], 12)
    scale = dgl["edge_weight"].view(-1)[order] if weighted else None
    suffix = "_weighted" if weighted else ""
    with scaled_attention(scale):
        found = conv(dgl["node_in"], dgl["edge_in"][order], graph)
    expected = (f"node_out{suffix}", "edge_out", f"attention{suffix}")
    torch.testing.assert_close(found.nodes, dgl[expected[0]], rtol=0, atol=1e-10)
    torch.testing.assert_close(found.edges, dgl[expected[1]][order], rtol=0, atol=1e-10)
    attention = dgl[expected[2]][order].view(-1, heads)
    torch.testing.assert_close(found.attention, attention, rtol=0, atol=1e-10)


def plain_block(
    block: EGATBlock, nodes: Tensor, edges: Tensor, graph: Graph, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """EGATBlock, written as its definition reads."""
    found = block.conv(nodes, edges, graph, weight)
    new_nodes = nodes + block.node_back(block.node_norm(found.nodes.flatten(1)))
    new_edges = edges + block.edge_back(block.edge_norm(found.edges.flatten(1)))
    return new_nodes, new_edges


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("weights", ["none", "edge_weight", "attention_scale"])
@pytest.mark.parametrize("attention", ["softmax", "softplus"])
def test_block_equals_its_definition(training: bool, weights: str, attention: str) -> None:
    torch.manual_seed(1)
    graph = random_graph(40, 700)
    block = EGATBlock(6, 3, 0.0, attention).double().train(training)
    for norm in (block.node_norm, block.edge_norm):
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    inputs = [torch.randn(40, 6).double(), torch.randn(700, 6).double(), torch.rand(700).double()]
    for tensor in inputs:
        tensor.requires_grad_()
    weight = inputs[2] if weights == "edge_weight" else None
    scale = inputs[2] if weights == "attention_scale" else None
    cotangent = torch.randn(40, 6).double(), torch.randn(700, 6).double()
    leaves = [*inputs[: 3 if weights != "none" else 2], *block.parameters()]
    results = []
    for compute in (block, lambda *args: plain_block(block, *args)):
        buffers = {name: value.clone() for name, value in block.named_buffers()}
        with scaled_attention(scale):
            outputs = compute(inputs[0], inputs[1], graph, weight)
        grads = torch.autograd.grad(outputs, leaves, cotangent)
        after = {name: value.clone() for name, value in block.named_buffers()}
        results.append((*outputs, *grads, *after.values()))
        block.load_state_dict({**block.state_dict(), **buffers})
    for fused, plain in zip(*results, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-9, atol=1e-9)


def test_only_attention_without_a_softmax_counts_neighbours() -> None:
    """Twice the same neighbours: the same average, twice the sum."""
    torch.manual_seed(4)
    nodes, once = torch.randn(5, 4).double(), torch.tensor([1, 2, 3])
    edges = torch.randn(3, 4).double()
    for kind, factor in (("softmax", 1), ("softplus", 2)):
        conv = EGATConv(4, 4, 4, 2, kind).double()
        single = conv(nodes, edges, graph_of(once, torch.zeros(3).long(), 5))
        double = conv(nodes, edges.repeat(2, 1), graph_of(once.repeat(2), torch.zeros(6).long(), 5))
        torch.testing.assert_close(double.nodes[0], factor * single.nodes[0])


def test_softplus_attention_equals_its_definition() -> None:
    torch.manual_seed(5)
    graph, conv = random_graph(20, 200), EGATConv(4, 4, 4, 2, "softplus").double()
    nodes, edges = torch.randn(20, 4).double(), torch.randn(200, 4).double()
    found = conv(nodes, edges, graph)
    alpha = torch.log1p(torch.exp((found.edges * conv.attention).sum(-1)))
    torch.testing.assert_close(found.attention, alpha)
    sent = conv.message(nodes).view(20, 2, 4)
    for node in range(20):
        rows = graph.destination == node
        expected = (alpha[rows, :, None] * sent[graph.source[rows]]).sum(0)
        torch.testing.assert_close(found.nodes[node], expected)


def test_attention_is_scaled_only_inside_the_context() -> None:
    torch.manual_seed(3)
    graph, conv = random_graph(20, 200), EGATConv(4, 4, 4, 2).double()
    nodes, edges = torch.randn(20, 4).double(), torch.randn(200, 4).double()
    plain = conv(nodes, edges, graph)
    with scaled_attention(torch.full((200,), 0.5).double()):
        half = conv(nodes, edges, graph)
        with scaled_attention(None):
            inner = conv(nodes, edges, graph)
    torch.testing.assert_close(half.nodes, 0.5 * plain.nodes)
    for again in (inner, conv(nodes, edges, graph)):
        assert torch.equal(again.nodes, plain.nodes)


def test_block_in_pieces_equals_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    graph = random_graph(30, 500)
    block = EGATBlock(4, 2, dropout=0.0).double()
    nodes, edges = torch.randn(30, 4).double(), torch.randn(500, 4).double()
    whole = block(nodes, edges, graph)
    monkeypatch.setattr("mgsym.nn.layers._PIECE_CPU", 100)
    for a, b in zip(block(nodes, edges, graph), whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stored", [True, False])
def test_block_drops_what_its_definition_drops(
    stored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not stored:
        monkeypatch.setattr("mgsym.nn.egat_kernel._STORED", 0)
    monkeypatch.setattr("mgsym.nn.layers._PIECE_CPU", 1000)
    torch.manual_seed(5)
    graph = random_graph(40, 700)
    block = EGATBlock(6, 3, dropout=0.25).double()
    nodes, edges = torch.randn(40, 6).double(), torch.randn(700, 6).double().requires_grad_()
    leaves = [edges, *block.parameters()]
    torch.manual_seed(6)
    kept, scale = block.dropout.draw(edges)
    assert kept is not None
    kept_nodes, _ = block.dropout.draw(nodes)
    new_nodes, new_edges = plain_block(block, nodes, edges, graph)

    def with_grads(*outputs: Tensor, **more: bool) -> list[Tensor]:
        loss = sum(t.square().sum() for t in outputs)
        return [*outputs, *torch.autograd.grad(loss, leaves, **more)]

    plain = with_grads(new_nodes * kept_nodes * scale, new_edges * kept * scale)
    torch.manual_seed(6)
    fused = block(nodes, edges, graph)
    block(2 * nodes, edges, graph)  # its z must not take the place of the first's
    for again in (True, False):  # the second time, what was stored is gone
        for a, b in zip(with_grads(*fused, retain_graph=again), plain, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_memory_for_the_backward_pass_goes_with_training_and_with_the_layer() -> None:
    torch.manual_seed(2)
    graph = random_graph(30, 500)
    block = EGATBlock(4, 2, dropout=0.0)
    nodes, edges = torch.randn(30, 4), torch.randn(500, 4)
    block(nodes, edges, graph)[1].sum().backward()
    (memory,) = block._memory.free
    block(nodes, edges, graph)[1].sum().backward()
    assert block._memory.free == [memory]  # and no more of it
    assert copy.deepcopy(block)._memory.free == []
    other = EGATBlock(4, 2, dropout=0.0)
    assert other._memory.free == []
    assert block.eval()._memory.free == []
    kept = weakref.ref(memory)
    del memory
    assert kept() is None


def plain_encoder(
    encoder: EdgeEncoder, x: Tensor, views: Tensor, shares: Tensor
) -> tuple[Tensor, Tensor]:
    """Encodings of every view [t, e, width] and their average; batch norm sees all views."""
    turned = torch.einsum("tij,ej->tei", views, x).flatten(0, 1)
    hidden = torch.relu(encoder.first_norm(encoder.first(turned)))
    encoded = torch.relu(encoder.second_norm(encoder.second(hidden)))
    encoded = encoded.unflatten(0, (len(views), -1))
    return encoded, torch.einsum("tew,t->ew", encoded, shares)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("average", [True, False])
def test_encoder_equals_its_definition(training: bool, average: bool) -> None:
    torch.manual_seed(3)
    encoder = EdgeEncoder(3, 8).double().train(training)
    for norm in (encoder.first_norm, encoder.second_norm):
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias)
    x = torch.randn(300, 3).double()
    views = torch.randn(4, 3, 3).double().requires_grad_()
    shares = torch.full((4,), 0.25).double()
    leaves = [views, *encoder.parameters()]
    results = []
    for compute in ("module", "definition"):
        buffers = {name: value.clone() for name, value in encoder.named_buffers()}
        if compute == "module":
            out = encoder(x, views, shares, average=average)
        else:
            out = plain_encoder(encoder, x, views, shares)[1 if average else 0]
        grads = torch.autograd.grad(out.square().sum(), leaves)
        results.append((out, *grads, *(v.clone() for v in encoder.buffers())))
        encoder.load_state_dict({**encoder.state_dict(), **buffers})
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-8, atol=1e-8)


def test_radial_basis_peaks_at_its_centres() -> None:
    centres = torch.linspace(0, 5, 6)
    torch.testing.assert_close(radial_basis(centres, 5.0, 6).diagonal(), torch.ones(6))


def test_smooth_cutoff_ends_flat_at_zero() -> None:
    length = torch.tensor([0.0, 2.5, 5.0, 7.0], requires_grad=True)
    value = smooth_cutoff(length, 5.0)
    torch.testing.assert_close(value, torch.tensor([1.0, 0.5, 0.0, 0.0]), atol=1e-7, rtol=0)
    (slope,) = torch.autograd.grad(value.sum(), length)
    assert slope[2].abs() < 1e-6
    assert slope[3] == 0


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    x = torch.ones(200_001, requires_grad=True)
    dropout = Dropout(0.25)
    found = dropout(x)
    torch.testing.assert_close(found.detach().unique(), torch.tensor([0.0, 4 / 3]))
    assert float((found == 0).double().mean()) == pytest.approx(0.25, abs=0.005)
    (grad,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(grad, found.detach())
    assert not torch.equal(dropout(x), found)
    assert dropout.eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_block_in_lower_precision_stays_close() -> None:
    torch.manual_seed(4)
    graph = random_graph(40, 700)
    block = EGATBlock(8, 4, dropout=0.0)
    nodes, edges = torch.randn(40, 8), torch.randn(700, 8)
    results = []
    for lower in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=lower):
            outputs = block(nodes, edges, graph)
        assert all(t.dtype == torch.float32 for t in outputs)
        grads = torch.autograd.grad(sum(t.square().sum() for t in outputs), block.parameters())
        results.append((*outputs, *grads))
    # bfloat16 keeps 8 bits; a gradient sums many such products, some of which cancel
    for i, (exact, rounded) in enumerate(zip(*results, strict=True)):
        assert (rounded - exact).norm() < (0.02 if i < 2 else 0.1) * exact.norm() + 1e-3
    assert not torch.equal(results[0][1], results[1][1])


def test_sums_over_many_edges_are_not_taken_in_16_bits() -> None:
    """As in the large pieces of a GPU; bfloat16 knows 8 bits."""
    count = 3 * _SUMMED + 5
    left, right = torch.ones(2, count).bfloat16(), torch.ones(count, 3)
    total = torch.full((2, 3), 0.25)
    _add_product(total, left, right)
    torch.testing.assert_close(total, torch.full((2, 3), count + 0.25), rtol=1e-4, atol=0)
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(*s, generator=generator) for s in ((4, count), (count, 3)))
    total = torch.zeros(4, 3)
    _add_product(total, left.half(), right.half())
    torch.testing.assert_close(total, left.half().float() @ right.half().float(), rtol=0, atol=0.5)
