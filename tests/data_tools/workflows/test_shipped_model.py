"""The shipped model: found where there is no run, and made with its card."""

from __future__ import annotations

from pathlib import Path

import pytest

from mgsym.data_tools.shipped_model import run_or_shipped, shipped_model
from mgsym.data_tools.workflows.graphs import sample_graphs
from mgsym.data_tools.workflows.shipped_model import HELD_OUT, publish
from mgsym.prediction.ensemble import read_ensemble
from mgsym.prediction.seeds import train_seeds
from mgsym.training.config import load_config


def test_it_stands_in_where_there_is_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_or_shipped(None) == shipped_model()
    assert run_or_shipped("shipped") == shipped_model()
    assert run_or_shipped("runs/mine") == Path("runs/mine")
    Path("runs/one").mkdir(parents=True)
    Path("runs/one/run.json").write_text("{}")
    assert run_or_shipped(None) == Path("runs/one")
    Path("shipped").mkdir()
    assert run_or_shipped("shipped") == Path("shipped")


def test_it_needs_no_potential_and_says_what_it_is() -> None:
    ensemble = read_ensemble(shipped_model())
    assert ensemble.metadata is not None
    assert ensemble.metadata.species == ("Cu", "Zr")
    assert not any(name.startswith("test") for name in ensemble.metadata.training_set.names)
    assert ensemble.calibration is not None
    assert ensemble.about["name"] == "cu64zr36"


def test_models_are_published_with_a_card(tmp_path: Path) -> None:
    graphs = [g.replace(glasses=(HELD_OUT,)) if g.names == ("validation",) else g
              for g in sample_graphs()]  # fmt: skip
    small = ("model.width=4", "model.heads=[1]", "model.radial=4", "model.l_max=1",
             "model.ridge_share=0.0")  # fmt: skip
    config = load_config(None, ("training.epochs=1", *small))
    held_out = {"validation": [HELD_OUT], "test": ["test"], "device": "cpu"}
    train_seeds(graphs, config, [0, 1], tmp_path / "seeds", **held_out)
    publish(read_ensemble(tmp_path / "seeds"), graphs, tmp_path, config)
    made = read_ensemble(tmp_path / "cu64zr36.pt")
    assert made.calibration is not None
    assert made.calibration.noise == pytest.approx(0.20, abs=0.03)  # of the sample's README
    card = (tmp_path / "cu64zr36.md").read_text(encoding="utf-8")
    assert "The weighted mean of 2 networks (`symgnn`" in card
    assert "Trained on train_a, train_a_again, train_b of the public dataset" in card
    assert "validation is another glass" in card
    assert "{" not in card
