"""`mgsym info`."""

from __future__ import annotations

import csv
import gzip
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mgsym.cli.main import main
from mgsym.data_tools.formats import write
from mgsym.data_tools.sample import sample_files
from mgsym.data_tools.workflows.graphs import read_graphs
from mgsym.data_tools.workflows.inspection import describe
from mgsym.structure import Column, Structure

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_densities_and_angles_are_those_of_the_crystal() -> None:
    # primitive cell of fcc copper, a = 3.615 Å: 8.93 g/cm³, 4 atoms per a³, 60° between vectors
    half = 3.615 / 2
    cell = torch.tensor([[0.0, half, half], [half, 0.0, half], [half, half, 0.0]]).double()
    copper = Structure(torch.zeros(1, 3), cell, torch.zeros(1), ("Cu",))
    facts = describe(copper)
    assert facts["grams_per_cubic_centimetre"] == pytest.approx(8.935, abs=0.002)
    assert facts["atoms_per_cubic_angstrom"] == pytest.approx(4 / 3.615**3)
    assert facts["cell_angles"] == pytest.approx([60.0] * 3)
    assert facts["cell_lengths"] == pytest.approx([half * math.sqrt(2)] * 3)


def test_missing_values_are_left_out_of_the_mean() -> None:
    values = torch.tensor([1.0, math.nan, 3.0])
    structure = Structure(
        torch.arange(9.0).reshape(3, 3),
        9 * torch.eye(3),
        torch.zeros(3),
        ("Zr",),
        columns={"barrier": Column(values, "eV"), "empty": Column(values * math.nan)},
    )
    barrier, empty = describe(structure)["columns"]
    assert barrier == {
        "name": "barrier",
        "unit": "eV",
        "values": 2,
        "mean": 2.0,
        "sd": 1.0,
        "lowest": 1.0,
        "highest": 3.0,
    }
    assert (empty["values"], empty["mean"]) == (0, None)


