"""FAENet: axes where there are some, invariance in every case, frames in training."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from mgsym.graph import Graph, build_graph, collate
from mgsym.graph.operations import transformed
from mgsym.models import create_model
from mgsym.models.networks.faenet import FAENet, principal_axes
from mgsym.nn.rotations import random_orthogonal
from mgsym.prediction import rotation_spread
from mgsym.structure import Structure


@pytest.fixture(scope="module")
def graph(disordered: Structure) -> Graph:
    return build_graph(disordered, cutoff=4.0)


def faenet(**options: object) -> FAENet:
    torch.manual_seed(0)
    model = create_model("faenet", ("Cu", "Zr"), 4.0, {"width": 8, **options})
    assert isinstance(model, FAENet)
    return model.eval()


def crystal(a: float, b: float, c: float) -> Graph:
    """A Cu-Zr chequerboard on an orthorhombic lattice."""
    steps = torch.arange(4.0, dtype=torch.float64)
    lattice = torch.cartesian_prod(steps, steps, steps)
    sides = torch.tensor([a, b, c], dtype=torch.float64)
    types = (lattice.sum(1) % 2).long()
    return build_graph(Structure(lattice * sides, torch.diag(4 * sides), types, ("Cu", "Zr")), 4.0)


TURN = random_orthogonal(1, torch.Generator().manual_seed(3))[0]


def test_axes_of_a_stretched_crystal_are_its_own() -> None:
    axes = principal_axes(crystal(2.6, 2.8, 3.0))[0]
    order = axes.abs().argmax(1)
    assert sorted(order.tolist()) == [0, 1, 2]
    torch.testing.assert_close(axes, torch.eye(3, dtype=torch.float64)[order])


def test_axes_turn_with_the_structure(graph: Graph) -> None:
    before, after = principal_axes(graph)[0], principal_axes(transformed(graph, TURN))[0]
    agreement = (after * (before @ TURN.T)).sum(1).abs()
    torch.testing.assert_close(agreement, torch.ones(3, dtype=torch.float64), atol=1e-5, rtol=0)
    assert float(torch.linalg.det(before).abs()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("sides", "lengths"),
    [
        ((2.6, 2.6, 2.6), [0.0, 0.0, 0.0]),
        ((2.6, 2.6, 2.9), [0.0, 0.0, 1.0]),
        ((2.6, 2.9, 2.9), [0.0, 0.0, 1.0]),
    ],
)
def test_axes_fade_where_moments_agree(
    sides: tuple[float, float, float], lengths: list[float]
) -> None:
    found = principal_axes(transformed(crystal(*sides), TURN))[0].norm(dim=1)
    expected = torch.tensor(lengths, dtype=torch.float64)
    torch.testing.assert_close(found.sort().values, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("sides", [(2.6, 2.6, 2.6), (2.6, 2.6, 2.9), (2.6, 2.75, 2.9)])
def test_invariant_whatever_the_symmetry(sides: tuple[float, float, float]) -> None:
    model = faenet()
    assert rotation_spread(model, crystal(*sides), count=4).max < 1e-4


def test_one_frame_is_not_invariant_but_repeats(graph: Graph) -> None:
    model = faenet(evaluation_frames="stochastic")
    model.decoder[-1].weight.data.mul_(10)
    assert rotation_spread(model, graph, count=8).rms > 1e-3
    assert torch.equal(model(graph), model(graph))


def numeric_gradient(graph: Graph, weight: Tensor, mix: Tensor, edge: int) -> float:
    step = torch.zeros_like(weight)
    step[edge] = 1e-5
    above, below = (principal_axes(graph, weight + s) for s in (step, -step))
    return float(((above - below) * mix).sum()) / 2e-5


def test_gradient_of_the_axes(graph: Graph) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(graph.num_edges, generator=generator, dtype=torch.float64)
    weight.requires_grad_()
    mix = torch.randn(1, 3, 3, generator=generator, dtype=torch.float64)
    (grad,) = torch.autograd.grad((principal_axes(graph, weight) * mix).sum(), weight)
    for edge in (0, 7, 100):
        expected = numeric_gradient(graph, weight.detach(), mix, edge)
        assert float(grad[edge]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("sides", [(2.6, 2.6, 2.6), (2.6, 2.6, 2.9)])
def test_gradient_is_finite_where_moments_agree(sides: tuple[float, float, float]) -> None:
    graph = crystal(*sides)
    weight = torch.ones(graph.num_edges, requires_grad=True)
    (grad,) = torch.autograd.grad(faenet()(graph, edge_weight=weight).sum(), weight)
    assert torch.isfinite(grad).all()
    assert (grad != 0).any()


def test_without_edges_there_is_no_axis(graph: Graph) -> None:
    weight = torch.zeros(graph.num_edges, requires_grad=True)
    axes = principal_axes(graph, weight)
    assert torch.equal(axes, torch.zeros(1, 3, 3, dtype=torch.float64))
    (grad,) = torch.autograd.grad(axes.sum(), weight)
    assert torch.isfinite(grad).all()


def test_full_is_the_mean_over_the_eight_frames(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = faenet()
    together, single = model(graph), []
    for signs in product((1.0, -1.0), repeat=3):
        monkeypatch.setattr(FAENet, "_signs", lambda *_, s=signs: iter([torch.tensor(s)]))
        single.append(model(graph))
    torch.testing.assert_close(together, torch.stack(single).mean(0), atol=1e-6, rtol=0)
    assert torch.stack(single).std(0).max() > 1e-5


def test_training_draws_a_frame_for_each_structure(graph: Graph) -> None:
    model, batch = faenet().train(), collate([graph] * 30)
    (signs,) = model._signs(batch)
    frames = signs.view(30, graph.num_edges, 3)
    assert (frames == frames[:, :1]).all()
    assert len({tuple(f) for f in frames[:, 0].tolist()}) == 8
    assert len(list(faenet(frames="full").train()._signs(batch))) == 8


def test_the_receptive_field_is_the_whole_structure() -> None:
    assert faenet().receptive_field == math.inf
