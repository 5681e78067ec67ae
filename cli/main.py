"""The command `mgsym`: finds the subcommand asked for, and turns every failure into one line.

A subcommand is one file in this folder and one line in COMMANDS. Its module is imported when it
runs, not before, so that `mgsym --help` loads no torch.
"""

from __future__ import annotations

import difflib
import errno
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import FrameType
from typing import Any, TextIO

import click

from mgsym.cli import console
from mgsym.cli.options import verbosity_options
from mgsym.errors import MgsymError, UsageError
from mgsym.version import __version__

# name: (module, what it does); the module holds a click command under the same name with _ for -
COMMANDS: dict[str, tuple[str, str]] = {
    "build-graph": ("mgsym.cli.build_graph", "Turn structures into graphs (default: the sample)."),
    "train": ("mgsym.cli.train", "Train a model on graphs."),
    "models": ("mgsym.cli.models", "List the models that can be trained."),
    "explain": ("mgsym.cli.explain", "Find the edges that a prediction rests on."),
    "explain-stats": ("mgsym.cli.explain_stats", "Compare the edges behind many predictions."),
    "explain-physics": (
        "mgsym.cli.explain_physics",
        "Put explanations to the proof by real barriers.",
    ),
    "explain-benchmark": (
        "mgsym.cli.explain_benchmark",
        "Test explainers on reasons that are known.",
    ),
    "predict": ("mgsym.cli.predict", "Predict the barrier of every atom."),
    "evaluate": ("mgsym.cli.evaluate", "Score a model, or a table of predictions."),
    "report": ("mgsym.cli.report", "Write one HTML page about a run."),
    "ensemble": ("mgsym.cli.ensemble", "Merge models into one predictor with an error bar."),
    "benchmark": ("mgsym.cli.benchmark", "Compare models over seeds and glasses, in one table."),
    "check": ("mgsym.cli.check", "Check a model's invariance and other properties."),
    "info": ("mgsym.cli.info", "Say what a structure, graph, run or checkpoint holds."),
    "quench": ("mgsym.cli.quench", "Make glasses by melting and cooling."),
    "relax": ("mgsym.cli.relax", "Bring structures to a minimum of their energy."),
    "deform": ("mgsym.cli.deform", "Strain glasses and see where they yield."),
    "label": ("mgsym.cli.label", "Compute barriers by searching for saddle points."),
    "merge": ("mgsym.cli.merge", "Join the searches of several runs into labels."),
    "potential": ("mgsym.cli.potential", "Show the elements and crystals of a potential."),
    "study": ("mgsym.cli.study", "Write a workflow for a study of many glasses."),
    "convert": ("mgsym.cli.convert", "Convert structures between file formats."),
    "fetch": ("mgsym.cli.fetch", "Download the public dataset and check it."),
}

SHARED = ("train", "predict", "label", "benchmark")  # under torchrun
INTERRUPTED = 130


class LazyGroup(click.Group):
    """A group that imports a command when it is used, and knows its one-line help before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(COMMANDS[cmd_name][0])
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            raise click.UsageError(f"no command is called {name!r}{_did_you_mean(name)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:  # click would print an empty line for it
            raise _Stopped from error
        except BrokenPipeError as error:  # click would leave the interpreter for it
            raise _PipeClosed from error


class _Stopped(Exception):
    """Ctrl-C or SIGTERM, where nothing had to be saved."""


class _PipeClosed(Exception):
    """Whoever read our output stopped reading, as `head` does."""


@click.group(
    cls=LazyGroup,
    name="mgsym",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="'mgsym COMMAND --help' tells the options of a command.",
)
@click.version_option(__version__, prog_name="mgsym", message="%(prog)s %(version)s")
@verbosity_options
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Predict, explain and compute the energy barriers around the atoms of metallic glasses.

    In short: mgsym build-graph, mgsym train, mgsym explain --node 42 --topk 50.
    """
    _take_part(ctx.invoked_subcommand or "")
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _take_part(command: str) -> None:
    """Of several processes that torchrun started, the first speaks for all."""
    if not _one_of_several():
        return
    if command not in SHARED:
        raise UsageError(
            f"mgsym {command} does not share its work with other processes, only mgsym "
            f"{', '.join(SHARED)} do: start it without torchrun"
        )
    if os.environ.get("RANK", "0") != "0":
        console.mute()
        _silence_stdout()
    from mgsym.utils import processes

    processes.meet()


