"""Everything a command shows: results on stdout, the rest on stderr.

On a terminal there are colours and progress bars with the time left. In a log or a pipe there are
plain lines: no colour, no bar, a line of progress now and then.

    table, facts, emit_json, result  results, on stdout
    say, detail, wrote               notes on stderr; -q hides them, detail needs -v
    warn                             always shown, on stderr
    progress, interruptible          what long work is given: progress(done, total, **info)
                                     and should_stop()
"""

from __future__ import annotations

import json
import math
import re
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from itertools import zip_longest
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console

    from mgsym.utils.progress import Progress

Cell = str | int | float | None
MISSING = "–"
WIDTH = 90  # columns that a line of ours should fit
UNLIMITED = 10_000
LONGEST = 1600  # characters of a warning or an error
_UNSEEN = re.compile(r"[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
NUMBER = re.compile(r"[-+−]?\d[\d.,]*(e[-+]?\d+)?( ± [\d.e-]+)?( ?%)?")

_verbosity = 0  # −1 quiet, 0 normal, 1 verbose; one command line runs at a time
_muted = False  # another process speaks


def reset() -> None:
    """Start a command line: nothing quiet or verbose, and odd terminals cannot fail a print."""
    global _muted
    set_verbosity(0)
    _muted = False
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def set_verbosity(level: int) -> None:
    """Set how much is said: −1 quiet, 0 normal, 1 verbose."""
    global _verbosity
    _verbosity = level


def mute() -> None:
    """Say nothing but errors from here on, whatever options ask: another process speaks."""
    global _muted
    _muted = True


def verbose() -> bool:
    """Whether -v was given."""
    return _verbosity > 0


def quiet() -> bool:
    """Whether -q was given, or another process speaks."""
    return _verbosity < 0 or _muted


def say(message: str) -> None:
    """A note for people, on stderr."""
    if not quiet():
        click.echo(_visible(message), err=True)


def detail(message: str) -> None:
    """A note that only -v shows, on stderr."""
    if verbose() and not _muted:
        click.echo(_visible(message), err=True)


def warn(message: str) -> None:
    """A warning, in one line on stderr; -q does not hide it."""
    if not _muted:
        complaint("warning", message)


def complaint(kind: str, message: str) -> None:
    """A warning or an error, in one line on stderr that is not endless."""
    line = " ".join(message.split())
    if len(line) > LONGEST:
        line = f"{line[: LONGEST // 2]} … {line[-LONGEST // 2 :]}"
    click.echo(f"mgsym: {kind}: {_visible(line)}", err=True)


class Remarked(Protocol):
    """A result with notes (what was chosen) and warnings (why it may not be trusted)."""

    @property
    def notes(self) -> Sequence[str]: ...

    @property
    def warnings(self) -> Sequence[str]: ...


def remarks(remarked: Remarked) -> None:
    """Show what a result remarks on itself, on stderr."""
    for note in remarked.notes:
        say(note)
    for warning in remarked.warnings:
        warn(warning)


def wrote(paths: str | Path | Iterable[str | Path]) -> None:
    """Say what was written: each path, or how many files of a folder where a line is too short."""
    several = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(p) for p in paths]
    names = ", ".join(map(str, several))
    folders = {path.parent for path in several}
    if len(names) > WIDTH and len(several) > 1 and len(folders) == 1:
        names = f"{len(several)} files to {folders.pop()}"
    if several:
        say(f"Wrote {names}")


