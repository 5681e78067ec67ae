"""`mgsym predict --refine` and `mgsym label --choose`, with an engine that draws its events."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

import mgsym
from mgsym.cli import console
from mgsym.cli.main import main
from mgsym.data_tools.simulation.labelling.event_files import read_events
from mgsym.prediction.ensemble import read_ensemble, save_ensemble
from mgsym.structure import Structure
from mgsym.uncertainty.calibration import Calibration

Captured = pytest.CaptureFixture[str]
REFINE = ["predict", "glass.xyz", "--run", "model.pt", "--device", "cpu"]


@pytest.fixture(autouse=True)
def _place(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fake_searches: ModuleType,
    trained_folder: Path,
) -> None:
    """glass.xyz, forty atoms with ids from 101; model.pt, calibrated; plain, a run that is not."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MGSYM_POTENTIAL", raising=False)
    generator = torch.Generator().manual_seed(3)
    structure = Structure(
        positions=12 * torch.rand(40, 3, generator=generator, dtype=torch.float64),
        cell=12 * torch.eye(3),
        types=torch.arange(40) % 2,
        species=("Cu", "Zr"),
        ids=torch.arange(101, 141),
        name="glass",
    )
    mgsym.write(structure, "glass.xyz")
    run = trained_folder / "runs" / "first"
    shutil.copytree(run, "plain")
    fit = Calibration(scale=1.0, floor=0.2, fraction=0.5, length=2.5, common=0.1, atoms=99)
    save_ensemble("model.pt", replace(read_ensemble(run), calibration=fit))


def column(path: str, name: str) -> Tensor:
    return mgsym.read(path).columns[name].values.double()


def test_searches_and_prediction_are_combined(capsys: Captured) -> None:
    assert main([*REFINE, "--refine", "6", "-o", "out.xyz"]) == 0
    told, notes = capsys.readouterr()
    assert re.search(r"^  error of the model +0\.2000 eV$", told, re.M)
    assert re.search(r"^  error now +0\.1\d{3} eV", told, re.M)
    assert re.search(r"^  atoms searched +\d\d of 40$", told, re.M)
    assert re.search(r"^  searches +240$", told, re.M)
    assert "Wrote out.xyz, out.events.csv" in notes
    own, model, fused = (
        column("out.xyz", name) for name in ("barrier", "barrier_model", "barrier_predicted")
    )
    error = column("out.xyz", "barrier_predicted_std")
    assert float(error.max()) < 0.2
    before = column("out.xyz", "barrier_model_std")
    torch.testing.assert_close(before, torch.full((40,), 0.2).double())
    known = own.isfinite()
    # closer to what was found than the model alone, and not as far as that
    assert float((fused - own)[known].abs().mean()) < float((model - own)[known].abs().mean())
    assert float((fused - model).abs().max()) < float((own - model)[known].abs().max())
    assert set(column("out.xyz", "events").tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0}


