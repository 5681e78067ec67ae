"""The file of saddles: an extended XYZ frame each, for other programs to look at and to check.

A frame holds all atoms. Its comment line has, beside what mgsym writes of every structure, `energy`
and `energy_minimum` (eV, of the whole system), `barrier` (eV), `eigenvalue` (eV/Å²), `max_force`
(eV/Å), `atom` and `id` (row and id of the centre), `attempt`, and `event`: the place of the search
in the file of searches, counted from 0.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, TypeAlias

import torch

from mgsym.data_tools.formats import extxyz
from mgsym.data_tools.simulation.labelling.event_files import Events
from mgsym.data_tools.simulation.potentials.evaluation import Potential, force_field
from mgsym.data_tools.simulation.saddle_search.events import FOUND, Event, SaddleEvent
from mgsym.errors import InputError
from mgsym.structure import Structure
from mgsym.utils.files import atomic_path

# id of the centre, and attempt
Key: TypeAlias = tuple[int, int]
_KEY = re.compile(rb".* id=(\d+) attempt=(\d+) event=(\d+)\s*")


class SaddleFile:
    """A file of saddles to append to, made with the first one.

    Args:
        path: of the file.
        structure: the minimum.
        potential: with all its elements.
    """

    def __init__(self, path: Path, structure: Structure, potential: Potential) -> None:
        self.path, self.structure = path, structure
        self._field = force_field(potential, [structure], compile=False)
        self._minimum = self._energy(structure)
        self._number = 0
        self._file: io.FileIO | None = None

    def begin(self, events: Events | None) -> int:
        """Go on behind earlier searches, or begin where there are none.

        Saddles whose search is not among them, or that were not written to their end, are dropped:
        these searches are made again.

        Returns:
            How many of the saddles that were found are not in the file.
        """
        if events is None or not self.path.exists():
            self.path.unlink(missing_ok=True)
            self._number = 0 if events is None else len(events)
            return 0 if events is None else int((events["status"] == FOUND).sum())
        self._number = len(events)
        return _rewrite([self.path], events, self.path)

    def append(self, event: Event) -> None:
        """Count a search, and write its saddle, whole or not at all."""
        if isinstance(event, SaddleEvent):
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("ab", buffering=0)
            _write_whole(self._file, self._frame(event))
        self._number += 1

    def _frame(self, event: SaddleEvent) -> bytes:
        saddle = self.structure.replace(positions=torch.from_numpy(event.positions), columns={})
        facts = {
            "energy": self._energy(saddle),
            "energy_minimum": self._minimum,
            "barrier": event.barrier,
            "eigenvalue": event.eigenvalue,
            "max_force": event.max_force,
            "atom": event.atom,
            "id": event.id,
            "attempt": event.attempt,
            "event": self._number,
        }
        frame = io.BytesIO()
        extxyz.write([saddle], frame, [{name: repr(value) for name, value in facts.items()}])
        return frame.getvalue()

    def _energy(self, structure: Structure) -> float:
        positions = structure.positions - structure.origin
        return float(self._field(positions, structure.cell[None]).energy)

    def __enter__(self) -> SaddleFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()


def join_saddles(parts: Sequence[Path], events: Events, out: Path) -> None:
    """Join files of saddles, such as those of shards, into one.

    Args:
        parts: written by `SaddleFile`.
        events: of the joined file of searches, where the frames' `event` points to then; saddles
            of other searches, and those that are there twice, are left out.
        out: the file; whole or not at all.

    Raises:
        InputError: a file is damaged, or none of saddles.
    """
    _rewrite(parts, events, out)


def _rewrite(parts: Sequence[Path], events: Events, out: Path) -> int:
    """Write the frames of `events`, numbered anew; return how many saddles found have none."""
    found = events["status"] == FOUND
    keys = zip(events["id"].tolist(), events["attempt"].tolist(), strict=True)
    wanted = {key: place for place, key in enumerate(keys) if found[place]}
    with atomic_path(out) as temporary, temporary.open("wb") as file:
        for part in parts:
            for key, head, comment, atoms in _frames(part):
                place = wanted.pop(key, None)
                if place is not None:
                    line = comment[: comment.rindex(b" event=")] + b" event=%d\n" % place
                    file.writelines((head, line, *atoms))
    return len(wanted)


def _frames(path: Path) -> Iterator[tuple[Key, bytes, bytes, list[bytes]]]:
    """Key, first line, comment and atoms of each frame; one torn at the end is left out."""
    with path.open("rb") as file:
        while head := file.readline():
            comment = file.readline()
            torn = not comment.endswith(b"\n")
            match = None if torn else _KEY.fullmatch(comment)
            if not torn and (match is None or not head.strip().isdigit()):
                raise InputError(
                    "is not a file of saddles: expected one that mgsym label --save-saddles wrote; "
                    "move it away",
                    path=path,
                )
            atoms = [] if torn else list(islice(file, int(head)))
            if match is None or len(atoms) < int(head) or not atoms[-1].endswith(b"\n"):
                return
            yield (int(match[1]), int(match[2])), head, comment, atoms


def _write_whole(file: BinaryIO | io.FileIO, content: bytes) -> None:
    """Append; what a full disk let through of it is taken away again."""
    start = os.fstat(file.fileno()).st_size
    try:
        view = memoryview(content)
        while view:
            view = view[file.write(view) or 0 :]
    except OSError as error:
        file.truncate(start)
        error.filename = error.filename or getattr(file, "name", None)
        raise
