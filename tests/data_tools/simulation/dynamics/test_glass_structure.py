"""g(r), coordination and density of structures where they are known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mgsym import read
from mgsym.data_tools.simulation.dynamics.glass_structure import (
    coordination,
    density,
    first_peak,
    mean_by_species,
    pair_distribution,
)
from mgsym.structure import Structure


def copper(repeats: int = 4, lattice: float = 3.615) -> Structure:
    corner = torch.cartesian_prod(*[torch.arange(repeats, dtype=torch.float64)] * 3)
    basis = torch.tensor([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]).double()
    positions = (corner[:, None] + basis).reshape(-1, 3) * lattice
    cell = torch.eye(3, dtype=torch.float64) * lattice * repeats
    return Structure(positions, cell, torch.zeros(len(positions), dtype=torch.int64), ("Cu",))


def test_a_crystal_has_its_shells() -> None:
    crystal = copper()
    assert set(coordination(crystal, 3.0).tolist()) == {12}
    assert set(coordination(crystal, 3.8).tolist()) == {18}
    assert density(crystal) == pytest.approx(8.935, abs=0.01)  # copper has 8.93 g/cm³
    curve = pair_distribution(crystal, reach=4.0, width=0.02)
    # the integral of 4π r² n g over a shell counts its atoms
    found = (4 * torch.pi * curve.r**2 * curve.g["all"]).cumsum(0) * 0.02 * crystal.number_density
    assert float(found[round(3.0 / 0.02)]) == pytest.approx(12, rel=1e-3)
    assert first_peak(curve) == pytest.approx(3.615 / 2**0.5, abs=0.02)


def test_an_ideal_gas_has_no_structure() -> None:
    generator = torch.Generator().manual_seed(0)
    positions = 30 * torch.rand(4000, 3, dtype=torch.float64, generator=generator)
    types = (torch.arange(4000) % 4 == 0).long()
    gas = Structure(positions, torch.eye(3).double() * 30, types, ("Cu", "Zr"))
    curves = pair_distribution(gas, reach=8.0, width=0.5).g
    assert set(curves) == {"all", "Cu-Cu", "Cu-Zr", "Zr-Zr"}
    for name, g in curves.items():
        mean = float(g[4:].mean())  # counting noise of the sparsest: 0.5 %
        assert mean == pytest.approx(1.0, abs=0.02), name
    close = coordination(gas, 4.0)
    volume = 4 / 3 * torch.pi * 4.0**3
    means = mean_by_species(gas, close)
    assert means["Cu"] == pytest.approx(4000 / 30**3 * volume, rel=0.03)


def test_partial_curves_add_up_to_the_total() -> None:
    generator = torch.Generator().manual_seed(1)
    positions = 12 * torch.rand(100, 3, dtype=torch.float64, generator=generator)
    types = torch.repeat_interleave(torch.tensor([0, 1]), torch.tensor([70, 30]))
    gas = Structure(positions, torch.eye(3).double() * 12, types, ("Cu", "Zr"))
    g = pair_distribution(gas, reach=5.0, width=0.1).g
    total = 0.49 * g["Cu-Cu"] + 2 * 0.21 * g["Cu-Zr"] + 0.09 * g["Zr-Zr"]
    torch.testing.assert_close(total, g["all"])


def test_a_public_glass_has_the_published_structure(public_data: Path) -> None:
    glass = read(public_data / "train0.pickle")
    curves = pair_distribution(glass)
    assert first_peak(curves) == pytest.approx(2.68, abs=0.03)
    assert first_peak(curves, "Cu-Cu") == pytest.approx(2.58, abs=0.04)
    assert first_peak(curves, "Cu-Zr") == pytest.approx(2.81, abs=0.04)
    assert first_peak(curves, "Zr-Zr") == pytest.approx(3.18, abs=0.06)
    around = mean_by_species(glass, coordination(glass))
    assert around["Cu"] == pytest.approx(12.45, abs=0.1)
    assert around["Zr"] == pytest.approx(15.25, abs=0.1)
    assert density(glass) == pytest.approx(7.70, abs=0.02)
