"""What is written reads back the same, in every format that can hold it."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

import mgsym
from mgsym.data_tools.formats import detect_format, read_frames
from mgsym.errors import UsageError
from mgsym.structure import Column, Structure

ORTHOGONAL = torch.diag(torch.tensor([7.1, 8.3, 9.7], dtype=torch.float64))
TILTED = torch.tensor([[7.1, 0, 0], [-2.3, 8.3, 0], [1.9, -3.1, 9.7]], dtype=torch.float64)
GENERAL = torch.tensor([[6.0, 2.0, 1.0], [-1.0, 7.0, 0.5], [0.3, -2.0, 8.0]], dtype=torch.float64)
CELLS = {"orthogonal": ORTHOGONAL, "tilted": TILTED, "general": GENERAL}
SUFFIXES = (".dump", ".data", ".xyz", ".npz")


def make(cell: torch.Tensor, atoms: int = 40, seed: int = 7) -> Structure:
    """Random atoms, some outside the cell, with shuffled ids and columns of every kind."""
    random = np.random.default_rng(seed)
    fractions = random.uniform(-0.5, 1.5, (atoms, 3))
    origin = np.array([-1.25, 3.5, 0.1])
    return Structure(
        positions=torch.from_numpy(fractions @ cell.numpy() + origin),
        cell=cell,
        types=torch.from_numpy(random.permutation(np.arange(atoms) % 2)),
        species=("Cu", "Zr"),
        periodic=(True, False, True),
        origin=torch.from_numpy(origin),
        ids=torch.from_numpy(random.permutation(np.arange(100, 100 + atoms))),
        columns={
            "barrier": Column(torch.from_numpy(random.normal(1.7, 0.3, atoms)), "eV"),
            "energy": Column(torch.from_numpy(random.normal(-4.5, 0.3, atoms)).float(), "eV"),
            "events": Column(torch.from_numpy(random.integers(1, 20, atoms))),
        },
        name="melt",
        glass="glass_a",
        split="validation",
    )


def assert_same_atoms(ours: Structure, theirs: Structure, tolerance: float = 0.0) -> None:
    """Positions, cell, origin, elements and order agree."""
    for name in ("positions", "cell", "origin"):
        difference = (getattr(ours, name) - getattr(theirs, name)).abs().max()
        assert float(difference) <= tolerance, name
    assert ours.symbols == theirs.symbols
    assert torch.equal(ours.ids, theirs.ids)


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("suffix", [*SUFFIXES, *(f"{s}.gz" for s in SUFFIXES)])
def test_atoms_cell_and_order_survive(tmp_path: Path, suffix: str, cell: torch.Tensor) -> None:
    structure = make(cell)
    path = tmp_path / f"sample{suffix}"
    mgsym.write(structure, path)
    # LAMMPS stores corners, not edge lengths, so the cell passes through one subtraction
    assert_same_atoms(mgsym.read(path), structure, tolerance=1e-14 if "d" in suffix else 0)


@pytest.mark.parametrize("suffix", [".dump", ".xyz", ".npz"])
def test_columns_units_and_periodic_survive(tmp_path: Path, suffix: str) -> None:
    structure = make(TILTED)
    path = tmp_path / f"sample{suffix}"
    mgsym.write(structure, path)
    back = mgsym.read(path)
    assert back.periodic == (True, False, True)
    assert list(back.columns) == ["barrier", "energy", "events"]
    for name, (values, unit) in structure.columns.items():
        assert torch.equal(back.columns[name].values.to(values.dtype), values)
        assert back.columns[name].unit == unit


@pytest.mark.parametrize("suffix", [".xyz", ".npz"])
def test_labels_kinds_and_any_unit_survive(tmp_path: Path, suffix: str) -> None:
    vectors = torch.arange(120, dtype=torch.float64).reshape(40, 3)
    structure = make(TILTED).replace(name='two words = "quoted"', glass="a\\b")
    structure = structure.with_column("stress", vectors, "GPa")
    structure = structure.with_column("mobile", structure.types == 1)
    path = tmp_path / f"sample{suffix}"
    mgsym.write(structure, path)
    back = mgsym.read(path)
    assert (back.name, back.glass, back.split) == (structure.name, "a\\b", "validation")
    assert back.columns["stress"].unit == "GPa"
    assert torch.equal(back.columns["stress"].values, vectors)
    assert torch.equal(back.columns["mobile"].values, structure.types == 1)
    assert back.columns["events"].values.dtype == torch.int64


def test_dump_takes_wide_columns_apart_as_lammps_does(tmp_path: Path) -> None:
    vectors = torch.arange(80, dtype=torch.float64).reshape(40, 2)
    mgsym.write(make(ORTHOGONAL).with_column("c_s", vectors), tmp_path / "a.dump")
    back = mgsym.read(tmp_path / "a.dump")
    assert torch.equal(back.columns["c_s[2]"].values, vectors[:, 1])


@pytest.mark.parametrize("suffix", [".dump", ".xyz"])
def test_column_names_that_the_format_needs_itself_are_changed(tmp_path: Path, suffix: str) -> None:
    values = torch.arange(40, dtype=torch.float64)
    structure = make(ORTHOGONAL).replace(columns={})
    for name in ("id", "type", "species", "numbers", "pos", "x", "two words", "a:b=c"):
        structure = structure.with_column(name, values)
    mgsym.write(structure, tmp_path / f"a{suffix}")
    back = mgsym.read(tmp_path / f"a{suffix}")
    assert_same_atoms(back, structure, tolerance=1e-14)
    assert len(back.columns) == 8
    assert {"id_", "two_words", "a_b_c"} <= set(back.columns)
    assert all(torch.equal(column.values, values) for column in back.columns.values())


@pytest.mark.parametrize("suffix", [".dump", ".xyz", ".dump.gz"])
def test_frames_are_chosen_and_named(tmp_path: Path, suffix: str) -> None:
    frames = [make(ORTHOGONAL, atoms=10 + i, seed=i).replace(name="") for i in range(5)]
    path = tmp_path / f"quench{suffix}"
    mgsym.write(frames, path)
    assert [len(s) for s in read_frames(path)] == [10, 11, 12, 13, 14]
    assert [s.name for s in read_frames(path, frames="1:5:2")] == ["quench_1", "quench_3"]
    assert [len(s) for s in read_frames(path, frames="-2:")] == [13, 14]
    assert mgsym.read(path).name == "quench_4"
    assert mgsym.read(path, frame=0).name == "quench_0"
    assert_same_atoms(mgsym.read(path, frame=3), frames[3], tolerance=1e-14)
    with pytest.raises(mgsym.InputError, match=r"quench.*: no frame 5, it has fewer"):
        mgsym.read(path, frame=5)
    with pytest.raises(mgsym.InputError, match="no frame -6, it has 5"):
        mgsym.read(path, frame=-6)


def test_one_frame_is_called_as_the_file(tmp_path: Path) -> None:
    structure = make(ORTHOGONAL).replace(name="")
    for file, name in (
        ("a.dump.gz", "a"),
        ("glass_1.5.xyz", "glass_1.5"),
        ("dump.300", "dump.300"),
    ):
        mgsym.write(structure, tmp_path / file, format="lammps-dump")
        assert mgsym.read(tmp_path / file).name == name


@pytest.mark.parametrize("text", ["", "a", "1:2:3:4", "::0", "1.5"])
def test_frames_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    mgsym.write(make(ORTHOGONAL), tmp_path / "a.dump")
    with pytest.raises(UsageError, match="expected a number such as 0 or -1, or start:stop:step"):
        read_frames(tmp_path / "a.dump", frames=text)


def test_content_decides_the_format_before_the_name(tmp_path: Path) -> None:
    structure = make(TILTED)
    for name, suffix in (
        ("lammps-dump", ".dump"),
        ("lammps-data", ".data"),
        ("extxyz", ".xyz"),
        ("npz", ".npz"),
    ):
        mgsym.write(structure, tmp_path / f"right{suffix}")
        misnamed = (tmp_path / f"right{suffix}").rename(tmp_path / f"{name}.pickle")
        assert detect_format(misnamed) == name
        misnamed.write_bytes(gzip.compress(misnamed.read_bytes()))
        assert detect_format(misnamed) == name
        assert_same_atoms(mgsym.read(misnamed), structure, tolerance=1e-14)


def test_same_structures_give_the_same_bytes(tmp_path: Path) -> None:
    for path in ("a.xyz.gz", "b.xyz.gz"):
        mgsym.write(make(TILTED), tmp_path / path)
    assert (tmp_path / "a.xyz.gz").read_bytes() == (tmp_path / "b.xyz.gz").read_bytes()


def test_write_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    structure = make(ORTHOGONAL)
    mgsym.write(structure, tmp_path / "a.xyz")
    with pytest.raises(UsageError, match="exists already"):
        mgsym.write(structure, tmp_path / "a.xyz")
    mgsym.write(structure, tmp_path / "a.xyz", overwrite=True)
    with pytest.raises(UsageError, match="cannot tell a format to write"):
        mgsym.write(structure, tmp_path / "a.unknown")
    with pytest.raises(UsageError, match="holds one structure, 2 given"):
        mgsym.write([structure, structure], tmp_path / "a.npz")
    with pytest.raises(UsageError, match="no structures to write"):
        mgsym.write([], tmp_path / "b.xyz")
    with pytest.raises(UsageError, match="no format 'nonsense', expected one of lammps-dump"):
        mgsym.write(structure, tmp_path / "b.xyz", format="nonsense")
    assert [p.name for p in tmp_path.iterdir()] == ["a.xyz"]
