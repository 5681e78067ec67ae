"""`mgsym label` and `mgsym merge`, with an engine that draws its events."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch

import mgsym
from mgsym.cli.main import main
from mgsym.data_tools.workflows import labelling
from mgsym.structure import Structure

Captured = pytest.CaptureFixture[str]
# a program that is `mgsym` with the fake engine
PROGRAM = """
import sys
sys.path.insert(0, {fakes!r})
import fake_searches
from mgsym.cli.main import main
from mgsym.data_tools.simulation.labelling import barriers
from mgsym.data_tools.workflows import labelling
barriers.run_searches = fake_searches.run_searches
labelling.ArtnSettings = fake_searches.FakeSettings
if __name__ == "__main__":
    sys.exit(main())
"""


@pytest.fixture(autouse=True)
def _glass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_searches: ModuleType) -> None:
    """glass.xyz in the current folder: twelve atoms with ids from 101 to 112."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MGSYM_POTENTIAL", raising=False)
    generator = torch.Generator().manual_seed(3)
    structure = Structure(
        positions=20 * torch.rand(12, 3, generator=generator, dtype=torch.float64),
        cell=20 * torch.eye(3),
        types=torch.arange(12) % 2,
        species=("Cu", "Zr"),
        ids=torch.arange(101, 113),
    )
    mgsym.write(structure, "glass.xyz")


def labels(path: str | Path) -> list[float]:
    """The barriers of a file, 0 where there is none."""
    return mgsym.read(path).columns["barrier"].values.nan_to_num(0.0).tolist()


def test_a_labelled_structure_and_its_searches(capsys: Captured) -> None:
    assert main(["label", "glass.xyz", "--atoms", "0:6", "--device", "cpu"]) == 0
    told, notes = capsys.readouterr()
    assert re.search(r"^  atoms labelled +6 of 6$", told, re.M)
    assert re.search(r"^  searches +120$", told, re.M)
    assert re.search(r"^  successful +\d\d %$", told, re.M)
    assert re.search(r"^  failed +\d+ (no-mode|refinement), \d+ (no-mode|refinement)$", told, re.M)
    assert re.search(r"^  mean barrier +1\.\d{4} eV$", told, re.M)
    assert re.search(r"^  standard error +0\.\d{4} eV \(mean over atoms\)$", told, re.M)
    assert re.search(r"^  this run +120 searches, [\d.e+]+ a second$", told, re.M)
    assert "Zhou" in notes
    assert "Searching: 120/120 (100 %), success" in notes
    assert "Wrote glass-labelled.xyz, glass-labelled.events.csv" in notes
    columns = mgsym.read("glass-labelled.xyz").columns
    assert columns["barrier"].unit == columns["barrier_stderr"].unit == "eV"
    assert columns["barrier"].values.isnan().tolist() == [False] * 6 + [True] * 6
    saddles = [line for line in finished("glass-labelled.events.csv") if ",found," in line]
    assert int(columns["events"].values.sum()) == len(saddles)
    assert columns["events"].values[6:].tolist() == [0] * 6


def test_json(capsys: Captured) -> None:
    chosen = ["--events", "3", "--ids", "101:103,110", "--seed", "4", "-o", "out.npz", "--json"]
    assert main(["label", "glass.xyz", *chosen]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["atoms"], found["labelled"]) == (4, 4)
    assert found["searches_by_status"]["found"] == 12
    assert found["files"] == ["out.npz", "out.events.csv"]
    events = mgsym.read("out.npz").columns["events"].values.tolist()
    assert events == [3, 3, 3, 0, 0, 0, 0, 0, 0, 3, 0, 0]


def test_a_table_of_labels_joins_the_structure_again() -> None:
    assert main(["label", "glass.xyz", "--searches", "9", "-o", "labels.csv", "-q"]) == 0
    assert main(["label", "glass.xyz", "--searches", "9", "-o", "other.xyz", "-q"]) == 0
    assert Path("labels.events.csv").exists()
    assert main(["convert", "glass.xyz", "--labels", "labels.csv", "-o", "joined.xyz", "-q"]) == 0
    assert labels("joined.xyz") == labels("other.xyz")


