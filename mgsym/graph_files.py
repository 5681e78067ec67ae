"""Graphs as files: .npz archives whose arrays are named as the fields of a Graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mgsym.arrays import read_arrays
from mgsym.atomic import atomic_path
from mgsym.errors import InputError

FORMAT = "mgsym-graph"
FORMAT_VERSION = 1

NODE_FIELDS = ("types", "target", "target_stderr", "structure_index", "positions", "ids")
EDGE_FIELDS = ("edge_index", "edge_shift", "edge_vector")
_TEXTS = ("species", "names", "glasses", "splits")
# what arrays of node features and their units are called; there may be none of either, so that
# files from before there were any are still read
_FEATURE = "node_features/"
_UNIT = "feature_units/"


def write_fields(path: str | Path, fields: Mapping[str, Any], overwrite: bool) -> None:
    """Write the fields of a graph, whole or not at all."""
    arrays: dict[str, np.ndarray] = {
        "format": np.array(FORMAT),
        "format_version": np.array(FORMAT_VERSION),
        "cutoff": np.array(fields["cutoff"]),
        "cell": fields["cell"].cpu().numpy(),
        "periodic": fields["periodic"].cpu().numpy(),
    }
    for name in _TEXTS:
        arrays[name] = np.array(fields[name], dtype=np.str_)
    for name in (*NODE_FIELDS, *EDGE_FIELDS):
        arrays[name] = fields[name].cpu().numpy()
    for name, values in fields["node_features"].items():
        arrays[_FEATURE + name] = values.cpu().numpy()
    for name, unit in fields["feature_units"].items():
        arrays[_UNIT + name] = np.array(unit, dtype=np.str_)
    with atomic_path(path, overwrite) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def read_fields(path: str | Path) -> dict[str, Any]:
    """The fields that `write_fields` wrote.

    Raises:
        InputError: the file is missing, damaged, or not a graph of this version.
    """
    arrays = _read(Path(path))
    tensors = {n: torch.from_numpy(arrays[n]) for n in (*NODE_FIELDS, *EDGE_FIELDS)}
    texts = {n: tuple(str(t) for t in arrays[n]) for n in _TEXTS}
    return {
        **tensors,
        **texts,
        "cutoff": float(arrays["cutoff"]),
        "cell": torch.from_numpy(arrays["cell"]),
        "periodic": torch.from_numpy(arrays["periodic"]),
        "node_features": {
            k.removeprefix(_FEATURE): torch.from_numpy(v)
            for k, v in arrays.items()
            if k.startswith(_FEATURE)
        },
        "feature_units": {
            k.removeprefix(_UNIT): str(v) for k, v in arrays.items() if k.startswith(_UNIT)
        },
    }


def _read(path: Path) -> dict[str, np.ndarray]:
    needed = {*NODE_FIELDS, *EDGE_FIELDS, *_TEXTS, "cutoff", "cell", "periodic"}
    remedy = "make it again with mgsym build-graph"
    try:
        arrays = read_arrays(path, FORMAT, FORMAT_VERSION, needed, remedy)
    except FileNotFoundError as error:
        raise InputError("no such file", path=path) from error
    except InputError as error:
        raise error.at(path) from error
    if not _fit_together(arrays):
        raise InputError(f"its arrays do not fit together: {remedy}", path=path)
    return arrays


def _fit_together(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether they are numbers, lengths agree, and edges, sorted by target, join nodes."""
    edges, nodes, structures = arrays["edge_index"], arrays["types"].shape, arrays["names"].shape
    per_node = [v for k, v in arrays.items() if k in NODE_FIELDS or k.startswith(_FEATURE)]
    shapes = dict.fromkeys(EDGE_FIELDS[1:], (*edges.shape[1:], 3))
    shapes |= {"cutoff": (), "cell": (*structures, 3, 3), "periodic": (*structures, 3)}
    shapes |= {"splits": structures, "glasses": structures, "edge_index": (2, *edges.shape[1:])}
    numbers = [arrays[k] for k in (*EDGE_FIELDS, "cutoff", "cell", "periodic")]
    whole = [arrays[k] for k in ("types", "structure_index", "ids", "edge_index")]
    return bool(
        all(values.dtype.kind in "iu" for values in whole)
        and (arrays["types"].size == 0 or arrays["types"].min() >= 0)
        and (arrays["types"].size == 0 or arrays["types"].max() < arrays["species"].size)
        and all(values.dtype.kind in "iufb" for values in (*per_node, *numbers))
        and all(values.shape[:1] == nodes for values in per_node)
        and all(arrays[k].shape == shape for k, shape in shapes.items())
        and all(v.shape == () for k, v in arrays.items() if k.startswith(_UNIT))
        and (edges.size == 0 or 0 <= edges.min() <= edges.max() < nodes[0])
        and (np.diff(edges[1]) >= 0).all()
    )
