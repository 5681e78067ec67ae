from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mgsym.errors import InputError, Interrupted, MgsymError, UsageError
from mgsym.evaluation.splits import split_by_glass
from mgsym.graph import Graph
from mgsym.graph.operations import graph_hash
from mgsym.models import create_model
from mgsym.prediction.seeds import summarize, train_seeds
from mgsym.training import train
from mgsym.training.checkpoint import load_checkpoint
from mgsym.training.config import Config, TrainingConfig, load_config
from mgsym.training.loss import regression_loss
from mgsym.training.optimizer import centre_predictions, make_optimizer, rate_factor, update_average
from mgsym.training.runs import TrainedRun, latest_run, run_checkpoints
from mgsym.training.trainer import STATE_FORMAT, STATE_VERSION, Hooks, Trainer
from mgsym.utils.files import load_safely, save_safely

MakeConfig = Callable[..., Config]


def after(steps: int) -> Callable[[], bool]:
    """A should_stop that turns true after so many steps."""
    count = 0

    def should_stop() -> bool:
        nonlocal count
        count += 1
        return count >= steps

    return should_stop


def weights(run: TrainedRun) -> dict[str, torch.Tensor]:
    return run.model.state_dict()


def same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def without_time(run: TrainedRun) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in run.history]


def test_a_run_of_before_goes_on_under_the_names_of_today(
    five_graphs: list[Graph], tmp_path: Path
) -> None:
    """In mgsym 0.1.0 the ridge regression of a network was called its companion."""
    small = {"model.width": 8, "model.heads": [1], "model.physical_inputs": []}
    config = load_config(overrides={**small, "training.epochs": 3})
    whole, run = train(five_graphs, config, device="cpu"), tmp_path / "run"
    with pytest.raises(Interrupted):
        train(five_graphs, config, run=run, device="cpu", should_stop=after(5))
    state = load_safely(run / "last.pt", STATE_FORMAT, STATE_VERSION)
    assert any(name.startswith("ridge.") for name in state["model"])
    for part in ("model", "average", "best_weights"):
        old = {re.sub(r"^ridge\.", "companion.", name): v for name, v in state[part].items()}
        state[part] = old
    names = {"model.ridge_share": "model.companion", "model.physical_smoothing": "model.smoothing"}
    state["config"] = {names.get(name, name): v for name, v in state["config"].items()}
    save_safely(run / "last.pt", state)
    assert same_bits(
        weights(train(five_graphs, config, run=run, device="cpu", resume=True)), weights(whole)
    )
    for file in ("best.pt", "last.pt"):
        saved = torch.load(run / file, weights_only=True)
        assert "companion" not in repr([list(v) for v in saved.values() if isinstance(v, dict)])


def test_a_trainer_is_ready_when_made(
    five_graphs: list[Graph], tiny_config: MakeConfig, tmp_path: Path
) -> None:
    """Hooks watch and stop it, and change nothing of what it learns."""
    split, device = split_by_glass(five_graphs), torch.device("cpu")
    told: list[float] = []
    hooks = Hooks(
        folder=tmp_path, graphs_from="graphs", save_seconds=0.0,
        progress=lambda done, *_, **__: told.append(done), should_stop=after(3),
    )  # fmt: skip
    with pytest.raises(Interrupted, match="--resume"):
        Trainer(split, tiny_config(), device, hooks=hooks).run()
    assert told == [1, 2, 3]
    assert json.loads((tmp_path / "run.json").read_text())["graphs_from"] == "graphs"
    going_on = Trainer(split, tiny_config(), device)
    going_on.restore(torch.load(tmp_path / "last.pt", weights_only=True))
    whole = Trainer(split, tiny_config(), device)
    assert same_bits(weights(going_on.run()), weights(whole.run()))


@pytest.mark.parametrize(("worth_sharing", "expected"), [(50_000, 1), (0, 3)])
def test_small_steps_share_nothing_between_threads(
    five_graphs: list[Graph],
    tiny_config: MakeConfig,
    monkeypatch: pytest.MonkeyPatch,
    worth_sharing: int,
    expected: int,
) -> None:
    """Beside other work on the machine, waiting for threads took far longer than the steps."""
    module = import_module("mgsym.training.train")  # the package shows its function
    monkeypatch.setattr(module, "WORTH_SHARING", worth_sharing)
    before, seen = torch.get_num_threads(), set()
    torch.set_num_threads(3)
    try:
        train(
            five_graphs,
            tiny_config(epochs=1),
            progress=lambda *_, **__: seen.add(torch.get_num_threads()),
        )
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert seen == {expected}


