"""The public dataset's pickles: their reference figures, and pickles that must not run."""

from __future__ import annotations

import contextlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

import mgsym
from mgsym.data_tools.public_dataset import FILES, identify
from mgsym.errors import InputWarning

# name, mean energy in eV per atom, mean and standard deviation of the label in eV
REFERENCE = [
    ("train0", -4.48280, 1.8216, 0.3005),
    ("train1", -4.48284, 1.8283, 0.2994),
    ("train2", -4.47791, 1.7232, 0.2813),
    ("train3", -4.47330, 1.6367, 0.2783),
    ("train4", -4.46659, 1.4959, 0.2722),
    ("train5", -4.46270, 1.4884, 0.2753),
    ("train6", -4.45982, 1.2876, 0.2994),
]


@pytest.mark.parametrize(("name", "energy", "mean", "deviation"), REFERENCE)
def test_reference_figures(
    public_data: Path, name: str, energy: float, mean: float, deviation: float
) -> None:
    structure = mgsym.read(public_data / f"{name}.pickle")
    assert len(structure) == 8000
    assert structure.composition == {"Cu": 5120, "Zr": 2880}
    assert structure.name == name
    label = structure.columns["barrier"].values.numpy()
    assert structure.columns["barrier"].unit == structure.columns["energy"].unit == "eV"
    assert label.mean() == pytest.approx(mean, abs=5e-5)
    assert label.std() == pytest.approx(deviation, abs=5e-5)
    assert structure.columns["energy"].values.mean().item() == pytest.approx(energy, abs=5e-6)


def test_atoms_lie_in_a_box_centred_on_the_origin(public_data: Path) -> None:
    structure = mgsym.read(public_data / "train0.pickle")
    assert torch.equal(structure.origin, -structure.cell.diagonal() / 2)
    fractions = (structure.positions - structure.origin) / structure.cell.diagonal()
    # positions were rounded to six digits after they were wrapped
    assert fractions.min() > -1e-5
    assert fractions.max() < 1 + 1e-5


def test_glass_and_split_come_with_the_content_not_the_name(
    public_data: Path, tmp_path: Path
) -> None:
    renamed = tmp_path / "mine.pickle"
    renamed.write_bytes((public_data / "train3.pickle").read_bytes())
    structure = mgsym.read(renamed)
    assert (structure.name, structure.glass, structure.split) == ("mine", "glass_3", "validation")
    assert identify(b"something else") is None


def test_groups_of_the_dataset() -> None:
    groups: dict[str, list[str]] = {}
    for file in FILES:
        groups.setdefault(file.glass, []).append(file.name.removesuffix(".pickle"))
    assert sorted(groups.values()) == [
        ["test0"],
        ["test1"],
        ["train0", "train1"],
        ["train2"],
        ["train3"],
        ["train4", "train5", "train6"],
    ]
    assert [f.split for f in FILES] == [*["train"] * 3, "validation", *["train"] * 3, *["test"] * 2]


def arrays(atoms: int = 5) -> dict[str, object]:
    random = np.random.default_rng(0)
    return {
        "__globals__": [],
        "positions": random.random((atoms, 3)) * 8 - 4,
        "box": np.array([8, 9, 10], dtype=np.float32),
        "types": np.array([1, 2] * atoms, dtype=np.int32)[:atoms],
        "trajectory_start_velocities": random.random(atoms).astype(np.float32),
    }


def dumped(folder: Path, content: object, protocol: int = 4) -> Path:
    path = folder / "a.pickle"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_pickle_protocols(tmp_path: Path, protocol: int) -> None:
    content = arrays()
    structure = mgsym.read(dumped(tmp_path, content, protocol))
    assert np.array_equal(structure.positions.numpy(), content["positions"])
    assert structure.symbols == ["Cu", "Zr", "Cu", "Zr", "Cu"]
    assert structure.cell.diagonal().tolist() == [8, 9, 10]
    assert (structure.glass, structure.split) == ("", "")


def test_types_can_be_told(tmp_path: Path) -> None:
    path = dumped(tmp_path, {**arrays(), "types": np.array([1, 2, 3, 3, 1])})
    assert mgsym.read(path, types={1: "Ni", 2: "Nb", 3: "P"}).symbols == [
        "Ni",
        "Nb",
        "P",
        "P",
        "Ni",
    ]
    with pytest.raises(mgsym.InputError, match=r"a\.pickle: type 3 has no element: add --types"):
        mgsym.read(path)


def test_types_against_the_datasets_own_are_said(tmp_path: Path) -> None:
    path = dumped(tmp_path, arrays())
    with pytest.warns(InputWarning, match=r"type 1 called Cu is taken for Ni, as --types"):
        assert set(mgsym.read(path, types={1: "Ni", 2: "Zr"}).species) == {"Ni", "Zr"}


class Malicious:
    """Runs a command when a plain unpickler loads it."""

    def __init__(self, function: object, argument: object) -> None:
        self.function, self.argument = function, argument

    def __reduce__(self) -> tuple[object, tuple[object]]:
        return self.function, (self.argument,)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("function", [os.system, eval, exec, __import__, np.load, getattr])
def test_harmful_pickles_are_refused_unrun(tmp_path: Path, function: object, protocol: int) -> None:
    mark = tmp_path / "ran"
    argument = f"touch {mark}" if function is os.system else f"open({str(mark)!r}, 'w')"
    path = dumped(tmp_path, {**arrays(), "extra": Malicious(function, argument)}, protocol)
    with pytest.raises(mgsym.InputError, match=r"a\.pickle: the pickle asks for .* was not run"):
        mgsym.read(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "expected a dict of arrays, found list"),
        ({}, "the dict has no 'positions': it is not a SymGNN structure"),
        ({**arrays(), "box": np.zeros((3, 3))}, r"expected positions \[n, 3\] and box \[3\]"),
        ({**arrays(), "box": np.zeros(3)}, "the cell has no volume"),
        ({**arrays(), "types": np.ones(4)}, r"types are \[4\], expected \[5\]"),
        ({**arrays(), "pot": np.ones(4)}, r"column 'energy' is \[4\], expected 5 rows"),
        ({**arrays(), "positions": np.full((5, 3), np.nan)}, "atom id 1 has a NaN"),
        ({**arrays(), "positions": "text"}, "positions is not an array of numbers"),
        ({**arrays(), "types": np.full(5, 1.5)}, "type 1.5 is not a whole number"),
    ],
)
def test_pickles_of_something_else(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(mgsym.InputError, match=message) as error:
        mgsym.read(dumped(tmp_path, content))
    assert str(error.value).startswith(str(tmp_path / "a.pickle"))


def test_damaged_pickles(tmp_path: Path) -> None:
    path = dumped(tmp_path, arrays())
    whole = path.read_bytes()
    for length in (3, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(mgsym.InputError, match="the pickle is damaged or cut short"):
            mgsym.read(path)
    random = np.random.default_rng(0)
    for _ in range(200):  # whatever bytes are hit, it is an InputError or a structure
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 5):
            damaged[place] = random.integers(0, 256)
        path.write_bytes(damaged)
        with contextlib.suppress(mgsym.InputError):
            mgsym.read(path)
