"""Labels from a CSV file, and tables that give them back."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch

import mgsym
from mgsym.data_tools.formats.label_table import with_labels
from mgsym.structure import Structure


@pytest.fixture
def structure() -> Structure:
    return Structure(
        positions=torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]),
        cell=torch.eye(3) * 10,
        types=torch.tensor([0, 1, 0]),
        species=("Cu", "Zr"),
        ids=torch.tensor([30, 10, 20]),
    )


def label(folder: Path, structure: Structure, text: str, target: str = "barrier") -> Structure:
    (folder / "labels.csv").write_text(text)
    return with_labels(structure, folder / "labels.csv", target)


def test_labels_go_by_id(tmp_path: Path, structure: Structure) -> None:
    labelled = label(tmp_path, structure, "id,barrier,barrier_stderr\n10,1.5,0.1\n30,2.5,0.2\n")
    values, unit = labelled.columns["barrier"]
    assert unit == "eV"
    assert values[:2].tolist() == [2.5, 1.5]
    assert math.isnan(values[2])
    assert labelled.columns["barrier_stderr"].values[:2].tolist() == [0.2, 0.1]
    assert dict(structure.columns) == {}


def test_order_of_columns_extra_ones_blank_lines_and_marks(
    tmp_path: Path, structure: Structure
) -> None:
    text = "\ufeffnote, barrier [eV] ,id\r\nsoft,1.5,10\r\n\r\n"
    labelled = label(tmp_path, structure, text)
    assert labelled.columns["barrier"].values[1] == 1.5
    assert "barrier_stderr" not in labelled.columns


def test_another_target(tmp_path: Path, structure: Structure) -> None:
    labelled = label(tmp_path, structure, "id,lowest\n10,0.5\n", "lowest")
    assert labelled.columns["lowest"].values[1] == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,energy\n10,1\n", r"line 1: no column 'barrier', expected id,barrier\[,barrier_stderr"),
        ("atom,barrier\n10,1\n", "line 1: no column 'id'"),
        ("id,barrier [meV]\n10,1\n", "line 1: barrier is in meV, expected eV"),
        ("id,barrier\n10,1\n99,1\n", "line 3: the structure has no atom with id 99"),
        ("id,barrier\n10,1\n\n10,2\n", "line 4: atom id 10 again, it came on line 2"),
        ("id,barrier\nten,1\n", "line 2: id must be a whole number, found 'ten'"),
        ("id,barrier\n10,high\n", "line 2: barrier must be a number in eV, found 'high'"),
        ("id,barrier\n10,\n", "line 2: barrier must be a number in eV, found ''"),
        ("id,barrier\n10,inf\n", "line 2: barrier must be a number in eV, found 'inf'"),
        ("id,barrier\n10,1,2\n", "line 2: expected 2 values, found 3"),
    ],
)
def test_labels_that_are_wrong(
    tmp_path: Path, structure: Structure, text: str, message: str
) -> None:
    with pytest.raises(mgsym.InputError, match=rf"labels\.csv, {message}"):
        label(tmp_path, structure, text)


def test_label_files_that_are_none(tmp_path: Path, structure: Structure) -> None:
    with pytest.raises(mgsym.InputError, match="no such file"):
        with_labels(structure, tmp_path / "gone.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(mgsym.InputError, match="is not text"):
        with_labels(structure, tmp_path / "binary.csv")


@pytest.mark.parametrize("name", ["out.csv", "out.csv.gz"])
def test_tables_give_labels_back(tmp_path: Path, structure: Structure, name: str) -> None:
    labels = torch.tensor([0.1, 1.7, 2.9], dtype=torch.float32)
    mgsym.write(structure.with_column("barrier", labels, "eV"), tmp_path / name)
    back = with_labels(structure, tmp_path / name)
    assert torch.equal(back.columns["barrier"].values.float(), labels)


def test_tables_say_their_units(tmp_path: Path, structure: Structure) -> None:
    forces = torch.arange(6).reshape(3, 2)
    mgsym.write(structure.with_column("force", forces, "eV/Å"), tmp_path / "out.csv")
    rows = list(csv.reader((tmp_path / "out.csv").read_text().splitlines()))
    head = ["id", "element", "x [A]", "y [A]", "z [A]", "force[1] [eV/A]", "force[2] [eV/A]"]
    assert rows[0] == head
    assert rows[1] == ["30", "Cu", "1.0", "2.0", "3.0", "0", "1"]
    assert len(rows) == 4
