"""mgsym's own structure file: an .npz whose arrays are named as the fields of Structure.

It keeps everything exactly: columns (`columns/<name>`) with their units (`units/<name>`), ids,
origin, name, glass and split. `format` and `format_version` say what it is.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import BinaryIO

import numpy as np
import torch
from mgsym.data_tools.formats.source import Array, Format, Frame, Source

from mgsym.errors import InputError
from mgsym.structure import Column, Structure

KIND = "mgsym-structure"
VERSION = 1
ARRAYS = ("positions", "cell", "types", "origin", "ids")
TEXTS = ("name", "glass", "split")
NEEDED = {*ARRAYS, *TEXTS, "species", "periodic"}


def matches(head: bytes) -> bool:
    """Whether a file with these first bytes is of this format."""
    return head.startswith(b"PK\x03\x04")


def read(source: Source) -> Iterator[Frame]:
    """The one structure of a file."""
    yield partial(_read, source)


def _read(source: Source) -> Structure:
    source.file.seek(0)
    arrays = _load(source.file.read())
    px, py, pz = (bool(p) for p in arrays["periodic"].reshape(3))
    prefix = "columns/"
    tensors = {name: torch.from_numpy(arrays[name]) for name in ARRAYS}
    texts = {name: str(arrays[name]) for name in TEXTS}
    return Structure(
        positions=tensors["positions"],
        cell=tensors["cell"],
        types=tensors["types"],
        origin=tensors["origin"],
        ids=tensors["ids"],
        species=tuple(str(s) for s in arrays["species"]),
        periodic=(px, py, pz),
        columns={
            key.removeprefix(prefix): Column(
                torch.from_numpy(values),
                str(arrays.get(f"units/{key.removeprefix(prefix)}", "")),
            )
            for key, values in arrays.items()
            if key.startswith(prefix)
        },
        name=texts["name"],
        glass=texts["glass"],
        split=texts["split"],
    )


def _load(content: bytes) -> Mapping[str, Array]:
    """The arrays of a structure file of this version."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise InputError("the .npz file is damaged or cut short: write or copy it again") from error
    kind = str(arrays.get("format", "nothing"))
    if kind != KIND:
        raise InputError(f"format says {kind}, expected {KIND}: it holds no structure of mgsym's")
    version = int(arrays.get("format_version", np.array(0)))
    if version != VERSION:
        raise InputError(f"structure format version {version}, this mgsym reads version {VERSION}")
    missing = sorted(NEEDED - set(arrays))
    if missing:
        raise InputError(f"lacks {', '.join(missing)}: write it again")
    return arrays


def write(structures: Sequence[Structure], file: BinaryIO) -> None:
    """Write one structure, exactly."""
    structure = structures[0]
    arrays: dict[str, Array] = {
        "format": np.array(KIND),
        "format_version": np.array(VERSION),
        "species": np.array(structure.species, dtype=np.str_),
        "periodic": np.array(structure.periodic),
    }
    arrays |= {name: getattr(structure, name).numpy() for name in ARRAYS}
    arrays |= {name: np.array(getattr(structure, name)) for name in TEXTS}
    for name, (values, unit) in structure.columns.items():
        arrays[f"columns/{name}"] = values.numpy()
        arrays[f"units/{name}"] = np.array(unit)
    content = io.BytesIO()  # since a compressed file cannot be rewound, as .npz needs
    np.savez(content, **arrays)  # type: ignore[arg-type]
    file.write(content.getvalue())


FORMAT = Format(
    name="npz",
    suffixes=(".npz",),
    matches=matches,
    read=read,
    write=write,
    many=False,
)
