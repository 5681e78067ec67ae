"""What every format stands on: opening files, line numbers, tables, and the words for errors."""

from __future__ import annotations

import gzip
import io
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
# what files of atoms never have, but small files that are to fill the memory do
LONGEST_LINE = 4 << 20  # bytes
MOST_COLUMNS = 10_000
MOST_EXPANSION = 200  # times the size of a compressed file; columns of numbers reach some 20,
UNPACKED = 16 << 20  # … and bytes that every compressed file may become
ROWS_AT_ONCE = 1 << 16  # of a table
NO_MEMORY = "there is not enough memory for what the file holds, or says it holds"


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
    if path.exists() and not path.is_file():
        raise InputError("is no regular file: write what it gives to a file first", path=path)
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
    return io.BufferedReader(_Unpacked(path), 1 << 16)


class _Unpacked(gzip.GzipFile):
    """A compressed file's content; one that grows as no file of atoms does is refused."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self._path = path
        self._most = max(UNPACKED, MOST_EXPANSION * path.stat().st_size)

    def read(self, size: int | None = -1) -> bytes:
        """Up to `size` bytes, in pieces where all are wanted."""
        content = super().read(1 << 20 if size is None or size < 0 else size)
        if self.tell() > self._most:
            raise InputError(
                f"becomes more than {MOST_EXPANSION} times as large when it is decompressed, which "
                "no file of atoms does: decompress it first if it is to be trusted",
                path=self._path,
            )
        return content


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
    except MemoryError as error:
        raise InputError(NO_MEMORY, path=path, where=where) from error


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
        self.path, self.number = source.path, 0
        self._file = cast("io.BufferedReader", source.file)
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
        line = next(self._next(1), None)
        return None if line is None else self._text(line)

    def expect(self, expected: str) -> str:
        """The next line, which holds `expected`.

        Raises:
            InputError: the file ends here.
        """
        line = self.read()
        if line is None:
            raise InputError(
                f"the file ends after line {self.number}, expected {expected}: it was cut short",
                path=self.path,
            )
        return line

    def skip(self, count: int) -> int:
        """Pass over up to `count` lines; how many there were."""
        before, whole = self.number, True
        # whole blocks first, in which counting is faster
        while block := self._file.peek(1):
            ends = block.count(b"\n")
            if self.number - before + ends >= count:
                break
            whole = block.endswith(b"\n")
            self.number += ends
            self._file.read(len(block))
        if not block and not whole and self.number - before < count:
            self.number += 1  # the last line, which has no end
        for _ in self._next(count - (self.number - before)):
            pass
        return self.number - before

    def _next(self, count: int) -> Iterator[bytes]:
        """Up to `count` lines with their ends."""
        for _ in range(count):
            line = self._file.readline(LONGEST_LINE + 1)
            self.ended = not line.endswith(b"\n")
            if not line:
                return
            self.number += 1
            if len(line) > LONGEST_LINE:
                raise self.error(
                    f"is longer than {LONGEST_LINE} bytes: a binary or damaged file, write it again"
                )
            yield line

    def numbers(self, count: int, expected: str, line: str | None = None) -> list[float]:
        """The numbers on the next line (or on `line`, just read), which are `expected`.

        Raises:
            InputError: they are not `count` numbers.
        """
        text = self.expect(expected) if line is None else line
        try:
            values = [float(word) for word in text.split()]
        except ValueError:
            values = []
        if len(values) != count:
            raise self.error(f"expected {count} numbers ({expected}), found {shown(text)}")
        return values

    def count(self, expected: str, least: int = 1) -> int:
        """The whole number on the next line, at least `least`.

        Raises:
            InputError: it is not.
        """
        return self.whole(self.expect(expected), expected, least)

    def whole(self, text: str, expected: str, least: int = 1) -> int:
        """`text` of the line read last as a whole number from `least` that a computer counts."""
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value < 2**63:
            bound = "above 0" if least == 1 else f"of at least {least}"
            raise self.error(
                f"expected the {expected}, a whole number {bound}, found {shown(text)}"
            )
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
        if len(fields) > MOST_COLUMNS:
            raise self.error(f"there are {len(fields)} columns, expected at most {MOST_COLUMNS}")
        parts = []
        for start in range(0, rows, ROWS_AT_ONCE):
            before, wanted = self.number, min(ROWS_AT_ONCE, rows - start)
            lines = list(self._next(wanted))
            if comment:
                lines = [_without_comment(line, comment) for line in lines]
            columns = _parse_rows(lines, [kind for _, kind in fields])
            if len(lines) < wanted or columns is None or len(columns[0]) < wanted:
                raise self._explain(lines, start, rows, fields, before)
            parts.append(columns)
        if len(parts) == 1:
            return parts[0]
        return [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]

    def _explain(
        self,
        lines: list[bytes],
        start: int,
        rows: int,
        fields: Sequence[tuple[str, str]],
        before: int,
    ) -> InputError:
        """What is wrong with the rows of a table, of which those before `start` were read."""
        ended = len(lines) < min(ROWS_AT_ONCE, rows - start)
        row = 0
        for row, line in enumerate(lines):
            self.number = before + row + 1
            words = self._text(line).split()
            if not words or words[0] == "ITEM:":
                break
            if len(words) != len(fields):
                if (ended and row == len(lines) - 1) or not line.endswith(b"\n"):
                    break  # the last line of a file cut short
                names = " ".join(name for name, _ in fields)[:200]
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
            f"expected {rows} atoms, found {start + row}: the file was cut short or its atom count "
            "is wrong, write it again",
            path=self.path,
            where=f"after line {self.number}",
        )

    def error(self, message: str) -> InputError:
        """An error at the line read last; what it quotes may be long."""
        message = message if len(message) <= 500 else f"{message[:497]}..."
        return InputError(message, path=self.path, where=f"line {self.number}")

    def _text(self, line: bytes) -> str:
        try:
            return line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise self.error("is not text (UTF-8): a binary or damaged file") from error


def _without_comment(line: bytes, comment: bytes) -> bytes:
    text, mark, _ = line.partition(comment)
    return text + b"\n" if mark else line


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
        text = text[:1000].decode("utf-8", errors="replace")
    text = text.strip()
    return repr(text if len(text) <= 60 else text[:57] + "...")
