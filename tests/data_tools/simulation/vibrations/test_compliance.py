"""Compliance and the other physical inputs against brute force, analysis and symmetries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import mgsym
from mgsym.data_tools.simulation.potentials.bonds import eam_bonds
from mgsym.data_tools.simulation.potentials.eam import EAM, tabulated
from mgsym.data_tools.simulation.potentials.eam_forces import evaluate_structures
from mgsym.data_tools.simulation.potentials.files import read_potential
from mgsym.data_tools.simulation.potentials.zhou_johnson_wadley import zhou_cu_zr
from mgsym.data_tools.simulation.vibrations.compliance import compliance, physical_inputs
from mgsym.data_tools.simulation.vibrations.hessian import eam_hessian
from mgsym.descriptors.physical import CAGE_INPUTS, PHYSICAL_INPUTS, STIFFNESS_INPUTS
from mgsym.errors import InputError
from mgsym.nn.rotations import random_orthogonal
from mgsym.structure import Structure

Toy = Callable[..., EAM]
TOY = 3.3  # Å, a lattice constant at which the toy potential holds copper
FCC = torch.tensor([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]], dtype=torch.float64)


def copper(
    cells: tuple[int, int, int], lattice: float = 3.6, jitter: float = 0.0, **changes: object
) -> Structure:
    """Face-centred cubic copper of some unit cells, displaced alike in all of them."""
    corners = torch.cartesian_prod(*(torch.arange(c, dtype=torch.float64) for c in cells))
    generator = torch.Generator().manual_seed(1)
    basis = FCC + jitter * torch.randn(4, 3, generator=generator, dtype=torch.float64)
    positions = lattice * (corners[:, None] + basis).reshape(-1, 3)
    cell = lattice * torch.diag(torch.tensor(cells, dtype=torch.float64))
    types = torch.zeros(len(positions), dtype=torch.int64)
    return Structure(positions, cell, types, ("Cu",), name="copper").replace(**changes)


def springs(stiffness: float) -> EAM:
    """Atoms 2.55 Å apart held by springs, without embedding."""
    spacing = 0.01
    r = spacing * torch.arange(301, dtype=torch.float64)
    pair = r * 0.5 * stiffness * (r - 3.6 / 2**0.5) ** 2
    nothing = torch.zeros(1, 1, 301, dtype=torch.float64)
    return tabulated(("Cu",), (63.5,), 3.0, spacing, 1.0, pair[None, None], nothing, nothing[0])


def brute_force(potential: EAM, structure: Structure, atom: int, radius: float) -> float:
    """From the dense Hessian of everything, by inversion."""
    dense = eam_hessian(eam_bonds(potential, structure)).sparse().to_dense()
    apart = structure.positions - structure.positions[atom]
    widths = structure.cell.diagonal() * torch.tensor(structure.periodic)
    turns = torch.where(widths > 0, (apart / widths).round(), 0)
    inside = ((apart - turns * widths).norm(dim=1) < radius).nonzero().squeeze(1)
    assert 6 < len(inside) < len(structure)
    flat = (3 * inside[:, None] + torch.arange(3)).flatten()
    own = 3 * int((inside == atom).nonzero()) + torch.arange(3)
    inverse = torch.linalg.inv(dense[flat[:, None], flat])
    return float(inverse[own, own].sum())


@pytest.mark.parametrize("periodic", [(True, True, True), (True, False, True)])
def test_compliance_is_the_block_of_the_inverse(
    toy_eam: Toy, periodic: tuple[bool, bool, bool]
) -> None:
    potential = toy_eam()
    structure = copper((5, 5, 5), TOY, jitter=0.02, periodic=periodic)
    radii = (2.8, 3.4)  # the cell is wide enough for clusters not to feel their images
    found = compliance(potential, structure, radii, dtype=torch.float64)
    for atom in (0, 33, 117):
        for column, radius in enumerate(radii):
            expected = brute_force(potential, structure, atom, radius)
            assert float(found[atom, column]) == pytest.approx(expected, rel=1e-9)
    single = compliance(potential, structure, radii)
    torch.testing.assert_close(single, found, rtol=1e-5, atol=0)


def test_an_atom_alone_between_springs() -> None:
    # twelve springs along the bonds of fcc: the block is Σ k r̂r̂ᵀ = 4 k, its inverse 1 / 4 k
    inputs = physical_inputs(springs(2.5), copper((3, 3, 3)), radii=(1.0,))
    close = {"atol": 1e-9, "rtol": 0}
    for axis in (1, 2, 3):
        torch.testing.assert_close(inputs[f"stiffness_{axis}"].values, full(10.0), **close)
    torch.testing.assert_close(inputs["compliance_1"].values, full(0.3), atol=1e-7, rtol=0)
    for name in ("energy", "pressure", "von_mises"):
        torch.testing.assert_close(inputs[name].values, full(0.0), **close)


def full(value: float) -> Tensor:
    return torch.full((108,), value, dtype=torch.float64)


def test_pressure_and_shear_of_strained_springs() -> None:
    # stretched by 1 % along x, four atoms of volume a³ with bonds d = a / √2
    stretched = copper((3, 3, 3))
    strain = torch.diag(torch.tensor([1.01, 1.0, 1.0], dtype=torch.float64))
    stretched = stretched.replace(
        positions=stretched.positions @ strain, cell=stretched.cell @ strain
    )
    inputs = physical_inputs(springs(2.5), stretched, radii=(1.0,))
    total = evaluate_structures(springs(2.5), stretched).stress
    mean = total.trace() / 3
    torch.testing.assert_close(inputs["pressure"].values, full(-float(mean)))
    assert float(mean) > 1e-3
    expected = float((total[0, 0] - total[1, 1]).abs())  # uniaxial
    torch.testing.assert_close(inputs["von_mises"].values, full(expected))


@pytest.mark.parametrize("cells", [(2, 1, 1), (1, 3, 2)])
def test_images_move_on_their_own(toy_eam: Toy, cells: tuple[int, int, int]) -> None:
    small = compliance(toy_eam(), copper((1, 1, 1), TOY, jitter=0.02), dtype=torch.float64)
    large = compliance(toy_eam(), copper(cells, TOY, jitter=0.02), dtype=torch.float64)
    torch.testing.assert_close(large, small.repeat(len(large) // 4, 1), rtol=1e-9, atol=0)


def test_rotation_and_reflection_change_nothing(toy_eam: Toy) -> None:
    structure, potential = copper((3, 3, 3), TOY), toy_eam()
    before = physical_inputs(potential, structure, radii=(3.0, 4.0))
    for turn in random_orthogonal(2, torch.Generator().manual_seed(0)).double():
        cell = structure.cell @ turn.T
        order = torch.tensor([1, 0, 2]) if torch.linalg.det(turn) < 0 else torch.arange(3)
        turned = structure.replace(positions=structure.positions @ turn.T, cell=cell[order])
        after = physical_inputs(potential, turned, radii=(3.0, 4.0))
        for name, (values, unit) in before.items():
            assert after[name].unit == unit
            if name in CAGE_INPUTS:
                continue  # frames are not unique in a cubic crystal; see test_cage.py
            torch.testing.assert_close(after[name].values, values, rtol=1e-4, atol=1e-6)


def test_a_potential_twice_as_stiff_halves_compliance(toy_eam: Toy) -> None:
    potential, structure = toy_eam(), copper((2, 2, 2), TOY)
    stiffer = replace(potential, pair=2 * potential.pair, embedding=2 * potential.embedding)
    before, after = (physical_inputs(p, structure, radii=(4.0,)) for p in (potential, stiffer))
    for name, factor in (("energy", 2), ("pressure", 2), ("stiffness_1", 2), ("compliance_4", 0.5)):
        torch.testing.assert_close(
            after[name].values, factor * before[name].values, rtol=1e-5, atol=0
        )


def test_units_and_progress(toy_eam: Toy) -> None:
    seen: list[tuple[int, int]] = []
    found = physical_inputs(
        toy_eam(), copper((2, 2, 2), TOY), progress=lambda done, total: seen.append((done, total))
    )
    units = {name: column.unit for name, column in found.items()}
    assert tuple(units) == PHYSICAL_INPUTS
    assert {name: units[name] for name in STIFFNESS_INPUTS} == {
        "energy": "eV",
        "pressure": "eV/Å³",
        "von_mises": "eV/Å³",
        "compliance_6": "Å²/eV",
        "compliance_9": "Å²/eV",
        **{f"stiffness_{axis}": "eV/Å²" for axis in (1, 2, 3)},
    }
    assert seen[-1] == (96, 96)
    assert (found["compliance_9"].values > found["compliance_6"].values).all()


def test_a_structure_under_force_is_refused() -> None:
    moved = copper((3, 3, 3), 3.65)
    moved.positions[40, 0] += 0.05
    with pytest.raises(
        InputError,
        match=r"copper: not at a minimum: the force on atom id 41 is .* mgsym relax FILE",
    ):
        physical_inputs(zhou_cu_zr(), moved)


def test_a_structure_that_is_no_minimum_is_refused() -> None:
    # symmetry leaves no force, but so far apart atoms do not hold their places
    with pytest.raises(InputError, match=r"within 6 Å of atom id \d+ are not at a minimum"):
        physical_inputs(zhou_cu_zr(), copper((3, 3, 3), 5.0))


@pytest.mark.slow
def test_public_glasses_are_at_rest(public_data: Path, mendelev: Path) -> None:
    """The dataset's own energy, pressure and von Mises stress; flexible atoms hop more easily."""
    structure = mgsym.read(public_data / "train2.pickle")
    found = physical_inputs(read_potential(mendelev), structure, radii=(6.0,))
    energy = structure.columns["energy"].values.double().reshape(-1)
    torch.testing.assert_close(found["energy"].values, energy, atol=1e-4, rtol=0)
    for name in ("pressure", "von_mises"):
        given = structure.columns[name].values.double().reshape(-1)
        assert correlation(found[name].values, given) > 0.99999
    barrier = structure.columns["barrier"].values.double().reshape(-1)
    assert correlation(found["compliance_6"].values, barrier) < -0.2


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])
