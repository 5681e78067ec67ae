"""Graph files: read back exactly, and refused when anything in them is not right."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mgsym.errors import InputError
from mgsym.graph import Graph, build_graph
from mgsym.structure import Column, Structure


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A graph of twelve atoms in a box of 6 Å, with one node feature."""
    generator = torch.Generator().manual_seed(3)
    sites = torch.cartesian_prod(*[torch.arange(3.0)] * 3)[:12] * 2
    structure = Structure(
        positions=sites + 0.2 * torch.rand(12, 3, generator=generator),
        cell=6 * torch.eye(3),
        types=torch.arange(12) % 2,
        species=("Cu", "Zr"),
        columns={"barrier": Column(torch.arange(12.0), "eV")},
        name="a",
        glass="g",
        split="train",
    )
    graph = build_graph(structure, 3.0).replace(
        node_features={"energy": torch.arange(12.0)}, feature_units={"energy": "eV"}
    )
    graph.save(tmp_path / "a.npz")
    return tmp_path / "a.npz"


def test_what_is_written_is_read_back(file: Path) -> None:
    graph = Graph.load(file)
    graph.save(file.parent / "b.npz")
    again = Graph.load(file.parent / "b.npz")
    for name, value in vars(graph).items():
        other = getattr(again, name)
        if isinstance(value, torch.Tensor):
            assert value.dtype == other.dtype
            assert torch.equal(value.nan_to_num(), other.nan_to_num())
        elif name != "node_features":
            assert value == other
    assert torch.equal(graph.node_features["energy"], again.node_features["energy"])
    assert graph.feature_units == {"energy": "eV"}
    assert (graph.names, graph.glasses, graph.splits) == (("a",), ("g",), ("train",))


def test_a_file_without_units_is_read(file: Path) -> None:
    older = altered(file, **{"feature_units/energy": None})
    assert Graph.load(older).feature_units == {}
    assert torch.equal(Graph.load(older).node_features["energy"], torch.arange(12.0))


def altered(file: Path, **changes: Any) -> Path:
    """A copy with some arrays changed, or left out where they are None."""
    with np.load(file) as archive:
        arrays = {**archive, **changes}
    other = file.parent / "other.npz"
    np.savez(other, **{name: value for name, value in arrays.items() if value is not None})
    return other


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": np.array("other")}, "format says other, expected mgsym-graph"),
        ({"format_version": np.array(9)}, "mgsym-graph version 9, this mgsym reads version 1"),
        ({"format_version": None}, "mgsym-graph version 0"),
        ({"positions": None, "ids": None}, "lacks ids, positions"),
        ({"ids": np.arange(11)}, "do not fit together"),
        ({"node_features/energy": np.zeros(3)}, "do not fit together"),
        ({"feature_units/energy": np.array(["eV"] * 2)}, "do not fit together"),
        ({"edge_vector": np.zeros((1, 3))}, "do not fit together"),
        ({"cutoff": np.array("five")}, "do not fit together"),
        ({"cell": np.eye(3)}, "do not fit together"),
        ({"types": np.array(["Cu"] * 12)}, "do not fit together"),
        ({"cutoff": np.array({"an": "object"}, dtype=object)}, "not an .npz file of mgsym's"),
    ],
)
def test_what_is_not_right_is_refused(changes: dict[str, Any], words: str, file: Path) -> None:
    with pytest.raises(InputError, match=rf"other\.npz: .*{words}.*: make it again"):
        Graph.load(altered(file, **changes))


@pytest.mark.parametrize("node", [-1, 12])
def test_an_edge_joins_nodes_that_exist(node: int, file: Path) -> None:
    edges = Graph.load(file).edge_index.numpy().copy()
    edges[0, 5] = node
    with pytest.raises(InputError, match="do not fit together"):
        Graph.load(altered(file, edge_index=edges))


def test_edges_are_sorted_by_target(file: Path) -> None:
    edges = Graph.load(file).edge_index.numpy()[:, ::-1]
    with pytest.raises(InputError, match="do not fit together"):
        Graph.load(altered(file, edge_index=edges))


def test_damage_is_an_input_error_or_harmless(file: Path) -> None:
    whole, choice = file.read_bytes(), random.Random(0)
    refused = 0
    for trial in range(200):
        damaged = bytearray(whole)
        if trial % 2:
            del damaged[choice.randrange(len(damaged)) :]
        for _ in range(4):
            if damaged:
                damaged[choice.randrange(len(damaged))] ^= 1 << choice.randrange(8)
        file.write_bytes(damaged)
        try:
            Graph.load(file)
        except InputError:  # anything else fails the test
            refused += 1
    assert refused > 150


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.npz: no such file"):
        Graph.load(tmp_path / "absent.npz")


def test_a_single_array_is_no_archive(tmp_path: Path) -> None:
    with (tmp_path / "a.npz").open("wb") as raw:
        np.save(raw, np.zeros(3))
    with pytest.raises(InputError, match=r"not an \.npz file of mgsym's"):
        Graph.load(tmp_path / "a.npz")


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("target", INF, "array target of atom id 3 is inf, expected a number in eV"),
        ("target", -INF, "array target of atom id 3 is -inf"),
        ("target_stderr", -0.1, r"target_stderr of atom id 3 is -0\.1, expected a standard error"),
        ("target_stderr", INF, "array target_stderr of atom id 3 is inf"),
        ("node_features/energy", NAN, "array node_features/energy of atom id 3 is nan"),
        ("node_features/energy", INF, "array node_features/energy of atom id 3 is inf"),
        ("positions", NAN, "array positions of atom id 3 is"),
        ("edge_vector", NAN, "array edge_vector has NaN or infinite numbers"),
        ("edge_vector", 40.0, "array edge_vector has an edge of .* expected above 0, up to 3"),
        ("cell", 0.0, "array cell has a cell without volume"),
        ("types", 2, r"array types holds 2, expected 0 … 1"),
        ("structure_index", -1, r"array structure_index holds -1, expected 0 … 0"),
    ],
)
def test_a_number_that_cannot_be_is_named(
    file: Path, name: str, value: float, message: str
) -> None:
    with np.load(file) as arrays:
        values = arrays[name].copy()
    values[0 if name == "cell" else 2] = value
    with pytest.raises(InputError, match=rf"\.npz: its arrays do not fit together \(.*{message}"):
        Graph.load(altered(file, **{name: values}))


@pytest.mark.parametrize("name", ["types", "edge_shift", "edge_vector", "target", "cell", "ids"])
def test_every_array_has_its_exact_type_and_shape(file: Path, name: str) -> None:
    with np.load(file) as arrays:
        values = arrays[name]
    for kind in ("complex128", "float16", "int8"):
        with pytest.raises(
            InputError, match=rf"array {name} is of type {kind}, expected {values.dtype}"
        ):
            Graph.load(altered(file, **{name: values.astype(kind)}))
    with pytest.raises(InputError, match=rf"array {name} is \[.*\], expected \["):
        Graph.load(altered(file, **{name: values[None]}))
