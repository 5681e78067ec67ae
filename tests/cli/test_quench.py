"""`mgsym quench`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import mgsym
from mgsym.cli.main import main
from mgsym.data_tools.simulation.optimizers.minimize import FMAX, STRESS_TOLERANCE
from mgsym.data_tools.simulation.potentials.eam_forces import evaluate_structures
from mgsym.data_tools.simulation.potentials.zhou_johnson_wadley import zhou_cu_zr

Captured = pytest.CaptureFixture[str]
FAST = ["quench", "--atoms", "50", "--rate", "9.9e15", "--melt", "0.02", "--timestep", "2"]


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MGSYM_POTENTIAL", raising=False)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command writes when nothing disturbs it."""
    file = tmp_path_factory.mktemp("quench") / "plain.xyz"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MGSYM_POTENTIAL", raising=False)
        assert main([*FAST, "--device", "cpu", "-q", "-o", str(file)]) == 0
    return file


def test_a_glass_from_nothing(capsys: Captured) -> None:
    assert main([*FAST, "--seed", "3", "--composition", "Cu1Zr1", "-o", "glass.xyz"]) == 0
    out, err = capsys.readouterr()
    assert "Zhou" in err.splitlines()[0]
    assert err.splitlines()[-1] == "Wrote glass.xyz, glass.csv"
    assert out.splitlines()[1].split()[:3] == ["Cu1Zr1_9.9e15_seed3", "50", "9.9e+15"]
    assert mgsym.read("glass.xyz").composition == {"Cu": 25, "Zr": 25}
    assert main([*FAST, "-o", "glass.xyz"]) == 2
    assert "glass.xyz exists already" in capsys.readouterr().err


def test_the_method_of_the_relaxation(plain: Path) -> None:
    """fire and cg start from the same cooled glass; both end at rest, on their own ways."""
    assert main([*FAST, "--method", "cg", "--device", "cpu", "-q", "-o", "cg.xyz"]) == 0
    ends = {"fire": mgsym.read(plain), "cg": mgsym.read("cg.xyz")}
    for method in ends:
        forces = evaluate_structures(zhou_cu_zr(), ends[method])
        assert float(forces.forces.norm(dim=1).max()) <= FMAX
        pressure = -float(forces.stress.diagonal().mean())
        assert abs(pressure) <= STRESS_TOLERANCE + 1e-12  # the cell's size is free too
    assert not torch.equal(ends["fire"].positions, ends["cg"].positions)


def test_several_glasses_and_json(capsys: Captured) -> None:
    assert main([*FAST, "--glasses", "2", "--seed", "7", "-o", "two", "--json", "-q"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert [glass["seed"] for glass in told["glasses"]] == [7, 8]
    assert set(told["glasses"][0]["coordination"]) == {"Cu", "Zr"}
    assert told["glasses"][0]["density"] > 5
    assert all(Path(path).exists() for path in told["written"])
    assert err == ""


def test_processes_make_the_glasses_of_one(plain: Path, capsys: Captured) -> None:
    """Each glass in a process of its own; the time that it will take is said first."""
    assert main([*FAST, "--glasses", "2", "--jobs", "2", "-o", "two"]) == 0
    notes = capsys.readouterr().err
    assert notes.index("Expect ") < notes.index("Quench")
    first, second = (mgsym.read(f"two/Cu64Zr36_9.9e15_seed{seed}.xyz") for seed in (0, 1))
    alone = mgsym.read(plain)
    torch.testing.assert_close(first.positions, alone.positions, atol=1e-5, rtol=0)
    assert not torch.allclose(first.positions, second.positions, atol=1e-1)
    assert len(Path("two/quench.csv").read_text().splitlines()) > 2
    assert not list(Path().glob("two/*.checkpoint*"))


def test_an_interrupted_quench_says_how_to_go_on(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def at_once() -> Iterator[Callable[[], bool]]:
        yield lambda: True

    monkeypatch.setattr("mgsym.data_tools.simulation.dynamics.melt_quench.SEGMENT", 40)
    monkeypatch.setattr("mgsym.cli.console.interruptible", at_once)
    here = Path.cwd()
    command = [*FAST, "-o", "glass.xyz"]
    assert main(command) == 130
    assert "go on with the same command and --resume" in capsys.readouterr().err
    assert not Path("glass.xyz").exists()
    monkeypatch.undo()
    monkeypatch.chdir(here)
    monkeypatch.delenv("MGSYM_POTENTIAL", raising=False)
    assert main(command) == 2
    assert "glass.checkpoint exists already" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0
    assert not Path("glass.checkpoint").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--composition", "bronze"], "expected elements and amounts such as Cu64Zr36"),
        (["--atoms", "20"], "at least 50"),
        (["--rate", "0"], "rate is 0"),
        (["--rate", "1e18"], "lower the rate"),
        (["--timestep", "-1"], "timestep is -1"),
        (["--seeds", "x"], "expected seeds such as 0:4"),
        (["-o", "glass.png"], "cannot tell a format to write"),
        (["--seed", "1", "--seeds", "2,3"], "--seed or --seeds"),
        (["--glasses", "2", "--seeds", "2,3"], "--glasses or --seeds"),
    ],
)
def test_wrong_usage_is_one_line(options: list[str], told: str, capsys: Captured) -> None:
    assert main(["quench", "-q", *options]) == 2
    err = capsys.readouterr().err
    assert told in err
    assert len(err.splitlines()) == 1


def test_with_nothing_to_resume_it_begins(plain: Path) -> None:
    """It may have been killed before it saved anything."""
    assert main([*FAST, "--device", "cpu", "-q", "-o", "begun.xyz", "--resume"]) == 0
    assert Path("begun.xyz").read_bytes() == plain.read_bytes()
