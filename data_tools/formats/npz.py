"""mgsym's own structure file: an .npz whose arrays are named as the fields of Structure.

It keeps everything exactly: columns (`columns/<name>`) with their units (`units/<name>`), ids,
origin, name, glass and split. `format` and `format_version` say what it is.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import BinaryIO

import numpy as np
import torch

from mgsym.data_tools.formats.source import Array, Format, Frame, Source
from mgsym.data_tools.formats.species import checked_species
from mgsym.errors import InputError
from mgsym.structure import Column, Structure
from mgsym.utils.files import read_arrays

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
    content = io.BytesIO(source.file.read())
    arrays = read_arrays(content, KIND, VERSION, NEEDED, "write or copy it again")
    try:
        structure = _structure(arrays)
    except (TypeError, ValueError) as error:  # an array of words, or of a wrong shape
        raise InputError(f"an array is not what it should be: {error}") from error
    return checked_species(structure, source.types, source.path)


def _structure(arrays: Mapping[str, Array]) -> Structure:
    px, py, pz = (bool(p) for p in arrays["periodic"].reshape(3))
    names = [key.removeprefix("columns/") for key in arrays if key.startswith("columns/")]
    return Structure(
        positions=torch.from_numpy(arrays["positions"]),
        cell=torch.from_numpy(arrays["cell"]),
        types=torch.from_numpy(arrays["types"]),
        species=tuple(str(s) for s in arrays["species"]),
        periodic=(px, py, pz),
        origin=torch.from_numpy(arrays["origin"]),
        ids=torch.from_numpy(arrays["ids"]),
        columns={
            name: Column(
                torch.from_numpy(arrays[f"columns/{name}"]), str(arrays.get(f"units/{name}", ""))
            )
            for name in names
        },
        name=str(arrays["name"]),
        glass=str(arrays["glass"]),
        split=str(arrays["split"]),
    )


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
