"""`mgsym train`, `predict`, `evaluate` and `check`, on the sample."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from programs import Program

from mgsym.cli.main import main
from mgsym.data_tools.formats import read
from mgsym.data_tools.sample import sample_files
from mgsym.prediction import predict
from mgsym.training.checkpoint import load_checkpoint

Captured = pytest.CaptureFixture[str]

WITH_RIDGE = [
    "--set", "model.width=8", "--set", "model.heads=[1]", "--set", "model.decoder_layers=1",
    "--device", "cpu",
]  # fmt: skip
SMALL = [  # the ridge takes longer than the network
    *WITH_RIDGE, "--set", "model.ridge_share=0.0", "--set", "model.radial=4", "--set",
    "model.l_max=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with graphs of the sample, a run of one seed and one of two."""
    folder = tmp_path_factory.mktemp("work")
    with contextlib.chdir(folder):
        assert main(["build-graph", "-q"]) == 0
        assert main(["train", "--epochs", "2", "-o", "runs/one", "-q", *SMALL]) == 0
        assert main(["train", "--epochs", "1", "--seeds", "3,5", "-o", "two", "-q", *SMALL]) == 0
    return folder


@pytest.fixture(autouse=True)
def _inside(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)


def test_training_tells_scores_and_what_was_written(capsys: Captured, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert main(["train", "--epochs", "1", "--val", "train_b", "-o", str(out), *WITH_RIDGE]) == 0
    told, notes = capsys.readouterr()
    rows = {tuple(line.split()[:2]) for line in told.splitlines()}
    # the file's validation structure trains when another is asked for
    assert {("train", "train_a"), ("train", "validation"), ("validation", "train_b")} <= rows
    assert {("train", "pooled"), ("test", "test")} <= rows
    assert notes.splitlines()[-1] == f"Wrote {out}"
    assert (out / "best.pt").exists()


def test_default_run_folder_sorts_by_time(capsys: Captured) -> None:
    assert main(["train", "--epochs", "1", "--seed", "7", "--json", *SMALL]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert Path(answer["run"]).name.endswith("-symgnn-fast-seed7")
    assert answer["scores_by_seed"]["7"]["test"]["structures"]["test"]["count"] == 250
    assert answer["run"] == max(str(p) for p in Path("runs").glob("2*"))


def test_settings_command_line_over_file(capsys: Captured, tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text("seed = 4\n[training]\nepochs = 1\nlearning_rate = 0.5\n")
    out = str(tmp_path / "run")
    command = ["train", "--config", str(file), "--learning-rate", "0.01", "-o", out, *SMALL]
    assert main(command) == 0
    written = (tmp_path / "run/config.toml").read_text()
    assert "seed = 4" in written
    assert "learning_rate = 0.01" in written
    assert "width = 8" in written


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 3, "nowhere: no graphs here: make some with mgsym build-graph"),
        (["--preset", "quick"], 2, "no preset is called 'quick'; there are fast, symgnn, paper"),
        (["--set", "training.epoch=3"], 2, "no setting is called 'training.epoch'"),
        (["--val", "train_c"], 2, "no structure or glass is called 'train_c'; there are test,"),
        (["--seeds", "4:2"], 2, "'4:2': expected seeds such as 0:4"),
        (["-o", "runs/one"], 2, "runs/one exists already"),
        (["-o", "two", "--seeds", "0:2"], 2, "two holds a run already"),
        (["--resume", "runs/none"], 3, "runs/none: no such run"),
        (["--resume", "runs/one", "--epochs", "9"], 2, "training.epochs: 2, now 9"),
        (["--from", "two", "-o", "three"], 2, "two holds 2 models: name one, such as two/seed3"),
        (["--device", "cuda:99"], 2, "cuda:99"),
    ],
)
def test_mistakes_are_one_line(
    capsys: Captured, arguments: list[str], code: int, message: str
) -> None:
    assert main(["train", *arguments]) == code
    told, notes = capsys.readouterr()
    assert told == ""
    assert message in notes.splitlines()[-1]
    assert notes.splitlines()[-1].startswith("mgsym: error: ")