def test_a_structure_file(capsys: Captured) -> None:
    file = next(f for f in sample_files() if "train_a" in f.name)
    assert main(["info", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{file}: extxyz"
    facts = {line[2:10].strip(): line[10:].strip() for line in lines[1:9]}
    assert facts["atoms"] == "500, Cu320Zr180"
    assert facts["periodic"] == "a b c"
    assert facts["density"] == "0.06304 atoms/Å³, 7.695 g/cm³"
    assert facts["glass"] == "train_a"
    barrier = next(line for line in lines if line.startswith("barrier "))
    assert barrier.split()[:4] == ["barrier", "eV", "500", "1.42"]


def test_frames_are_counted_and_chosen(capsys: Captured) -> None:
    frames = [
        Structure(torch.zeros(1, 3), (5.0 + k) * torch.eye(3), torch.zeros(1), ("Cu",))
        for k in range(3)
    ]
    write(frames, "run.xyz")
    packed = gzip.compress(Path("run.xyz").read_bytes())
    Path("run.xyz.gz").write_bytes(packed)
    for name in ("run.xyz", "run.xyz.gz"):
        assert main(["info", name, "--json"]) == 0
        (found,) = json.loads(capsys.readouterr().out)
        assert (found["kind"], found["format"], found["frames"]) == ("structures", "extxyz", 3)
        assert [s["cell_lengths"][0] for s in found["structures"]] == [7.0]
    assert main(["info", "run.xyz", "--json", "--frames", "0:2"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert [s["cell_lengths"][0] for s in found["structures"]] == [5.0, 6.0]


def test_graphs_and_their_folder(capsys: Captured) -> None:
    assert main(["build-graph", "-q", "--cutoff", "4"]) == 0
    capsys.readouterr()
    assert main(["info", "graphs"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("graphs: graphs, cutoff 4 Å\n")
    assert out.count("Cu320Zr180") == 5
    assert main(["info", "--json", *map(str, sorted(Path("graphs").iterdir()))]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [item["kind"] for item in found] == ["graphs"] * 5
    assert {item["graphs"][0]["atoms"] for item in found} == {500}


def test_a_structure_in_npz_is_not_taken_for_a_graph(capsys: Captured) -> None:
    write(Structure(torch.zeros(1, 3), 5 * torch.eye(3), torch.zeros(1), ("Cu",)), "a.npz")
    assert main(["info", "a.npz", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["format"]) == ("structures", "npz")


@pytest.fixture
def run(trained_folder: Path) -> Path:
    shutil.copytree(trained_folder / "runs", "runs")
    return Path("runs/first")


def test_a_run_and_its_checkpoint(run: Path, capsys: Captured) -> None:
    assert main(["info", str(run), str(run / "best.pt")]) == 0
    out = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == "runs/first: run"
    assert {"status finished", "model symgnn", "device cpu", "evaluations 2"} <= set(lines)
    assert {"train a", "validation b", "test c"} <= set(lines)
    assert "split Pearson pooled MAE/eV" in lines
    assert "runs/first/best.pt: checkpoint" in lines
    assert {"species Cu Zr", "cutoff 3 Å", "trained on a (27 atoms)"} <= set(lines)
    assert max(map(len, out.splitlines())) <= 100


def test_learned_transforms(vectors_run: Path, capsys: Captured) -> None:
    assert main(["info", str(vectors_run)]) == 0
    out = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    facts = json.loads((vectors_run / "run.json").read_text())
    turned = facts["rotation_rms_eV"]
    assert f"rotated predictions move by {turned:.2g} eV (rms)" in lines
    epoch = facts["best_epoch"]
    assert f"Learned transforms at epoch {epoch}, 3 drawn of each half" in lines
    rows = {tuple(line.split()[:2]): line.split()[2:] for line in lines if "reflection" in line}
    assert list(rows) == [("reflection", angle) for angle in ("alpha", "beta", "gamma")]
    history = list(csv.DictReader((vectors_run / "metrics.csv").open()))
    now = float(history[epoch - 1]["location_reflection_beta_rad"])
    start = facts["transforms_start"]["location_reflection_beta_rad"]
    assert rows["reflection", "beta"][:2] == [f"{now:.3f}", f"{now - start:.3f}"]
    # where a run of an older version began is not known
    Path("old").mkdir()
    shutil.copytree(vectors_run, "old/run")
    del facts["transforms_start"], facts["rotation_rms_eV"]
    Path("old/run/run.json").write_text(json.dumps(facts))
    assert main(["info", "old/run"]) == 0
    out = capsys.readouterr().out
    assert "rotated" not in out
    (line,) = [line for line in out.splitlines() if "reflection" in line and "beta" in line]
    assert line.split()[2:4] == [f"{now:.3f}", "–"]


def test_a_damaged_start_of_transforms(vectors_run: Path, capsys: Captured) -> None:
    shutil.copytree(vectors_run, "run")
    facts = json.loads(Path("run/run.json").read_text())
    facts["transforms_start"]["location_rotation_alpha_rad"] = "x"
    Path("run/run.json").write_text(json.dumps(facts))
    assert main(["info", "run"]) == 3
    error = capsys.readouterr().err
    assert "run.json: transforms_start is" in error
    assert "expected fractions by name" in error


def test_runs_as_json(run: Path, capsys: Captured) -> None:
    for path in ("runs", "runs/first"):
        assert main(["info", path, "--json"]) == 0
        (found,) = json.loads(capsys.readouterr().out)
        one = found["runs"][0] if path == "runs" else found
        assert one["path"] == "runs/first"
        assert one["config"]["training"]["epochs"] == 2
        assert [row["epoch"] for row in one["history"]] == ["1", "2"]
        assert one["best_epoch"] in (1, 2)


def test_a_checkpoint_of_another_version(run: Path, capsys: Captured) -> None:
    content = torch.load(run / "best.pt", weights_only=True)
    torch.save({**content, "format_version": 99}, "other.pt")
    assert main(["info", "other.pt"]) == 3
    assert "other.pt: mgsym-model version 99, this mgsym reads" in capsys.readouterr().err


@pytest.mark.parametrize(
    "scores", [0.5, "good", [1], {"test": 0.5}, {"test": {"pooled": 0.5}}, {"test": {"rmse": "x"}}]
)
def test_scores_of_a_checkpoint_that_are_none(scores: object, run: Path, capsys: Captured) -> None:
    content = torch.load(run / "best.pt", weights_only=True)
    torch.save({**content, "extra": {"scores": scores}}, "odd.pt")
    assert main(["info", "odd.pt"]) == 3
    err = capsys.readouterr().err
    assert "odd.pt: a checkpoint whose parts do not fit together (extra.scores is " in err
    assert err.count("\n") == 1


def test_graphs_that_a_killed_program_left_are_not_read(
    trained_folder: Path, capsys: Captured
) -> None:
    shutil.copytree(trained_folder / "graphs", "graphs")
    Path("graphs/.writing-abcdefgh-d.npz").write_bytes(b"PK half")
    assert main(["info", "graphs"]) == 0
    assert [graph.names[0] for graph in read_graphs(["graphs"])] == ["a", "b", "c"]
    assert "writing" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["run.json", "config.toml"])
def test_a_damaged_run(name: str, run: Path, capsys: Captured) -> None:
    (run / name).write_text("{")
    assert main(["info", str(run)]) == 3
    err = capsys.readouterr().err
    assert f"runs/first/{name}: cannot be read" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.xyz", None, "absent.xyz: no such file or folder"),
        ("a.txt", b"hello\n", "a.txt: not a structure file known here"),
        ("a.npz", b"PK\x03\x04", "a.npz: "),
        ("a.pt", b"PK\x03\x04", "a.pt: damaged, or not written by mgsym"),
    ],
)
def test_what_is_nothing_known(
    name: str, content: bytes | None, words: str, capsys: Captured
) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    assert main(["info", name]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"mgsym: error: {words}")
    assert err.count("\n") == 1


def test_an_empty_folder(capsys: Captured) -> None:
    Path("empty").mkdir()
    assert main(["info", "empty"]) == 3
    assert "empty: holds neither runs nor graphs" in capsys.readouterr().err


def test_a_closed_pipe_ends_quietly() -> None:
    run = f"{sys.executable} -m mgsym.cli.main info {sample_files()[0]} | head -n 1"
    done = subprocess.run(["bash", "-c", run], capture_output=True, text=True)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
