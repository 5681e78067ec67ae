"""Archives of arrays (.npz) that say what they are, read without running anything in them."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from mgsym.errors import InputError

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
        found = str(arrays.get("format", "nothing"))[:80]
        found_version = int(arrays.get("format_version", 0))
    except FileNotFoundError:
        raise
    except MemoryError as error:
        raise InputError("there is not enough memory for its arrays") from error
    except Exception as error:  # damaged bytes make zipfile raise nearly anything
        raise InputError(f"not an .npz file of mgsym's, or damaged: {remedy}") from error
    if found != kind:
        raise InputError(f"format says {found}, expected {kind}: {remedy}")
    if found_version != version:
        raise InputError(
            f"{kind} version {found_version}, this mgsym reads version {version}: {remedy}"
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
