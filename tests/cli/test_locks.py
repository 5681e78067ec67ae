"""Each output belongs to one program at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import finished

from mgsym.cli.main import main
from mgsym.data_tools.sample import sample_files
from mgsym.data_tools.shipped_model import shipped_model
from mgsym.utils.files import lock_output

Captured = pytest.CaptureFixture[str]
SAMPLE = str(sample_files()[0])

# the output, whether its lock lies in it, and the command that writes it
COMMANDS = [
    ("graphs", False, ["build-graph", "-o", "graphs"]),
    ("run", True, ["train", "graphs", "-o", "run"]),
    ("glass.xyz", False, ["quench", "--atoms", "50", "-o", "glass.xyz"]),
    ("relaxed.xyz", False, ["relax", SAMPLE, "-o", "relaxed.xyz"]),
    ("out.events.csv", False, ["label", SAMPLE, "--atoms", "0:1", "--resume", "-o", "out.xyz"]),
    ("strained", False, ["deform", SAMPLE, "-o", "strained"]),
    ("predicted.xyz", False, ["predict", SAMPLE, "-o", "predicted.xyz"]),
    ("refined.xyz", False, ["predict", SAMPLE, "--refine", "1", "-o", "refined.xyz"]),
    ("all.pt", False, ["ensemble", str(shipped_model()), "-o", "all.pt"]),
    ("models", False, ["benchmark", "graphs", "--models", "ridge", "-o", "models"]),
]


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MGSYM_POTENTIAL", raising=False)


@pytest.mark.parametrize(("output", "inside", "command"), COMMANDS, ids=lambda value: str(value))
def test_a_second_program_is_told_at_once(
    output: str, inside: bool, command: list[str], capsys: Captured
) -> None:
    if "graphs" in command[1:2]:
        assert main(["build-graph", "-q"]) == 0
    with lock_output(output, inside):
        assert main([*command, "-q"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{output} is being written by another mgsym (process " in line
    assert not [path for path in Path().iterdir() if path.name.startswith(".lock")]


def test_a_program_that_was_killed_holds_nobody_up() -> None:
    program = Path("program.py")
    program.write_text(
        "import os, signal\n"
        "from mgsym.utils.files import lock_output\n"
        "with lock_output('graphs'):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert finished(program)[0] == -9
    assert Path(".lock-graphs").exists()
    assert main(["build-graph", "-q"]) == 0
    assert not Path(".lock-graphs").exists()
