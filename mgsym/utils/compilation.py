"""C++ compiled on the machine that runs it, where there is a compiler, and kept for next time."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgsym.utils.files import atomic_path

if TYPE_CHECKING:
    from torch import Tensor

_COMMON = Path(__file__).with_name("vectors.h")
SWITCH = "MGSYM_COMPILE"  # 0 turns compiling off
_LONGEST = 300  # seconds that a compiler may take
_FLAGS = (
    "-O3", "-std=c++17", "-shared", "-fPIC", "-pthread", "-ffp-contract=fast", "-fno-math-errno",
    "-fno-trapping-math",
)  # fmt: skip


class _NotCompiled(Exception):
    """Why there is no library, in one line."""


def compiled_library(source: Path, **defined: int) -> ctypes.CDLL | None:
    """Load the library that a C++ file compiles to; None where there can be none.

    It is compiled once, for this processor, and kept in the user's cache (``XDG_CACHE_HOME`` or
    ``~/.cache``, folder ``mgsym``) under a name that holds source, compiler and processor. Where
    that fails one warning says why, and whoever asked goes on without it. ``MGSYM_COMPILE=0``
    turns it off, without a word.

    Args:
        source: a file without includes; vectors.h comes before it.
        defined: macros.
    """
    return None if os.environ.get(SWITCH) == "0" else _library(source, tuple(defined.items()))


def structure_fields(
    integers: str, pointers: str, *others: tuple[str, Any]
) -> list[tuple[str, Any]]:
    """The fields of a C structure: names of its 64-bit integers, of its pointers, and the rest."""
    fields: list[tuple[str, Any]] = [(name, ctypes.c_int64) for name in integers.split()]
    return [*fields, *((name, ctypes.c_void_p) for name in pointers.split()), *others]


def address(tensor: Tensor | None) -> ctypes.c_void_p:
    """Where the numbers of a contiguous tensor are, for as long as somebody holds it."""
    assert tensor is None or tensor.is_contiguous()
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


@cache
def _library(source: Path, defined: tuple[tuple[str, int], ...]) -> ctypes.CDLL | None:
    try:
        compiler = _compiler()
        flags = [*_FLAGS, _native(), *(f"-D{name}={value}" for name, value in defined)]
        library = _cache() / f"{source.stem}-{_key(source, compiler, flags)}.so"
        if not library.exists():
            with atomic_path(library) as path:
                _run([*compiler, *flags, "-include", str(_COMMON), str(source), "-o", str(path)])
        return ctypes.CDLL(str(library))
    except (_NotCompiled, OSError, RuntimeError) as error:  # RuntimeError: no home
        warnings.warn(
            f"{source.name} could not be compiled ({error}); this goes on without it, slower: "
            f"mend that, or set {SWITCH}=0 to silence this",
            RuntimeWarning,
            stacklevel=4,
        )
        return None


def _compiler() -> list[str]:
    """The command of a C++ compiler."""
    for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++"):
        try:
            command = shlex.split(name)
        except ValueError as error:  # only what a person wrote
            raise _NotCompiled(f"CXX is {name!r}, no command: {error}") from error
        if command and shutil.which(command[0]):
            return command
    raise _NotCompiled(
        "there is no C++ compiler: no c++, g++ or clang++, and no CXX that names one"
    )


def _native() -> str:
    """Compile for this processor."""
    return "-march=native" if platform.machine() in ("x86_64", "AMD64") else "-mcpu=native"


def _key(source: Path, compiler: list[str], flags: list[str]) -> str:
    """What the library depends on, in 16 letters."""
    texts = [file.read_text("utf-8") for file in (_COMMON, source)]
    parts = [*texts, _run([*compiler, "--version"]), *flags, _processor()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    """What tells this processor from others: a folder may be shared by several machines."""
    parts = [platform.system(), platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text("ascii", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    wanted = ("flags", "Features", "model name", "CPU part")
    return "\n".join([*parts, *sorted({line for line in lines if line.startswith(wanted)})])


def _cache() -> Path:
    """The user's cache; absolute, as the specification of XDG_CACHE_HOME asks."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "mgsym"


def _run(command: list[str]) -> str:
    """What a program says; its first complaint where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST)
    except subprocess.TimeoutExpired as error:
        raise _NotCompiled(f"{command[0]} took more than {_LONGEST} s") from error
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "error" in line] or ["no reason given"]
        raise _NotCompiled(f"{command[0]} failed: {said[0].strip()[:200]}")
    return done.stdout
