"""`mgsym benchmark`: what is asked, what is shown, and what a killed one leaves."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

import pytest
from programs import Program

from mgsym.benchmark import CHOSEN_ON_TEST, PROTOCOLS, load_plan
from mgsym.benchmark.plan import RENAMED
from mgsym.cli import benchmark as module
from mgsym.cli.main import main

Captured = pytest.CaptureFixture[str]

# an epoch of a small network alone: the ridge beside it takes longer than all of that
LITTLE = [f"model.{option}" for option in ("ridge_share=0.0", "radial=4", "l_max=1")]
EPOCH = ["--device", "cpu", "--set", "training.epochs=1"]
QUICK = [*EPOCH, *(part for option in LITTLE for part in ("--set", option))]
FAST = ["graphs", "--models", "fast", *QUICK]


@pytest.fixture
def place(trained_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, beside graphs of three tiny crystals."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "graphs").symlink_to(trained_folder / "graphs")
    return tmp_path


def test_help_names_the_protocols_there_are() -> None:
    assert (*PROTOCOLS, *RENAMED) == module.PROTOCOLS


def test_the_sample_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["benchmark", *EPOCH, "--glasses", "train_a"]) == 0
    shown = capsys.readouterr()
    assert "noise ceiling" in shown.out
    assert "fast" in shown.out
    assert "Protocol fixed. Each glass was left out once" in shown.out
    (folder,) = Path("benchmarks").iterdir()
    assert f"Wrote 3 files to {folder}" in shown.err
    lines = list(csv.DictReader((folder / "table.csv").open()))
    scored = {line["of"] for line in lines if line["split"] == "test"}
    assert scored == {"mean of structures", "pooled", "train_a", "train_a_again"}
    assert load_plan(folder).graphs == ""


def test_resuming_adds_models_and_seeds(place: Path, capsys: Captured) -> None:
    Path("small.toml").write_text("[model]\nwidth = 8\nheads = [1]\n")
    first = ["benchmark", "graphs", "--models", "small.toml", "--seeds", "0:2", *QUICK]
    assert main([*first, "-o", "b", "-q"]) == 0
    before = {p.name: p.stat().st_mtime_ns for p in Path("b/trials").iterdir()}
    assert len(before) == 4  # two glasses that are not marked test, two seeds
    capsys.readouterr()
    assert main(["benchmark", "--resume", "b", "--models", "fast", *QUICK, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told["models"]) == ["small", "fast"]
    assert [facts["done"] for facts in told["models"].values()] == [4, 4]
    assert told["models"]["small"]["parameters"] < told["models"]["fast"]["parameters"]
    after = {p.name: p.stat().st_mtime_ns for p in Path("b/trials").iterdir()}
    assert after.items() > before.items()
    sd = next(r for r in told["rows"] if r["role"] == "test")["values"]["pearson"]["sd"]
    assert sd > 0


def test_the_published_codes_protocol_is_called_what_it_is(place: Path, capsys: Captured) -> None:
    asked = ["benchmark", *FAST, "-o", "p", "--protocol"]
    assert main([*asked, "published-code"]) == 0
    shown = capsys.readouterr().out
    assert f"Pearson, {CHOSEN_ON_TEST}" in shown
    assert "chosen on the test structures" in " ".join(shown.split())
    for name in ("table.md", "table.csv", "table.json", "trials/fast-split-seed0.json"):
        assert CHOSEN_ON_TEST in Path("p", name).read_text()
    # its old name: one line says so, and a folder of that name goes on
    plan = Path("p/plan.json")
    plan.write_text(plan.read_text().replace("published-code", "paper"))
    record = Path("p/trials/fast-split-seed0.json")
    record.write_text(record.read_text().replace("published-code", "paper"))
    done = record.stat().st_mtime_ns
    assert main(["benchmark", "--resume", "p", "--protocol", "paper", "--device", "cpu"]) == 0
    warned = capsys.readouterr().err.splitlines()
    assert sum("is now called published-code" in line for line in warned) == 1
    assert record.stat().st_mtime_ns == done


def test_mistakes(place: Path, capsys: Captured) -> None:
    def fails(code: int, *arguments: str) -> str:
        assert main(["benchmark", *arguments]) == code
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1, error
        return error

    assert "model egad: not in the registry" in fails(2, "graphs", "--models", "egad")
    assert "x.toml: cannot read the settings" in fails(2, "graphs", "--models", "x.toml")
    physical = ["--set", 'model.physical_inputs=["energy"]']
    assert "model fast: b: the graph has no node feature energy" in fails(
        3, "graphs", "--models", "fast", *physical
    )
    assert "at least three with labels, found 2" in fails(3, "graphs", "--protocol", "early")
    assert "no benchmark in benchmarks/" in fails(2, "--resume")
    assert "no such benchmark" in fails(3, "--resume", "nowhere")
    assert main(["benchmark", *FAST, "-o", "b", "-q"]) == 0
    capsys.readouterr()
    assert "holds a benchmark already" in fails(2, *FAST, "-o", "b")
    assert "was begun with protocol fixed" in fails(2, "--resume", "b", "--protocol", "split")


def test_a_training_that_fails_is_told_at_the_end(place: Path, capsys: Captured) -> None:
    wild = ["--set", "training.learning_rate=1e30", "--set", "training.gradient_clip=0"]
    wild += ["--set", "training.warmup=0", "--set", "training.epochs=3"]
    wild += ["--set", "model.ridge_share=0.0"]
    assert main(["benchmark", "graphs", "--models", "fast", *wild, "-o", "b"]) == 1
    shown = capsys.readouterr()
    assert "a training failed (and 1 more); --resume tries again" in shown.err
    assert "0/2" in shown.out
    assert "Failed: fast, a, seed 0: the loss became" in Path("b/table.md").read_text()


def test_a_killed_benchmark_goes_on(place: Path, capsys: Captured) -> None:
    command = ["benchmark", *FAST, "--seeds", "0:30", "-o", "b"]
    process = Program(None, *command)
    deadline = time.monotonic() + 300
    while not list(Path("b/trials").glob("[!.]*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.communicate(timeout=60)
    finished = {p.name: p.stat().st_mtime_ns for p in Path("b/trials").glob("[!.]*.json")}
    assert 0 < len(finished) < 60
    # the same plan, cut short: what was done counts, what was begun is no trouble
    plan = json.loads(Path("b/plan.json").read_text())
    Path("b/plan.json").write_text(json.dumps({**plan, "seeds": [0, 1]}))
    assert main(["benchmark", "--resume", "b", "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "trainings: 4/4" in shown
    kept = {p.name: p.stat().st_mtime_ns for p in Path("b/trials").glob("[!.]*.json")}
    assert kept.items() >= finished.items()
