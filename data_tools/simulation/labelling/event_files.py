"""The file of finished searches: a line each, appended as they finish.

The first line says what they belong to, as JSON after ``#``; the second names the columns with
their units; then comes one search a line, in the order in which they finished. So
``pandas.read_csv(file, comment="#")`` reads it. A program that is killed loses no line that was
complete; the last one may be torn, and is dropped when the file is read.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO, TypeAlias, get_type_hints

import numpy as np
from numpy.typing import NDArray

from mgsym.data_tools.formats.csv_table import header as heading
from mgsym.data_tools.formats.source import opened
from mgsym.data_tools.simulation.labelling.selection import parse_rows
from mgsym.data_tools.simulation.saddle_search.events import STATUSES, UNITS, Event
from mgsym.errors import InputError, UsageError
from mgsym.structure import Structure
from mgsym.utils.files import atomic_path, lock_output
from mgsym.utils.settings import differing
from mgsym.version import __version__

FORMAT = 1
MOST_ATOMS = 10**8  # of a structure that can be labelled
ROUNDING = 1e-4  # eV; a repeated search may give its barrier to this
MARK = "# mgsym events "
_KINDS = {int: "i8", float: "f8", str: "U16"}
EVENT_TYPE = np.dtype([(name, _KINDS[kind]) for name, kind in get_type_hints(Event).items()])
COLUMNS = ",".join(heading(name, UNITS.get(name, "")) for name in Event._fields)

# [searches] of EVENT_TYPE
Events: TypeAlias = NDArray[np.void]


@dataclass(frozen=True)
class Heading:
    """What the searches of a file belong to.

    The first four decide the result of a search: files that differ in them do not mix.

    Attributes:
        structure: hash of the atoms.
        potential: hash of its tables.
        seed: of the run.
        settings: of the search, by name.
        atoms: how many the structure has.
        rows: which of them are searched from, as `selection.parse_rows` reads it.
        searches: most attempts of an atom.
        events: successes at which an atom is done; None makes all attempts.
        shard: ``"2/8"``, or empty.
        name: the structure's name.
        potential_name: what messages call it.
        version: mgsym's, that began the file.
    """

    structure: str
    potential: str
    seed: int
    settings: Mapping[str, Any]
    atoms: int
    rows: str
    searches: int
    events: int | None = None
    shard: str = ""
    name: str = ""
    potential_name: str = ""
    version: str = field(default=__version__)

    @property
    def chosen(self) -> list[int]:
        """The atoms searched from."""
        return parse_rows(self.rows, self.atoms)

    def line(self) -> str:
        """The first line of a file."""
        return f"{MARK}{json.dumps({'format': FORMAT, **asdict(self)}, ensure_ascii=False)}\n"

    def conflicts(self, other: Heading) -> list[str]:
        """What of the things that decide a search differs: ``"seed: 1, now 2"``, ..."""
        return differing(self._deciding(), other._deciding())

    def _deciding(self) -> dict[str, Any]:
        settings = json.loads(json.dumps(dict(self.settings)))  # tuples as a file gives them
        return {
            "structure": f"{self.name} {self.structure[:12]}".strip(),
            "potential": f"{self.potential_name} {self.potential[:12]}".strip(),
            "seed": self.seed,
            **{f"artn.{name}": value for name, value in settings.items()},
        }


class EventFile:
    """A file of events to append to; made, with its heading, when the first event comes.

    Args:
        path: of the file; one that is there is replaced.
        heading: its first line.
    """

    def __init__(self, path: Path, heading: Heading) -> None:
        self.path, self.heading = path, heading
        self._file: TextIO | None = None
        self._lock = ExitStack()  # no other program appends while the block runs

    def append(self, event: Event) -> None:
        """Write one search; it is with the operating system when this returns."""
        if self._file is None:
            write_events(self.path, self.heading)
            self._open()
        assert self._file is not None
        with self._named():
            self._file.write(_row(event))

    def resume(self, lines: bytes) -> None:
        """Go on with a file whose complete lines are `lines`, under the new heading."""
        write_events(self.path, self.heading, lines)
        self._open()

    def _open(self) -> None:
        # a line at a time reaches the system whole: another program's reading sees no half
        self._file = self.path.open("a", encoding="utf-8", buffering=1, newline="\n")

    def __enter__(self) -> EventFile:
        self._lock.enter_context(lock_output(self.path))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock, self._named():
            if self._file is not None:
                self._file.close()  # writes what is left, which may fail once more

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Add the file's name to errors such as a full disk, which do not say it."""
        try:
            yield
        except OSError as error:
            error.filename = error.filename or str(self.path)
            raise