def result(text: str) -> None:
    """A line of results, on stdout."""
    click.echo(_visible(text))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Print a table on stdout.

    Columns of numbers are aligned to the right; floats have four significant digits (give a
    string for another format); None and NaN are shown as a dash.
    """
    from rich.table import Table
    from rich.text import Text

    # a line that is too long for a terminal continues on the next: better than "barrier…"
    console = _console(sys.stdout, UNLIMITED)
    cells = [[_text(cell) for cell in row] for row in rows]
    view = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(columns):
        numeric = all(row[index] == MISSING or NUMBER.fullmatch(row[index]) for row in cells)
        view.add_column(Text(name), justify="right" if numeric and cells else "left")
    for row in cells:
        view.add_row(*(Text(cell) for cell in row))
    with console.capture() as shown:
        if title:
            console.print(Text(_visible(title), style="bold"))
        console.print(view)
    for line in shown.get().split("\n")[:-1]:
        click.echo(line.rstrip())


def facts(title: str, items: Mapping[str, Cell]) -> None:
    """Print names and values on stdout, one a line; those without a value are left out."""
    click.echo(_visible(title))
    shown = {name: _text(cell) for name, cell in items.items() if cell not in (None, "")}
    width = max(map(len, shown), default=0)
    for name, text in shown.items():
        lines = textwrap.wrap(text, WIDTH - width, break_long_words=False, break_on_hyphens=False)
        for heading, line in zip_longest([name], lines, fillvalue=""):
            click.echo(f"  {_visible(heading):<{width}}  {line}")


def emit_json(value: object) -> None:
    """Print JSON on stdout: tensors and arrays as lists, paths as text, NaN and inf as null."""
    text = json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    # JSON leaves the second set of control characters and halves of characters as they are
    click.echo(_UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


@contextmanager
def progress(description: str) -> Iterator[Progress]:
    """Show how far long work is: ``with progress("Training") as step: train(..., progress=step)``.

    Keywords given to the callable (``loss=0.31``) are shown beside it.
    """
    from mgsym.utils.progress import silent

    console = _console(sys.stderr)
    if quiet():
        yield silent
    elif console.is_terminal:
        with _bar(console, description) as step:
            yield step
    else:
        yield PlainProgress(description)


class PlainProgress:
    """Progress as lines of a log: one for every tenth of the work, and now and then between.

    Args:
        description: what is being done.
        clock: seconds, for tests.
    """

    def __init__(self, description: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.description, self.clock = description, clock
        self.start = self.last = clock()
        self.tenth = 0

    def __call__(self, done: float, total: float | None = None, **info: object) -> None:
        now = self.clock()
        tenth = int(10 * done / total) if total else 0
        # the longer it runs, the rarer the lines: a night's training must not fill its log
        waited = now - self.last >= max(10.0, 0.05 * (now - self.start))
        if tenth <= self.tenth and not waited:
            return
        self.tenth, self.last = max(tenth, self.tenth), now
        parts = [f"{self.description}: {done:g}"]
        if total:
            parts[0] += f"/{total:g} ({100 * done / total:.0f} %)"
        parts += [f"{name} {_text(_cell(value))}" for name, value in info.items()]
        if total and 0 < done < total and now - self.start > 1:
            parts.append(f"{duration((now - self.start) * (total - done) / done)} left")
        click.echo(_visible(", ".join(parts)), err=True)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Yield ``should_stop()``: the first Ctrl-C or SIGTERM makes it true, the second raises.

    Work that can be resumed asks it after each step, saves, and raises
    `mgsym.errors.Interrupted` with a word on how to go on. Of several processes, all stop when one
    has failed.
    """
    from mgsym.utils import processes

    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            raise KeyboardInterrupt
        stopping = True
        say("Stopping after this step; once more stops at once, without saving")

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield lambda: stopping or processes.one_failed()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _bar(console: Console, description: str) -> Iterator[Progress]:
    from rich import progress as rich_progress

    columns = (
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(bar_width=24),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeRemainingColumn(),
        rich_progress.TextColumn("{task.fields[info]}", markup=False),
    )
    with rich_progress.Progress(*columns, console=console) as bar:
        task = bar.add_task(description, total=None, info="")

        def step(done: float, total: float | None = None, **info: object) -> None:
            text = "  ".join(f"{name} {_text(_cell(value))}" for name, value in info.items())
            bar.update(task, completed=done, total=total, info=text)

        yield step


def _console(stream: TextIO, width: int | None = None) -> Console:
    from rich.console import Console

    return Console(file=stream, width=width, highlight=False)


def _cell(value: object) -> Cell:
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def _text(cell: Cell) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return MISSING
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return f"{cell:.4g}" if isinstance(cell, float) else _visible(str(cell))


def _visible(text: str) -> str:
    """Text without control characters that a file put into it; its own line ends stay."""
    from mgsym.utils.names import visible

    return visible(text)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _plain(value: Any) -> Any:
    """`value` in what JSON knows."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # tensors, arrays and their scalars
        return _plain(value.tolist())
    if isinstance(value, (Sequence, set, frozenset)):
        return [_plain(item) for item in value]
    return str(value)
