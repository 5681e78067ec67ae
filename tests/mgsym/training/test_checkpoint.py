from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mgsym.errors import InputError
from mgsym.graph import Graph
from mgsym.models import MODELS, create_model
from mgsym.models.base import BarrierModel
from mgsym.prediction.ensemble import read_ensemble
from mgsym.training.checkpoint import load_checkpoint, save_checkpoint
from mgsym.training.config import ModelConfig
from mgsym.training.runs import latest_run, run_checkpoints
from mgsym.uncertainty.out_of_distribution import TrainingSet


@pytest.fixture
def model(tiny: str, five_graphs: list[Graph]) -> BarrierModel:
    torch.manual_seed(0)
    model = create_model(tiny, ("Cu", "Zr"), 4.0, {"width": 6})
    model.fit_statistics(five_graphs)
    return model.eval()


@pytest.fixture
def saved(model: BarrierModel, tmp_path: Path, tiny: str, five_graphs: list[Graph]) -> Path:
    path = tmp_path / "best.pt"
    facts = TrainingSet.of(five_graphs[:3])
    save_checkpoint(path, model, ModelConfig(tiny, {"width": 6}), facts, {"epoch": 7, "note": "x"})
    return path


def test_predicts_the_same_bits_after_loading(
    saved: Path, model: BarrierModel, five_graphs: list[Graph]
) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    loaded, metadata = load_checkpoint(saved)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad():
        assert torch.equal(loaded(five_graphs[0]), model(five_graphs[0]))
    assert not loaded.training
    assert metadata.model.options == {"width": 6, "dropout": 0.2, "centers": (2.5, 3.0, 3.5)}
    assert (metadata.species, metadata.cutoff) == (("Cu", "Zr"), 4.0)
    assert metadata.extra == {"epoch": 7, "note": "x"}
    targets = torch.cat([g.target for g in five_graphs]).double()
    assert metadata.label_mean == pytest.approx(float(targets.mean()))
    assert metadata.label_scale == pytest.approx(float(targets.std(correction=0)))


def test_facts_of_the_training_set(
    five_graphs: list[Graph], make_graph: Callable[..., Graph]
) -> None:
    loose = make_graph("loose", spacing=2.8)
    facts = TrainingSet.of([five_graphs[0], loose])
    assert facts.number_density == pytest.approx((2.8**-3, 2.6**-3))
    shortest = sorted(float(g.edge_length.min()) for g in (five_graphs[0], loose))
    assert facts.shortest_distance == pytest.approx(shortest)
    assert facts.atoms == 128
    cluster = five_graphs[0].replace(periodic=torch.zeros(1, 3, dtype=torch.bool))
    assert TrainingSet.of([cluster]).number_density == ()


def change(path: Path, **changes: Any) -> None:
    content = torch.load(path, weights_only=True)
    content.update(changes)
    torch.save({k: v for k, v in content.items() if v is not None}, path)


def test_other_version_or_content_is_told(saved: Path) -> None:
    change(saved, format_version=99)
    with pytest.raises(InputError, match=r"best.pt: mgsym-model version 99, this mgsym reads ver"):
        load_checkpoint(saved)
    change(saved, format="mgsym-training")
    with pytest.raises(InputError, match="holds mgsym-training, expected mgsym-model"):
        load_checkpoint(saved)
    torch.save([1, 2], saved)
    with pytest.raises(InputError, match="holds something else, expected mgsym-model"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state": None}, "parts do not fit together"),
        ({"options": {"width": 7}}, "parts do not fit together .*size mismatch|Error"),
        ({"options": {"depth": 7}}, "cannot build its model: model tiny has no option 'depth'"),
        ({"model": "nothing"}, "cannot build its model: no model is called 'nothing'"),
        ({"cutoff": "far"}, "parts do not fit together"),
        ({"training_set": {"color": 1}}, "parts do not fit together"),
    ],
)
def test_parts_that_do_not_fit_are_told(saved: Path, changes: dict[str, Any], message: str) -> None:
    change(saved, **changes)
    with pytest.raises(InputError, match=f"best.pt: .*({message})"):
        load_checkpoint(saved)