def test_learns_a_planted_label(five_graphs: list[Graph], tiny_config: MakeConfig) -> None:
    config = tiny_config(epochs=40, learning_rate=2e-2, options={"dropout": 0.0})
    run = train(five_graphs, config)
    assert run.scores["test"].mean_pearson > 0.9
    assert run.history[-1]["train_loss"] < 0.3 * run.history[0]["train_loss"]
    assert run.split["test"] == ["s4"]
    assert not run.model.training


def test_same_seed_same_bits_and_the_callers_random_state_stays(
    five_graphs: list[Graph], tiny_config: MakeConfig
) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = train(five_graphs, tiny_config())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert same_bits(weights(first), weights(train(five_graphs, tiny_config())))
    assert not same_bits(weights(first), weights(train(five_graphs, tiny_config(seed=1))))


@pytest.mark.parametrize("stop_after", [1, 5, 6, 11])
@pytest.mark.parametrize(
    "training",
    [{}, {"batch_size": 2, "ema_decay": 0.9, "optimizer": "adam", "amsgrad": True}, {"block": 9.0}],
)
def test_resumed_ends_in_the_same_bits(
    five_graphs: list[Graph],
    tiny_config: MakeConfig,
    tmp_path: Path,
    stop_after: int,
    training: dict[str, Any],
) -> None:
    """Three steps an epoch: stops lie within an epoch, at its end, and just before the last."""
    config = tiny_config(epochs=6, evaluate_every=2, **training)
    whole = train(five_graphs, config, run=tmp_path / "whole")
    with pytest.raises(Interrupted, match=r"go on with: mgsym train --resume .*part"):
        train(five_graphs, config, run=tmp_path / "part", should_stop=after(stop_after))
    assert json.loads((tmp_path / "part/run.json").read_text())["status"] == "interrupted"
    resumed = train(five_graphs, config, run=tmp_path / "part", resume=True)
    assert same_bits(weights(whole), weights(resumed))
    assert without_time(whole) == without_time(resumed)
    a, b = (load_safely(tmp_path / n / "last.pt", "mgsym-training", 1) for n in ("whole", "part"))
    assert same_bits(a["model"], b["model"])  # the last weights too, not only the best


def test_a_block_as_large_as_the_structure_is_the_structure(
    five_graphs: list[Graph], tiny_config: MakeConfig
) -> None:
    whole = train(five_graphs, tiny_config(epochs=2))
    blocks = train(five_graphs, tiny_config(epochs=2, block=10.4))
    smaller = train(five_graphs, tiny_config(epochs=2, block=9.0))
    assert same_bits(weights(whole), weights(blocks))
    assert not same_bits(weights(whole), weights(smaller))


def test_a_block_that_can_hold_no_complete_atom_is_refused(
    five_graphs: list[Graph], tiny_config: MakeConfig
) -> None:
    with pytest.raises(UsageError, match="block is 8 Å, expected more than twice the cutoff of 4"):
        train(five_graphs, tiny_config(block=8.0))


