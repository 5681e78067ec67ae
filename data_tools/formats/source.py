"""What every format stands on: opening files, line numbers, tables, and the words for errors."""

from __future__ import annotations

import gzip
import io
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from mgsym.errors import InputError
from mgsym.structure import Structure

Array: TypeAlias = NDArray[Any]
# which element each of a file's type numbers is
Types: TypeAlias = Mapping[int, str]
# parses one frame when called, also after later frames were passed over
Frame: TypeAlias = Callable[[], Structure]

GZIP_MAGIC = b"\x1f\x8b"
HEAD_BYTES = 4096  # enough of a file to tell its format
REAL, WHOLE, WORD = "f8", "i8", "U16"  # what a table's column may hold


@dataclass(frozen=True)
class Source:
    """An open file to read structures from.

    Attributes:
        path: the file, for messages and names.
        file: its bytes, decompressed; can be rewound.
        types: element of each type number, where the user gave them.
    """

    path: Path
    file: BinaryIO
    types: Types | None = None


@dataclass(frozen=True)
class Format:
    """One file format.

    Attributes:
        name: what ``format=`` and messages call it.
        suffixes: file name endings, such as ``(".dump",)``; the first is preferred.
        matches: whether the first bytes of a file look like this format.
        read: yields the frames of a file in order, each parsed only when it is called.
        write: writes structures into an open file.
        many: whether one file may hold several structures.
        loses: what of a structure does not fit into a file of this format.
    """

    name: str
    suffixes: tuple[str, ...]
    matches: Callable[[bytes], bool]
    read: Callable[[Source], Iterator[Frame]] | None = None
    write: Callable[[Sequence[Structure], BinaryIO], None] | None = None
    many: bool = True
    loses: str = ""


def open_bytes(path: Path) -> BinaryIO:
    """Open a file for reading, decompressed when its first bytes say gzip.

    Raises:
        InputError: it is missing, a folder, empty or may not be read.
    """
    if path.is_dir():
        raise InputError("is a folder, expected a file: name a file in it", path=path)
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise InputError("no such file", path=path) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path) from error
    magic = file.read(2)
    file.seek(0)
    if not magic:
        file.close()
        raise InputError("the file is empty", path=path)
    if magic != GZIP_MAGIC:
        return file
    # closing the reader closes the gzip file, which closes the file it opened by name
    file.close()
    return io.BufferedReader(gzip.GzipFile(path, "rb"), 1 << 16)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, decompressed; what goes wrong inside is told with the file's name."""
    file = open_bytes(path)
    with placed(path), file:
        yield file


@contextmanager
def placed(path: Path, where: str | None = None) -> Iterator[None]:
    """Tell errors with the file, and the place in it, where they do not say it themselves."""
    try:
        yield
    except InputError as error:
        if error.path is not None:
            raise
        raise error.at(path, error.where or where) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"the compressed file is cut short or damaged ({error}): copy it again", path=path
        ) from error


class Mark(NamedTuple):
    """A place in a text file: byte offset, and how many lines come before it."""

    offset: int
    number: int


