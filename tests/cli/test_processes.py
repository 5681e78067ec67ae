"""Commands under torchrun: what one process writes, two write; none is left over or lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch
from programs import Program, started_together

import mgsym
from mgsym.benchmark.trial import load_trial
from mgsym.cli.main import main
from mgsym.data_tools.workflows.predictions import _check_processes
from mgsym.errors import UsageError
from mgsym.structure import Structure

# a program that is `mgsym`, with an engine that draws its events
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
Ends = list[tuple[int, str, str]]  # exit code, stdout and stderr of each process
TELLS = ("mgsym: error", "mgsym: interrupted")


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_searches: ModuleType) -> Path:
    """The program, in an empty folder with glass.xyz of twelve atoms."""
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
    file = tmp_path / "program.py"
    fakes = str(Path(__file__).parents[1] / "fakes")
    file.write_text(PROGRAM.format(fakes=fakes), encoding="utf-8")
    return file


def start(program: Path, *words: str, pause: float = 0.0) -> list[Program]:
    """The program in two processes."""
    slow = {"FAKE_PAUSE": str(pause)} if pause else {}
    return started_together(program, 2, *words, environment=slow)


def ended(running: list[Program]) -> Ends:
    found = [process.communicate(timeout=120) for process in running]
    return [(p.returncode, *said) for p, said in zip(running, found, strict=True)]


def complaints(ends: Ends) -> list[str]:
    """What all processes together complain of."""
    lines = [line for _, _, text in ends for line in text.splitlines()]
    return [line for line in lines if line.startswith(TELLS)]


def searches(file: str) -> list[str]:
    """The searches of a file, in one order."""
    return sorted(Path(file).read_text(encoding="utf-8").splitlines()[2:])


LABEL = ["label", "glass.xyz", "--device", "cpu"]


def test_two_processes_make_the_searches_of_one(program: Path) -> None:
    """Searches and saddles, made anew and gone on with; the first process alone speaks."""
    assert main([*LABEL, "--searches", "4", "--save-saddles", "-o", "one.xyz"]) == 0
    both = [*LABEL, "--save-saddles", "-o", "two.xyz"]
    ends = ended(start(program, *both, "--searches", "4"))
    assert [code for code, *_ in ends] == [0, 0]
    assert ends[1][1:] == ("", "")
    assert ends[0][2].splitlines()[-1] == "Wrote two.xyz, two.events.csv, two.saddles.xyz"
    assert searches("two.events.csv") == searches("one.events.csv")
    assert Path("two.xyz").read_bytes() == Path("one.xyz").read_bytes()
    ends = ended(start(program, *both, "--searches", "5", "--resume"))
    assert "12 searches, " in ends[0][1]  # those that were missing, of both
    found = [line for line in searches("two.events.csv") if ",found," in line]
    assert len(searches("two.events.csv")) == 60
    assert len(mgsym.data_tools.formats.read_frames("two.saddles.xyz", frames=":")) == len(found)
    assert not list(Path.cwd().glob("*process*"))


@pytest.mark.slow
def test_two_processes_predict_as_one(program: Path, trained_folder: Path) -> None:
    """The structures are shared out, and the first process writes them."""
    graphs = [str(trained_folder / "graphs" / f"{name}.npz") for name in "abc"]
    predict = ["predict", *graphs, "--run", str(trained_folder / "runs" / "first"), "-o"]
    assert main([*predict, "one"]) == 0
    ends = ended(start(program, *predict, "two"))
    assert [code for code, *_ in ends] == [0, 0], ends
    assert ends[1][1:] == ("", "")
    for name in ("a.extxyz", "b.extxyz", "c.extxyz"):
        assert Path("two", name).read_bytes() == Path("one", name).read_bytes()


def test_one_structure_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="2 processes, but 1 structures: start 1 at most"):
        _check_processes(1)


@pytest.mark.slow
def test_two_processes_share_the_trainings_of_a_benchmark(
    program: Path, trained_folder: Path
) -> None:
    """Each training is done once, as one process does it, and all are in the table."""
    little = ("training.epochs=1", "model.ridge_share=0.0", "model.radial=4", "model.l_max=1")
    compare = ["benchmark", str(trained_folder / "graphs"), "--models", "fast", "--device", "cpu"]
    compare += [part for setting in little for part in ("--set", setting)]
    compare += ["--glasses", "a", "--seeds"]
    assert main([*compare, "1", "-o", "one", "-q"]) == 0
    ends = ended(start(program, *compare, "0:2", "-o", "two"))
    assert [code for code, *_ in ends] == [0, 0], ends
    assert ends[1][1:] == ("", "")
    names = [f"fast-a-seed{seed}.json" for seed in (0, 1)]
    assert sorted(path.name for path in Path("two/trials").iterdir()) == names
    one, two = (load_trial(Path(folder, "trials", names[1])) for folder in ("one", "two"))
    assert one.scores == two.scores
    assert json.loads(Path("two/table.json").read_text())["models"]["fast"]["done"] == 2


def test_an_error_in_all_is_told_once(program: Path) -> None:
    ends = ended(start(program, *LABEL, "--atoms", "3"))
    assert {code for code, *_ in ends} <= {2, 1}
    assert len(complaints(ends)) == 1
    assert "2 processes, but 1 atoms: start 1 at most" in complaints(ends)[0]


def test_an_error_in_one_ends_both(program: Path) -> None:
    """The second process cannot write its searches; the first stops, and says nothing of it."""
    Path("two.process2of2.events.csv").mkdir()
    ends = ended(
        start(program, *LABEL, "--resume", "--searches", "500", "-o", "two.xyz", pause=0.1)
    )
    assert all(code for code, *_ in ends)
    assert len(complaints(ends)) == 1
    assert "process2of2" in complaints(ends)[0]


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="there are no process groups here")
@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_killed_process_leaves_no_orphan_and_loses_no_search(program: Path, rank: int) -> None:
    """As torchrun runs it; one process alone goes on with what both had found."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    torchrun = subprocess.Popen(
        [*launcher, str(program), *LABEL, "--searches", "400", "-o", "killed.xyz"],
        env={**os.environ, "FAKE_PAUSE": "0.05", "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    files = [Path(f"killed.process{i}of2.events.csv") for i in (1, 2)]
    locks = [Path(f".lock-{file.name}") for file in files]
    end = time.monotonic() + 60
    while not all(file.exists() for file in files) and time.monotonic() < end:
        assert torchrun.poll() is None
        time.sleep(0.05)
    pids = [int(lock.read_text(encoding="ascii")) for lock in locks]
    os.kill(pids[rank], signal.SIGKILL)
    said = torchrun.communicate(timeout=60)[1]  # ends when nobody has the pipe any more
    assert [line for line in said.splitlines() if line.startswith("mgsym: error: stopped with")]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    kept = [line for file in files for line in searches(str(file)) if line.count(",") == 19]
    assert main([*LABEL, "--searches", "2", "-o", "killed.xyz", "-q"]) == 2
    assert main([*LABEL, "--searches", "2", "-o", "killed.xyz", "-q", "--resume"]) == 0
    assert set(kept) <= set(searches("killed.events.csv"))
    assert not list(Path.cwd().glob("*process*"))
