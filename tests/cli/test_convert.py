"""`mgsym convert`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import mgsym
from mgsym.cli.main import main
from mgsym.data_tools.formats import read_frames
from mgsym.data_tools.sample import sample_files, sample_structures

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_several_files_become_frames_of_one(capsys: Captured) -> None:
    files = [str(file) for file in sample_files()]
    assert main(["convert", *files, "-o", "all.dump.gz"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].split() == ["all.dump.gz", "lammps-dump", "5", "2500"]
    assert "lammps-dump files do not keep: units of columns" in err
    assert err.splitlines()[-1] == "Wrote all.dump.gz"
    assert [len(s) for s in read_frames("all.dump.gz")] == [500] * 5
    assert main(["convert", "all.dump.gz", "--frames", "1:3", "-o", "two.xyz", "-q"]) == 0
    assert [s.name for s in read_frames("two.xyz")] == ["all_1", "all_2"]


def test_a_folder_gets_one_file_each(capsys: Captured) -> None:
    Path("out").mkdir()
    files = [str(file) for file in sample_files()]
    assert main(["convert", *files, "-o", "out"]) == 2
    assert "say with --format what to write into it" in capsys.readouterr().err
    assert main(["convert", *files, "-o", "out", "--format", "npz", "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert sorted(w["path"] for w in written) == [f"out/{s.name}.npz" for s in sample_structures()]
    assert mgsym.read(written[0]["path"]).split == "test"
    assert main(["convert", files[0], files[0], "-o", "out", "--format", "extxyz"]) == 2
    assert "two structures are called" in capsys.readouterr().err


def test_labels_types_and_overwrite(capsys: Captured) -> None:
    Path("a.data").write_text(
        "title\n\n2 atoms\n2 atom types\n0 9 xlo xhi\n0 9 ylo yhi\n0 9 zlo zhi\n\n"
        "Atoms # atomic\n\n7 1 0 0 0\n3 2 4 4 4\n"
    )
    Path("labels.csv").write_text("id,barrier\n3,1.25\n")
    command = ["convert", "a.data", "-o", "a.xyz", "--labels", "labels.csv"]
    assert main(command) == 3
    assert "a.data: type 1 has no element: add --types 1=Cu,2=Zr" in capsys.readouterr().err
    assert main([*command, "--types", "1=Cu,2=Zr"]) == 0
    structure = mgsym.read("a.xyz")
    assert structure.columns["barrier"].values[1] == 1.25
    assert structure.symbols == ["Cu", "Zr"]
    assert main([*command, "--types", "1=Cu,2=Zr"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*command, "--types", "1=Cu,2=Zr", "--overwrite"]) == 0
    files = [str(file) for file in sample_files()]
    assert main(["convert", *files, "-o", "b.xyz", "--labels", "labels.csv"]) == 2
    assert "belongs to one structure, 5 are given" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("a.unknown", "cannot tell a format to write: end the name in .dump"),
        ("a.npz", "npz holds one structure, 5 given: write several files, or choose one"),
        ("a.pickle", "cannot tell a format to write"),
    ],
)
def test_outputs_that_cannot_be_written(capsys: Captured, out: str, message: str) -> None:
    assert main(["convert", *map(str, sample_files()), "-o", out]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not Path(out).exists()
