"""A folder for a study: a Snakemake workflow with its settings."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from mgsym.utils.files import atomic_folder, refuse_existing

FILES = ("Snakefile", "study.toml", "slurm/config.yaml")


def init_study(folder: str | Path, overwrite: bool = False) -> list[Path]:
    """Write the workflow of a study into a folder.

    Args:
        folder: made where it is missing.
        overwrite: replace the workflow's own files, `study.toml` among them; results stay.

    Returns:
        The files.

    Raises:
        UsageError: one of them exists.
    """
    folder, template = Path(folder), files("mgsym.data_tools.study")
    paths = [folder / name for name in FILES]
    for path in paths:
        refuse_existing(path, overwrite)
    for path, name in zip(paths, FILES, strict=True):
        with atomic_folder(path.parent) as temporary:
            (temporary / path.name).write_bytes(template.joinpath(name).read_bytes())
    return paths