def test_interrupted_and_resumed(tmp_path: Path) -> None:
    """SIGTERM stops after the step with 130; resumed, the run ends in the same bits.

    Each part is a program of its own with one thread: sums shared out otherwise, among threads or
    by MKL as memory happens to lie, round otherwise.
    """
    common = [*SMALL, "--epochs", "4"]
    alike = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_CBWR": "COMPATIBLE"}
    whole, part = str(tmp_path / "whole"), str(tmp_path / "part")

    def begun(*words: str) -> Program:
        return Program(None, "train", *words, environment=alike)

    process = begun(*common, "-o", part)
    while not (tmp_path / "part/metrics.csv").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    notes = process.communicate(timeout=60)[1]
    assert process.returncode == 130, notes
    assert f"go on with: mgsym train --resume {part}" in notes.splitlines()[-1]
    assert "Traceback" not in notes
    for words in (["--resume", part, "--device", "cpu"], [*common, "-o", whole]):
        process = begun("-q", *words)
        process.communicate(timeout=60)
        assert process.returncode == 0
    a, b = (load_checkpoint(Path(run) / "best.pt")[0].state_dict() for run in (whole, part))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_prediction_is_written_beside_the_labels(capsys: Captured, tmp_path: Path) -> None:
    file = sample_files()[0]
    out = tmp_path / "out.extxyz"
    assert main(["predict", str(file), "--run", "runs/one", "-o", str(out)]) == 0
    assert f"Wrote {out}" in capsys.readouterr().err
    before, after = read(file), read(out)
    expected = predict(before, "runs/one", device="cpu")
    torch.testing.assert_close(
        after.columns["barrier_predicted"].values.float(), expected, atol=1e-5, rtol=0
    )
    assert after.columns["barrier_predicted"].unit == "eV"
    labels = (structure.columns["barrier"].values for structure in (after, before))
    torch.testing.assert_close(*labels, atol=0, rtol=0, equal_nan=True)
    assert "barrier_predicted_std" not in after.columns


