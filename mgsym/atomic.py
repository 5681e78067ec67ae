"""Write files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mgsym.errors import UsageError


def refuse_existing(path: str | Path, overwrite: bool = False) -> Path:
    """Return `path`, or raise UsageError when it exists and may not be replaced."""
    path = Path(path)
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists already: choose another output or add --overwrite")
    return path


@contextmanager
def atomic_path(path: str | Path, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place when the block succeeds.

    The folder is made when missing. When the block raises, nothing is left behind and an older
    file at `path` stays as it was. The temporary name keeps the suffixes of `path`, since
    writers choose a format, or compression, by them.
    """
    path = refuse_existing(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-", suffix=f"-{path.name}")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
