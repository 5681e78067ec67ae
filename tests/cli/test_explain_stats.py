"""`mgsym explain-stats`, `mgsym explain-benchmark` and the views of `mgsym explain`."""

from __future__ import annotations

import contextlib
import csv
import json
from pathlib import Path

import pytest

from mgsym.cli.main import main

Captured = pytest.CaptureFixture[str]
SMALL = [
    "--set", "model.name=egat-length", "--set", "model.width=8", "--set", "model.heads=[2,1]",
    "--set", "model.decoder_layers=1", "--device", "cpu", "-q",
]  # fmt: skip


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with graphs of the sample and a run."""
    folder = tmp_path_factory.mktemp("stats")
    with contextlib.chdir(folder):
        assert main(["build-graph", "-q"]) == 0
        assert main(["train", "--epochs", "1", "-o", "runs/one", *SMALL]) == 0
    return folder


@pytest.fixture(autouse=True)
def _inside(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)


def test_statistics_and_faithfulness_of_a_few_atoms(capsys: Captured, tmp_path: Path) -> None:
    line = ["explain-stats", "--nodes", "3", "--method", "gradient", "--topk", "20"]
    line.append("--faithfulness")
    assert main([*line, "-o", str(tmp_path), "--device", "cpu"]) == 0
    told, notes = capsys.readouterr()
    assert "The 20 bonds of each atom by gradient against others as far away" in told
    for group in ("all", "high", "middle", "low"):
        assert any(line.split()[2:3] == [group] for line in told.splitlines())
    assert "times better than bonds as far away" in told
    files = ["curves.png", "neighbours.csv", "neighbours.png"]
    files += ["statistics.csv", "statistics.json", "statistics.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    data = json.loads((tmp_path / "statistics.json").read_text())
    assert set(data["nodes"]) == {"high", "middle", "low"}
    assert len(data["faithfulness"]["ratios_to_matched"]["necessity"]) == 3
    with (tmp_path / "statistics.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(data["effects"])
    assert "explaining graphs/test.npz" in notes
    assert main([*line, "-o", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_the_old_name_of_faithfulness(capsys: Captured, tmp_path: Path) -> None:
    line = ["explain-stats", "--nodes", "4,", "--method", "random", "--no-figures", "--proof"]
    assert main([*line, "--json", "-o", str(tmp_path)]) == 0
    told, notes = capsys.readouterr()
    assert "warning: --proof is now called --faithfulness" in notes
    data = json.loads(told)
    assert data["proof"] == data["faithfulness"]


def test_named_atoms_as_json(capsys: Captured, tmp_path: Path) -> None:
    line = ["explain-stats", "--nodes", "4,8", "--method", "random", "--no-figures", "--json"]
    assert main([*line, "-o", str(tmp_path)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["nodes"] == {"all": [4, 8]}
    assert {e["null"] for e in told["effects"]} == {"matched", "random"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain-stats", "--nodes", "x"], "expected 30, or rows such as 4,8,15"),
        (["explain-stats", "--nodes", "9999,"], "no node 9999"),
        (["explain-stats", "--nodes", "2"], "asked for 2 nodes, expected 3"),
        (["explain-stats", "--method", "x"], "no method is called 'x'"),
        (["explain-benchmark", "--methods", "x"], "no method is called 'x'"),
        (["explain", "--node", "1", "--figure", "a.gif"], "a figure is .png"),
        (["explain", "--node", "1", "--export", "a.doc"], "a.doc"),
    ],
)
def test_failures_are_one_line(capsys: Captured, arguments: list[str], message: str) -> None:
    assert main(arguments) == 2
    notes = capsys.readouterr().err
    assert message in notes
    assert len(notes.strip().splitlines()) == 1


def test_the_benchmark_tells_precision_by_method(capsys: Captured) -> None:
    line = ["explain-benchmark", "--nodes", "1", "--methods", "edge-mask,random"]
    assert main([*line, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["precision_at_k"]["edge-mask"] >= 0.95
    assert told["precision_at_k"]["random"] < 0.5
    assert main(line) == 0
    assert "precision at k" in capsys.readouterr().out


def test_views_and_exports(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("3d.html", "near.png", "atoms.extxyz", "edges.local")]
    line = ["explain", "--node", "5", "--method", "gradient", "-o", str(tmp_path / "out"), "-q"]
    line += ["--figure", str(files[0]), "--local", str(files[1])]
    assert main([*line, "--export", str(files[2]), "--export", str(files[3])]) == 0
    assert all(file.stat().st_size > 500 for file in files)
