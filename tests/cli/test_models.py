"""`mgsym models`, and the choice of one in `mgsym train`."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from mgsym.cli.main import main
from mgsym.models import MODELS

Captured = pytest.CaptureFixture[str]


def test_every_model_has_its_line(capsys: Captured) -> None:
    assert main(["models"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split()[:3] == ["model", "invariant", "parameters"]
    assert [line.split()[0] for line in lines] == list(MODELS)
    (egat,) = [line for line in lines if line.startswith("egat ")]
    assert "102373" in egat
    assert egat.endswith("transforms=none")


def test_json_tells_the_options(capsys: Captured) -> None:
    assert main(["models", "--json"]) == 0
    models = {m["name"]: m for m in json.loads(capsys.readouterr().out)}
    assert models["symgnn"]["parameters"] == 102_385
    assert models["gcn"]["invariant"] == "yes"
    assert models["egat"]["options"]["heads"] == [8, 4, 2, 1]


@pytest.fixture
def sample_graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert main(["build-graph", "-q"]) == 0
    return tmp_path


def model_of(run: str) -> dict[str, object]:
    return tomllib.loads(Path(run, "config.toml").read_text())["model"]


def test_a_model_is_chosen_by_its_name(sample_graphs: Path, capsys: Captured) -> None:
    quick = ["train", "--epochs", "1", "--device", "cpu", "--set", "model.width=8"]
    assert main([*quick, "--model", "gcn", "-o", "a"]) == 0
    told = model_of("a")
    assert (told["name"], told["width"], told["layers"]) == ("gcn", 8, 4)
    assert main([*quick, "--set", "model.name=mlp", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out.partition("{")[2].join(["{", ""]))
    assert Path(answer["run"]).name.endswith("-mlp-fast-seed0")
    assert model_of(answer["run"])["layers"] == 3


def test_a_model_that_is_not_there(sample_graphs: Path, capsys: Captured) -> None:
    assert main(["train", "--model", "gnc"]) == 2
    assert "no model is called 'gnc'; there are symgnn, egat," in capsys.readouterr().err
