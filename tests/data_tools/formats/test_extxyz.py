"""Headers of extended XYZ files as different programs write them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import mgsym
from mgsym.data_tools.formats.extxyz import parse_info
from mgsym.structure import Structure

LATTICE = 'Lattice="5 0 0 1 6 0 0 2 7"'


def read_text(folder: Path, comment: str, *atoms: str) -> Structure:
    (folder / "a.xyz").write_text(f"{len(atoms)}\n{comment}\n" + "".join(f"{a}\n" for a in atoms))
    return mgsym.read(folder / "a.xyz")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("key=bare", "bare"),
        ('key="two words"', "two words"),
        ("key='two words'", "two words"),
        ("key={1 2 3}", "1 2 3"),
        (r'key="a \"quote\" and \\ slash"', r'a "quote" and \ slash'),
        ("key = spaced", "spaced"),
        ("key=[1, 2, 3]", "1  2  3"),
        ("key", "T"),
        ('"key"=x', "x"),
        ("before=1 key=x after=2", "x"),
        ("key=a=b", "a=b"),
        ('key=""', ""),
    ],
)
def test_values_are_unquoted(text: str, value: str) -> None:
    assert parse_info(text)["key"] == value


def test_nested_arrays_are_lattices_too(tmp_path: Path) -> None:
    comment = "Lattice=[[5, 0, 0], [1, 6, 0], [0, 2, 7]] pbc=[T, F, T]"
    structure = read_text(tmp_path, comment, "Cu 1 1 1")
    assert structure.cell.tolist() == [[5, 0, 0], [1, 6, 0], [0, 2, 7]]
    assert structure.periodic == (True, False, True)


@pytest.mark.parametrize(
    ("pbc", "periodic"),
    [
        ("", (True, True, True)),
        ("pbc=TTF", (True, True, False)),
        ("pbc=T", (True, True, True)),
        ("pbc=F", (False, False, False)),
        ('pbc="t t f"', (True, True, False)),
        ("PBC=True,True,False", (True, True, False)),
        ('Pbc="True False True"', (True, False, True)),
        ("pbc=[T, F, F]", (True, False, False)),
        ("pBc=0,1,1", (False, True, True)),
        ("pbc=110", (True, True, False)),
        ('pbc="FALSE, TRUE, true"', (False, True, True)),
    ],
)
def test_periodic_flags_as_people_write_them(
    tmp_path: Path, pbc: str, periodic: tuple[bool, bool, bool]
) -> None:
    assert read_text(tmp_path, f"{LATTICE} {pbc}", "Cu 1 1 1").periodic == periodic


@pytest.mark.parametrize(
    ("lattice", "cell"),
    [
        ('"5 6 7"', [[5, 0, 0], [0, 6, 0], [0, 0, 7]]),
        ("5,6,7", [[5, 0, 0], [0, 6, 0], [0, 0, 7]]),
        ('"5,0,0, 1,6,0, 0,2,7"', [[5, 0, 0], [1, 6, 0], [0, 2, 7]]),
    ],
)
def test_lattices_with_commas_or_of_three_numbers(
    tmp_path: Path, lattice: str, cell: list[list[float]]
) -> None:
    for key in ("Lattice", "lattice"):
        assert read_text(tmp_path, f"{key}={lattice}", "Cu 1 1 1").cell.tolist() == cell


def test_energies_of_atoms_are_ases_energies(tmp_path: Path) -> None:
    io = pytest.importorskip("ase.io")
    structure = read_text(tmp_path, LATTICE, "Cu 1 1 1", "Zr 2 2 2")
    structure = structure.with_column("energy", torch.tensor([-3.5, -6.25]).double(), "eV")
    mgsym.write(structure, tmp_path / "b.xyz")
    atoms = io.read(tmp_path / "b.xyz")
    assert atoms.get_potential_energies().tolist() == [-3.5, -6.25]
    assert atoms.get_potential_energy() == -9.75
    back = mgsym.read(tmp_path / "b.xyz").columns
    assert list(back) == ["energy"]
    assert (back["energy"].values.tolist(), back["energy"].unit) == ([-3.5, -6.25], "eV")
    old = read_text(
        tmp_path, f"{LATTICE} Properties=species:S:1:pos:R:3:energy:R:1", "Cu 1 1 1 -3.5"
    )
    assert old.columns["energy"].values.tolist() == [-3.5]


def test_header_words_of_the_sample(tmp_path: Path) -> None:
    structure = read_text(
        tmp_path,
        f'{LATTICE} Properties=species:S:1:pos:R:3:id:I:1:barrier:R:1:note:S:1 pbc="T T F" '
        'split="test" glass="melt 3" name=held_out energy_unit="eV" Origin="1 2 3"',
        "Zr 1 1 1 9 1.5 soft",
        "Cu 2 2 2 4 0.5 hard",
    )
    assert (structure.split, structure.glass, structure.name) == ("test", "melt 3", "held_out")
    assert structure.ids.tolist() == [9, 4]
    assert structure.symbols == ["Zr", "Cu"]
    assert structure.origin.tolist() == [1, 2, 3]
    assert structure.periodic == (True, True, False)
    assert structure.columns["barrier"].values.tolist() == [1.5, 0.5]
    assert structure.columns["barrier"].unit == "eV"
    assert "note" not in structure.columns


def test_properties_may_be_missing_or_use_atomic_numbers(tmp_path: Path) -> None:
    assert read_text(tmp_path, LATTICE, "Zr 1 1 1", "Cu 2 2 2").symbols == ["Zr", "Cu"]
    structure = read_text(tmp_path, f"{LATTICE} Properties=id:I:1:Z:I:1:pos:R:3", "3 40 1 1 1")
    assert structure.symbols == ["Zr"]
    assert structure.ids.tolist() == [3]


def test_logical_and_wide_columns(tmp_path: Path) -> None:
    comment = f"{LATTICE} Properties=species:S:1:pos:R:3:frozen:L:1:forces:R:3"
    structure = read_text(tmp_path, comment, "Cu 1 1 1 T 1 2 3", "Cu 2 2 2 F 4 5 6")
    assert structure.columns["frozen"].values.tolist() == [True, False]
    assert structure.columns["forces"].values.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("comment", "atom", "message"),
    [
        ("a comment", "Cu 1 1 1", r"a\.xyz, line 2: there is no Lattice, but a cell is needed"),
        ('Lattice="1 2"', "Cu 1 1 1", "line 2: expected 9 numbers .Lattice., found '1 2'"),
        (
            f"{LATTICE} pbc=T F T",
            "Cu 1 1 1",
            "line 2: pbc is 'T' and more flags follow",
        ),
        (f"{LATTICE} pbc=TT", "Cu 1 1 1", "line 2: pbc is 'TT', expected three of T and F"),
        (LATTICE, "1 1 1 1", "type 1 has no element: add --types 1=Cu,2=Zr"),
        (f"{LATTICE} pbc=yes", "Cu 1 1 1", "line 2: pbc is 'yes', expected three of T and F"),
        (f"{LATTICE} energy_unit=meV", "Cu 1 1 1", "energy_unit is meV, expected eV"),
        (f"{LATTICE} length_unit=nm", "Cu 1 1 1", "length_unit is nm, expected A"),
        (f"{LATTICE} Properties=species:S:1", "Cu", "expected pos:R:3 in it"),
        (f"{LATTICE} Properties=pos:R:3", "1 1 1", "no column species:S:1 or Z:I:1"),
        (f"{LATTICE} Properties=pos:R", "1 1 1", "expected name:kind:width"),
        (f"{LATTICE} Properties=Z:I:1:pos:R:3", "400 1 1 1", "400 is not an atomic number"),
        (f"{LATTICE} Properties=Z:I:1:pos:R:3", "1.5 1 1 1", "line 3: Z must be a whole number"),
        (f"{LATTICE} Properties=species:S:1:pos:R:3:f:L:1", "Cu 1 1 1 2", "line 3: f must be T or"),
        (f"{LATTICE} split=tets", "Cu 1 1 1", "split is 'tets', expected train, validation or"),
        (LATTICE, "Xx 1 1 1", "'Xx' is not an element symbol"),
        (LATTICE, "Cu 1 1", r"line 3: expected 4 values \(species pos pos pos\), found 3"),
    ],
)
def test_headers_that_are_wrong(tmp_path: Path, comment: str, atom: str, message: str) -> None:
    with pytest.raises(mgsym.InputError, match=message) as error:
        read_text(tmp_path, comment, atom)
    assert str(tmp_path / "a.xyz") in str(error.value)


def test_sample_ships_four_labelled_glasses_one_of_them_twice() -> None:
    from mgsym.data_tools.sample import sample_files, sample_structures

    structures = sample_structures()
    assert [s.split for s in structures] == ["test", "train", "train", "train", "validation"]
    assert len({s.glass for s in structures}) == 4
    assert [s.name for s in structures] == [
        "test",
        "train_a",
        "train_a_again",
        "train_b",
        "validation",
    ]
    assert [path.suffix for path in sample_files()] == [".xyz"] * 5
    means = [float(s.columns["barrier"].values.nanmean()) for s in structures]
    assert means == pytest.approx([1.16, 1.42, 1.44, 1.27, 1.39], abs=5e-3)  # the sample's README
    for structure in structures:
        assert structure.composition == {"Cu": 320, "Zr": 180}
        assert structure.columns["barrier_stderr"].unit == "eV"
        barrier, events = (structure.columns[name].values for name in ("barrier", "events"))
        assert torch.equal(torch.isfinite(barrier), events > 0)