def _one_of_several() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _told_by_another() -> bool:
    """Whether another of several processes failed before this one, and says why."""
    if not _one_of_several():
        return False
    from mgsym.utils import processes

    return not processes.first_to_fail()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run mgsym and return its exit code.

    0 done, 1 failed, 2 wrong usage, 3 bad input data, 130 interrupted. A failure is one line on
    stderr; its traceback is shown with -v.

    Args:
        arguments: the command line without the program's name; default: ``sys.argv[1:]``.
    """
    console.reset()
    argv = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with _sigterm_as_interrupt(), warnings.catch_warnings():
            warnings.showwarning = _show_warning
            result = cli.main(argv, prog_name="mgsym", standalone_mode=False)
            sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except (_PipeClosed, BrokenPipeError):
        _silence_stdout()
        return 1
    except (_Stopped, click.Abort):
        if console.verbose():
            traceback.print_exc()
        return _interrupted()
    except Exception as error:
        line, code = _line_for(error)
        if not _told_by_another():
            if console.verbose():
                traceback.print_exc()
            console.complaint("error", line)
        return code
    except KeyboardInterrupt:
        return _interrupted()


def _interrupted() -> int:
    if not _told_by_another():
        click.echo("mgsym: interrupted", err=True)
    return INTERRUPTED


def _line_for(error: Exception) -> tuple[str, int]:
    """What to tell of a failure, and its exit code."""
    if isinstance(error, MgsymError):
        return str(error), error.exit_code
    if isinstance(error, click.ClickException):
        return _usage_line(error), error.exit_code
    if _out_of_memory(error):
        return (
            "out of memory: take --set training.batch_size=1, or --device cpu for more room",
            1,
        )
    if isinstance(error, OSError):
        return _os_line(error), 1
    if "PytorchStreamWriter" in str(error) or "inline_container" in str(error):
        return "a checkpoint could not be written: look whether the disk is full", 1
    message = f"{type(error).__name__}: {error}"
    return f"unexpected {message} (a bug; -v after the command shows the traceback)", 1


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A library's warning as one line, without the line of source that Python adds."""
    console.warn(str(message))


def _usage_line(error: click.ClickException) -> str:
    message = error.format_message().rstrip(".")
    message = message[:1].lower() + message[1:]
    ctx = getattr(error, "ctx", None)
    return f"{message}; see {ctx.command_path} --help" if ctx is not None else message


def _os_line(error: OSError) -> str:
    name = error.filename2 or error.filename
    where = f"{os.fsdecode(name)}: " if isinstance(name, (str, bytes, os.PathLike)) else ""
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason += ": make room, or write elsewhere with -o"
    return where + reason


def _out_of_memory(error: Exception) -> bool:
    """Whether Python, a GPU or torch's CPU allocator ran out; torch is not imported to ask."""
    torch = sys.modules.get("torch")
    return (
        isinstance(error, MemoryError)
        or (torch is not None and isinstance(error, torch.OutOfMemoryError))
        or "can't allocate memory" in str(error)
    )


def _did_you_mean(name: str) -> str:
    close = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
    return f": did you mean {close[0]}?" if close else f": there are {', '.join(COMMANDS)}"


def _silence_stdout() -> None:
    """Let nothing more go to a pipe nobody reads, not even the flush at exit."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # stdout is no file, as in tests
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # open until the program ends


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the program as Ctrl-C does: with its temporary files removed."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread: signals are somebody else's
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
