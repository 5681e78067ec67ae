"""Write files whole or not at all, and each output from one program at a time."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mgsym.errors import UsageError

# not on Windows, where nothing is locked, and what a killed program left stays
fcntl: Any = import_module("fcntl") if find_spec("fcntl") else None

_PREFIX = ".writing-"
_TEMPORARY = re.compile(re.escape(_PREFIX) + r"[a-z0-9_]{8}(-.*)?", re.DOTALL)  # as tempfile names


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
    file at `path` stays as it was; what a program that was killed left is removed by the next that
    writes there. The temporary name keeps the suffixes of `path`, since writers choose a format,
    or compression, by them.

    Raises:
        UsageError: `path` exists and may not be replaced, also where another program was quicker.
    """
    path = refuse_existing(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path.parent)
    try:
        handle, temporary = _temporary_file(path)
    except OSError as error:
        error.filename = str(path)
        raise
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        _publish(temporary, path, overwrite)
    except OSError as error:
        # a full disk names no file, and nobody knows the temporary one
        if error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
        _close(handle)


@contextmanager
def atomic_folder(folder: str | Path) -> Iterator[Path]:
    """Yield a temporary folder inside `folder`; move its files there when the block succeeds.

    So several files appear together or not at all. Files of the same names are replaced: ask
    `refuse_existing` first. When the block raises, `folder` is as it was, or not there if it
    was not; what a program that was killed left there is removed.
    """
    folder = Path(folder)
    made = _missing(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    handle, temporary = _temporary_folder(folder)
    try:
        yield temporary
        for file in sorted(temporary.iterdir()):
            file.replace(folder / file.name)
    except OSError as error:
        if isinstance(error.filename, (str, Path)):
            error.filename = str(error.filename).replace(str(temporary), str(folder))
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _close(handle)
        _remove_empty(made)


@contextmanager
def lock_output(path: str | Path, folder: bool = False) -> Iterator[None]:
    """Let no other program take this output while the block runs.

    A file ``.lock-<name>`` beside it, or ``.lock`` in a folder, is locked and removed at the end.
    The system drops the lock of a program that dies, so that what it leaves holds nobody up.

    Args:
        path: the output, which need not exist. Missing folders are made, and removed again where
            the block left them empty.
        folder: whether it is one.

    Raises:
        UsageError: another program is at it.
    """
    path = Path(path)
    home = path if folder else path.parent
    if home.exists() and not home.is_dir():  # whoever writes there tells it better
        yield
        return
    made = _missing(home)
    home.mkdir(parents=True, exist_ok=True)
    lock = home / (".lock" if folder else f".lock-{path.name}")
    try:
        handle = _locked_file(lock, path)
    except OSError as error:
        error.filename = str(path)
        _remove_empty(made)
        raise
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        _close(handle)
        _remove_empty(made)


def _locked_file(lock: Path, output: Path) -> int:
    """A handle of the lock's file, locked."""
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        if _lock(handle) is False:
            owner = os.read(handle, 20).decode("ascii", "replace").strip()
            os.close(handle)
            process = f" (process {owner})" if owner.isdigit() else ""
            raise UsageError(
                f"{output} is being written by another mgsym{process}: wait until it has ended, "
                "or choose another output"
            )
        if _is_at(handle, lock):
            with suppress(OSError):  # only told, so that a full disk is of no account
                os.ftruncate(handle, 0)
                os.write(handle, f"{os.getpid()}\n".encode())
            return handle
        os.close(handle)  # its owner has just removed it: another one is to be made


def _temporary_file(path: Path) -> tuple[int | None, Path]:
    """A new file beside `path`, and a handle that is locked while this program lives."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=_PREFIX, suffix=f"-{path.name}")
        if fcntl is None:  # Windows cannot rename a file that is open
            os.close(handle)
            return None, Path(name)
        _lock(handle, wait=True)
        if _is_at(handle, name):
            return handle, Path(name)
        os.close(handle)  # taken for a leftover before it was locked


def _temporary_folder(folder: Path) -> tuple[int | None, Path]:
    """A new folder in `folder`, and a handle that is locked while this program lives."""
    while True:
        name = tempfile.mkdtemp(dir=folder, prefix=_PREFIX)
        if fcntl is None:  # Windows opens no folders
            return None, Path(name)
        with suppress(FileNotFoundError):
            handle = os.open(name, os.O_RDONLY)
            _lock(handle, wait=True)
            if _is_at(handle, name):
                return handle, Path(name)
            os.close(handle)


def _remove_leftovers(folder: Path) -> None:
    """Remove temporary files and folders whose programs were killed: nobody holds their locks."""
    if fcntl is None:
        return
    for entry in folder.glob(f"{_PREFIX}*"):
        if not _TEMPORARY.fullmatch(entry.name):
            continue
        with suppress(OSError):  # somebody else's, a link, or gone
            handle = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                if _lock(handle):
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            finally:
                os.close(handle)


def _lock(handle: int, wait: bool = False) -> bool | None:
    """Whether an open file could be locked; None where its file system knows no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(handle: int, path: str | Path) -> bool:
    """Whether an open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _close(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)


def _publish(temporary: Path, path: Path, overwrite: bool) -> None:
    """Give a file its name."""
    if not overwrite:
        try:
            os.link(temporary, path)  # where a rename would replace what another program wrote
            return
        except FileExistsError:
            refuse_existing(path)
        except OSError:  # a file system without links
            pass
    temporary.replace(path)


def _missing(folder: Path) -> list[Path]:
    """Those of a folder and its parents that are not there, the deepest first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # it holds something
            folder.rmdir()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