def test_shards_merge_to_one_run(capsys: Captured) -> None:
    some = ["label", "glass.xyz", "--atoms", "random:7", "--seed", "5", "--searches", "6"]
    assert main([*some, "-o", "whole.xyz", "-q"]) == 0
    for i in (1, 2, 3):
        assert main([*some, "--shard", f"{i}/3", "-o", "parts.xyz"]) == 0
        assert f"Wrote parts.{i}of3.events.csv\n" in capsys.readouterr().err
    assert not Path("parts.xyz").exists()
    shards = [f"parts.{i}of3.events.csv" for i in (2, 1, 3)]
    assert main(["merge", "glass.xyz", *shards, "-o", "parts.xyz"]) == 0
    told, notes = capsys.readouterr()
    assert re.search(r"^  atoms labelled +7 of 7$", told, re.M)
    assert "this run" not in told
    assert "Wrote parts.xyz, parts.events.csv" in notes
    assert labels("parts.xyz") == labels("whole.xyz")
    assert main(["merge", "glass.xyz", *shards[:2], "-o", "two.xyz", "-q"]) == 0
    assert "mgsym: warning: not among the files: shard 3/3" in capsys.readouterr().err
    assert (
        main(["merge", "glass.xyz", "parts.events.csv", "-o", "fewer.xyz", "--searches", "2"]) == 0
    )
    assert max(mgsym.read("fewer.xyz").columns["events"].values.tolist()) <= 2
    assert main(["merge", "glass.xyz", *shards, "-o", "parts.xyz"]) == 2
    assert "parts.xyz exists already" in capsys.readouterr().err


def test_resume_and_overwrite(capsys: Captured) -> None:
    some = ["label", "glass.xyz", "-o", "out.xyz", "-q"]
    assert main([*some, "--searches", "3"]) == 0
    assert main([*some, "--searches", "5"]) == 2
    assert "out.xyz exists already" in capsys.readouterr().err
    assert main([*some, "--searches", "5", "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["searches_made"] == 24
    assert main(["label", "glass.xyz", "-o", "new.xyz", "--searches", "5", "-q"]) == 0
    assert labels("new.xyz") == labels("out.xyz")
    assert main([*some, "--searches", "5", "--resume", "--radius", "8"]) == 3
    assert "out.events.csv: holds searches made otherwise (artn.radius: 10.0, now 8.0)" in (
        capsys.readouterr().err
    )
    assert main([*some, "--radius", "8", "--overwrite", "--json"]) == 0
    Path("new.xyz").unlink()
    assert main(["label", "glass.xyz", "-o", "new.xyz"]) == 2
    assert "new.events.csv exists: go on with it by --resume" in capsys.readouterr().err


def test_saddles_of_shards_are_joined(capsys: Captured) -> None:
    some = ["label", "glass.xyz", "--searches", "3", "--save-saddles"]
    assert main([*some, "-o", "whole.xyz"]) == 0
    assert "Wrote whole.xyz, whole.events.csv, whole.saddles.xyz" in capsys.readouterr().err
    for i in (1, 2):
        assert main([*some, "--shard", f"{i}/2", "-o", "parts.xyz", "-q"]) == 0
    shards = [f"parts.{i}of2.events.csv" for i in (1, 2)]
    assert main(["merge", "glass.xyz", *shards, "-o", "parts.xyz"]) == 0
    assert "Wrote parts.xyz, parts.events.csv, parts.saddles.xyz" in capsys.readouterr().err
    whole, parts = saddles("whole.saddles.xyz"), saddles("parts.saddles.xyz")
    assert whole.keys() == parts.keys()
    searches = finished("parts.events.csv")
    for key, (line, event) in parts.items():
        assert line == whole[key][0]
        atom, attempt = searches[event].split(",")[1:3]
        assert (int(atom), int(attempt)) == key
    assert main(["merge", "glass.xyz", *shards, "-o", "parts.xyz"]) == 2
    assert main([*some, "-o", "new.xyz", "-q"]) == 0
    Path("new.xyz").unlink()
    Path("new.events.csv").unlink()
    assert main([*some, "-o", "new.xyz"]) == 2
    assert "new.saddles.xyz exists already" in capsys.readouterr().err


def saddles(file: str) -> dict[tuple[int, int], tuple[str, int]]:
    """The frames of a file by id and attempt: their facts, and their place among the searches."""
    found = {}
    for line in Path(file).read_text().splitlines():
        told = re.search(r"(energy=.*) id=(\d+) attempt=(\d+) event=(\d+)$", line)
        if told:
            found[int(told[2]), int(told[3])] = told[1], int(told[4])
    return found


def test_settings(capsys: Captured) -> None:
    some = ["label", "glass.xyz", "--atoms", "0", "--searches", "1", "-q", "-o"]
    chosen = ["--set", "artn.radius=9", "--set", "artn.radii=[12, 15.5]"]
    assert main([*some, "a.xyz", *chosen]) == 0
    first = Path("a.events.csv").read_text().splitlines()[0]
    stored = json.loads(first.removeprefix("# mgsym events "))["settings"]
    assert stored == {"radius": 9.0, "radii": [12.0, 15.5], "success": 0.6, "fault": ""}
    assert main([*some, "b.xyz", "--set", "artn.radios=9"]) == 2
    assert "no setting is called 'artn.radios'; there are artn.radius" in capsys.readouterr().err
    assert main([*some, "b.xyz", "--set", "artn.radius=wide"]) == 2
    assert "artn.radius is 'wide', expected a number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--atoms", "0:3", "--ids", "101"], 2, "--atoms, --ids and --choose all choose atoms"),
        (["--atoms", "12"], 2, "there is no atom 12: rows run from 0 to 11"),
        (["--atoms", "12:20"], 2, "atoms '12:20' chooses none of the 12 atoms"),
        (["--atoms", "first"], 2, "atoms 'first': expected rows such as 0:100 or 1,5,9"),
        (["--atoms", "random:13"], 2, "random:13 atoms, expected 1 to 12"),
        (["--ids", "1"], 2, "there is no atom with id 1"),
        (["--ids", "x"], 2, "'x' is no id"),
        (["--searches", "0"], 2, "searches is 0, expected at least 1"),
        (["--searches", "2", "--events", "3"], 2, "3 events cannot come of at most 2 searches"),
        (["--shard", "3/2"], 2, "shard '3/2': expected i/n"),
        (["-o", "out.txt"], 2, "out.txt: cannot tell a format to write"),
        (["--set", "artn.fault=input"], 3, "glass.xyz: largest force is 0.3 eV/Å at atom id 7"),
        (["--potential", "no.eam.fs"], 3, "no.eam.fs: no such file"),
        (["--device", "cuda:99"], 2, "device cuda:99"),
        (["--frames", ":"], 0, ""),
    ],
)
def test_wrong_requests(capsys: Captured, options: list[str], code: int, message: str) -> None:
    assert main(["label", "glass.xyz", *options]) == code
    error = capsys.readouterr().err
    assert message in error
    if code:
        assert sorted(p.name for p in Path().iterdir()) == ["glass.xyz"]
        assert error.count("mgsym: error:") == 1


