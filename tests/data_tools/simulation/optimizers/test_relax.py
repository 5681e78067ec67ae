"""Structures relaxed with an EAM potential."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import mgsym
from mgsym.data_tools.sample import sample_structures
from mgsym.data_tools.simulation.optimizers import relax as relaxing
from mgsym.data_tools.simulation.optimizers.minimize import Method
from mgsym.data_tools.simulation.optimizers.relax import relax
from mgsym.data_tools.simulation.potentials.eam import EAM
from mgsym.data_tools.simulation.potentials.files import read_potential
from mgsym.data_tools.simulation.potentials.zhou_johnson_wadley import zhou_cu_zr
from mgsym.errors import InputError, MgsymError, UsageError
from mgsym.structure import Column, Structure

both_methods = pytest.mark.parametrize("method", ["fire", "cg"])
COPPER = 3.615  # Å, lattice constant


@pytest.fixture(scope="module")
def zhou() -> EAM:
    return zhou_cu_zr()


@pytest.fixture(scope="module")
def real(mendelev: Path) -> EAM:
    return read_potential(mendelev)


def copper(a: float = COPPER, name: str = "copper", **fields: object) -> Structure:
    """A conventional fcc crystal of 3 × 3 × 3 cells."""
    corner = torch.cartesian_prod(*[torch.arange(3.0)] * 3).double()
    base = torch.tensor([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]).double()
    sites = (corner[:, None] + base).reshape(-1, 3) * a
    return Structure(
        sites, 3 * a * torch.eye(3).double(), torch.zeros(108), ("Cu",), name=name, **fields
    )


def rattled(structure: Structure, distance: float, seed: int = 0) -> Structure:
    """Every atom moved by `distance` in a random direction."""
    generator = torch.Generator().manual_seed(seed)
    way = torch.randn(len(structure), 3, generator=generator).double()
    way = distance * way / way.norm(dim=1, keepdim=True)
    return structure.replace(positions=structure.positions + way)


@both_methods
def test_a_vacancy_pulls_its_neighbours_in(zhou: EAM, method: Method) -> None:
    full = copper()
    hole = full.replace(
        positions=full.positions[1:], types=full.types[1:], ids=full.ids[1:], columns={}
    )
    (found,) = relax([hole], zhou, method=method)
    assert found.converged
    assert found.largest_force < 1e-4
    assert found.energy_after < found.energy_before - 0.01
    assert 0.005 < found.moved < 0.1
    near = (hole.positions - full.positions[0]).norm(dim=1) < 0.8 * COPPER
    inward = found.structure.positions[near].norm(dim=1) < hole.positions[near].norm(dim=1)
    assert inward.all()
    perfect = relax([full], zhou, method=method)[0]
    assert (perfect.steps, perfect.moved) == (0, pytest.approx(0.0, abs=1e-12))


@both_methods
@pytest.mark.parametrize("cell", ["isotropic", "full"])
def test_copper_takes_its_lattice_constant(zhou: EAM, method: Method, cell: str) -> None:
    found = relax(
        [rattled(copper(3.5), 0.02), copper(3.7)],
        zhou,
        method=method,
        cell=cell,  # type: ignore[arg-type]
        fmax=1e-5,
        stress_tolerance=1e-7,
    )
    for relaxation in found:
        assert relaxation.converged
        assert abs(relaxation.pressure) < 1e-7
        edges = relaxation.structure.cell.diagonal() / 3
        assert edges.tolist() == pytest.approx([COPPER] * 3, abs=0.002)
    assert found[1].moved < 1e-6  # it followed the cell


def test_pressure_shrinks_the_cell(zhou: EAM) -> None:
    # copper's bulk modulus is about 140 GPa
    pressure = 1.4 / 160.2176634
    free, pressed = (
        relax([copper()], zhou, cell="isotropic", pressure=p)[0] for p in (0.0, pressure)
    )
    assert pressed.pressure == pytest.approx(pressure, abs=1e-5)
    assert pressed.structure.volume / free.structure.volume == pytest.approx(0.99, abs=0.001)


def test_what_a_relaxed_structure_keeps(zhou: EAM) -> None:
    before = rattled(copper(split="test", glass="x", ids=torch.arange(108) + 7), 0.05)
    before = before.replace(
        origin=torch.tensor([-3.0, 1.0, 40.0]),
        # outside the cell: nothing may be wrapped
        positions=before.positions + torch.tensor([-3.0, 1.0, 40.0 + 2 * COPPER]),
        columns={"barrier": Column(torch.ones(108), "eV"), "energy": Column(torch.ones(108))},
    )
    (found,) = relax([before], zhou)
    after = found.structure
    assert (after.name, after.glass, after.split) == ("copper", "x", "test")
    assert torch.equal(after.ids, before.ids)
    assert torch.equal(after.origin, before.origin)
    assert torch.equal(after.cell, before.cell)
    assert (after.positions - before.positions).norm(dim=1).max() < 0.1
    assert found.moved == pytest.approx(
        float((after.positions - before.positions).norm(dim=1).max())
    )
    assert list(after.columns) == ["energy"]
    assert after.columns["energy"].unit == "eV"
    assert float(after.columns["energy"].values.sum()) == pytest.approx(found.energy_after)


@both_methods
def test_batch_and_singles_agree(
    zhou: EAM, method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    structures = [rattled(copper(name=str(i)), 0.02 * i, seed=i) for i in range(3)]
    together = relax(structures, zhou, method=method, cell="full", fmax=1e-6)
    told: list[tuple[int, int]] = []
    monkeypatch.setitem(relaxing.ATOMS_AT_ONCE, "cpu", 220)  # two at once
    apart = relax(
        structures,
        zhou,
        method=method,
        cell="full",
        fmax=1e-6,
        progress=lambda done, total, **info: told.append((done, total)),
    )
    for a, b in zip(together, apart, strict=True):
        assert a.energy_after == pytest.approx(b.energy_after, abs=1e-7)
        assert torch.allclose(a.structure.positions, b.structure.positions, atol=1e-5)
    assert told[-1] == (3, 3)
    assert sorted(told) == told


def test_atoms_on_one_another_are_named(zhou: EAM) -> None:
    bad = copper(name="bad", ids=torch.arange(108) + 100)
    positions = bad.positions.clone()
    positions[5] = positions[9]
    with pytest.raises(InputError) as error:
        relax([copper(), bad.replace(positions=positions)], zhou)
    assert str(error.value) == (
        "bad: energy or forces are not finite as given; atoms 105 and 109 are closest, 0.00 Å "
        "apart: move them apart or delete one of them"
    )


def test_a_cell_torn_apart_is_told(zhou: EAM) -> None:
    with pytest.raises(MgsymError, match=r"copper: the cell has come to 1\d times its volume at"):
        relax([copper()], zhou, cell="isotropic", pressure=-1.0)


def test_a_surface_keeps_its_cell(zhou: EAM) -> None:
    slab = copper().replace(
        cell=torch.diag(torch.tensor([3.0, 3.0, 6.0]).double() * COPPER),
        periodic=(True, True, False),
    )
    with pytest.raises(UsageError, match="copper is not periodic along all its cell vectors"):
        relax([slab], zhou, cell="full")
    (found,) = relax([slab], zhou)
    heights = found.structure.positions[:, 2]
    assert found.converged
    # the outermost layers of a surface move inwards
    assert 0.001 < COPPER * 2.5 - float(heights.max() - heights.min()) < 0.3


@both_methods
def test_the_public_glasses_are_at_minima(real: EAM, public_data: Path, method: Method) -> None:
    glass = mgsym.read(public_data / "test0.dump", types={1: "Cu", 2: "Zr"})
    (found,) = relax([glass], real, method=method)
    assert found.converged
    assert found.moved < 0.01
    assert found.steps < 100
    assert found.energy_after == pytest.approx(found.energy_before, abs=3000 * 1e-6)


def test_the_sample_is_at_minima(real: EAM) -> None:
    """It was made with this potential."""
    for structure in sample_structures():
        assert relax([structure], real)[0].steps == 0


@both_methods
def test_a_rattled_glass_returns(real: EAM, method: Method) -> None:
    structure = sample_structures()[0]
    (after,) = relax([rattled(structure, 0.05)], real, method=method)
    (before,) = relax([structure], real)
    assert after.converged
    assert after.energy_after == pytest.approx(before.energy_after, abs=500 * 1e-6)
    way = after.structure.positions - before.structure.positions
    assert (way - way.mean(0)).norm(dim=1).max() < 0.01


@both_methods
def test_a_random_start_becomes_a_glass(zhou: EAM, method: Method) -> None:
    like = sample_structures()[0]
    generator = torch.Generator().manual_seed(5)
    cell = (100 / 500) ** (1 / 3) * like.cell
    positions = torch.rand(100, 3, generator=generator, dtype=torch.float64) @ cell
    start = Structure(positions, cell, like.types[::5], like.species)
    (found,) = relax([start], zhou, method=method, cell="isotropic", fmax=0.05)
    assert found.converged
    assert found.energy_before > 1e3
    # the sample's glass of 500 atoms, which was melted and cooled, has -5.197 eV and 0.0669 Å⁻³
    assert found.energy_after / 100 == pytest.approx(-5.15, abs=0.05)
    assert found.structure.number_density == pytest.approx(0.0665, abs=0.0005)


@pytest.mark.slow
@both_methods
def test_a_random_start_becomes_a_glass_of_the_mendelev_potential(
    real: EAM, method: Method
) -> None:
    like = sample_structures()[0]
    generator = torch.Generator().manual_seed(5)
    positions = torch.rand(500, 3, generator=generator, dtype=torch.float64) @ like.cell
    (found,) = relax(
        [like.replace(positions=positions)], real, method=method, cell="isotropic", fmax=0.05
    )
    assert found.converged
    assert found.energy_before > 1e3
    assert found.energy_after / 500 == pytest.approx(-4.43, abs=0.02)
    assert found.structure.number_density == pytest.approx(0.0628, abs=0.0005)
