"""Which elements a file's atoms are: names, masses, type numbers and --types in every format."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import mgsym
from mgsym.data_tools.formats import count_frames, read_frames
from mgsym.data_tools.formats.species import Kind, element_of
from mgsym.errors import InputError, InputWarning
from mgsym.structure import Structure

CASES = Path(__file__).parents[2] / "cases"
TYPES = {1: "Cu", 2: "Zr"}


def silently(path: Path, **how: object) -> Structure:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return mgsym.read(path, **how)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "types", "element", "said"),
    [
        (Kind(1, ("Cu",), 63.5), None, "Cu", ""),
        (Kind(1, ("Co",), 58.693), None, "Co", ""),
        (Kind(1, ("A",), 63.546), None, "Cu", ""),
        (Kind(1, (), 63.546), None, "Cu", ""),
        (Kind(2, ("B",), 91.224), None, "Zr", "91.224 amu, which is Zr: taken for Zr"),
        (Kind(None, ("P",), 106.42), None, "Pd", "106.42 amu, which is Pd"),
        (Kind(2, ("Cu", "Zr"), 91.22), None, "Zr", ""),
        (Kind(1), {1: "Ni"}, "Ni", ""),
        (Kind(1, ("Zr",)), {1: "Cu"}, "Cu", "type 1 called Zr is taken for Cu, as --types says"),
        (Kind(1, (), 500.0), {1: "Cu"}, "Cu", "500 amu, no element's: Cu, as --types says"),
        (Kind(2, ("Zr",)), {1: "Cu"}, "Zr", ""),
    ],
)
def test_elements_decided(
    kind: Kind, types: dict[int, str] | None, element: str, said: str
) -> None:
    lines: list[str] = []
    assert element_of(kind, types, lines.append) == element
    assert said in "".join(lines)
    assert bool(lines) == bool(said)


@pytest.mark.parametrize(
    ("kind", "types", "message"),
    [
        (Kind(1, ("Cu",), 91.224), {1: "Cu"}, "which is Zr, but --types says Cu .63.546 amu.: cor"),
        (Kind(1, ("Cu",), 500.0), None, "500 amu, but Cu has 63.546, and no element has this mass"),
        (Kind(1, ("Cu", "Zr")), None, "type 1 called Cu and Zr has two elements, Cu and Zr: add"),
        (Kind(3, (), 500.0), None, "type 3 has no element: add --types"),
        (Kind(3, ("A",)), None, "type 3 called A has no element: add --types"),
        (Kind(None, ("A",)), None, "'A' is not an element symbol"),
    ],
)
def test_contradictions_refused(kind: Kind, types: dict[int, str] | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        element_of(kind, types, pytest.fail)


def test_names_against_masses_of_a_data_file() -> None:
    with pytest.warns(InputWarning, match=r"type 2 called B has a mass of 91\.224 amu"):
        structure = mgsym.read(CASES / "types_named_a_b.data")
    assert structure.symbols == ["Cu", "Zr", "Cu", "Zr"]
    with pytest.raises(InputError, match=r"type 1.* which is Cu, but --types says Zr"):
        mgsym.read(CASES / "types_named_a_b.data", types={1: "Zr", 2: "Cu"})


def test_atomeye_files_that_name_carbon() -> None:
    pytest.importorskip("ase")
    with pytest.warns(InputWarning, match=r"an atom called C has a mass of 63\.546 amu"):
        structure = mgsym.read(CASES / "carbon_by_default.cfg")
    assert structure.symbols == ["Cu", "Cu", "Zr", "Zr"]
    with pytest.warns(InputWarning, match=r"cfg: it names its elements itself \(Cu, Zr\)"):
        mgsym.read(CASES / "carbon_by_default.cfg", types=TYPES)


def test_type_numbers_for_symbols() -> None:
    path = CASES / "ovito_type_numbers.xyz"
    assert silently(path, types=TYPES).composition == {"Cu": 21, "Zr": 11}
    with pytest.raises(InputError, match=r"numbers\.xyz: type 1 has no element: add --types 1=Cu"):
        mgsym.read(path)


def test_columns_of_dumps(tmp_path: Path) -> None:
    assert silently(CASES / "typelabel.dump").symbols == ["Cu", "Zr", "Cu", "Zr"]
    text = (CASES / "typelabel.dump").read_text()
    path = tmp_path / "a.dump"
    # LAMMPS writes C where dump_modify names no elements
    path.write_text(
        text.replace("typelabel x", "element mass x")
        .replace("Cu", "C 63.546")
        .replace("Zr", "C 91.224")
    )
    with pytest.warns(InputWarning, match="an atom called C has a mass of 91"):
        assert mgsym.read(path).symbols == ["Cu", "Zr", "Cu", "Zr"]
    path.write_text(
        text.replace("typelabel x", "type mass x")
        .replace("Cu", "1 63.546")
        .replace("Zr", "2 91.224")
    )
    assert silently(path).symbols == silently(path, types=TYPES).symbols == ["Cu", "Zr", "Cu", "Zr"]
    with pytest.raises(InputError, match="which is Cu, but --types says Zr"):
        mgsym.read(path, types={1: "Zr", 2: "Cu"})
    path.write_text(
        text.replace("typelabel x", "type typelabel element x")
        .replace("Cu", "1 Cu C")
        .replace("Zr", "2 Zr C")
    )
    assert silently(path).symbols == ["Cu", "Zr", "Cu", "Zr"]


@pytest.mark.parametrize("name", ["a.xyz", "a.npz"])
def test_types_are_not_dropped_unsaid(tmp_path: Path, name: str) -> None:
    structure = Structure(torch.rand(2, 3), 9 * torch.eye(3), torch.tensor([0, 1]), ("Cu", "Zr"))
    mgsym.write(structure, tmp_path / name)
    with pytest.warns(InputWarning, match="has no type numbers: --types is not used"):
        assert mgsym.read(tmp_path / name, types=TYPES).symbols == ["Cu", "Zr"]


def test_masses_of_extended_xyz(tmp_path: Path) -> None:
    path = tmp_path / "a.xyz"
    head = '1\nLattice="9 9 9" Properties=species:S:1:pos:R:3:mass:R:1\n'
    path.write_text(head + "S 1 1 1 118.71\n")
    with pytest.warns(InputWarning, match="an atom called S has a mass of 118.71 amu, which is Sn"):
        assert mgsym.read(path).symbols == ["Sn"]


# --- frames without atoms, and cut ones ------------------------------------------------------


def test_frames_without_atoms_are_frames() -> None:
    path = CASES / "empty_first_frame.dump"
    assert count_frames(path) == 3
    assert len(silently(path, types=TYPES)) == 5
    assert len(silently(path, types=TYPES, frame=1)) == 2
    with pytest.raises(InputError, match="frame 0: there are no atoms: choose other --frames"):
        mgsym.read(path, types=TYPES, frame=0)
    with pytest.warns(InputWarning, match=r"1 of 3 frames have no atoms and are left out \(0\)"):
        assert [s.name for s in read_frames(path, TYPES)] == [f"{path.stem}_{n}" for n in (1, 2)]


def test_a_frame_without_atoms_in_extended_xyz(tmp_path: Path) -> None:
    path = tmp_path / "a.xyz"
    frame = '1\nLattice="9 9 9"\nCu 1 1 1\n'
    path.write_text(frame + "0\n\n" + frame)
    assert count_frames(path) == 3
    assert len(mgsym.read(path)) == len(mgsym.read(path, frame=0)) == 1
    with pytest.raises(InputError, match="frame 1: there are no atoms"):
        mgsym.read(path, frame=1)


def test_a_last_frame_cut_in_its_header_leaves_the_others() -> None:
    path = CASES / "cut_header.dump"
    with pytest.warns(InputWarning, match="the file ends within the header after line 25, which"):
        assert len(mgsym.read(path, types=TYPES)) == 4
    assert len(mgsym.read(path, types=TYPES, frame=0)) == 3


@pytest.mark.parametrize("suffix", ["dump", "xyz"])
def test_wherever_a_header_is_cut(tmp_path: Path, suffix: str) -> None:
    structure = Structure(
        torch.from_numpy(np.random.default_rng(0).random((3, 3))),
        9 * torch.eye(3), torch.tensor([0, 1, 0]), ("Cu", "Zr"),
    )  # fmt: skip
    path = tmp_path / f"a.{suffix}"
    mgsym.write(structure, path)
    whole = path.read_bytes()
    header = whole.index(b"ITEM: ATOMS") + 30 if suffix == "dump" else whole.index(b"pbc")
    for cut in range(2, header):
        path.write_bytes(whole + whole[:cut])
        with pytest.warns(InputWarning, match="the file ends within the header"):
            assert count_frames(path) == 1
    path.write_bytes(whole + b"\n\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert count_frames(path) == 1
