"""The analytic Hessian against differences of forces, and its symmetries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mgsym.data_tools.simulation.potentials.bonds import eam_bonds
from mgsym.data_tools.simulation.potentials.eam import EAM
from mgsym.data_tools.simulation.potentials.eam_forces import EAMForces, evaluate_structures
from mgsym.data_tools.simulation.potentials.files import read_potential
from mgsym.data_tools.simulation.potentials.zhou_johnson_wadley import zhou_cu_zr
from mgsym.data_tools.simulation.vibrations.hessian import Hessian, eam_hessian
from mgsym.errors import InputError
from mgsym.structure import Structure

SPECIES = ("Al", "Cu", "Zr")


def jittered(side: int, species: int, triclinic: bool = False, spacing: float = 2.6) -> Structure:
    """Atoms near the sites of a cubic lattice, with kinds at random."""
    generator = torch.Generator().manual_seed(side)
    sites = torch.cartesian_prod(*[torch.arange(side, dtype=torch.float64)] * 3) * spacing
    shift = 0.5 * torch.rand(side**3, 3, generator=generator, dtype=torch.float64)
    cell = side * spacing * torch.eye(3, dtype=torch.float64)
    if triclinic:
        shear = torch.tensor([[1, 0, 0], [0.3, 1, 0], [-0.2, 0.25, 1]], dtype=torch.float64)
        sites, cell = sites @ shear, cell @ shear
    types = torch.randint(species, (side**3,), generator=generator)
    return Structure(sites + shift, cell, types, SPECIES[-species:])


def numerical(potential: EAM, structure: Structure, step: float = 1e-5) -> Tensor:
    """[3n, 3n], central differences of the forces."""
    field = EAMForces(potential, [structure], compile=False)
    columns = []
    for flat in range(3 * len(structure)):
        move = torch.zeros(3 * len(structure), dtype=torch.float64)
        move[flat] = step
        move = move.view(-1, 3)
        above = field(structure.positions + move, structure.cell[None]).forces
        below = field(structure.positions - move, structure.cell[None]).forces
        columns.append((below - above).flatten() / (2 * step))
    return torch.stack(columns, dim=1)


def hessian_of(potential: EAM, structure: Structure) -> Hessian:
    return eam_hessian(eam_bonds(potential, structure))


# a cell narrower than the cutoff, one narrower than twice it, one with room; one to three species
CASES = [(2, 2, False), (2, 3, True), (3, 3, False), (3, 1, True), (4, 2, False)]


@pytest.mark.parametrize(("side", "species", "triclinic"), CASES)
def test_it_is_the_derivative_of_the_forces(
    toy_eam: Callable[..., EAM], side: int, species: int, triclinic: bool
) -> None:
    potential, structure = toy_eam(), jittered(side, species, triclinic)
    hessian = hessian_of(potential, structure)
    expected = numerical(potential, structure)
    assert expected.abs().max() > 1
    dense = hessian.sparse().to_dense()
    torch.testing.assert_close(dense, expected, atol=2e-4, rtol=0)
    torch.testing.assert_close(dense, dense.T, atol=1e-11, rtol=0)


def test_it_is_that_of_the_mendelev_potential(mendelev: Path) -> None:
    potential, structure = read_potential(mendelev), jittered(3, 2)
    dense = hessian_of(potential, structure).sparse().to_dense()
    torch.testing.assert_close(dense, numerical(potential, structure, 1e-6), atol=1e-4, rtol=0)


def test_embedding_beyond_its_table_is_straight(toy_eam: Callable[..., EAM]) -> None:
    potential, structure = toy_eam(density_points=40), jittered(3, 2)
    bonds = eam_bonds(potential, structure)
    assert (bonds.embedding_curvature == 0).all()
    dense = eam_hessian(bonds).sparse().to_dense()
    torch.testing.assert_close(dense, numerical(potential, structure), atol=2e-4, rtol=0)


@pytest.mark.parametrize(("side", "species", "triclinic"), CASES)
def test_its_forms_agree(
    toy_eam: Callable[..., EAM], side: int, species: int, triclinic: bool
) -> None:
    hessian = hessian_of(toy_eam(), jittered(side, species, triclinic))
    dense, n = hessian.sparse().to_dense(), side**3
    vectors = torch.randn(3 * n, 4, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(hessian.product(vectors), dense @ vectors)
    torch.testing.assert_close(hessian.product(vectors[:, 0]), dense @ vectors[:, 0])
    blocks = dense.view(n, 3, n, 3)
    each = torch.arange(n)
    torch.testing.assert_close(hessian.diagonal_blocks(), blocks[each, :, each])
    some = torch.tensor([5, 0, 3])
    flat = (3 * some[:, None] + torch.arange(3)).flatten()
    torch.testing.assert_close(hessian.cluster(some), dense[flat[:, None], flat])


@pytest.mark.parametrize("side", [2, 4])
def test_translations_cost_nothing(toy_eam: Callable[..., EAM], side: int) -> None:
    hessian = hessian_of(toy_eam(), jittered(side, 2))
    shifts = torch.eye(3, dtype=torch.float64).repeat(side**3, 1)
    assert hessian.product(shifts).abs().max() < 1e-10


def test_bonds_give_energies_forces_and_stress_of_the_force_field(
    toy_eam: Callable[..., EAM],
) -> None:
    for potential in (toy_eam(), zhou_cu_zr()):
        structure = jittered(3, 2, triclinic=True)
        bonds, expected = eam_bonds(potential, structure), evaluate_structures(potential, structure)
        torch.testing.assert_close(bonds.energy, expected.atom_energy)
        torch.testing.assert_close(bonds.forces(), expected.forces, atol=1e-9, rtol=0)
        stress = bonds.virials().sum(0) / structure.volume
        torch.testing.assert_close(stress, expected.stress, atol=1e-10, rtol=0)


def test_an_element_without_tables_is_refused() -> None:
    with pytest.raises(InputError, match="has Al, for which the potential"):
        eam_bonds(zhou_cu_zr(), jittered(2, 3))
