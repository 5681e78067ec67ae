"""`mgsym explain-physics`, in a potential without forces and with an engine that draws events."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from mgsym.cli import console
from mgsym.cli.main import main
from mgsym.data_tools.simulation.optimizers.relax import Relaxation
from mgsym.structure import Structure

Captured = pytest.CaptureFixture[str]


def at_rest(structures: Sequence[Structure], *given: object, **how: object) -> list[Relaxation]:
    return [Relaxation(s, 0.0, 0.0, 0.0, 0.0, 0.0, 0.02, 0, True) for s in structures]


@pytest.fixture(autouse=True)
def _place(
    monkeypatch: pytest.MonkeyPatch, fake_searches: ModuleType, trained_folder: Path
) -> None:
    monkeypatch.chdir(trained_folder)
    monkeypatch.delenv("MGSYM_POTENTIAL", raising=False)
    monkeypatch.setattr("mgsym.data_tools.displacement_test.displace.relax", at_rest)
    monkeypatch.setattr("mgsym.data_tools.displacement_test.prepare.relax", at_rest)


def line(*options: object) -> list[str]:
    fixed = [
        "explain-physics",
        "--method",
        "gradient",
        "--set",
        "artn.radius=3",
        "--displace",
        "0.5",
    ]
    return [*fixed, "--device", "cpu", *map(str, options)]


def test_the_table_and_the_verdict(capsys: Captured, tmp_path: Path) -> None:
    assert main(line("--nodes", "2,7", "--repeats", 2, "-o", tmp_path)) == 0
    told, notes = capsys.readouterr()
    assert re.search(
        r"^Zr 8 \(7\) +\d selected +0\.50 +2 of 2 +0\.935 ± 0\.128 +0\.\d{3}", told, re.M
    )
    assert re.search(r"^ +\d matched +0\.50 +2 of 2 +0\.\d{3}  .* (yes|no) +0\.\d{3}$", told, re.M)
    assert re.search(r"^matched +4 of 4 +\d of 2 +\d\.\d +0\.\d{3}", told, re.M)
    assert re.search(r"Selected neighbours change the barrier of \d of 2 atoms by more", told)
    assert "too few atoms to tell that from chance" in told
    assert (
        "of its most important neighbours are not selected, as too few others are as far" in notes
    )
    assert "Potential: Zhou" in notes
    assert "explaining graphs/c.npz" in notes
    assert "c was not at a minimum of" in notes
    assert "relaxed first, atoms moved by up to 0.02 Å" in notes
    assert "Searching: 100/100 (100 %), success" in notes
    assert (tmp_path / "physics.csv").exists()
    assert main(line("--nodes", "2,7", "--repeats", 2, "-o", tmp_path)) == 2
    assert "plan.json exists already" in capsys.readouterr().err


def test_json_and_resume(capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def impatient() -> Iterator[Callable[[], bool]]:
        asked = iter(range(1000))
        yield lambda: next(asked) > 30

    some = ("--nodes", 3, "--searches", 6, "--seed", 3, "--json", "-q", "-o")
    assert main(line(*some, tmp_path / "whole")) == 0
    whole = capsys.readouterr().out
    with monkeypatch.context() as patch:
        patch.setattr(console, "interruptible", impatient)
        assert main(line(*some, tmp_path / "part")) == 130
    told = "stopped with 32 of 54 searches, all in"
    assert told in capsys.readouterr().err
    assert main(line(*some, tmp_path / "part", "--resume")) == 0
    assert capsys.readouterr().out == whole
    found = json.loads(whole)
    assert len(found["nodes"]) == 3
    assert found["searches"] == 54
    assert main(line(*some, tmp_path / "part", "--resume", "--atoms", 2)) == 3
    assert "was made for something else (atoms: 5, now 2)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--nodes", "99,"], 2, "there is no node 99"),
        (["--nodes", "x"], 2, "expected 30, or rows such as 4,8,15"),
        (["--method", "x"], 2, "no method is called 'x'"),
        (["--set", "artn.radius=9"], 3, "an active region of 9 Å does not fit"),
        (["--set", "artn.x=9"], 2, "no setting is called 'artn.x'"),
        (["--potential", "none.eam.fs"], 3, "none.eam.fs: no such file"),
        (["--run", "nowhere"], 3, "nowhere: no such run"),
        (["--atoms", "0"], 2, "0 is not in the range"),
    ],
)
def test_failures_are_one_line(
    capsys: Captured, tmp_path: Path, options: list[str], code: int, message: str
) -> None:
    assert main(line(*options, "-o", tmp_path / "out")) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("mgsym: error:") == 1
    assert not (tmp_path / "out").exists()


def test_searches_that_all_fail_are_missing_not_a_failure(capsys: Captured, tmp_path: Path) -> None:
    assert main(line("--set", "artn.success=0", "--nodes", 3, "-o", tmp_path)) == 0
    told, notes = capsys.readouterr()
    assert "of 0 of 0 atoms" in told
    assert "No atom has both, so they cannot be compared." in told
    assert notes.count("has 0 successful searches before: missing") == 3
    assert "more --searches with --resume fill what is missing" in notes