def test_without_a_file_a_demonstration(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    # the fake engine does not mind that the glass is not yet at its minimum after three steps
    monkeypatch.setattr(labelling, "relax", partial(labelling.relax, max_steps=3))
    assert main(["label"]) == 0
    told, notes = capsys.readouterr()
    assert "No FILE given: a demonstration on the sample's test glass" in notes
    assert re.search(r"^  atoms labelled +4 of 4$", told, re.M)
    assert re.search(r"^  searches +16$", told, re.M)
    assert len(mgsym.read("sample-labelled.xyz")) == 500


def test_types_without_a_file_are_not_used(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labelling, "relax", partial(labelling.relax, max_steps=3))
    assert main(["label", "--types", "1=Cu,2=Zr"]) == 0
    assert "the sample's test glass: --types is not used" in capsys.readouterr().err


def begin(program: Path, *options: str) -> subprocess.Popen[str]:
    """The command in a process group of its own, once its first searches are in the file."""
    command = [sys.executable, str(program), "label", "glass.xyz", *options]
    environment = {**os.environ, "FAKE_PAUSE": "0.05"}
    process = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    end = time.monotonic() + 60
    while len(finished("killed.events.csv")) < 5 and time.monotonic() < end:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    return process


def finished(file: str) -> list[str]:
    """The searches that a file holds."""
    return Path(file).read_text().splitlines()[2:] if Path(file).exists() else []


@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)],
    ids=lambda number: number.name,
)
def test_killed_with_its_workers_it_loses_no_finished_search(
    number: signal.Signals, tmp_path: Path, capsys: Captured
) -> None:
    program = tmp_path / "program.py"
    fakes = Path(__file__).resolve().parents[1] / "fakes"
    program.write_text(PROGRAM.format(fakes=str(fakes)))
    some = ["-o", "killed.xyz", "--searches", "100", "--device", "cpu"]
    process = begin(program, *some, "--jobs", "2")
    if number == signal.SIGKILL:
        process.kill()  # the parent alone: its workers must notice
    else:
        os.killpg(process.pid, number)  # as a terminal and SLURM do
    error = process.communicate(timeout=30)[1]  # ends when the workers let go of the pipe too
    kept = finished("killed.events.csv")
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130
        told = re.search(r"stopped with (\d+) of 1200 searches, all in killed\.events\.csv", error)
        assert told, error
        assert int(told[1]) == len(kept)
        assert "Traceback" not in error
    assert not Path("killed.xyz").exists()
    assert main(["label", "glass.xyz", *some, "--resume", "--json", "-q"]) == 0
    made = json.loads(capsys.readouterr().out)["searches_made"]
    assert made == 1200 - len([line for line in kept if line.count(",") == 19])
    assert finished("killed.events.csv")[: len(kept) - 1] == kept[:-1]
    assert main(["label", "glass.xyz", "-o", "whole.xyz", "--searches", "100", "-q"]) == 0
    assert labels("killed.xyz") == labels("whole.xyz")