class _Hostile:
    """Would make a folder when unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    torch.save({"format": "mgsym-model", "extra": _Hostile(trap)}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(_Hostile(trap)))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(InputError, match=f"{name}: (damaged|cannot be read safely)"):
            load_checkpoint(tmp_path / name)
    assert not trap.exists()


def test_damaged_files_are_told(saved: Path, tmp_path: Path) -> None:
    whole = saved.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 50):
        saved.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"best.pt: "):
            load_checkpoint(saved)
    (tmp_path / "text.pt").write_text("epoch,loss\n1,2\n")
    with pytest.raises(InputError, match=r"text.pt: (damaged|cannot)"):
        load_checkpoint(tmp_path / "text.pt")
    with pytest.raises(InputError, match=r"none.pt: no such file"):
        load_checkpoint(tmp_path / "none.pt")


def test_weights_in_place_of_the_models_own(
    model: BarrierModel, tmp_path: Path, tiny: str, five_graphs: list[Graph]
) -> None:
    zeros = {k: torch.zeros_like(v) for k, v in model.state_dict().items()}
    save_checkpoint(tmp_path / "z.pt", model, ModelConfig(tiny, {"width": 6}), state=zeros)
    loaded, _ = load_checkpoint(tmp_path / "z.pt")
    assert float(loaded(five_graphs[0]).detach().abs().max()) == 0


def test_a_run_without_models_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such run"):
        run_checkpoints(tmp_path / "none")
    with pytest.raises(InputError, match=r"has no best.pt"):
        run_checkpoints(tmp_path)
    with pytest.raises(Exception, match="no run in"):
        latest_run(tmp_path)


def test_registered_models_survive_a_round_trip(tmp_path: Path, five_graphs: list[Graph]) -> None:
    for name in MODELS:
        torch.manual_seed(0)
        model = create_model(name, ("Cu", "Zr"), 4.0)
        model.fit_statistics(five_graphs)
        save_checkpoint(tmp_path / f"{name}.pt", model, ModelConfig(name))
        loaded, _ = load_checkpoint(tmp_path / f"{name}.pt")
        with torch.no_grad():
            assert torch.equal(loaded(five_graphs[0]), model.eval()(five_graphs[0]))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_and_statistics_that_are_no_numbers_are_refused(saved: Path, value: float) -> None:
    whole = torch.load(saved, weights_only=True)
    names = [name for name, v in whole["state"].items() if v.is_floating_point()]
    assert "label_mean" in names
    for name in names:
        state = {key: values.clone() for key, values in whole["state"].items()}
        state[name].view(-1)[:1] = value
        change(saved, state=state)
        with pytest.raises(InputError, match=f"best.pt: .*{name} has NaN or infinite numbers"):
            load_checkpoint(saved)
        with pytest.raises(InputError, match=r"best\.pt"):
            read_ensemble(saved)
    change(saved, state={**whole["state"], "label_scale": torch.tensor(-0.5)})
    with pytest.raises(InputError, match=r"label_scale is -0\.5, expected at least 0"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": 3}, {"options": [1]}, {"options": None}, {"species": "CuZr"}, {"species": [1, 2]},
        {"cutoff": True}, {"cutoff": float("nan")}, {"cutoff": -4.0}, {"training_set": [1]},
        {"training_set": {"names": 5}}, {"training_set": {"atoms": "many"}},
        {"training_set": {"number_density": ("a", "b")}}, {"extra": 7}, {"extra": None},
        {"state": [1, 2]}, {"state": {"label_mean": "x"}},
    ],
)  # fmt: skip
def test_fields_of_the_wrong_type_are_refused(saved: Path, changes: dict[str, Any]) -> None:
    change(saved, **changes)
    for read in (load_checkpoint, read_ensemble):
        with pytest.raises(InputError, match=r"best\.pt"):
            read(saved)
