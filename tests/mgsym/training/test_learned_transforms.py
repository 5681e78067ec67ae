"""What a run tells of the von Mises distributions that it learns, and how fast they learn."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from mgsym.errors import Interrupted
from mgsym.graph import Graph
from mgsym.models import create_model
from mgsym.models.base import BarrierModel
from mgsym.nn.rotations import distributions_of, learned_transforms
from mgsym.prediction import rotation_spread
from mgsym.training import train
from mgsym.training.config import Config, ModelConfig, TrainingConfig, load_config
from mgsym.training.optimizer import make_optimizer, set_rates
from mgsym.training.runs import TrainedRun, read_history
from mgsym.training.trainer import STATE_FORMAT, STATE_VERSION
from mgsym.utils.files import load_safely, save_safely

SMALL = {"width": 8, "heads": (1,), "decoder_layers": 1, "dropout": 0.0}
NAMES = [
    f"{kind}_{half}_{angle}{unit}"
    for kind, unit in (("location", "_rad"), ("concentration", ""))
    for half in ("rotation", "reflection")
    for angle in ("alpha", "beta", "gamma")
]


def config(model: str = "symgnn", options: dict[str, Any] | None = None, **training: Any) -> Config:
    chosen: dict[str, Any] = {"epochs": 3, "warmup": 0.0, "schedule": "constant", **training}
    return Config(
        "fast", ModelConfig(model, {**SMALL, **(options or {})}), TrainingConfig(**chosen)
    )


def small(seed: int = 0, **options: Any) -> BarrierModel:
    torch.manual_seed(seed)
    return create_model("symgnn", ("Cu", "Zr"), 4.0, {**SMALL, **options})


def moved(run: TrainedRun, folder: Path) -> dict[str, float]:
    start = json.loads((folder / "run.json").read_text())["transforms_start"]
    now = distributions_of(run.model)
    return {name: now[name] - start[name] for name in NAMES}


def test_distributions_are_named() -> None:
    model = small()
    transforms = learned_transforms(model)
    assert transforms is not None
    with torch.no_grad():
        transforms.location.copy_(torch.arange(6.0).reshape(2, 3))
        transforms.log_concentration.copy_(torch.arange(6.0).reshape(2, 3).log1p())
    found = distributions_of(model)
    assert list(found) == NAMES
    assert [found[name] for name in NAMES[:6]] == [0, 1, 2, 3, 4, 5]
    assert [found[name] for name in NAMES[6:]] == pytest.approx([1, 2, 3, 4, 5, 6])
    for other in ("haar", "von-mises-fixed", "quadrature", "none"):
        assert distributions_of(small(transforms=other)) == {}


@pytest.mark.parametrize("factor", [0.0, 1.0, 0.25, 8.0])
def test_they_move_by_their_own_rate(factor: float) -> None:
    """A first step of Adam moves every number by the learning rate, whatever its gradient."""
    model = small()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = make_optimizer(TrainingConfig(optimizer="adam", transforms_rate=factor), model)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    set_rates(optimizer, 1e-3)
    optimizer.step()
    for name, parameter in model.named_parameters():
        step = factor * 1e-3 if name.startswith("transforms.") else 1e-3
        expected = before[name] - step
        torch.testing.assert_close(parameter.detach(), expected, atol=2e-7, rtol=0)


def test_they_do_not_decay() -> None:
    model = small()
    before = distributions_of(model)
    optimizer = make_optimizer(TrainingConfig(weight_decay=0.5), model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for _ in range(5):
        optimizer.step()
    assert distributions_of(model) == before


def test_a_rate_of_zero_leaves_them_where_they_began(
    five_graphs: list[Graph], tmp_path: Path
) -> None:
    still = train(five_graphs, config(transforms_rate=0.0, ema_decay=0.0), run=tmp_path / "still")
    assert set(moved(still, tmp_path / "still").values()) == {0.0}
    learning = train(five_graphs, config(ema_decay=0.0), run=tmp_path / "learning")
    assert all(moved(learning, tmp_path / "learning").values())


def test_their_columns(five_graphs: list[Graph], tmp_path: Path) -> None:
    run = train(five_graphs, config(evaluate_every=1, ema_decay=0.0), run=tmp_path / "a")
    rows = list(csv.DictReader((tmp_path / "a/metrics.csv").open()))
    assert list(rows[0])[-12:] == NAMES
    best = next(row for row in rows if row["epoch"] == str(run.best_epoch))
    now = distributions_of(run.model)
    assert {name: float(best[name]) for name in NAMES} == pytest.approx(now)
    train(five_graphs, config("egat"), run=tmp_path / "b")
    assert not set(read_history(tmp_path / "b")[0]) & set(NAMES)
    assert json.loads((tmp_path / "b/run.json").read_text())["transforms_start"] == {}


def test_how_far_predictions_move_as_a_structure_turns(
    five_graphs: list[Graph], tmp_path: Path
) -> None:
    run = train(five_graphs, config("egat"), run=tmp_path / "a")
    told = json.loads((tmp_path / "a/run.json").read_text())["rotation_rms_eV"]
    assert told == pytest.approx(rotation_spread(run.model, five_graphs[-1], 4).rms, rel=1e-4)
    assert told > 1e-4
    train(five_graphs, config("egat-length"), run=tmp_path / "b")
    assert json.loads((tmp_path / "b/run.json").read_text())["rotation_rms_eV"] is None


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_resumed_ends_in_the_same_bits(
    five_graphs: list[Graph], tmp_path: Path, factor: float
) -> None:
    chosen = config(transforms_rate=factor, evaluate_every=1)
    whole = train(five_graphs, chosen)
    steps = iter(range(99))
    with pytest.raises(Interrupted):
        train(five_graphs, chosen, run=tmp_path, should_stop=lambda: next(steps) == 4)
    resumed = train(five_graphs, chosen, run=tmp_path, resume=True)
    ours, theirs = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_of_before_goes_on(five_graphs: list[Graph], tmp_path: Path) -> None:
    """Its optimiser has two groups, the distributions among the matrices, and no such columns."""
    chosen = config(evaluate_every=1, weight_decay=0.0)
    whole = train(five_graphs, chosen)
    steps = iter(range(99))
    with pytest.raises(Interrupted):
        train(five_graphs, chosen, run=tmp_path, should_stop=lambda: next(steps) == 4)
    state = load_safely(tmp_path / "last.pt", STATE_FORMAT, STATE_VERSION)
    _as_before(state, whole.model)
    save_safely(tmp_path / "last.pt", state)
    resumed = train(five_graphs, load_config(tmp_path / "config.toml"), run=tmp_path, resume=True)
    ours, theirs = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    rows = read_history(tmp_path)
    assert math.isnan(float(rows[0][NAMES[0]]))
    assert float(rows[-1][NAMES[0]]) == whole.history[-1][NAMES[0]]


def _as_before(state: dict[str, Any], model: BarrierModel) -> None:
    """Make a state what it was before there were such settings, groups and columns."""
    for name in ("transforms_rate", "teacher", "teacher_share", "teacher_until"):
        del state["config"][f"training.{name}"]
    trained = [p for p in model.parameters() if p.requires_grad]
    old = sorted(trained, key=lambda p: p.dim() < 2)
    new = [p for group in make_optimizer(TrainingConfig(), model).param_groups
           for p in group["params"]]  # fmt: skip
    place = {id(p): i for i, p in enumerate(old)}
    optimizer = state["optimizer"]
    optimizer["state"] = {place[id(new[i])]: v for i, v in optimizer["state"].items()}
    matrices = sum(p.dim() >= 2 for p in old)
    numbers = [list(range(matrices)), list(range(matrices, len(old)))]
    plain = {k: v for k, v in optimizer["param_groups"][0].items() if k != "rate"}
    optimizer["param_groups"] = [{**plain, "params": each} for each in numbers]
    for row in state["state"]["history"]:
        for name in NAMES:
            del row[name]
