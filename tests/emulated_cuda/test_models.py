"""Every model on the emulated device: the same numbers and gradients as on the CPU."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from mgsym.explanation import METHODS, explain
from mgsym.graph import Graph, collate
from mgsym.models import MODELS, create_model, model_options
from mgsym.models.base import BarrierModel
from mgsym.models.regression.base import DirectModel
from mgsym.nn import layers
from mgsym.prediction import predict

pytestmark = pytest.mark.cuda

SMALL: dict[str, Any] = {
    "width": 8, "heads": (2, 1), "decoder_layers": 1, "radial": 3, "l_max": 2, "dropout": 0.0,
    "ridge_share": 0.0, "steps": 2, "trees": 5, "waves": 20, "wide_radial": 3,
}  # fmt: skip
# options that take other paths through a layer
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "output": ("symgnn", {"symmetrisation": "output"}),
    "haar": ("symgnn", {"transforms": "haar"}),
    "augment": ("symgnn", {"transforms": "augment"}),
    "length": ("symgnn", {"edge_input": "length"}),
    "descriptors": ("symgnn", {"node_input": "descriptors"}),
    "ridge share": ("symgnn", {"ridge_share": 0.4}),
    "vectors": ("ace", {"vectors": 3}),
}
QUICK: dict[str, dict[str, int]] = {
    "edge-mask": {"steps": 2, "exchanges": 1},
    "sampled-mask": {"steps": 2, "draws": 2},
    "soft-mask": {"steps": 2},
    "parameterised-mask": {"steps": 2, "atoms": 2},
    "leave-one-out": {"candidates": 3},
    "integrated-gradients": {"steps": 3},
}
SLOW = ("parameterised-mask", "sampled-mask", "soft-mask")


def make(name: str, graphs: list[Graph], options: dict[str, Any] | None = None) -> BarrierModel:
    """A small model with the same weights every time."""
    known = model_options(name)
    small = {key: value for key, value in SMALL.items() if key in known}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = create_model(name, ("Cu", "Zr"), graphs[0].cutoff, {**small, **(options or {})})
    model.fit_statistics(graphs)
    return model


def there(model: BarrierModel) -> BarrierModel:
    return copy.deepcopy(model).to("cuda")


def step(
    model: BarrierModel, batch: Graph, precision: torch.dtype = torch.float32
) -> tuple[Tensor, list[Tensor]]:
    """Predictions and gradients of a training step, on the CPU."""
    torch.default_generator.manual_seed(3)  # of transforms
    model.train()
    lower = precision != torch.float32
    with torch.autocast(batch.target.device.type, precision, enabled=lower):
        out = model.standardised(batch, None).float()
    (out - batch.target).square().mean().backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(g.device == batch.target.device for g in (out, *grads))
    return out.detach().cpu(), [g.cpu() for g in grads]


def check(model: BarrierModel, graphs: list[Graph]) -> None:
    """Fit or a training step, then predictions, here and there."""
    other = there(model)
    moved = [graph.to("cuda") for graph in graphs]
    if isinstance(model, DirectModel) and isinstance(other, DirectModel):
        model.fit(graphs[:1])
        other.fit(moved[:1])
    else:
        (out, grads), (out_there, grads_there) = (
            step(m, collate(g)) for m, g in ((model, graphs), (other, moved))
        )
        torch.testing.assert_close(out_there, out, rtol=1e-4, atol=1e-4)
        for found, expected in zip(grads_there, grads, strict=True):
            atol = 1e-3 * float(expected.abs().max()) + 1e-4
            torch.testing.assert_close(found, expected, rtol=0, atol=atol)
    here = predict(graphs[1], model)
    torch.testing.assert_close(predict(graphs[1], other), here, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", list(MODELS))
def test_a_model_computes_the_same_there(gpu: Any, graphs: list[Graph], name: str) -> None:
    check(make(name, graphs), graphs)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), VARIANTS.values(), ids=VARIANTS)
def test_options_compute_the_same_there(
    gpu: Any, graphs: list[Graph], name: str, options: dict[str, Any]
) -> None:
    check(make(name, graphs, options), graphs)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_lower_precision_stays_near(gpu: Any, graphs: list[Graph], precision: torch.dtype) -> None:
    model, other = make("symgnn", graphs), there(make("symgnn", graphs))
    _, exact = step(model, collate(graphs))
    _, found = step(other, collate([graph.to("cuda") for graph in graphs]), precision)
    near, right = (torch.cat([g.flatten() for g in grads]) for grads in (found, exact))
    assert 0 < float((near - right).norm()) < 0.1 * float(right.norm())


def test_predictions_in_parts_are_those_of_the_whole(gpu: Any, graphs: list[Graph]) -> None:
    model = make("symgnn", graphs).eval()
    whole = predict(graphs[0], model, device="cpu")
    torch.testing.assert_close(predict(graphs[0], model, device="cuda"), whole)
    parts = predict(graphs[0], model, device="cuda", max_edges=600)
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_loops_over_pieces_of_edges(
    gpu: Any, graphs: list[Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "_PIECE_CUDA", 2000)
    check(make("symgnn", graphs), graphs)


@pytest.mark.parametrize(
    "method",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in METHODS],
)
def test_an_explanation_is_the_same_there(gpu: Any, graphs: list[Graph], method: str) -> None:
    model = make("symgnn", graphs).eval()
    here = explain(graphs[0], model, 5, method, device="cpu", **QUICK.get(method, {}))
    found = explain(graphs[0], model, 5, method, device="cuda", **QUICK.get(method, {}))
    assert found.prediction == pytest.approx(here.prediction, abs=1e-5)
    assert found.edges.device.type == found.importance.device.type == "cpu"
    assert torch.equal(found.edges.sort().values, here.edges.sort().values)
    places, others = found.edges.argsort(), here.edges.argsort()
    torch.testing.assert_close(
        found.importance[places], here.importance[others], rtol=1e-2, atol=1e-3
    )