class Lines:
    """The lines of a text file, read one after another.

    Attributes:
        number: of the line read last, from 1.
        ended: whether the file ends at this line, or within it.
    """

    def __init__(self, source: Source) -> None:
        self.path, self._file, self.number = source.path, source.file, 0
        self.ended = False

    def mark(self) -> Mark:
        """This place, to come back to."""
        return Mark(self._file.tell(), self.number)

    def go(self, mark: Mark) -> None:
        """Continue from a place marked before."""
        self._file.seek(mark.offset)
        self.number = mark.number

    def read(self) -> str | None:
        """The next line without its end, or None after the last."""
        line = self._file.readline()
        self.ended = not line.endswith(b"\n")
        if not line:
            return None
        self.number += 1
        return self._text(line)

    def expect(self, what: str) -> str:
        """The next line, which holds `what`.

        Raises:
            InputError: the file ends here.
        """
        line = self.read()
        if line is None:
            raise InputError(
                f"the file ends after line {self.number}, expected {what}: it was cut short",
                path=self.path,
            )
        return line

    def skip(self, count: int) -> int:
        """Pass over up to `count` lines; how many there were."""
        passed = sum(1 for _ in islice(self._file, count))
        self.number += passed
        return passed

    def numbers(self, count: int, what: str, line: str | None = None) -> list[float]:
        """The numbers on the next line (or on `line`, just read), which are `what`.

        Raises:
            InputError: they are not `count` numbers.
        """
        text = self.expect(what) if line is None else line
        try:
            values = [float(word) for word in text.split()]
        except ValueError:
            values = []
        if len(values) != count:
            raise self.error(f"expected {count} numbers ({what}), found {shown(text)}")
        return values

    def count(self, what: str, least: int = 1) -> int:
        """The whole number on the next line, at least `least`.

        Raises:
            InputError: it is not.
        """
        return self.whole(self.expect(what), what, least)

    def whole(self, text: str, what: str, least: int = 1) -> int:
        """`text` of the line read last as a whole number of at least `least`."""
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            bound = "above 0" if least == 1 else f"of at least {least}"
            raise self.error(f"expected the {what}, a whole number {bound}, found {shown(text)}")
        return value

    def table(
        self, rows: int, fields: Sequence[tuple[str, str]], comment: bytes = b""
    ) -> list[Array]:
        """The next `rows` lines as one array per column.

        Args:
            rows: how many lines the header promised.
            fields: name and kind (REAL, WHOLE or WORD) of each column.
            comment: what begins a comment at the end of a line, if anything does.

        Raises:
            InputError: a row is missing, has too few or many values, or one is not a number.
        """
        before = self.number
        lines = list(islice(self._file, rows))
        self.number += len(lines)
        if comment:
            lines = [_without_comment(line, comment) for line in lines]
        columns = _parse_rows(lines, [kind for _, kind in fields])
        if len(lines) < rows or columns is None or len(columns[0]) < rows:
            raise self._explain(lines, rows, fields, before)
        return columns

    def _explain(
        self, lines: list[bytes], rows: int, fields: Sequence[tuple[str, str]], before: int
    ) -> InputError:
        """What is wrong with the rows of a table that could not be read."""
        row = 0
        for row, line in enumerate(lines):
            self.number = before + row + 1
            words = self._text(line).split()
            if not words or words[0] == "ITEM:":
                break
            if len(words) != len(fields):
                if row == len(lines) - 1 < rows - 1 or not line.endswith(b"\n"):
                    break  # the last line of a file cut short
                names = " ".join(name for name, _ in fields)
                return self.error(
                    f"expected {len(fields)} values ({names}), found {len(words)}: {shown(line)}"
                )
            for word, (name, kind) in zip(words, fields, strict=True):
                if not _is_kind(word, kind):
                    number = "a whole number" if kind == WHOLE else "a number"
                    return self.error(f"{name} must be {number}, found {shown(word)}")
        else:
            row = len(lines)
        self.number = before + row
        return InputError(
            f"expected {rows} atoms, found {row}: the file was cut short or its atom count "
            "is wrong, write it again",
            path=self.path,
            where=f"after line {self.number}",
        )

    def error(self, message: str) -> InputError:
        """An error at the line read last."""
        return InputError(message, path=self.path, where=f"line {self.number}")

    def _text(self, line: bytes) -> str:
        try:
            return line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise self.error("is not text (UTF-8): a binary or damaged file") from error


def _without_comment(line: bytes, comment: bytes) -> bytes:
    text, found, _ = line.partition(comment)
    return text + b"\n" if found else line


def _parse_rows(lines: list[bytes], kinds: Sequence[str]) -> list[Array] | None:
    """One array per column, or None where the rows are not all of these kinds."""
    dtype = [(str(i), kind) for i, kind in enumerate(kinds)]
    with warnings.catch_warnings():
        # 1.5 where a whole number belongs is only a warning to NumPy
        warnings.simplefilter("error")
        try:
            rows = np.loadtxt(
                cast("Any", lines), dtype=dtype, comments=None, ndmin=1, encoding="utf-8"
            )
        except (ValueError, OverflowError, Warning):
            return None
    return [np.ascontiguousarray(rows[name]) for name, _ in dtype]


def _is_kind(word: str, kind: str) -> bool:
    try:
        if kind == REAL:
            float(word)
        elif kind == WHOLE:
            int(word)
    except ValueError:
        return False
    return True


def shown(text: str | bytes) -> str:
    """Text as an error quotes it: on one line, not too long."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", errors="replace")
    text = text.strip()
    return repr(text if len(text) <= 60 else text[:57] + "...")
