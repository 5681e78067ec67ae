"""Which frames of a file are meant: "0", "-1", "2:10:2" or ":"."""

from __future__ import annotations

import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Protocol, TypeVar

from mgsym.data_tools.formats.source import Lines, Mark
from mgsym.errors import InputError, InputWarning, UsageError

T = TypeVar("T")


class Header(Protocol):
    """What stands before the atoms of a frame: how many they are, and where they begin."""

    @property
    def atoms(self) -> int: ...

    @property
    def start(self) -> Mark: ...


H = TypeVar("H", bound=Header)


class NoAtoms(InputError):
    """A frame without atoms, which counts as a frame but is no structure."""


def headers(lines: Lines, read: Callable[[Lines], H | None]) -> Iterator[H]:
    """The header of each frame of a text file; atoms are passed over, not parsed.

    A file that is still being written may end within a header: that one is left out and said, if
    a whole frame stands before it.

    Args:
        lines: the file.
        read: reads the next header, None after the last.

    Raises:
        InputError: a header is wrong, or the first is cut.
    """
    count = 0
    while True:
        before = lines.number
        try:
            header = read(lines)
        except InputError:
            if not count or not lines.ended:
                raise
            _say_cut(lines, before, count)
            return
        if header is None:
            return
        # a line of column names may be cut in itself, which shows only in what does not follow
        if count and lines.ended and header.atoms:
            _say_cut(lines, before, count)
            return
        count += 1
        yield header
        lines.go(header.start)
        lines.skip(header.atoms)


def _say_cut(lines: Lines, before: int, count: int) -> None:
    warnings.warn(
        f"{lines.path}: the file ends within the header after line {before}, which is left out; "
        f"whole frames before it: {count}",
        InputWarning,
        stacklevel=3,
    )


def parse_frames(text: str) -> slice:
    """Frames counted from 0 as Python counts: a number (−1 is the last) or start:stop:step.

    Raises:
        UsageError: `text` is neither.
    """
    parts = text.strip().split(":")
    try:
        numbers = [_bounded(int(part)) if part.strip() else None for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) == 1 and numbers[0] is not None:
        # −1 has no frame after it to stop at
        return slice(numbers[0], numbers[0] + 1 or None)
    if len(numbers) in (2, 3) and numbers[2:] != [0]:
        return slice(*numbers)
    raise UsageError(
        f"frames {text!r}: expected a number such as 0 or -1, or start:stop:step such as 0:10:2"
    )


def choose(frames: Iterator[T], text: str) -> tuple[list[tuple[int, T]], bool]:
    """The frames that `text` asks for with their numbers, and whether the file holds several.

    Frames counted from the start are found without looking at those after them.

    Raises:
        InputError: there is none of these frames.
        UsageError: `text` names no frames.
    """
    wanted = parse_frames(text)
    numbered = enumerate(frames)
    if wanted == slice(-1, None):
        # by far the most frequent, and of a million frames only one is kept
        last = deque(numbered, maxlen=1)
        chosen, several, count = list(last), any(number for number, _ in last), "it has none"
    elif any(part is not None and part < 0 for part in (wanted.start, wanted.stop, wanted.step)):
        every = list(numbered)
        chosen, several, count = every[wanted], len(every) > 1, f"it has {len(every)}"
    else:
        chosen = list(islice(numbered, wanted.start, wanted.stop, wanted.step))
        several = any(number > 0 for number, _ in chosen) or _goes_on(numbered)
        count = "it has fewer"
    if not chosen:
        raise InputError(f"no frame {text}, {count}: choose other --frames, counted from 0")
    return chosen, several


def _bounded(number: int) -> int:
    """A number of frames that a computer counts: no file has more."""
    return max(-sys.maxsize + 1, min(number, sys.maxsize - 1))


def _goes_on(numbered: Iterator[tuple[int, T]]) -> bool:
    """Whether another frame begins; if that one is broken, those asked for still are not."""
    try:
        return next(numbered, None) is not None
    except InputError:
        return True
