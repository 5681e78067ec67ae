"""Structure files into other formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mgsym.data_tools.formats import output_format, read_files, write
from mgsym.data_tools.formats.label_table import with_labels
from mgsym.errors import UsageError
from mgsym.structure import Structure
from mgsym.structure.columns import BARRIER
from mgsym.utils.files import refuse_existing
from mgsym.utils.names import file_in


@dataclass(frozen=True)
class Converted:
    """One file that was written.

    Attributes:
        path: the file.
        format: its format's name.
        structures: how many it holds.
        atoms: how many of them in all.
        loses: what of a structure this format does not keep.
    """

    path: Path
    format: str
    structures: int
    atoms: int
    loses: str


def convert(
    files: Sequence[str | Path],
    out: str | Path,
    types: Mapping[int, str] | None = None,
    frames: str | None = None,
    labels: str | Path | None = None,
    target: str = BARRIER,
    format: str | None = None,
    overwrite: bool = False,
) -> list[Converted]:
    """Write the structures of some files in another format.

    Args:
        files: structure files of any known format.
        out: one file for all structures, its suffix tells the format; or a folder that exists,
            for a file each, called as the structure.
        types: element of each type number, for files that have numbers only.
        frames: which frames of each file; all of them unless told otherwise.
        labels: CSV table of labels for the structure, see `mgsym.data_tools.formats.label_table`.
        target: the column of `labels` to take.
        format: the format's name; needed where `out` is a folder.
        overwrite: replace files that exist.

    Raises:
        InputError: a file is missing, damaged or inconsistent.
        UsageError: an output exists, the format cannot be told, labels are given for several
            structures, or two structures of a folder are called alike.
    """
    out = Path(out)
    plan = output_format(out, format) if format or not out.is_dir() else None
    if plan is None:
        raise UsageError(f"{out} is a folder: say with --format what to write into it")
    if not out.is_dir():
        refuse_existing(out, overwrite)  # before long reading
    structures = read_files(files, types, frames or ":")
    if labels:
        structures = [with_labels(_only(structures), labels, target)]
    targets = {out: structures}
    if out.is_dir():
        targets = _one_each(structures, out, plan.suffixes[0])
    for path in targets:
        refuse_existing(path, overwrite)
    for path, group in targets.items():
        write(group, path, overwrite, plan.name)
    return [
        Converted(path, plan.name, len(group), sum(map(len, group)), plan.loses)
        for path, group in targets.items()
    ]


def _only(structures: Sequence[Structure]) -> Structure:
    if len(structures) != 1:
        raise UsageError(
            f"a table of labels belongs to one structure, {len(structures)} are given: convert "
            "them one at a time"
        )
    return structures[0]


def _one_each(
    structures: Sequence[Structure], folder: Path, suffix: str
) -> dict[Path, list[Structure]]:
    """A file name for each structure."""
    targets: dict[Path, list[Structure]] = {}
    for structure in structures:
        path = file_in(folder, structure.name, suffix)
        if path in targets:
            raise UsageError(f"two structures are called {structure.name}: convert one at a time")
        targets[path] = [structure]
    return targets