def test_labels_that_are_there_are_fused_without_searching(capsys: Captured) -> None:
    assert main([*REFINE, "--refine", "6", "-o", "out.xyz", "-q"]) == 0
    assert main(["label", "glass.xyz", "--searches", "6", "-o", "labelled.xyz", "-q"]) == 0
    capsys.readouterr()
    again = ["predict", "labelled.xyz", *REFINE[2:], "--refine", "0"]
    assert main([*again, "-o", "again.xyz", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["labels"] is None
    assert found["files"] == ["again.xyz"]
    for name in ("barrier_predicted", "barrier_predicted_std"):
        torch.testing.assert_close(column("again.xyz", name), column("out.xyz", name))
    assert main([*REFINE, "--refine", "0", "-o", "none.xyz"]) == 3
    assert (
        "glass: has no column barrier: expected barrier, barrier_stderr" in capsys.readouterr().err
    )


def test_a_share_takes_the_atoms_least_certain(capsys: Captured) -> None:
    assert main([*REFINE, "--refine", "3", "--share", "0.2", "-o", "out.xyz", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["labels"]["atoms"] == 8
    rows = read_events(Path("out.events.csv"))[0].chosen
    assert main(["label", "glass.xyz", "--choose", "model.pt", "--count", "8",
                 "--searches", "3", "-o", "chosen.xyz", "-q"]) == 0  # fmt: skip
    assert read_events(Path("chosen.events.csv"))[0].chosen == rows
    assert main([*REFINE, "--refine", "3", "--atoms", "0:4", "-o", "few.xyz", "-q"]) == 0
    assert read_events(Path("few.events.csv"))[0].chosen == [0, 1, 2, 3]


def test_interrupted_and_resumed_it_ends_in_the_same(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([*REFINE, "--refine", "5", "-o", "whole.xyz", "-q"]) == 0

    @contextmanager
    def impatient() -> Iterator[Callable[[], bool]]:
        asked = iter(range(1000))
        yield lambda: next(asked) > 60

    with monkeypatch.context() as patch:
        patch.setattr(console, "interruptible", impatient)
        assert main([*REFINE, "--refine", "5", "-o", "part.xyz", "-q"]) == 130
    told = "of 200 searches, all in part.events.csv: the same command with --resume goes on"
    assert told in capsys.readouterr().err
    assert not Path("part.xyz").exists()
    assert main([*REFINE, "--refine", "5", "-o", "part.xyz", "--resume", "--json", "-q"]) == 0
    made = json.loads(capsys.readouterr().out)["labels"]["searches_made"]
    assert 100 < made < 145
    for name in ("barrier_predicted", "barrier_predicted_std"):
        torch.testing.assert_close(column("part.xyz", name), column("whole.xyz", name))


def test_known_differences_to_the_labels_are_taken_out() -> None:
    assert main([*REFINE, "--refine", "6", "-o", "out.xyz", "-q"]) == 0
    again = ["predict", "out.xyz", *REFINE[2:], "--refine", "0"]
    told = ["--search-scale", "1.5", "--search-shift", "-0.2"]
    assert main([*again, *told, "-o", "scaled.xyz", "-q"]) == 0
    moved = column("scaled.xyz", "barrier_predicted") - column("out.xyz", "barrier_predicted")
    assert 0.1 < float(moved.mean()) < 0.5


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--share", "0.5"], 2, "--share goes with --refine N"),
        (["--set", "artn.radius=9"], 2, "--set goes with --refine N"),
        (["--refine", "2", "--share", "1.5"], 2, "share is 1.5, expected above 0 and at most 1"),
        (["--refine", "2", "--share", "0.5", "--atoms", "0:3"], 2, "both choose atoms"),
        (["--refine", "0", "--share", "0.5"], 2, "--refine 0 searches from no atom"),
        (["--refine", "2", "--atoms", "99"], 2, "there is no atom 99"),
        (["--refine", "2", "glass.xyz"], 2, "one structure at a time, 2 files are given"),
        (["--refine", "2", "--set", "artn.fault=input"], 3, "largest force is 0.3 eV/Å at atom"),
        (["--refine", "2", "--run", "nowhere"], 3, "nowhere: no such run"),
    ],
)
def test_wrong_requests(capsys: Captured, options: list[str], code: int, message: str) -> None:
    assert main([*REFINE, *options, "-o", "out.xyz"]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("mgsym: error:") == 1
    assert not Path("out.xyz").exists()


def test_graphs_are_no_structures_to_search_in(capsys: Captured) -> None:
    assert main(["build-graph", "glass.xyz", "-o", "graphs", "-q"]) == 0
    for graphs in ("graphs/glass.npz", "graphs"):
        line = [*REFINE[:1], graphs, *REFINE[2:], "--refine", "1", "-o", "out.xyz"]
        assert main(line) == 2
        (told,) = re.findall("mgsym: error: .*", capsys.readouterr().err)
        assert f"{graphs} holds graphs, but --refine searches in a structure" in told


def test_an_output_is_not_replaced_unasked(capsys: Captured) -> None:
    assert main([*REFINE, "--refine", "1", "-o", "out.xyz", "-q"]) == 0
    assert main([*REFINE, "--refine", "1", "-o", "out.xyz", "-q"]) == 2
    assert "out.xyz exists already" in capsys.readouterr().err
    assert main([*REFINE, "--refine", "3", "-o", "out.xyz", "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"]["searches_made"] == 80


def test_a_run_that_is_not_calibrated_uses_its_validation_error(capsys: Captured) -> None:
    assert main([*REFINE[:2], "--run", "plain", "--refine", "2", "-o", "out.xyz"]) == 0
    told, notes = capsys.readouterr()
    error = re.search(r"its error is taken as ([\d.]+) eV everywhere", notes)
    assert error
    assert f"error of the model  {float(error[1]):.4f}"[:24] in told


def test_chosen_atoms_leave_out_those_with_labels(capsys: Captured) -> None:
    choose = ["--choose", "model.pt", "--count", "10", "--searches", "5", "-q"]
    assert main(["label", "glass.xyz", *choose, "-o", "first.xyz"]) == 0
    assert main(["label", "first.xyz", *choose, "-o", "second.xyz"]) == 0
    first, second = (read_events(Path(f"{n}.events.csv"))[0].chosen for n in ("first", "second"))
    assert len(first) == len(second) == 10
    assert not set(first) & set(second)
    assert main(["label", "glass.xyz", *choose, "-o", "again.xyz"]) == 0
    assert read_events(Path("again.events.csv"))[0].chosen == first
    assert main(["label", "glass.xyz", *choose, "--ids", "101", "-o", "x.xyz"]) == 2
    assert "--atoms, --ids and --choose all choose atoms" in capsys.readouterr().err
    assert main(["label", "glass.xyz", *choose[:2], "--count", "41", "-o", "x.xyz"]) == 2
    assert "41 atoms to choose, expected 1 to 40" in capsys.readouterr().err
