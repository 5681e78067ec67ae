"""Where the structures that a command makes go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mgsym.data_tools.formats import output_format, write
from mgsym.errors import UsageError
from mgsym.structure import Structure
from mgsym.utils.files import refuse_existing
from mgsym.utils.names import file_in


def output_paths(
    out: Path, structures: Sequence[Structure], files: int, overwrite: bool = False
) -> list[Path]:
    """The path of each structure, so that existing ones are refused before long work.

    Args:
        out: a file for all structures of one input file, its suffix tells the format; else a
            folder, in which each structure becomes ``<name>.extxyz``.
        structures: what will be written.
        files: how many files they come from.
        overwrite: existing files may be replaced.

    Raises:
        UsageError: `out` is one file for several inputs or of no known format, a path exists, or
            two structures have one name.
        InputError: a structure has a name that cannot be a file's.
    """
    if out.suffix and not out.is_dir():
        if files > 1:
            raise UsageError(
                f"{out} is one file, but {files} are given: name a folder with -o, or take them "
                "one after the other"
            )
        file_format = output_format(out)
        if len(structures) > 1 and not file_format.many:
            raise UsageError(
                f"{out}: {file_format.name} holds one structure, {len(structures)} given: name a "
                "folder with -o, or choose one of --frames"
            )
        paths = [out] * len(structures)
    else:
        paths = [file_in(out, structure.name, ".extxyz") for structure in structures]
        if len(set(paths)) < len(paths):
            raise UsageError("two structures have one name: put them into separate folders")
    for path in paths:
        refuse_existing(path, overwrite)
    return paths


def write_all(
    structures: Sequence[Structure], paths: Sequence[Path], overwrite: bool = False
) -> None:
    """Write each structure to its path; those of one path become the frames of one file."""
    for path in dict.fromkeys(paths):
        frames = [s for s, p in zip(structures, paths, strict=True) if p == path]
        write(frames, path, overwrite)