def test_killed_before_its_first_save_it_begins_again(
    five_graphs: list[Graph], tiny_config: MakeConfig, tmp_path: Path
) -> None:
    config = tiny_config(epochs=3)
    whole = train(five_graphs, config, run=tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(five_graphs, config, run=tmp_path / "part", should_stop=after(1))
    for name in ("last.pt", "best.pt", "metrics.csv"):  # what is there before a first save is not
        (tmp_path / "part" / name).unlink(missing_ok=True)
    resumed = train(five_graphs, config, run=tmp_path / "part", resume=True)
    assert same_bits(weights(whole), weights(resumed))
    assert without_time(whole) == without_time(resumed)


def test_resume_after_a_kill_forgets_what_was_not_saved(
    five_graphs: list[Graph], tiny_config: MakeConfig, tmp_path: Path
) -> None:
    config = tiny_config(epochs=6)
    whole = train(five_graphs, config, run=tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(five_graphs, config, run=tmp_path / "part", should_stop=after(4))
    early = (tmp_path / "part/last.pt").read_bytes()
    with pytest.raises(Interrupted):
        train(five_graphs, config, run=tmp_path / "part", resume=True, should_stop=after(8))
    assert len((tmp_path / "part/metrics.csv").read_text().splitlines()) == 1 + 3
    (tmp_path / "part/last.pt").write_bytes(early)
    resumed = train(five_graphs, config, run=tmp_path / "part", resume=True)
    assert same_bits(weights(whole), weights(resumed))
    rows = list(csv.DictReader((tmp_path / "part/metrics.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5", "6"]


def test_resume_refuses_changes(
    five_graphs: list[Graph], tiny_config: MakeConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(five_graphs, tiny_config(), run=folder, should_stop=after(2))

    def resume(graphs: list[Graph], config: Config, **options: Any) -> TrainedRun:
        return train(graphs, config, run=folder, resume=True, **options)

    with pytest.raises(UsageError, match=r"training.learning_rate: 0.003, now 0.1"):
        resume(five_graphs, tiny_config(learning_rate=0.1))
    with pytest.raises(UsageError, match=r"model.width: 8, now 4"):
        resume(five_graphs, tiny_config(options={"width": 4}))
    other = [five_graphs[0].replace(target=five_graphs[0].target + 0.1), *five_graphs[1:]]
    with pytest.raises(UsageError, match=r"the graphs have changed \(s0\)"):
        resume(other, tiny_config())
    with pytest.raises(UsageError, match="the split has changed"):
        resume(five_graphs, tiny_config(), validation=["s0"])
    with pytest.raises(InputError, match="trained with s0, not among these"):
        resume(five_graphs[1:], tiny_config())
    with pytest.raises(InputError, match=r"no last.pt to resume from"):
        train(five_graphs, tiny_config(), run=tmp_path / "none", resume=True)


def test_resume_keeps_the_split_asked_for(
    five_graphs: list[Graph], tiny_config: MakeConfig, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        train(
            five_graphs, tiny_config(), run=tmp_path / "r", validation=["s1"], should_stop=after(2)
        )
    run = train(five_graphs, tiny_config(), run=tmp_path / "r", resume=True)
    assert run.split["validation"] == ["s1"]


def test_run_directory(five_graphs: list[Graph], tiny_config: MakeConfig, tmp_path: Path) -> None:
    folder, steps = tmp_path / "runs/mine", []
    config = tiny_config(seed=3)
    run = train(
        five_graphs,
        config,
        run=folder,
        progress=lambda done, total, **info: steps.append((done, total, info["epoch"])),
    )
    assert {p.name for p in folder.iterdir()} == {
        "config.toml", "run.json", "metrics.csv", "best.pt", "last.pt",
    }  # fmt: skip
    assert steps[0] == (1, 12, 1)
    assert steps[-1] == (12, 12, 4)
    assert load_config(folder / "config.toml").flat() == config.flat()
    facts = json.loads((folder / "run.json").read_text())
    assert (facts["status"], facts["seed"], facts["device"]) == ("finished", 3, "cpu")
    assert facts["graphs_sha256"]["s2"] == graph_hash(five_graphs[2])
    assert facts["scores"]["test"] == run.scores["test"].as_dict()
    assert facts["versions"]["torch"] == torch.__version__
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    assert float(rows[2]["validation_pearson"]) == run.history[2]["validation_pearson"]
    model, metadata = load_checkpoint(folder / "best.pt")
    assert same_bits(model.state_dict(), weights(run))
    assert metadata.extra["epoch"] == run.best_epoch
    assert metadata.training_set.names == ("s0", "s1", "s2")
    assert latest_run(tmp_path / "runs") == folder
    with pytest.raises(UsageError, match="exists already"):
        train(five_graphs, config, run=folder)
    (folder / "picture.png").write_text("kept")
    train(five_graphs, config, run=folder, overwrite=True)
    assert (folder / "picture.png").exists()


def test_best_epoch_is_chosen_on_validation(
    five_graphs: list[Graph], tiny_config: MakeConfig
) -> None:
    run = train(five_graphs, tiny_config(epochs=8, learning_rate=0.05, schedule="constant"))
    values = [row["validation_pearson"] for row in run.history]
    assert run.best_epoch == 1 + values.index(max(values))
    assert run.scores["validation"].mean_pearson == pytest.approx(max(values), abs=1e-6)


def test_patience_stops(five_graphs: list[Graph], tiny_config: MakeConfig) -> None:
    # nothing is learnt, so that no evaluation beats the first one
    run = train(five_graphs, tiny_config(epochs=50, patience=3, learning_rate=0.0))
    assert run.stopped == "no better for 3 evaluations"
    assert len(run.history) == 4
    assert run.best_epoch == 1


def test_time_limit_stops(five_graphs: list[Graph], tiny_config: MakeConfig) -> None:
    run = train(five_graphs, tiny_config(epochs=100_000, patience=0, max_minutes=0.005))
    assert run.stopped == "0.005 minutes are over"
    assert run.history[-1]["epoch"] < 100_000
    assert run.history[-1]["seconds"] >= 0.3


def test_without_validation_the_last_weights_count(
    five_graphs: list[Graph], tiny_config: MakeConfig
) -> None:
    run = train(five_graphs, tiny_config(patience=1), validation=[])
    assert run.best_epoch == 4
    assert set(run.scores) == {"train", "test"}


def test_fine_tuning_starts_from_a_checkpoint(
    five_graphs: list[Graph], tiny_config: MakeConfig, tmp_path: Path
) -> None:
    first = train(five_graphs, tiny_config(options={"width": 5}), run=tmp_path / "a")
    shifted = [g.replace(target=g.target + 1) for g in five_graphs]
    tuned = train(
        shifted,
        tiny_config(learning_rate=0.0),
        run=tmp_path / "b",
        start_from=tmp_path / "a/best.pt",
    )
    before, after_tuning = weights(first), weights(tuned)
    moved = after_tuning.pop("label_mean") - before.pop("label_mean")
    assert float(moved) == pytest.approx(1.0, abs=1e-5)  # the one thing fitted without learning
    assert same_bits(before, after_tuning)
    assert load_config(tmp_path / "b/config.toml").model.options["width"] == 5


def test_a_loss_that_is_no_number_is_an_error(
    five_graphs: list[Graph], tiny_config: MakeConfig
) -> None:
    broken = [
        g.replace(edge_vector=g.edge_vector * float("nan")) if g.names[0] == "s1" else g
        for g in five_graphs
    ]
    with pytest.raises(MgsymError, match=r"the loss became nan at epoch 1, step \d: try a lower"):
        train(broken, tiny_config())


def test_requests_that_cannot_be(five_graphs: list[Graph], tiny_config: MakeConfig) -> None:
    with pytest.raises(UsageError, match="float16 needs a CUDA device"):
        train(five_graphs, tiny_config(precision="float16"), device="cpu")
    twins = [*five_graphs, five_graphs[0]]
    with pytest.raises(InputError, match="several structures are called 's0'"):
        train(twins, tiny_config())
    wide = [*five_graphs[:-1], five_graphs[-1].replace(cutoff=5.0)]
    with pytest.raises(InputError, match="s4 has a cutoff of 5 Å, the model one of 4 Å"):
        train(wide, tiny_config())


def test_bfloat16_and_huber_train(five_graphs: list[Graph], tiny_config: MakeConfig) -> None:
    config = tiny_config(
        epochs=30, learning_rate=2e-2, precision="bfloat16", loss="huber", batch_size=0
    )
    assert train(five_graphs, config, device="cpu").scores["test"].mean_pearson > 0.7


def test_seeds(five_graphs: list[Graph], tiny_config: MakeConfig, tmp_path: Path) -> None:
    folder = tmp_path / "runs/several"
    with pytest.raises(Interrupted):
        train_seeds(five_graphs, tiny_config(), [0, 1, 2], folder, should_stop=after(15))
    steps: list[tuple[int, int]] = []
    runs = train_seeds(
        five_graphs,
        tiny_config(),
        [0, 1, 2],
        folder,
        resume=True,
        progress=lambda done, total, **info: steps.append((done, total)),
    )
    assert same_bits(weights(runs[1]), weights(train(five_graphs, tiny_config(seed=1))))
    assert steps[-1] == (36, 36)
    values = [run.scores["test"].mean_pearson for run in runs]
    summary = summarize(runs)["test"]
    assert summary["mean_pearson"] == pytest.approx(sum(values) / 3)
    assert summary["mean_pearson_sd"] == pytest.approx(float(torch.tensor(values).std()), rel=1e-4)
    written = json.loads((folder / "summary.json").read_text())
    assert written["scores"]["test"] == summary
    assert [p.parent.name for p in run_checkpoints(folder)] == ["seed0", "seed1", "seed2"]
    assert latest_run(tmp_path / "runs") == folder
    with pytest.raises(UsageError, match="distinct seeds"):
        train_seeds(five_graphs, tiny_config(), [1, 1], folder)


def test_seeds_that_start_late_keep_the_split(
    five_graphs: list[Graph], tiny_config: MakeConfig, tmp_path: Path
) -> None:
    stop = after(2)
    with pytest.raises(Interrupted, match=f"interrupted at seed 0; .*--resume {tmp_path}/s"):
        train_seeds(
            five_graphs, tiny_config(), [0, 1], tmp_path / "s", validation=["s1"], should_stop=stop
        )
    runs = train_seeds(five_graphs, tiny_config(), [0, 1], tmp_path / "s", resume=True)
    assert [run.split["validation"] for run in runs] == [["s1"], ["s1"]]
    with pytest.raises(UsageError, match="holds a run already"):
        train_seeds(five_graphs, tiny_config(), [2], tmp_path / "s")
    train_seeds(five_graphs, tiny_config(), [2], tmp_path / "s", overwrite=True)
    assert [p.parent.name for p in run_checkpoints(tmp_path / "s")] == ["seed2"]


def test_a_damaged_state_is_told(
    five_graphs: list[Graph], tiny_config: MakeConfig, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        train(five_graphs, tiny_config(), run=tmp_path / "r", should_stop=after(2))
    file = tmp_path / "r/last.pt"
    file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(InputError, match=r"last.pt: damaged, or not written by mgsym"):
        train(five_graphs, tiny_config(), run=tmp_path / "r", resume=True)


def test_a_disk_that_is_full_is_an_error(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    with pytest.raises((MgsymError, OSError, RuntimeError)):
        torch.save({"a": torch.ones(100_000)}, full)
    save_safely(tmp_path / "fine.pt", {"format": "x", "format_version": 1})
    assert load_safely(tmp_path / "fine.pt", "x", 1)["format"] == "x"


def test_rate_factor() -> None:
    cosine = TrainingConfig(schedule="cosine", warmup=0.1)
    factors = [rate_factor(cosine, step, 100) for step in range(100)]
    assert factors[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert factors[10] == 1
    assert factors[55] == pytest.approx(0.5)
    assert all(a > b for a, b in pairwise(factors[10:]))
    assert factors[-1] < 1e-3
    assert rate_factor(TrainingConfig(schedule="constant", warmup=0.0), 57, 100) == 1


def test_losses_in_known_cases() -> None:
    prediction = torch.tensor([0.0, 3.0, 9.0])
    target = torch.tensor([0.5, 1.0, float("nan")])
    assert float(regression_loss("mse", prediction, target)) == pytest.approx((0.25 + 4) / 2)
    # beyond 1: |error| − ½
    assert float(regression_loss("huber", prediction, target)) == pytest.approx((0.125 + 1.5) / 2)
    assert float(regression_loss("mse", prediction, target * float("nan"))) == 0


def test_only_matrices_decay() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    groups = make_optimizer(TrainingConfig(weight_decay=0.1), model).param_groups
    assert [(g["weight_decay"], len(g["params"])) for g in groups] == [(0.1, 1), (0.0, 3)]


def test_average_of_weights() -> None:
    model, average = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    nn.init.constant_(average.weight, 0.0)
    update_average(average, model, 0.9, step=10_000)
    update_average(average, model, 0.9, step=10_000)
    assert float(average.weight.detach()) == pytest.approx(1 - 0.9**2)
    update_average(average, model, 0.9, step=0)  # early: a tenth is kept
    assert float(average.weight.detach()) == pytest.approx(1 - 0.1 * 0.9**2)


def test_centring_moves_only_the_mean(five_graphs: list[Graph], tiny: str) -> None:
    torch.manual_seed(0)
    model = create_model(tiny, five_graphs[0].species, five_graphs[0].cutoff).eval()
    before = [model(g).detach() for g in five_graphs]
    centre_predictions(model, five_graphs)
    after = [model(g).detach() for g in five_graphs]
    shifts = torch.cat(after) - torch.cat(before)
    assert float(shifts.max() - shifts.min()) < 1e-5
    known = torch.cat([g.labelled for g in five_graphs])
    errors = (torch.cat([g.target for g in five_graphs]) - torch.cat(after))[known]
    assert float(errors.mean()) == pytest.approx(0, abs=1e-5)
