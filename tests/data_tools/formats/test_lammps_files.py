"""LAMMPS dump and data files, against boxes worked out by hand and against ASE."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import mgsym
from mgsym.data_tools.formats import read_frames
from mgsym.structure import Column, Structure

TYPES = {1: "Cu", 2: "Zr"}


def dump(box: str, columns: str, *atoms: str) -> str:
    return (
        f"ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n{len(atoms)}\nITEM: BOX BOUNDS {box}\n"
        f"ITEM: ATOMS {columns}\n" + "".join(f"{atom}\n" for atom in atoms)
    )


def read_text(folder: Path, text: str, name: str = "a.dump") -> Structure:
    path = folder / name
    path.write_text(text)
    return mgsym.read(path, types=TYPES)


def rows(tensor: torch.Tensor) -> list[list[float]]:
    return [[round(v, 12) for v in row] for row in tensor.tolist()]


# A box with corner (1, 2, 3), edges 10, 8, 6 and tilts xy = 4, xz = −3, yz = 2 reaches in x from
# 1 + min(0, 4, −3, 1) = −2 to 11 + max(0, 4, −3, 1) = 15 and in y from 2 + 0 to 10 + 2.
TILTED_BOUNDS = "xy xz yz pp pp ff\n-2 15 4\n2 12 -3\n3 9 2"
TILTED_CELL = [[10, 0, 0], [4, 8, 0], [-3, 2, 6]]


def test_bounds_of_a_tilted_box_are_turned_into_its_own_corner(tmp_path: Path) -> None:
    structure = read_text(tmp_path, dump(TILTED_BOUNDS, "id type x y z", "1 1 0 0 0"))
    assert rows(structure.cell) == TILTED_CELL
    assert structure.origin.tolist() == [1, 2, 3]
    assert structure.periodic == (True, True, False)


def test_both_signs_of_tilt(tmp_path: Path) -> None:
    # xy = −4, xz = −3: x from min(0, −4, −3, −7) = −7 to 10 + 0; yz = −2: y from −2 to 8
    text = dump("xy xz yz pp pp pp\n-7 10 -4\n-2 8 -3\n0 6 -2", "id type x y z", "1 1 0 0 0")
    structure = read_text(tmp_path, text)
    assert rows(structure.cell) == [[10, 0, 0], [-4, 8, 0], [-3, -2, 6]]
    assert structure.origin.tolist() == [0, 0, 0]


def test_general_box_gives_vectors_and_origin(tmp_path: Path) -> None:
    box = "abc origin pp ff pp\n4 0 1 -2\n1 5 0 -3\n0.5 0.25 6 -4"
    structure = read_text(tmp_path, dump(box, "id type xs ys zs", "1 1 0.5 0.5 0.5"))
    assert rows(structure.cell) == [[4, 0, 1], [1, 5, 0], [0.5, 0.25, 6]]
    assert structure.origin.tolist() == [-2, -3, -4]
    assert structure.periodic == (True, False, True)
    assert rows(structure.positions) == [[0.75, -0.375, -0.5]]


@pytest.mark.parametrize(
    ("columns", "atom"),
    [
        ("x y z", "2.75 9.25 6"),
        ("xu yu zu", "2.75 9.25 6"),
        ("xs ys zs", "0.0125 0.78125 0.5"),
        ("xsu ysu zsu", "0.0125 0.78125 0.5"),
        ("xs ys zs ix iy iz", "0.0125 0.78125 0.5 3 -1 2"),
        ("xu yu zu x y z", "99 99 99 2.75 9.25 6"),
    ],
)
def test_every_kind_of_coordinates(tmp_path: Path, columns: str, atom: str) -> None:
    # (1, 2, 3) + 0.0125 a + 0.78125 b + 0.5 c = (1 + 0.125 + 3.125 − 1.5, 2 + 6.25 + 1, 3 + 3)
    structure = read_text(tmp_path, dump(TILTED_BOUNDS, f"id type {columns}", f"1 1 {atom}"))
    assert rows(structure.positions) == [[2.75, 9.25, 6.0]]
    assert dict(structure.columns) == {}


def test_order_ids_elements_and_columns(tmp_path: Path) -> None:
    text = dump(
        "pp fs mm\n0 10\n0 10\n0 10",
        "id type x y z c_pe vx",
        "7 2 1 1 1 -4.5 0.25",
        "3 1 2 2 2 -3.5 nan",
        "5 1 3 3 3 -2.5 1e-3",
    )
    structure = read_text(tmp_path, text)
    assert structure.ids.tolist() == [7, 3, 5]
    assert structure.symbols == ["Zr", "Cu", "Cu"]
    assert structure.periodic == (True, False, False)
    assert structure.columns["c_pe"].values.tolist() == [-4.5, -3.5, -2.5]
    assert (structure.columns["c_pe"].unit, structure.columns["vx"].unit) == ("", "Å/ps")


def test_element_column_needs_no_types_and_missing_ids_count_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.dump"
    path.write_text(dump("\n0 9\n0 9\n0 9", "element x y z", "Zr 1 1 1", "Cu 2 2 2"))
    structure = mgsym.read(path)
    assert structure.symbols == ["Zr", "Cu"]
    assert structure.ids.tolist() == [1, 2]
    assert structure.periodic == (True, True, True)


def test_types_given_by_the_user_beat_the_element_column(tmp_path: Path) -> None:
    # LAMMPS writes C for every type unless dump_modify names the elements
    text = dump("pp pp pp\n0 9\n0 9\n0 9", "id type element x y z", "1 2 C 1 1 1", "2 1 C 2 2 2")
    assert read_text(tmp_path, text).symbols == ["Zr", "Cu"]


def test_lammps_default_element_is_not_carbon(tmp_path: Path) -> None:
    path = tmp_path / "a.dump"
    columns = "id type element x y z"
    path.write_text(dump("pp pp pp\n0 9\n0 9\n0 9", columns, "1 2 C 1 1 1", "2 1 C 2 2 2"))
    with pytest.raises(mgsym.InputError, match="every element is C, which LAMMPS writes unless"):
        mgsym.read(path)
    path.write_text(dump("pp pp pp\n0 9\n0 9\n0 9", columns, "1 1 C 1 1 1", "2 1 C 2 2 2"))
    assert mgsym.read(path).symbols == ["C", "C"]


def test_units_time_and_windows_line_ends(tmp_path: Path) -> None:
    text = "ITEM: UNITS\nmetal\nITEM: TIME\n0.5\n" + dump(
        "pp pp pp\n0 9\n0 9\n0 9", "id type x y z", "1 1 1 1 1"
    )
    (tmp_path / "a.dump").write_bytes(text.replace("\n", "\r\n").encode())
    assert len(mgsym.read(tmp_path / "a.dump", types=TYPES)) == 1


def test_a_frame_asked_for_is_read_though_a_later_one_is_broken(tmp_path: Path) -> None:
    good = dump("pp pp pp\n0 9\n0 9\n0 9", "id type x y z", "1 1 1 1 1", "2 1 2 2 2")
    path = tmp_path / "a.dump"
    path.write_text(good + good[:-6])
    assert len(mgsym.read(path, types=TYPES, frame=0)) == 2
    with pytest.raises(mgsym.InputError, match="expected 2 atoms, found 1"):
        mgsym.read(path, types=TYPES)
    path.write_text(good + "ITEM: TIMEST")
    assert len(mgsym.read(path, types=TYPES, frame=0)) == 2


DATA = """LAMMPS data file via write_data, version 22 Jul 2025, timestep = 0, units = metal

