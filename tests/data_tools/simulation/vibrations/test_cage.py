"""The cage of an atom against displacing it in the whole structure, and its symmetries."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mgsym.data_tools.simulation.potentials.bonds import eam_bonds
from mgsym.data_tools.simulation.potentials.eam import EAM
from mgsym.data_tools.simulation.potentials.eam_forces import evaluate_structures
from mgsym.data_tools.simulation.potentials.zhou_johnson_wadley import zhou_cu_zr
from mgsym.data_tools.simulation.vibrations.cage import cage_directions, cage_inputs
from mgsym.data_tools.simulation.vibrations.hessian import eam_hessian
from mgsym.descriptors.physical import CAGE_DISTANCES, CAGE_INPUTS, CAGE_RANKS
from mgsym.nn.rotations import random_orthogonal
from mgsym.structure import Column, Structure


@pytest.fixture(scope="module")
def alloy() -> Structure:
    """Displaced face-centred cubic Cu-Zr, wider than twice what an atom can feel."""
    generator = torch.Generator().manual_seed(3)
    corners = torch.cartesian_prod(*[torch.arange(4, dtype=torch.float64)] * 3)
    basis = 0.5 * torch.tensor([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=torch.float64)
    sites = (corners[:, None] + basis).reshape(-1, 3)
    sites += 0.02 * torch.randn(sites.shape, generator=generator, dtype=torch.float64)
    types = (torch.rand(len(sites), generator=generator) < 0.36).long()
    cell = 4.1 * 4 * torch.eye(3, dtype=torch.float64)
    return Structure(4.1 * sites, cell, types, ("Cu", "Zr"), name="alloy")


def frames(potential: EAM, structure: Structure) -> Tensor:
    return torch.linalg.eigh(eam_hessian(eam_bonds(potential, structure)).diagonal_blocks())[1]


Cage = dict[str, Column]


@pytest.fixture(scope="module")
def along_axes(alloy: Structure) -> tuple[Cage, list[int]]:
    """The cages with all atoms' frames along the axes of space, and the progress that was told."""
    seen: list[int] = []
    identity = torch.eye(3, dtype=torch.float64).expand(len(alloy), 3, 3)
    return cage_inputs(zhou_cu_zr(), alloy, identity, progress=seen.append), seen


@pytest.fixture(scope="module")
def cage(alloy: Structure) -> Cage:
    """The cages in the atoms' own frames."""
    return cage_inputs(zhou_cu_zr(), alloy, frames(zhou_cu_zr(), alloy))


def test_directions_are_even_and_turning_an_axis_round_gives_them_back() -> None:
    directions = cage_directions()
    assert directions.shape == (48, 3)
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(48))
    torch.testing.assert_close(directions.T @ directions / 48, torch.eye(3) / 3)
    for axis in range(3):
        turned = directions.clone()
        turned[:, axis] *= -1
        assert {tuple(row) for row in turned.tolist()} == {tuple(r) for r in directions.tolist()}
    assert torch.cdist(directions, directions).fill_diagonal_(9).min() > 0.45


def test_energies_are_those_of_displacing_the_atom_alone(
    alloy: Structure, along_axes: tuple[Cage, list[int]]
) -> None:
    potential = zhou_cu_zr()
    atoms = [int((alloy.types == kind).nonzero()[7]) for kind in (0, 1)]
    found, _ = along_axes
    before = float(evaluate_structures(potential, alloy).energy)
    for atom in atoms:
        for distance in (CAGE_DISTANCES[0], CAGE_DISTANCES[-1]):
            energies = []
            for direction in cage_directions().double():
                positions = alloy.positions.clone()
                positions[atom] += distance * direction
                moved = replace(alloy, positions=positions)
                energies.append(float(evaluate_structures(potential, moved).energy) - before)
            energy = torch.tensor(energies)
            ranks = energy.clamp(min=1e-3).log().sort().values
            for rank in CAGE_RANKS:
                name = f"cage_{distance:g}_rank_{rank}"
                expected = float(ranks[rank])
                assert float(found[name].values[atom]) == pytest.approx(expected, abs=3e-3)
            soft = -torch.log(torch.exp(-energy).mean())
            value = float(found[f"cage_{distance:g}_soft_1"].values[atom])
            assert value == pytest.approx(float(soft), abs=1e-3)


def test_the_cage_turns_with_the_structure_and_repeats_with_its_cell(
    alloy: Structure, cage: Cage
) -> None:
    potential, before = zhou_cu_zr(), cage
    assert tuple(before) == CAGE_INPUTS
    matrix = random_orthogonal(1, torch.Generator().manual_seed(5))[0]
    turned = replace(alloy, positions=alloy.positions @ matrix.T, cell=alloy.cell @ matrix.T)
    step = alloy.cell[0]
    twice = replace(
        alloy,
        positions=torch.cat([alloy.positions, alloy.positions + step]),
        types=alloy.types.repeat(2),
        cell=alloy.cell * torch.tensor([2.0, 1.0, 1.0])[:, None],
        ids=torch.arange(1, 2 * len(alloy) + 1),
    )
    for other in (turned, twice):
        after = cage_inputs(potential, other, frames(potential, other))
        for name in CAGE_INPUTS:
            assert after[name].unit == before[name].unit
            torch.testing.assert_close(
                after[name].values[: len(alloy)], before[name].values, atol=5e-3, rtol=5e-3
            )


def test_a_stiffer_potential_makes_a_stiffer_cage(alloy: Structure, cage: Cage) -> None:
    potential = zhou_cu_zr()
    double = replace(potential, pair=2 * potential.pair, embedding=2 * potential.embedding)
    found = cage_inputs(double, alloy, frames(potential, alloy))
    soft, stiff = (columns["cage_0.5_rank_24"].values for columns in (cage, found))
    # twice the energy is ln 2 more
    torch.testing.assert_close(stiff - soft, torch.full_like(soft, 0.6931), atol=1e-3, rtol=0)


def test_progress_counts_every_atom(alloy: Structure, along_axes: tuple[Cage, list[int]]) -> None:
    assert sum(along_axes[1]) == len(alloy)
