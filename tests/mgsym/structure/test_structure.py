"""Structure: what it refuses, what it keeps, and ASE and back."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mgsym.errors import InputError
from mgsym.structure import Column, Structure, index_species

POSITIONS = [[0.0, 0, 0], [2, 0, 0], [0, 2, 9.5]]
CELL = torch.diag(torch.tensor([6.0, 7, 8]))


def structure(**changes: Any) -> Structure:
    fields: dict[str, Any] = {
        "positions": POSITIONS,
        "cell": CELL,
        "types": [0, 1, 1],
        "species": ("Cu", "Zr"),
    }
    return Structure(**{**fields, **changes})


def test_defaults_and_facts() -> None:
    made = structure()
    assert made.positions.dtype == made.cell.dtype == torch.float64
    assert made.ids.tolist() == [1, 2, 3]
    assert made.periodic == (True, True, True)
    assert made.composition == {"Cu": 1, "Zr": 2}
    assert made.symbols == ["Cu", "Zr", "Zr"]
    assert made.volume == pytest.approx(336)
    assert made.number_density == pytest.approx(3 / 336)
    assert made.positions[2, 2] == 9.5  # outside the cell, and left there
    assert repr(made) == "Structure(unnamed: 3 atoms, Cu1Zr2)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": [[0, 0, float("nan")], [2, 0, 0], [0, 2, 0]]}, "atom id 1 has a NaN"),
        ({"positions": [[0, 0, 0], [2, 0, float("inf")], [0, 2, 0]]}, "atom id 2 has a NaN or inf"),
        ({"positions": torch.zeros(3, 2)}, r"positions are \[3, 2\], expected \[atoms, 3\]"),
        ({"positions": torch.zeros(0, 3), "types": []}, "there are no atoms"),
        ({"cell": torch.zeros(3, 3)}, "the cell has no volume"),
        ({"cell": [[1, 0, 0], [0, 1, 0], [1, 1, 0]]}, "lie in one plane"),
        ({"cell": [[0, 1, 0], [1, 0, 0], [0, 0, 1]]}, "left-handed .* swap two cell vectors"),
        ({"cell": CELL * float("nan")}, "the cell has NaN or infinite"),
        ({"cell": torch.eye(2)}, r"expected a \[3, 3\] cell"),
        ({"types": [0, 1]}, r"types are \[2\], expected \[3\] as there are 3 atoms"),
        ({"types": [0, 1, 2]}, "types run from 0 to 2, but index 2 species"),
        ({"types": [0, 1, 0.5]}, "types must be whole numbers"),
        ({"ids": [1, 2, 2]}, "atom id 2 occurs more than once"),
        ({"species": ("Cu", "Xx")}, "'Xx' is not an element symbol"),
        ({"species": ("Cu", "Cu")}, "name an element twice"),
        ({"columns": {"barrier": Column(torch.zeros(2))}}, r"column 'barrier' is \[2\]"),
        ({"split": "holdout"}, "split is 'holdout', expected train, validation or test"),
        ({"positions": "atoms"}, "positions are not an array of numbers"),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        structure(**changes)


def test_frozen_and_replaced() -> None:
    made = structure()
    with pytest.raises(AttributeError):
        made.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        made.columns["barrier"] = Column(torch.zeros(3))  # type: ignore[index]
    labelled = made.with_column("barrier", torch.ones(3), "eV")
    assert labelled.columns["barrier"].unit == "eV"
    assert not made.columns
    with pytest.raises(InputError, match="left-handed"):
        made.replace(cell=-CELL)


def test_species_are_ordered_by_atomic_number() -> None:
    species, types = index_species(["Zr", "Al", "Cu", "Zr"])
    assert species == ("Al", "Cu", "Zr")
    assert types.tolist() == [2, 0, 1, 2]
    with pytest.raises(InputError, match="'Q' is not an element"):
        index_species(["Q"])


def test_ase_and_back() -> None:
    pytest.importorskip("ase")
    made = structure(
        periodic=(True, False, True), ids=[7, 5, 9], name="glass", glass="g", split="test"
    ).with_column("barrier", torch.tensor([1.0, 2.0, 3.0]), "eV")
    atoms = made.to_ase()
    assert atoms.get_chemical_symbols() == made.symbols
    again = Structure.from_ase(atoms)
    assert torch.equal(again.positions, made.positions)
    assert torch.equal(again.cell, made.cell)
    assert torch.equal(again.ids, made.ids)
    assert again.periodic == made.periodic
    assert (again.name, again.glass, again.split) == ("glass", "g", "test")
    assert torch.equal(again.columns["barrier"].values, made.columns["barrier"].values)
    assert Structure.from_ase(atoms, name="other").name == "other"


def test_ase_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ase", None)
    with pytest.raises(Exception, match=r'pip install "mgsym\[ase\]"'):
        structure().to_ase()