@pytest.mark.parametrize("suffix", ["xyz", "dump", "csv", "npz", "csv.gz"])
def test_prediction_in_other_formats(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out.{suffix}"
    assert main(["predict", str(sample_files()[0]), "--run", "two", "-o", str(out), "-q"]) == 0
    if suffix == "csv":
        rows = list(csv.DictReader(out.read_text().splitlines()))
        assert len(rows) == 500
        assert any(name.startswith("barrier_predicted_std") for name in rows[0])
    assert out.stat().st_size > 1000


def test_several_files_go_to_a_folder(capsys: Captured, tmp_path: Path) -> None:
    files = [str(file) for file in sample_files()[:2]]
    out = tmp_path / "all"
    assert main(["predict", *files, "--run", "two", "-o", str(out), "--json"]) == 0
    summaries = json.loads(capsys.readouterr().out)
    assert [s["models"] for s in summaries] == [2, 2]
    assert sorted(p.suffix for p in out.iterdir()) == [".extxyz", ".extxyz"]
    assert main(["predict", *files, "--run", "two", "-o", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["predict", *files, "--run", "two", "-o", str(tmp_path / "a.csv")]) == 2
    assert "is one file, but 2 are given" in capsys.readouterr().err


def test_unfamiliar_structures_are_warned_of(capsys: Captured, tmp_path: Path) -> None:
    lines = sample_files()[0].read_text().splitlines()
    lines[1] = lines[1].replace("19.94", "21.94").replace("name=test", "name=stretched")
    stretched = tmp_path / "stretched.xyz"
    stretched.write_text("\n".join(lines) + "\n")
    assert main(["predict", str(stretched), "--run", "runs/one", "-o", str(tmp_path / "o")]) == 0
    notes = capsys.readouterr().err
    assert "mgsym: warning: stretched has 0.0473 atoms/Å³, the training structures 0.06" in notes


def test_graphs_are_predicted_as_their_structures(tmp_path: Path) -> None:
    line = ["predict", "--run", "runs/one", "--device", "cpu", "-q", "-o"]
    test = next(str(f) for f in sample_files() if "test" in f.name)
    assert main([*line, str(tmp_path / "structure.xyz"), test]) == 0
    assert main([*line, str(tmp_path / "graph.xyz"), "graphs/test.npz"]) == 0
    a, b = read(tmp_path / "structure.xyz"), read(tmp_path / "graph.xyz")
    assert torch.equal(a.ids, b.ids)
    for name in ("barrier_predicted", "barrier"):
        there, here = a.columns[name].values, b.columns[name].values
        assert torch.allclose(there.double(), here.double(), atol=1e-5, equal_nan=True)
    assert main([*line, str(tmp_path / "all"), "graphs"]) == 0
    assert len(list((tmp_path / "all").iterdir())) == 5


def test_types_for_graphs_are_said(capsys: Captured, tmp_path: Path) -> None:
    line = ["predict", "graphs/test.npz", "--run", "runs/one", "--types", "1=Cu", "-q"]
    assert main([*line, "-o", str(tmp_path / "a.xyz")]) == 0
    assert "graphs/test.npz: --types is not used" in capsys.readouterr().err


def test_a_resumed_run_knows_its_graphs(
    trained_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").symlink_to(trained_folder / "graphs")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "mine", "--epochs", "1", "-o", "run", "-q", *SMALL]) == 0
    assert (
        main(["train", "mine", "--epochs", "1", "--seeds", "1,2", "-o", "two", "-q", *SMALL]) == 0
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for run in ("../run", "../two"):
        assert main(["train", "--resume", run, "-q", "--device", "cpu"]) == 0


def test_evaluation_of_graphs_and_structures_agrees(capsys: Captured) -> None:
    assert main(["evaluate", "runs/one", "graphs/test.npz", "--json"]) == 0
    of_graph = json.loads(capsys.readouterr().out)["pooled"]
    test = next(str(f) for f in sample_files() if "test" in f.name)
    assert main(["evaluate", "runs/one", test, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pooled"] == pytest.approx(of_graph)
    run = json.loads(Path("runs/one/run.json").read_text())
    assert run["scores"]["test"]["pooled"] == pytest.approx(of_graph, abs=1e-5)
    assert main(["evaluate", "runs/one", "graphs"]) == 0
    told = capsys.readouterr().out
    names = ["test", "train_a", "train_a_again", "train_b", "validation", "mean", "pooled"]
    first = [line.split()[0] for line in told.splitlines()]
    # one table of scores, one of how well the extremes are told
    assert [name for name in first if name in names] == [*names, *names[:-2], "pooled"]


def test_evaluation_needs_labels(capsys: Captured, tmp_path: Path) -> None:
    bare = tmp_path / "bare.xyz"
    bare.write_text(
        '2\nLattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3\nCu 0 0 0\nZr 0 0 2.7\n'
    )
    assert main(["evaluate", "runs/one", str(bare)]) == 3
    assert "no atom has a label to score against" in capsys.readouterr().err


def test_check_measures_the_spread(capsys: Captured) -> None:
    assert main(["check", "two", "graphs/test.npz", "--rotate", "--count", "3", "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)
    assert [(c["model"], c["structure"], c["declared"]) for c in checks] == [
        ("seed3", "test", "yes"), ("seed5", "test", "yes"),
    ]  # fmt: skip
    assert all(0 < c["spread"]["rms"] <= c["spread"]["max"] for c in checks)
    assert main(["check", "runs/one", "graphs/test.npz", "--count", "2"]) == 0
    assert "Spread over 2 random rotations" in capsys.readouterr().out


def test_merged_runs_predict_and_evaluate_as_one(capsys: Captured, tmp_path: Path) -> None:
    file, out = tmp_path / "all.pt", tmp_path / "out.extxyz"
    test = next(str(f) for f in sample_files() if "test" in f.name)
    merge = ["ensemble", "two", "runs/one", "--weights", "2,1", "-o", str(file)]
    assert main([*merge, "--calibrate", "graphs/validation.npz"]) == 0
    told = capsys.readouterr().out
    rows = [line.split() for line in told.splitlines()[2:5]]
    assert [(r[0], r[2]) for r in rows] == [
        ("seed3", "0.333"),
        ("seed5", "0.333"),
        ("one", "0.333"),
    ]
    assert "× spread)²" in told
    assert main(["predict", test, "--run", str(file), "-o", str(out), "--json"]) == 0
    found = capsys.readouterr()
    (summary,) = json.loads(found.out)
    assert summary["models"] == 3
    assert summary["calibrated"]
    assert "barrier_predicted_std is the standard deviation of the true barrier" in found.err
    written = read(out)
    std = written.columns["barrier_predicted_std"].values.double()
    assert float(std.square().mean().sqrt()) == pytest.approx(summary["error"], rel=1e-3)
    assert float(written.columns["training_distance"].values.median()) == pytest.approx(
        summary["distance"], abs=0.01
    )
    assert main(["evaluate", str(file), "graphs/validation.npz", "--json"]) == 0
    honest = json.loads(capsys.readouterr().out)["calibration"]
    assert honest["calibrated"]
    assert honest["z_sd"] == pytest.approx(1, abs=0.1)
    assert sum(part["count"] for part in honest["bins"]) == 250
    assert main(["evaluate", str(file), "graphs/test.npz"]) == 0
    assert "Predicted standard deviation (calibrated)" in capsys.readouterr().out
    assert main(["info", str(file)]) == 0
    assert "all.pt: ensemble" in capsys.readouterr().out
    assert main(["check", str(file), "graphs/test.npz", "--count", "2", "--json"]) == 0
    assert [c["model"] for c in json.loads(capsys.readouterr().out)] == ["seed3", "seed5", "one"]


def test_merging_mistakes_are_one_line(capsys: Captured, tmp_path: Path) -> None:
    out = ["-o", str(tmp_path / "e.pt")]
    for arguments, code, message in (
        (["two", "--weights", "1,2", *out], 2, "2 weights for 1 runs"),
        (["two", "--weights", "1;2", *out], 2, "expected numbers such as 1,0.5"),
        (["two", "nowhere", *out], 3, "nowhere: no such run"),
        (["two", "--calibrate", "graphs/train_a.npz", *out], 3, "train_a was trained on"),
    ):
        assert main(["ensemble", *arguments]) == code
        assert message in capsys.readouterr().err.splitlines()[-1]
    assert main(["ensemble", "two", "-q", *out]) == 0
    assert main(["ensemble", "two", *out]) == 2
    assert "exists already" in capsys.readouterr().err


def test_one_model_of_a_file_of_several_is_explained(capsys: Captured, tmp_path: Path) -> None:
    file = tmp_path / "two.pt"
    assert main(["ensemble", "two", "-q", "-o", str(file)]) == 0
    command = ["explain", "graphs/test.npz", "--node", "3", "--method", "gradient", "--topk", "5"]
    assert main([*command, "--run", str(file), "-o", str(tmp_path / "explained")]) == 0
    assert "two.pt holds 2 models: explaining seed3" in capsys.readouterr().err


def test_without_a_run_the_shipped_model_predicts(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    test = next(f for f in sample_files() if "test" in f.name)
    assert main(["predict", str(test), "-o", "out.extxyz", "--device", "cpu"]) == 0
    notes = capsys.readouterr().err
    assert "No run in runs/: Predicting with the model that ships with mgsym" in notes
    assert "warning" not in notes
    after = read(tmp_path / "out.extxyz")
    predicted, labels = (after.columns[n].values.double() for n in ("barrier_predicted", "barrier"))
    # own labels of nine successful searches an atom; the model learnt from published ones
    known = torch.isfinite(labels)
    assert int(known.sum()) == 250
    assert float(torch.corrcoef(torch.stack([predicted, labels])[:, known])[0, 1]) > 0.5
    assert abs(float((predicted - labels)[known].mean())) < 0.15
    std = after.columns["barrier_predicted_std"].values
    assert 0.05 < float(std.mean()) < 0.4
    assert main(["evaluate", "shipped", str(test), "--json"]) == 0
    honest = json.loads(capsys.readouterr().out)["calibration"]
    assert honest["calibrated"]
    assert 0.8 < honest["z_sd"] < 1.3


def test_the_shipped_model_is_small_and_has_a_card() -> None:
    from mgsym.data_tools.shipped_model import shipped_card, shipped_model

    assert shipped_model().stat().st_size <= 2_000_000
    card = shipped_card().read_text(encoding="utf-8")
    for heading in ("## Data", "## Figures", "## Limits"):
        assert heading in card