3 atoms
2 atom types

1 11 xlo xhi
2 10 ylo yhi
3 9 zlo zhi
4 -3 2 xy xz yz

Masses

1 63.546
2 91.2  # Zr

Pair Coeffs # eam/fs

1 x
2 x

{section}

Velocities

9 0 0 0
4 0 0 0
2 0 0 0
"""


@pytest.mark.parametrize(
    "section",
    [
        "Atoms\n\n9 2 1 1 1\n4 1 2 2 2\n2 1 3 3 3",
        "Atoms # atomic\n\n9 2 1 1 1 0 0 1\n4 1 2 2 2 0 0 0\n2 1 3 3 3 -1 0 0",
        "Atoms # charge\n\n9 2 0.5 1 1 1\n4 1 0 2 2 2  # a comment\n2 1 0 3 3 3",
        "Atoms # molecular\n\n9 1 2 1 1 1\n4 1 1 2 2 2\n2 1 1 3 3 3",
        "Atoms  # full\n\n9 1 2 0.5 1 1 1 0 0 0\n4 1 1 0 2 2 2 0 0 0\n2 1 1 0 3 3 3 0 0 0",
        "Atoms # hybrid\n\n9 2 1 1 1 0.5 6\n4 1 2 2 2 0.5 6\n2 1 3 3 3 0.5 6",
    ],
)
def test_data_files_of_several_styles(tmp_path: Path, section: str) -> None:
    path = tmp_path / "a.data"
    path.write_text(DATA.format(section=section))
    structure = mgsym.read(path)
    assert structure.ids.tolist() == [9, 4, 2]
    assert structure.symbols == ["Zr", "Cu", "Cu"]
    assert structure.positions.tolist() == [[1, 1, 1], [2, 2, 2], [3, 3, 3]]
    # a data file gives the box's own corner, where a dump gives its bounding box
    assert structure.cell.tolist() == TILTED_CELL
    assert structure.origin.tolist() == [1, 2, 3]


def test_data_file_with_type_labels_and_a_general_box(tmp_path: Path) -> None:
    (tmp_path / "a.data").write_text(
        "title\n\n2 atoms\n2 atom types\n4 0 1 avec\n1 5 0 bvec\n0.5 0.25 6 cvec\n"
        "-2 -3 -4 abc origin\n\nAtom Type Labels\n\n1 Zr\n2 Cu\n\n"
        "Atoms # atomic\n\n1 Zr 0 0 0\n2 Cu 1 1 1\n"
    )
    structure = mgsym.read(tmp_path / "a.data")
    assert structure.symbols == ["Zr", "Cu"]
    assert structure.cell.tolist() == [[4, 0, 1], [1, 5, 0], [0.5, 0.25, 6]]
    assert structure.origin.tolist() == [-2, -3, -4]


def random_structure(seed: int = 3) -> Structure:
    random = np.random.default_rng(seed)
    cell = torch.tensor([[9.0, 0, 0], [-2.0, 8.0, 0], [1.0, 3.0, 7.0]], dtype=torch.float64)
    return Structure(
        positions=torch.from_numpy(random.random((30, 3))) @ cell,
        cell=cell,
        types=torch.arange(30) % 2,
        species=("Cu", "Zr"),
        columns={"energy": Column(torch.from_numpy(random.random(30)), "eV")},
    )


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".dump", {"format": "lammps-dump-text", "specorder": ["Cu", "Zr"]}),
        (".data", {"format": "lammps-data", "atom_style": "atomic", "units": "metal"}),
        (".xyz", {"format": "extxyz"}),
    ],
)
def test_ase_reads_what_is_written_and_agrees(
    tmp_path: Path, suffix: str, options: dict[str, object]
) -> None:
    io = pytest.importorskip("ase.io")
    structure = random_structure()
    path = tmp_path / f"a{suffix}"
    mgsym.write(structure, path)
    atoms = io.read(path, **options)
    assert np.abs(atoms.get_positions() - structure.positions.numpy()).max() < 1e-12
    assert np.abs(np.array(atoms.cell) - structure.cell.numpy()).max() < 1e-12
    assert atoms.get_chemical_symbols() == structure.symbols
    assert atoms.pbc.all()


@pytest.mark.parametrize("suffix", [".dump", ".xyz"])
def test_every_frame_agrees_with_ase(tmp_path: Path, suffix: str) -> None:
    io = pytest.importorskip("ase.io")
    path = tmp_path / f"a{suffix}"
    mgsym.write([random_structure(seed) for seed in range(3)], path)
    options = {"format": "lammps-dump-text", "specorder": ["Cu", "Zr"]} if suffix == ".dump" else {}
    theirs = io.read(path, index=":", **options)
    ours = read_frames(path)
    assert len(ours) == len(theirs) == 3
    for structure, atoms in zip(ours, theirs, strict=True):
        assert np.abs(atoms.get_positions() - structure.positions.numpy()).max() < 1e-12


def test_extxyz_columns_and_ids_reach_ase_and_come_back(tmp_path: Path) -> None:
    io = pytest.importorskip("ase.io")
    structure = random_structure().with_column("force_norm", torch.rand(30, 3).double(), "eV/Å")
    structure = structure.replace(ids=torch.arange(30).flip(0) + 5, glass="a b", split="test")
    mgsym.write(structure, tmp_path / "a.xyz")
    atoms = io.read(tmp_path / "a.xyz")
    assert atoms.arrays["id"].tolist() == structure.ids.tolist()
    assert np.array_equal(atoms.arrays["force_norm"], structure.columns["force_norm"].values)
    assert (atoms.info["glass"], atoms.info["split"]) == ("a b", "test")
    io.write(tmp_path / "b.xyz", atoms, format="extxyz")
    back = mgsym.read(tmp_path / "b.xyz")
    assert (back.positions - structure.positions).abs().max() < 1e-8  # ASE writes eight decimals
    assert (back.glass, back.split, back.symbols) == ("a b", "test", structure.symbols)


@pytest.mark.parametrize("name", ["a.cif", "POSCAR", "a.traj"])
def test_ases_own_formats_are_read_through_ase(tmp_path: Path, name: str) -> None:
    pytest.importorskip("ase")
    structure = random_structure()
    structure.to_ase().write(tmp_path / name)
    back = mgsym.read(tmp_path / name)
    assert back.name == name.removesuffix(".cif").removesuffix(".traj")
    assert back.composition == {"Cu": 15, "Zr": 15}
    assert back.volume == pytest.approx(structure.volume, rel=1e-6)


def test_triclinic_small_cell_of_lammps(tmp_path: Path) -> None:
    """The cell LAMMPS itself used survives data and dump files."""
    reference = Path(__file__).parents[2] / "reference" / "lammps_eam_triclinic32_small_box.npz"
    with np.load(reference) as arrays:
        structure = Structure(
            positions=torch.from_numpy(arrays["positions"]),
            cell=torch.from_numpy(arrays["cell"]),
            types=torch.from_numpy(arrays["types"].astype(np.int64) - 1),
            species=("Cu", "Zr"),
        )
    for name in ("a.dump", "a.data"):
        mgsym.write(structure, tmp_path / name)
        back = mgsym.read(tmp_path / name)
        assert (back.cell - structure.cell).abs().max() < 1e-12
        assert torch.equal(back.positions, structure.positions)
