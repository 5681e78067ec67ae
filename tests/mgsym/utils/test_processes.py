"""Several processes under one launcher: the run of one, to rounding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from programs import Program, started_together

from mgsym.errors import UsageError
from mgsym.prediction.seeds import train_seeds
from mgsym.training.config import preset
from mgsym.training.train import _check_processes
from mgsym.utils import processes

PROGRAM = """
import sys
from pathlib import Path
import torch

from mgsym.graph import build_graph
from mgsym.structure import Column, Structure
from mgsym.evaluation.splits import Split
from mgsym.training.config import load_config
from mgsym.training.train import train

torch.set_num_threads(1)
folder, double, batch, resume = sys.argv[1], sys.argv[2] == "double", sys.argv[3], sys.argv[4:]
if double:
    torch.set_default_dtype(torch.float64)
    import mgsym.training.trainer as trainer
    make = trainer.Trainer._make_model
    trainer.Trainer._make_model = lambda self, start: make(self, start).double()
    ready = trainer.Trainer._ready
    def doubled(self, graph):
        return ready(self, graph.replace(
            edge_vector=graph.edge_vector.double(), target=graph.target.double()))
    trainer.Trainer._ready = doubled
    torch.Tensor.float = lambda self: self
config = load_config(None, {
    "training.epochs": 4000 if "endless" in resume else 2,
    "training.batch_size": int(batch), "model.heads": (2, 1),
    "model.width": 8, "training.evaluate_every": 2, "model.radial": 4,
    "model.l_max": 2, "model.ridge_share": 0.0,
    "training.teacher": "ridge" if "taught" in resume else "",
})
def glass(seed):
    generator = torch.Generator().manual_seed(seed)
    sites = 2.5 * torch.cartesian_prod(*[torch.arange(4.0)] * 3)
    barrier = torch.rand(64, generator=generator)
    barrier[:5 * seed] = float("nan")  # structures count as their labels do
    return Structure(
        positions=sites + torch.rand(64, 3, generator=generator), cell=10 * torch.eye(3),
        types=torch.arange(64) % 2, species=("Cu", "Zr"), name=str(seed),
        columns={"barrier": Column(barrier, "eV")})
graphs = [build_graph(glass(seed), 4.0) for seed in range(4)]
split = Split(train=graphs[:3], validation=graphs[3:], test=[])
stop = iter([False] * 2 + [True] * 9) if "stop" in resume else iter([False] * 999)
run = train(graphs, config, run=folder, split=split, device="cpu", should_stop=lambda: next(stop),
            resume="resume" in resume)
"""


def ended(running: list[Program]) -> list[tuple[int | None, str]]:
    """How each ended, and what it said."""
    found = [process.communicate(timeout=300)[1] for process in running]
    return [(process.returncode, text) for process, text in zip(running, found, strict=True)]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    file = tmp_path / "program.py"
    file.write_text(PROGRAM, encoding="utf-8")
    return file


def state(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(folder / "last.pt", weights_only=True)["model"]
    return found


def losses(folder: Path) -> list[float]:
    lines = (folder / "metrics.csv").read_text(encoding="utf-8").splitlines()
    place = lines[0].split(",").index("train_loss")
    return [float(line.split(",")[place]) for line in lines[1:]]


@pytest.mark.parametrize(
    ("kind", "batch", "bound", "words"),
    [
        ("double", "2", 1e-10, []),
        pytest.param("single", "0", 1e-5, [], marks=pytest.mark.slow),
        pytest.param("double", "3", 1e-10, [], marks=pytest.mark.slow),
        pytest.param("single", "2", 1e-5, ["taught"], marks=pytest.mark.slow),
    ],
)
def test_two_processes_train_as_one(
    program: Path, tmp_path: Path, kind: str, batch: str, bound: float, words: list[str]
) -> None:
    """Dropout, batch statistics and running means are those of one; the last batch leaves one
    process without atoms where structures are three and a batch has two."""
    runs = [
        started_together(program, n, str(tmp_path / str(n)), kind, batch, *words) for n in (1, 2)
    ]
    for running in runs:
        assert [code for code, _ in ended(running)] == [0] * len(running)
    one, two = losses(tmp_path / "1"), losses(tmp_path / "2")
    assert two == pytest.approx(one, abs=bound)
    for (name, ours), theirs in zip(
        state(tmp_path / "1").items(), state(tmp_path / "2").values(), strict=True
    ):
        if "running" in name:
            torch.testing.assert_close(theirs, ours, atol=1e3 * bound, rtol=1e3 * bound)


@pytest.mark.slow
def test_goes_on_with_another_number_of_processes(program: Path, tmp_path: Path) -> None:
    whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    for count, words in ((1, [whole]), (2, [parts]), (1, [parts])):
        how = ["stop"] if (count, words) == (2, [parts]) else []
        how = ["resume"] if (count, words) == (1, [parts]) else how
        ends = ended(started_together(program, count, *words, "double", "2", *how))
        if how == ["stop"]:
            assert all(code == 1 and "Interrupted" in text for code, text in ends)
            assert sum("go on with: mgsym train --resume" in text for _, text in ends) == 1
        else:
            assert [code for code, _ in ends] == [0]
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), abs=1e-10)


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others_with_one_line(program: Path, tmp_path: Path) -> None:
    first, second = started_together(program, 2, str(tmp_path / "run"), "double", "2", "endless")
    while not (tmp_path / "run" / "run.json").exists():
        assert first.poll() is None
    second.kill()
    (code, text), _ = ended([first, second])
    assert code == 1
    assert "another process of this run has ended" in text.splitlines()[-1]


def test_too_many_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = preset("fast")
    monkeypatch.setenv("WORLD_SIZE", "8")
    with pytest.raises(UsageError, match="8 processes, but a step has 1 structures"):
        _check_processes(config, 12)
    with pytest.raises(UsageError, match="one seed at a time"):
        train_seeds([], config, [0, 1], "nowhere")


def test_each_process_has_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    found: list[int] = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        found += range(8)[processes.own_share(8)]
    assert found == list(range(8))


@pytest.mark.parametrize(("agent", "looks"), [("False", 3), ("True", 0)])
def test_notes_are_kept_until_the_others_have_failed(
    monkeypatch: pytest.MonkeyPatch, agent: str, looks: int
) -> None:
    """By the first process, with which they would go; torchrun's agent keeps them by itself."""

    class Notes:
        failed, looks = 0, 0

        def add(self, key: str, number: int) -> int:
            self.failed += number
            if number == 0:
                self.looks += 1
                self.failed += self.looks == 3  # now the other one fails
            return self.failed

    notes = Notes()
    monkeypatch.setattr(processes, "_NOTES", notes)
    monkeypatch.setattr(processes, "_FIRST", None)
    monkeypatch.setattr(processes, "_STAY", 60.0)
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", agent)
    assert processes.first_to_fail()
    assert notes.looks == looks
