"""Write files whole or not at all, one program at a time, and read them without running anything.

Text, JSON, archives of arrays (.npz) and torch's files of tensors; each says what it is.
"""

from __future__ import annotations

import inspect
import io
import json
import math
import os
import pickle
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import wraps
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, BinaryIO, ParamSpec, TypeVar

import numpy as np
import torch

from mgsym.errors import InputError, UsageError, short
from mgsym.utils.pickles import names_asked_for

_P = ParamSpec("_P")
_R = TypeVar("_R")

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


def holds_output(name: str, folder: bool = False) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Make a function hold its output while it runs (`lock_output`).

    Args:
        name: of the function's argument that is the path.
        folder: whether the lock lies in it, not beside it.
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        signature = inspect.signature(function)

        @wraps(function)
        def held(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            with lock_output(signature.bind(*args, **kwargs).arguments[name], folder):
                return function(*args, **kwargs)

        return held

    return decorate


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


# a packed archive may become so many times as large, and so many bytes whatever its size
MOST_EXPANSION, UNPACKED = 200, 16 << 20

MOST_EMPTY = 1 << 20


def read_arrays(
    source: Path | BinaryIO, kind: str, version: int, needed: Collection[str], remedy: str
) -> dict[str, np.ndarray]:
    """Every array of an archive, once it is what it should be.

    Args:
        source: the archive.
        kind: what its array ``format`` must say.
        version: what its ``format_version`` must say.
        needed: arrays that must be there.
        remedy: what to do about an archive that is not right, such as ``make it again``.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: the archive is damaged, of another kind or version, or lacks an array.
    """
    try:
        check_sizes(source)
        with np.load(source, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        file_kind = str(arrays.get("format", "nothing"))[:80]
        file_version = int(arrays.get("format_version", 0))
    except FileNotFoundError:
        raise
    except MemoryError as error:
        raise InputError("there is not enough memory for its arrays") from error
    except Exception as error:  # damaged bytes make zipfile raise nearly anything
        raise InputError(f"not an .npz file of mgsym's, or damaged: {remedy}") from error
    if file_kind != kind:
        raise InputError(f"format says {file_kind}, expected {kind}: {remedy}")
    if file_version != version:
        raise InputError(
            f"{kind} version {file_version}, this mgsym reads version {version}: {remedy}"
        )
    missing = sorted(set(needed) - set(arrays))
    if missing:
        raise InputError(f"lacks {', '.join(missing)}: {remedy}")
    return arrays


def kind_of(path: Path) -> str:
    """What the array ``format`` of an archive says; empty for anything else."""
    if not path.is_file():
        return ""  # a pipe would be waited for
    try:
        check_sizes(path)
        with np.load(path, allow_pickle=False) as arrays:
            return str(arrays["format"])[:80] if "format" in arrays else ""
    except Exception:  # damaged bytes make zipfile raise nearly anything
        return ""


def check_sizes(source: Path | BinaryIO) -> None:
    """Compare the sizes that an archive tells of its arrays with each other, reading none of them.

    Raises:
        ValueError: it would take far more memory than it has bytes, or an array is not as large as
            its header says.
    """
    with zipfile.ZipFile(source) as archive:
        members = archive.infolist()
        packed = sum(member.compress_size for member in members)
        if sum(member.file_size for member in members) > max(UNPACKED, MOST_EXPANSION * packed):
            raise ValueError("it is far larger than what it is made of")
        for member in members:
            with archive.open(member) as file:
                _check_header(file, member.file_size)
    if not isinstance(source, Path):
        source.seek(0)


def _check_header(file: IO[bytes], size: int) -> None:
    """Refuse an array whose header asks for another number of bytes than there are."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of .npy")
    first = version == (1, 0)
    form = np.lib.format
    read = form.read_array_header_1_0 if first else form.read_array_header_2_0
    shape, _, dtype = read(file)
    count = math.prod(shape)
    # an empty text has no bytes: of those, there could be as many as one likes
    if min(shape, default=0) < 0 or (dtype.itemsize == 0 and count > MOST_EMPTY):
        raise ValueError(f"an array {shape} of {dtype}")
    if file.tell() + count * dtype.itemsize != size:
        raise ValueError(f"an array {shape} of {dtype} in {size} bytes")


_DAMAGED = (RuntimeError, EOFError, OSError, ValueError, NotImplementedError)

# all that tensors, numbers and text are made of; torch would allow more
_OF_TENSORS = re.compile(
    r"collections\.OrderedDict|torch\._utils\._rebuild_tensor_v2|torch\.\w+Storage"
)


def save_safely(path: str | Path, content: Mapping[str, Any], overwrite: bool = True) -> None:
    """Write nested dicts of tensors, numbers and text, whole or not at all.

    Raises:
        OSError: the disk is full, or cannot be written.
    """
    buffer = io.BytesIO()  # torch's own writing to a file does not say why it failed
    torch.save(dict(content), buffer)
    with atomic_path(path, overwrite) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_safely(
    path: Path,
    kind: str,
    version: int,
    wanted: str = "a file that mgsym train wrote (best.pt)",
    *,
    or_kind: str | None = None,
    others: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Read what `save_safely` wrote, onto the CPU, executing nothing.

    Args:
        path: the file.
        kind: what its ``format`` must say.
        version: what its ``format_version`` must say.
        wanted: what to ask for in errors.
        or_kind: another ``format`` that will do.
        others: what to say of a file of another ``format``, by it.

    Raises:
        InputError: no such file, not such a file, damaged, or of another version.
    """
    hint = f"expected {wanted}"
    try:
        _look_through(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"no such file: {hint}", path=path) from error
    except MemoryError as error:
        raise InputError("there is not enough memory for what it holds", path=path) from error
    except (*_DAMAGED, pickle.UnpicklingError, zipfile.BadZipFile, KeyError) as error:
        raise InputError(f"damaged, or not written by mgsym: {hint}", path=path) from error
    except Exception as error:  # a hostile or garbled pickle can make the reader raise anything
        raise InputError(f"cannot be read safely: {hint}", path=path) from error
    file_kind = content.get("format") if isinstance(content, dict) else None
    file_kind = file_kind[:80] if isinstance(file_kind, str) else None
    if file_kind is not None and file_kind in others:
        raise InputError(others[file_kind], path=path)
    if file_kind not in (kind, or_kind) or file_kind is None:
        raise InputError(
            f"holds {file_kind or 'something else'}, expected {kind}: {hint}", path=path
        )
    if content.get("format_version") != version:
        raise InputError(
            f"{file_kind} version {content.get('format_version')}, this mgsym reads version "
            f"{version}: use the mgsym that wrote it, or make it again",
            path=path,
        )
    return dict(content)


def _look_through(path: Path) -> None:
    """Check that a file is as torch packs tensors, numbers and text, before it is unpacked.

    Raises:
        ValueError: it is not, or asks for other than that; it could take any amount of memory.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("it is compressed")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise ValueError("its parts are larger than it is")
        (pickled,) = (m for m in members if m.filename.rpartition("/")[2] == "data.pkl")
        names = names_asked_for(archive.read(pickled), ("BINPERSID",))
    unknown = {name for name in names if not _OF_TENSORS.fullmatch(name)}
    if unknown:
        raise ValueError(f"it asks for {', '.join(sorted(unknown))}")


def first_line(error: Exception) -> str:
    """Take the first line of what an error says."""
    return str(error).strip().partition("\n")[0]


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic_path(path) as temporary:
        # names of files need not be UTF-8; JSON reads the escapes back
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise InputError("cannot be read as JSON: nested too deeply", path=path) from error
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read as JSON: {short(error, 200)}", path=path) from error
    if not isinstance(content, dict):
        raise InputError("expected a JSON object", path=path)
    return content
