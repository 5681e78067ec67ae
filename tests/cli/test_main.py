"""How the command line starts, and how every failure becomes one line and an exit code."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import types
import warnings
from collections.abc import Callable
from importlib import import_module

import click
import pytest
import torch

import mgsym
from mgsym.cli import main as module
from mgsym.cli.main import COMMANDS, main
from mgsym.cli.options import device_option, options_given, seed_option, verbosity_options
from mgsym.errors import InputError, Interrupted, UsageError

Captured = pytest.CaptureFixture[str]
Install = Callable[[Callable[[], object]], None]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Make `mgsym try` a command that does what it is given."""

    def install(body: Callable[[], object]) -> None:
        holder = types.ModuleType("trial")
        holder.__dict__["try"] = click.command(verbosity_options(lambda: body()))
        monkeypatch.setitem(sys.modules, "trial", holder)
        monkeypatch.setitem(COMMANDS, "try", ("trial", "A trial."))

    return install


def _fail(error: BaseException) -> Callable[[], object]:
    def body() -> object:
        raise error

    return body


def test_help_lists_every_command(capsys: Captured) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for name, (_, text) in COMMANDS.items():
        assert name in out
        assert text in out


def test_no_arguments_shows_the_help(capsys: Captured) -> None:
    assert main([]) == 0
    assert "Commands:" in capsys.readouterr().out


def test_version(capsys: Captured) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mgsym {mgsym.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_has_help(name: str, capsys: Captured) -> None:
    assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"Usage: mgsym {name}" in out
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_knows_its_verbosity(name: str) -> None:
    command = getattr(import_module(COMMANDS[name][0]), name.replace("-", "_"))
    flags = {flag for param in command.params for flag in param.opts}
    assert {"-q", "-v"} <= flags


def test_help_and_version_import_no_torch() -> None:
    program = (
        "import sys; from mgsym.cli.main import main; main(['--help']); main(['--version']);"
        "sys.exit(bool({'torch', 'numpy', 'rich'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("no atoms", path="a.xyz"), 3, "error: a.xyz: no atoms"),
        (UsageError("two\nlines"), 2, "error: two lines"),
        (Interrupted("saved; go on with --resume"), 130, "error: saved; go on with --resume"),
        (click.BadParameter("not so"), 2, "error: invalid value: not so; see mgsym try --help"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/best.pt"),
            1,
            "error: runs/best.pt: no space left on device: make room, or write elsewhere with -o",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/x"),
            1,
            "error: /x: permission denied",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            1,
            "error: out of memory: take --set training.batch_size=1, or --device cpu for more room",
        ),
        (
            KeyError("x"),
            1,
            "error: unexpected KeyError: 'x' (a bug; -v after the command shows the traceback)",
        ),
    ],
)
def test_a_failure_is_one_line(
    error: BaseException, code: int, line: str, command: Install, capsys: Captured
) -> None:
    command(_fail(error))
    assert main(["try"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.rstrip() == f"mgsym: {line}"


def test_verbose_shows_the_traceback(command: Install, capsys: Captured) -> None:
    command(_fail(KeyError("x")))
    assert main(["try", "-v"]) == 1
    assert "Traceback" in capsys.readouterr().err
    assert main(["try"]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_a_closed_pipe_is_quiet(command: Install, capsys: Captured) -> None:
    command(_fail(BrokenPipeError(errno.EPIPE, "Broken pipe")))
    stdout = sys.stdout
    try:
        assert main(["try"]) == 1
    finally:
        sys.stdout = stdout
    assert capsys.readouterr().err == ""


def test_head_is_not_answered_with_a_traceback() -> None:
    run = f"{sys.executable} -m mgsym.cli.main --help | head -c 1"
    done = subprocess.run(["bash", "-c", run], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("U", "")


def test_the_cpu_running_out_of_memory(command: Install, capsys: Captured) -> None:
    command(lambda: torch.empty(2**55))
    assert main(["try"]) == 1
    assert capsys.readouterr().err.startswith("mgsym: error: out of memory: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "no command is called 'trian': did you mean train?"),
        (["biuld-graph"], "did you mean build-graph?"),
        (["xyzzy"], "there are build-graph, train"),
        (["build-graph", "--cutof", "5"], "--cutoff"),
        (["build-graph", "--cutoff", "five"], "'five' is not a valid float"),
    ],
)
def test_a_misspelling_is_told_in_one_line(
    arguments: list[str], words: str, capsys: Captured
) -> None:
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_sigterm_ends_a_command_as_interrupted(command: Install, capsys: Captured) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    command(lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["try"]) == 130
    assert capsys.readouterr().err == "mgsym: interrupted\n"
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_warning_is_one_line(command: Install, capsys: Captured) -> None:
    command(lambda: warnings.warn("far from\n what it learned", stacklevel=1))
    shown = warnings.showwarning
    assert main(["try"]) == 0
    assert capsys.readouterr().err == "mgsym: warning: far from what it learned\n"
    assert warnings.showwarning is shown


def test_options_given_are_those_the_user_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    @click.command("try")
    @device_option
    @seed_option
    def trial(device: str, seed: int | None) -> None:
        seen.update(options_given())

    holder = types.ModuleType("trial")
    holder.__dict__["try"] = trial
    monkeypatch.setitem(sys.modules, "trial", holder)
    monkeypatch.setitem(module.COMMANDS, "try", ("trial", "A trial."))
    assert main(["try", "--seed", "3"]) == 0
    assert seen == {"seed": 3}


def test_what_does_not_share_its_work_refuses_torchrun(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["models"]) == 2
    assert "mgsym models does not share its work" in capsys.readouterr().err
