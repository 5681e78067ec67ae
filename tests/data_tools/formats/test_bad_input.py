"""Each way a file can be wrong is one line that says file, place, and what to do."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

import mgsym
from mgsym.data_tools.formats import ase_formats, detect_format, parse_types
from mgsym.errors import UsageError
from mgsym.structure import Structure

TYPES = {1: "Cu", 2: "Zr"}
HEAD = "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n{atoms}\nITEM: BOX BOUNDS {box}\n"
BOX = "pp pp pp\n0 10\n0 10\n0 10"


def dump(*atoms: str, box: str = BOX, count: int | None = None, columns: str = "x y z") -> str:
    head = HEAD.format(atoms=len(atoms) if count is None else count, box=box)
    return head + f"ITEM: ATOMS id type {columns}\n" + "".join(f"{atom}\n" for atom in atoms)


GOOD = dump("1 1 1 1 1", "2 2 2 2 2")
DATA = "title\n\n2 atoms\n1 atom types\n0 9 xlo xhi\n0 9 ylo yhi\n0 9 zlo zhi\n\n"

CASES = {
    "one atom too few": (
        dump("1 1 1 1 1", "2 1 2 2 2", count=3),
        "after line 11: expected 3 atoms, found 2: the file was cut short or its atom count",
    ),
    "cut in the middle of a line": (GOOD[:-4], "expected 2 atoms, found 1"),
    "no atoms": (GOOD[: GOOD.index("1 1 1 1 1")], "after line 9: expected 2 atoms, found 0"),
    "cut in the header": (GOOD[:70], "the file ends after line 6, expected lower and upper bound"),
    "count of the next frame": (
        dump("1 1 1 1 1", count=2) + GOOD,
        "line 12: expected ITEM: TIMESTEP .* or the atom count before is wrong",
    ),
    "nan": (dump("5 1 1 nan 1"), "atom id 5 has a NaN or infinite coordinate: 1 nan 1"),
    "infinity": (dump("5 1 1 1 inf"), "atom id 5 has a NaN or infinite coordinate: 1 1 inf"),
    "not a number": (dump("1 1 1 1 1", "2 1 2 O.5 2"), "line 11: y must be a number, found 'O.5'"),
    "too many values": (
        dump("1 1 1 1 1", "2 1 2 2 2 2", "3 1 3 3 3"),
        r"line 11: expected 5 values \(id type x y z\), found 6: '2 1 2 2 2 2'",
    ),
    "doubled id": (dump("4 1 1 1 1", "4 1 2 2 2"), "atom id 4 occurs more than once"),
    "fractional id": (dump("4.5 1 1 1 1"), "id 4.5 is not a whole number"),
    "unknown type": (dump("1 3 1 1 1"), r"bad: type 3 has no element: add --types 1=Cu,2=Zr"),
    "no volume": (dump("1 1 1 1 1", box="pp pp pp\n0 10\n3 3\n0 10"), "the cell has no volume"),
    "left-handed": (
        dump("1 1 1 1 1", box="abc origin pp pp pp\n0 1 0 0\n1 0 0 0\n0 0 1 0"),
        "the cell is left-handed .* swap two cell vectors",
    ),
    "upside down": (dump("1 1 1 1 1", box="pp pp pp\n0 9\n9 0\n0 9"), "the cell is left-handed"),
    "real units": (
        "ITEM: UNITS\nreal\n" + GOOD,
        "line 2: units are real, expected metal .* run LAMMPS with `units metal`",
    ),
    "no coordinates": (
        dump("1 1 1 1", columns="x y"),
        "line 9: no coordinates among the columns id type x y, expected x y z",
    ),
    "a column twice": (
        dump("1 1 1 1 1 1", columns="x y z x"),
        "line 9: ITEM: ATOMS names a column",
    ),
    "neither type nor element": (
        GOOD.replace("id type", "id mol"),
        "no column type or element",
    ),
    "atom count": (
        GOOD.replace("\n2\n", "\nmany\n"),
        "line 4: expected the number of atoms, .*many",
    ),
    "no box": (
        GOOD.replace("ITEM: BOX BOUNDS pp pp pp\n0 10\n0 10\n0 10\n", ""),
        "line 5: ITEM: ATOMS before NUMBER OF ATOMS and BOX BOUNDS",
    ),
    "box of words": (
        dump("1 1 1 1 1", box="pp pp pp\na b\n0 1\n0 1"),
        "line 6: expected 2 numbers",
    ),
    "a dump of bonds": (
        GOOD.replace("ITEM: NUMBER OF ATOMS", "ITEM: NUMBER OF ENTRIES"),
        "line 3: expected ITEM: TIMESTEP or another header, found 'ITEM: NUMBER OF ENTRIES'",
    ),
    "data in real units": (
        "LAMMPS data file, units = real" + DATA.removeprefix("title"),
        "line 1: units are real, expected metal",
    ),
    "data without atoms": (DATA, "there is no Atoms section"),
    "data without box": (
        DATA.replace("0 9 ylo yhi\n", "") + "Atoms # atomic\n\n1 1 0 0 0\n2 1 1 1 1\n",
        "the header has no ylo yhi: a cell is needed",
    ),
    "data with few atoms": (
        DATA + "Atoms # atomic\n\n1 1 0 0 0\n",
        "after line 11: expected 2 atoms, found 1",
    ),
    "data of unknown style": (DATA + "Atoms # magic\n\n1 1 0 0 0\n", "atom style 'magic' is not"),
    "data without style": (
        DATA + "Atoms\n\n1 1 0 0 0 0\n2 1 0 0 0 0\n",
        "line 11: 6 values on a line and no atom style, expected `Atoms # atomic`",
    ),
    "data of another style": (
        DATA + "Atoms # full\n\n1 1 0 0 0\n2 1 1 1 1\n",
        "line 11: expected 7 values .* and perhaps 3 image flags, found 5",
    ),
    "data with a bad number": (
        DATA + "Atoms # atomic\n\n1 1 0 0 0\n2 1 1 one 1\n",
        "line 12: y must be a number, found 'one'",
    ),
    "data of unknown mass": (
        DATA + "Masses\n\n1 500\n\nAtoms # atomic\n\n1 1 0 0 0\n2 1 1 1 1\n",
        "type 1 has no element: add --types",
    ),
}


@pytest.mark.parametrize(("text", "message"), CASES.values(), ids=CASES)
def test_text_that_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad"
    path.write_text(text)
    types = None if "data" in text or text.startswith("title") else TYPES
    with pytest.raises(mgsym.InputError, match=message) as error:
        mgsym.read(path, types=types)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_a_table_does_not_run_into_the_next_frame(tmp_path: Path) -> None:
    path = tmp_path / "a.dump"
    path.write_text(dump("1 1 1 1 1", count=2) + GOOD)
    with pytest.raises(mgsym.InputError, match="after line 10: expected 2 atoms, found 1"):
        mgsym.read(path, types=TYPES, frame=0)


def test_the_frame_at_fault_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.dump"
    path.write_text(GOOD + dump("1 1 1 nan 1"))
    with pytest.raises(mgsym.InputError, match=r"a\.dump, frame 1: atom id 1 has a NaN"):
        mgsym.read(path, types=TYPES)


def test_missing_empty_and_folders(tmp_path: Path) -> None:
    with pytest.raises(mgsym.InputError, match=r"gone\.xyz: no such file"):
        mgsym.read(tmp_path / "gone.xyz")
    with pytest.raises(mgsym.InputError, match="is a folder, expected a file"):
        mgsym.read(tmp_path)
    for name in ("a.dump", "a.npz", "a.pickle", "a.unknown"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(mgsym.InputError, match=f"{name}: the file is empty"):
            mgsym.read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.bin", "a.dump", "a.data", "a.xyz", "a.npz", "a.pickle"])
@pytest.mark.parametrize("junk", ["random", "text", "gzip"])
def test_junk_is_refused_whatever_its_name(tmp_path: Path, name: str, junk: str) -> None:
    random = np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes()
    content = {"random": random, "text": b"dear diary\n" * 9, "gzip": gzip.compress(random)}[junk]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(mgsym.InputError) as error:
        mgsym.read(tmp_path / name)
    assert str(error.value).startswith(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_unknown_content_lists_the_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.unknown"
    path.write_text("dear diary\n")
    with pytest.raises(mgsym.InputError, match="not a structure file known here, expected one of"):
        detect_format(path)
    # as where ASE is not installed
    monkeypatch.setattr(ase_formats, "format_in_ase", lambda path: None)
    monkeypatch.setattr(ase_formats, "is_installed", lambda: False)
    with pytest.raises(mgsym.InputError, match=r'pip install "mgsym\[ase\]" reads more'):
        mgsym.read(path)
    with pytest.raises(UsageError, match=r'needs ASE, .*pip install "mgsym\[ase\]"'):
        mgsym.read(path, format="ase")


def test_binary_in_the_middle_of_text(tmp_path: Path) -> None:
    path = tmp_path / "a.dump"
    path.write_bytes(dump("1 1 1 1 1", "2 1 2 2 2").encode().replace(b"2 1 2", b"\xff\xfe\x00"))
    with pytest.raises(mgsym.InputError, match="line 11: is not text"):
        mgsym.read(path, types=TYPES)


@pytest.mark.parametrize("suffix", [".dump.gz", ".xyz.gz", ".npz.gz", ".data.gz"])
def test_compressed_files_cut_short(tmp_path: Path, suffix: str) -> None:
    random = np.random.default_rng(0)
    structure = Structure(
        positions=torch.from_numpy(random.random((500, 3))),
        cell=torch.eye(3) * 9,
        types=torch.zeros(500),
        species=("Cu",),
    )
    path = tmp_path / f"a{suffix}"
    mgsym.write(structure, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(mgsym.InputError, match="compressed file is cut short or damaged"):
        mgsym.read(path)
    path.write_bytes(whole[:2000] + b"\0" * 100 + whole[2100:])
    with pytest.raises(mgsym.InputError):
        mgsym.read(path)


def test_npz_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, positions=np.zeros((2, 3)))
    with pytest.raises(mgsym.InputError, match="format says nothing, expected mgsym-structure"):
        mgsym.read(path)
    np.savez(path, format="mgsym-structure", format_version=99)
    with pytest.raises(mgsym.InputError, match="version 99, this mgsym reads version 1"):
        mgsym.read(path)
    np.savez(path, format="mgsym-structure", format_version=1, cell=np.eye(3))
    with pytest.raises(mgsym.InputError, match="lacks glass, ids, name"):
        mgsym.read(path)
    np.savez(path, format=np.array([{"a": 1}], dtype=object))
    with pytest.raises(mgsym.InputError, match="damaged"):
        mgsym.read(path)


def test_types_from_the_command_line() -> None:
    assert parse_types("1=Cu, 2=Zr") == {1: "Cu", 2: "Zr"}
    for text in ("", "Cu,Zr", "1=Cu,2", "1=Cu,2=Xx", "0.5=Cu", "1:Cu", "1=cu"):
        with pytest.raises(UsageError, match="is not number=element; expected 1=Cu,2=Zr"):
            parse_types(text)
    with pytest.raises(UsageError, match="type 1 is given twice"):
        parse_types("1=Cu,1=Zr")


def test_tables_are_not_structures(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,barrier\n1,2\n")
    with pytest.raises(UsageError, match="csv files are written only"):
        mgsym.read(tmp_path / "a.csv")
