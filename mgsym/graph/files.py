"""Graphs as files: .npz archives whose arrays are named as the fields of a Graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mgsym.errors import InputError
from mgsym.utils.files import atomic_path, read_arrays

FORMAT = "mgsym-graph"
FORMAT_VERSION = 1

NODE_FIELDS = ("types", "target", "target_stderr", "structure_index", "positions", "ids")
EDGE_FIELDS = ("edge_index", "edge_shift", "edge_vector")
_TEXTS = ("species", "names", "glasses", "splits")
# what arrays of node features and their units are called; there may be none of either, so that
# files from before there were any are still read
_FEATURE = "node_features/"
_UNIT = "feature_units/"


# the exact type of each array that a graph has, and its shape: n nodes, e edges, s structures
_ARRAYS: dict[str, tuple[str, tuple[str | int, ...]]] = {
    "types": ("int64", ("n",)),
    "edge_index": ("int64", (2, "e")),
    "edge_shift": ("int16", ("e", 3)),
    "edge_vector": ("float32", ("e", 3)),
    "cutoff": ("float64", ()),
    "positions": ("float64", ("n", 3)),
    "ids": ("int64", ("n",)),
    "target": ("float32", ("n",)),
    "target_stderr": ("float32", ("n",)),
    "label_weight": ("float32", ("n",)),
    "structure_index": ("int64", ("n",)),
    "cell": ("float64", ("s", 3, 3)),
    "periodic": ("bool", ("s", 3)),
    "species": ("text", ("k",)),
    "names": ("text", ("s",)),
    "glasses": ("text", ("s",)),
    "splits": ("text", ("s",)),
}
_OPTIONAL = ("label_weight",)
_TOLERANCE = 1e-3  # Å, by which a stored length may pass the cutoff


def write_fields(path: str | Path, fields: Mapping[str, Any], overwrite: bool) -> None:
    """Write the fields of a graph, whole or not at all."""
    arrays: dict[str, np.ndarray] = {
        "format": np.array(FORMAT),
        "format_version": np.array(FORMAT_VERSION),
    }
    for name, (kind, _) in _ARRAYS.items():
        value = fields[name]
        if value is None:
            continue
        plain = value.cpu().numpy() if isinstance(value, torch.Tensor) else value
        arrays[name] = np.array(plain, dtype=np.str_ if kind == "text" else kind)
    for name, values in fields["node_features"].items():
        arrays[_FEATURE + name] = values.cpu().numpy()
    for name, unit in fields["feature_units"].items():
        arrays[_UNIT + name] = np.array(unit, dtype=np.str_)
    with atomic_path(path, overwrite) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def read_fields(path: str | Path) -> dict[str, Any]:
    """The fields that `write_fields` wrote.

    Raises:
        InputError: the file is missing, damaged, not a graph of this version, or an array is not
            of its type, shape or range; the message names the array, and the atom where there is
            one.
    """
    arrays = _read(Path(path))
    tensors = {n: torch.from_numpy(arrays[n]) for n in _ARRAYS if n in arrays and n not in _TEXTS}
    texts = {n: tuple(str(t) for t in arrays[n]) for n in _TEXTS}
    return {
        **tensors,
        **texts,
        "cutoff": float(arrays["cutoff"]),
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
    remedy = "make it again with mgsym build-graph"
    try:
        needed = set(_ARRAYS) - set(_OPTIONAL)
        arrays = read_arrays(path, FORMAT, FORMAT_VERSION, needed, remedy)
    except FileNotFoundError as error:
        raise InputError("no such file", path=path) from error
    except InputError as error:
        raise error.at(path) from error
    # each looks at what the one before has found in order
    problem = _misshapen(arrays) or _out_of_range(arrays) or _wrong_values(arrays)
    if problem:
        raise InputError(f"its arrays do not fit together ({problem}): {remedy}", path=path)
    return arrays


def _misshapen(arrays: Mapping[str, np.ndarray]) -> str:
    """What is wrong with the type or the shape of an array; empty where nothing is."""
    sizes: dict[str | int, int] = {}
    for name, (kind, shape) in _ARRAYS.items():
        if name not in arrays:
            continue
        array = arrays[name]
        if (array.dtype.kind != "U") if kind == "text" else (array.dtype.name != kind):
            return f"array {name} is of type {array.dtype.name}, expected {kind}"
        # the first array of a size says what it is
        if len(array.shape) == len(shape):
            for size, count in zip(shape, array.shape, strict=True):
                sizes.setdefault(size, size if isinstance(size, int) else count)
        expected = [sizes.get(size, size) for size in shape]
        if list(array.shape) != expected:
            return f"array {name} is {list(array.shape)}, expected {expected}"
    for name, array in arrays.items():
        actual = f"array {name} is {array.dtype.name} {list(array.shape)}"
        if name.startswith(_FEATURE):
            if array.dtype.kind not in "iufb" or array.ndim not in (1, 2):
                return f"{actual}, expected one number, or a row of them, for each atom"
            if len(array) != sizes["n"]:
                return f"{actual}, expected one row for each of {sizes['n']} atoms"
        if name.startswith(_UNIT) and (array.dtype.kind != "U" or array.shape != ()):
            return f"{actual}, expected a text"
    return ""


def _out_of_range(arrays: Mapping[str, np.ndarray]) -> str:
    """Which index points to nothing, or which order is broken; empty where all is well."""
    structures, nodes = len(arrays["names"]), len(arrays["types"])
    if structures == 0:
        return "array names is empty, expected the name of a structure"
    if len(set(arrays["species"].tolist())) < len(arrays["species"]):
        return "array species names an element twice"
    for name, count in (
        ("types", len(arrays["species"])),
        ("structure_index", structures),
        ("edge_index", nodes),
    ):
        values = arrays[name]
        if values.size and not 0 <= values.min() <= values.max() < count:
            worst = values.min() if values.min() < 0 else values.max()
            return f"array {name} holds {worst}, expected 0 … {count - 1}"
    if not (np.diff(arrays["edge_index"][1]) >= 0).all():
        return "array edge_index is not sorted by target"
    return ""


def _wrong_values(arrays: Mapping[str, np.ndarray]) -> str:
    """Which number cannot be; empty where all can."""
    cutoff = float(arrays["cutoff"])
    if not 0 < cutoff < np.inf:
        return f"array cutoff is {cutoff}, expected a length in Å"
    for name in ("cell", "edge_vector"):
        if not np.isfinite(arrays[name]).all():
            return f"array {name} has NaN or infinite numbers"
    if not (np.abs(np.linalg.det(arrays["cell"])) > 0).all():
        return "array cell has a cell without volume"
    length = np.linalg.norm(arrays["edge_vector"].astype(np.float64), axis=1)
    if length.size and not 0 < length.min() <= length.max() <= cutoff + _TOLERANCE:
        worst = length.max() if length.min() > 0 else length.min()
        return f"array edge_vector has an edge of {worst:.4g} Å, expected above 0, up to {cutoff:g}"
    ids = arrays["ids"]
    for name in ("target", "target_stderr"):
        if problem := label_problem(arrays[name], ids, name, stderr=name == "target_stderr"):
            return f"array {problem}"
    weight = arrays.get("label_weight", np.zeros(0))
    if weight.size and not (np.isfinite(weight) & (weight >= 0)).all():
        return "array label_weight has a weight that is not a number of at least 0"
    for name, values in arrays.items():
        per_atom = name.startswith(_FEATURE) or name == "positions"
        if per_atom and (problem := not_finite(values, ids)):
            return f"array {name} {problem}"
    return ""


def label_problem(values: np.ndarray, ids: np.ndarray, name: str, *, stderr: bool) -> str:
    """What is wrong with labels or their standard errors; empty where nothing is.

    A label is a finite number that float32 can hold, or NaN where there is none; a standard error
    is not negative either.

    Args:
        values: [n] eV.
        ids: [n], of the atoms.
        name: what the values are called.
        stderr: whether they are standard errors.
    """
    wrong = np.abs(values) > np.finfo(np.float32).max  # infinite ones too, NaN not
    if stderr:
        wrong |= values < 0
    if not wrong.any():
        return ""
    row = int(np.flatnonzero(wrong)[0])
    wanted = "a standard error of at least 0 eV" if stderr else "a number in eV"
    return f"{name} of atom id {ids[row]} is {values[row]:g}, expected {wanted}, or NaN for none"


def not_finite(values: np.ndarray, ids: np.ndarray) -> str:
    """Which atom's number is NaN or infinite; empty where all are numbers.

    Args:
        values: [n] or [n, k].
        ids: [n], of the atoms.
    """
    wrong = ~np.isfinite(values.reshape(len(ids), -1)).all(axis=1)
    if not wrong.any():
        return ""
    row = int(np.flatnonzero(wrong)[0])
    return f"of atom id {ids[row]} is {values[row]}, expected finite numbers"