def write_events(path: Path, heading: Heading, lines: bytes = b"") -> None:
    """Write a whole file of events, whole or not at all; `lines` are those of searches."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(f"{heading.line()}{COLUMNS}\n".encode() + lines)


def read_events(path: str | Path) -> tuple[Heading, Events, bytes]:
    """Read a file of events, also a gzipped one.

    Returns:
        its heading, [searches] events in the file's order, and their lines as they stand there,
        without a torn last one.

    Raises:
        InputError: missing, of another kind or a newer format, or a line is damaged.
    """
    path = Path(path)
    with opened(path) as file:
        content = file.read()
    first, _, rest = content.partition(b"\n")
    heading = _heading(first, path)
    names, _, lines = rest.partition(b"\n")
    if names.decode("utf-8", "replace").strip() != COLUMNS:
        raise InputError(f"expected the columns {COLUMNS}", path=path, where="line 2")
    lines = lines[: lines.rfind(b"\n") + 1]
    return heading, _parse(lines, heading, path), lines


def join(parts: Sequence[Events], names: Sequence[str | Path]) -> Events:
    """Events of several files in one, sorted by atom and attempt, each search once.

    The same search made again may differ by rounding, as sums over other batches round otherwise.

    Raises:
        InputError: two files tell the same search differently; `names` are the files.
    """
    every = np.concatenate(parts)
    source = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    order = np.lexsort((every["attempt"], every["atom"]))
    every, source = every[order], source[order]
    before, after = every[:-1], every[1:]
    again = (before["atom"] == after["atom"]) & (before["attempt"] == after["attempt"])
    other = ~np.isclose(before["barrier"], after["barrier"], 0.0, ROUNDING, equal_nan=True)
    for k in np.flatnonzero(again & (other | (before["status"] != after["status"])))[:1]:
        raise InputError(
            f"attempt {after['attempt'][k]} of atom id {after['id'][k]} has another result than "
            f"in {names[source[k]]}: keep one of them",
            path=names[source[k + 1]],
        )
    return every[np.concatenate(([True], ~again))] if len(every) else every


def event_lines(events: Events) -> bytes:
    """The lines of a file."""
    return "".join(_row(Event(*event)) for event in events.tolist()).encode()


def structure_hash(structure: Structure) -> str:
    """SHA-256 of the atoms: where they are, of which element, in which cell, with which ids.

    Names and columns do not count, nor how the elements are numbered.
    """
    digest = sha256(repr((structure.symbols, structure.periodic)).encode())
    for values in (structure.positions, structure.cell, structure.ids):
        digest.update(values.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _row(event: Event) -> str:
    # ten digits: beyond what a saddle is converged to, and the same when read and written again
    cells = (f"{x:.10g}" if isinstance(x, float) else str(x) for x in event)
    return f"{','.join(cells)}\n"


def _heading(line: bytes, path: Path) -> Heading:
    text = line.decode("utf-8", "replace")
    if not text.startswith(MARK):
        raise InputError(
            "is not a file of searches: expected one that mgsym label wrote (.events.csv)",
            path=path,
        )
    try:
        content = json.loads(text[len(MARK) :])
        version = content.pop("format")
        heading = Heading(**content)
        if not (type(heading.atoms) is int and 1 <= heading.atoms <= MOST_ATOMS):
            raise ValueError(f"{str(heading.atoms)[:40]} atoms")
        _ = heading.chosen, heading.conflicts(heading)  # both fail where a value is no such thing
    except (
        *(ValueError, TypeError, AttributeError, KeyError, UsageError),
        *(OverflowError, RecursionError),
    ) as error:
        raise InputError(
            f"the heading is damaged ({str(error)[:80]}): start again with --overwrite",
            path=path,
            where="line 1",
        ) from error
    if version != FORMAT:
        raise InputError(
            f"format {str(version)[:40]}, but this mgsym {__version__} reads {FORMAT}: take the "
            f"mgsym that wrote it ({heading.version})",
            path=path,
        )
    return heading


def _parse(lines: bytes, heading: Heading, path: Path) -> Events:
    rows = lines.decode("utf-8", "replace").splitlines()
    if not rows:
        return np.empty(0, EVENT_TYPE)
    try:
        events = _table(rows)
    except (ValueError, OverflowError, Warning):
        raise _explain(rows, path) from None
    wrong = (events["atom"] < 0) | (events["atom"] >= heading.atoms) | (events["attempt"] < 0)
    wrong |= ~np.isin(events["status"], STATUSES)
    wrong |= (events["status"] == STATUSES[0]) & ~np.isfinite(events["barrier"])
    if wrong.any():
        raise _damaged(path, int(wrong.argmax()), rows)
    return events


def _table(rows: list[str]) -> Events:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # 1.5 where a whole number belongs only warns
        return np.loadtxt(rows, EVENT_TYPE, comments=None, delimiter=",", ndmin=1)


def _explain(rows: list[str], path: Path) -> InputError:
    """Which line could not be read; halving, as there may be a million."""
    low, high = 0, len(rows)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            _table(rows[low:middle])
            low = middle
        except (ValueError, OverflowError, Warning):
            high = middle
    return _damaged(path, low, rows)


def _damaged(path: Path, row: int, rows: list[str]) -> InputError:
    text = rows[row] if len(rows[row]) <= 60 else f"{rows[row][:57]}..."
    return InputError(
        f"is not a search: {text!r}; remove the line, and with --resume it is made again",
        path=path,
        where=f"line {row + 3}",
    )
