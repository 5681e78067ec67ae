"""What becomes of labelled glasses on their way into the sample."""

from __future__ import annotations

from pathlib import Path

import torch

from mgsym.data_tools.formats import read, write
from mgsym.data_tools.sample.make import SAMPLE, make_sample
from mgsym.structure import Structure


def labelled(seed: int) -> Structure:
    generator = torch.Generator().manual_seed(seed)
    place = 8 * torch.rand(5, 3, generator=generator, dtype=torch.float64)
    cell = 8 * torch.eye(3, dtype=torch.float64)
    found = Structure(place, cell, torch.tensor([0, 0, 0, 1, 1]), ("Cu", "Zr"), name="quenched")
    barrier = torch.tensor([1.5, 1.23456789, float("nan"), 0.5, 2.0], dtype=torch.float64)
    found = found.with_column("barrier", barrier, "eV")
    found = found.with_column("barrier_stderr", 0.1 * barrier, "eV")
    return found.with_column("events", torch.tensor([9, 8, 0, 7, 6])).with_column("energy", barrier)


def test_names_roles_and_columns(tmp_path: Path) -> None:
    for seed, name in enumerate(SAMPLE):
        write(labelled(seed), tmp_path / f"labelled_{name}.xyz")
    (tmp_path / "out").mkdir()
    paths = make_sample(tmp_path, tmp_path / "out")
    assert [path.name for path in paths] == [f"cu64zr36_500_{name}.xyz" for name in SAMPLE]
    for seed, (path, (name, (split, glass))) in enumerate(zip(paths, SAMPLE.items(), strict=True)):
        found, before = read(path), labelled(seed)
        assert (found.name, found.split, found.glass) == (name, split, glass)
        assert sorted(found.columns) == ["barrier", "barrier_stderr", "events"]
        assert found.columns["barrier"].unit == "eV"
        torch.testing.assert_close(found.positions, before.positions, atol=6e-7, rtol=0)
        torch.testing.assert_close(
            found.columns["barrier"].values.double(),
            before.columns["barrier"].values,
            atol=6e-7, rtol=0, equal_nan=True,
        )  # fmt: skip
    assert read(paths[0]).glass == read(paths[1]).glass  # one glass, labelled twice
