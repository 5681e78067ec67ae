"""Archives of arrays (.npz) that say what they are, read without running anything in them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mgsym.errors import InputError


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
        with np.load(source, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        found = str(arrays.get("format", "nothing"))
        found_version = int(arrays.get("format_version", 0))
    except FileNotFoundError:
        raise
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
