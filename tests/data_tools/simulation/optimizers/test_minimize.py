"""Minimisation over any force field, on Lennard-Jones systems whose minima are known."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from mgsym.data_tools.simulation.optimizers.conjugate_gradients import ConjugateGradients
from mgsym.data_tools.simulation.optimizers.enthalpy import Enthalpy, FlatBatch, FreeCell
from mgsym.data_tools.simulation.optimizers.fire import Fire
from mgsym.data_tools.simulation.optimizers.minimize import Diverged, Method, minimize
from mgsym.data_tools.simulation.potentials.force_field import Forces
from mgsym.errors import UsageError
from mgsym.nn.scatter import segment_sum
from mgsym.structure.neighbors import neighbor_pairs

both_methods = pytest.mark.parametrize("method", ["fire", "cg"])
both_cells = pytest.mark.parametrize("free", ["isotropic", "full"])
DIMER = 2 ** (1 / 6)
SHELLS = 1.78  # between the second (1.60) and third (1.96) neighbours of fcc with a = 1.6


class LennardJones:
    """4 (r⁻¹² − r⁻⁶) between the pairs that are neighbours at the start, by autograd.

    No pair ever enters or leaves, so that minima are those of plain sums.
    """

    def __init__(self, systems: Sequence[tuple[Tensor, Tensor]], cutoff: float) -> None:
        sizes = torch.tensor([len(positions) for positions, _ in systems])
        self.system = torch.repeat_interleave(sizes)
        self.start = torch.cat([positions for positions, _ in systems])
        self.cell = torch.stack([cell for _, cell in systems])
        found = [neighbor_pairs(p, cell, (True,) * 3, cutoff) for p, cell in systems]
        first = [0, *sizes.cumsum(0).tolist()]
        edges = [pairs.edge_index + i for pairs, i in zip(found, first, strict=False)]
        self.source, self.target = torch.cat(edges, dim=1)
        self.shift = torch.cat([pairs.shift for pairs in found]).double()
        self.asked: list[Tensor] = []

    def __call__(self, positions: Tensor, cell: Tensor) -> Forces:
        self.asked.append(positions.clone())
        with torch.enable_grad():
            x = positions.detach().clone().requires_grad_()
            strain = torch.zeros_like(cell).requires_grad_()
            stretch = torch.eye(3).double() + strain
            of_pair = self.system[self.target]
            vector = x[self.source] - x[self.target]
            vector = vector + torch.einsum("ei,eij->ej", self.shift, cell[of_pair])
            vector = torch.einsum("eij,ej->ei", stretch[of_pair], vector)
            inverse6 = (vector * vector).sum(1) ** -3
            energies = segment_sum(2 * (inverse6**2 - inverse6), self.target, len(x))
            slope, virial = torch.autograd.grad(energies.sum(), (x, strain))
        energy = segment_sum(energies.detach(), self.system, len(cell))
        volume = torch.linalg.det(cell).view(-1, 1, 1)
        return Forces(energy, -slope, virial / volume, energies.detach())


def dimer(distance: float) -> tuple[Tensor, Tensor]:
    sites = [[1.0, 1.0, 1.0], [1.0, 1.0 + distance, 1.0]]
    return torch.tensor(sites, dtype=torch.float64), 50 * torch.eye(3).double()


def crystal(a: float, noise: float = 0.0, repeat: int = 2) -> tuple[Tensor, Tensor]:
    """fcc with lattice constant a."""
    corner = torch.cartesian_prod(*[torch.arange(repeat)] * 3).double()
    base = torch.tensor([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]).double()
    sites = (corner[:, None] + base).reshape(-1, 3) * a
    rattle = torch.randn(sites.shape, generator=torch.Generator().manual_seed(1)).double()
    return sites + noise * rattle, repeat * a * torch.eye(3).double()


def lattice_constant(cutoff: float, a: float) -> float:
    """Of the fcc crystal whose pairs are those within `cutoff` at lattice constant `a`."""
    positions, cell = crystal(a, repeat=1)
    length = neighbor_pairs(positions, cell, (True,) * 3, cutoff).vector.double().norm(dim=1) / a
    return float((2 * (length**-12).sum() / (length**-6).sum()) ** (1 / 6))


@both_methods
def test_dimers_of_a_batch_meet_at_the_known_distance(method: Method) -> None:
    field = LennardJones([dimer(d) for d in (0.9, DIMER, 1.5, 1.2)], 3.0)
    found = minimize(field, field.start, field.cell, method=method, fmax=1e-8)
    distance = (found.positions[1::2] - found.positions[::2]).norm(dim=1)
    assert distance.tolist() == pytest.approx([DIMER] * 4, abs=1e-9)
    assert found.forces.energy.tolist() == pytest.approx([-1.0] * 4, abs=1e-12)
    assert found.converged.all()
    assert (found.largest_force < 1e-8).all()
    # the one that began there never moved, whatever the others did
    assert found.steps[1] == 0
    assert torch.equal(found.positions[2:4], field.start[2:4])
    assert (found.steps[[0, 2, 3]] > 0).all()


@both_methods
@pytest.mark.parametrize("free", [None, "isotropic", "full"])
def test_a_batch_finds_what_its_systems_find_alone(method: Method, free: FreeCell | None) -> None:
    systems = [crystal(1.6, 0.03), crystal(1.5, 0.05, repeat=1), crystal(1.55, 0.0)]
    settings = {"method": method, "free_cell": free, "fmax": 1e-7, "stress_tolerance": 1e-8}
    field = LennardJones(systems, 1.9)
    together = minimize(field, field.start, field.cell, **settings)
    assert together.converged.all()
    parts = together.positions.split([32, 4, 32])
    for i, system in enumerate(systems):
        field = LennardJones([system], 1.9)
        alone = minimize(field, field.start, field.cell, **settings)
        assert float(alone.forces.energy) == pytest.approx(float(together.forces.energy[i]), 1e-9)
        assert torch.allclose(alone.cell[0], together.cell[i], atol=1e-6)
        assert torch.allclose(alone.positions, parts[i], atol=1e-5)


@both_methods
@both_cells
def test_a_free_cell_finds_the_lattice_constant(method: Method, free: FreeCell) -> None:
    expected = lattice_constant(SHELLS, 1.6)
    field = LennardJones([crystal(1.6, 0.02), crystal(1.6)], SHELLS)
    found = minimize(
        field,
        field.start,
        field.cell,
        method=method,
        free_cell=free,
        fmax=1e-8,
        stress_tolerance=1e-9,
    )
    assert found.converged.all()
    assert torch.allclose(found.cell, 2 * expected * torch.eye(3).double(), atol=1e-7)


@both_methods
def test_a_sheared_crystal_becomes_cubic_without_turning(method: Method) -> None:
    positions, cell = crystal(1.6)
    shear = torch.tensor([[1.02, 0.03, -0.02], [0.0, 0.99, 0.04], [0.0, 0.0, 1.0]]).double()
    field = LennardJones([(positions @ shear.T, cell @ shear.T)], SHELLS)
    found = minimize(
        field, field.start, field.cell, method=method, free_cell="full", stress_tolerance=1e-8
    )
    edge = 2 * lattice_constant(SHELLS, 1.6)
    assert found.cell[0].triu(1).abs().max() == 0  # as LAMMPS wants a box
    assert torch.allclose(found.cell[0], edge * torch.eye(3).double(), atol=1e-5)


@both_methods
@both_cells
@pytest.mark.parametrize("pressure", [5.0, -1.0])
def test_the_cell_holds_against_the_pressure(
    method: Method, free: FreeCell, pressure: float
) -> None:
    field = LennardJones([crystal(1.55, 0.02)], 1.9)
    settings = {"method": method, "free_cell": free, "pressure": pressure}
    found = minimize(field, field.start, field.cell, stress_tolerance=1e-7, **settings)
    assert found.converged.all()
    stress = found.forces.stress[0]
    assert float(stress.trace()) / 3 == pytest.approx(-pressure, abs=1e-7)
    if free == "full":
        assert torch.allclose(stress, -pressure * torch.eye(3).double(), atol=1e-7)


@pytest.mark.parametrize("free", [None, "isotropic", "full"])
def test_the_force_is_the_slope_of_the_enthalpy(free: FreeCell | None) -> None:
    field = LennardJones([crystal(1.6, 0.05), crystal(1.5, 0.04)], 1.9)
    enthalpy = Enthalpy(field, field.start, field.cell, free, pressure=0.7)
    generator = torch.Generator().manual_seed(0)

    def direction() -> Tensor:
        x = torch.randn(len(enthalpy.start), generator=generator).double()
        cells = x[3 * len(field.start) :].view(-1, 3, 3)
        if free == "isotropic":
            cells[:] = cells[:, :1, :1] * torch.eye(3)
        cells.copy_(cells.triu())  # as the cell is kept
        return x

    x = enthalpy.start + 0.02 * direction()
    force = enthalpy(x).force
    for _ in range(5):
        d = direction()
        ahead, behind = (enthalpy(x + h * d).value for h in (1e-5, -1e-5))
        slope = enthalpy.batch.dot(force, d)
        assert torch.allclose((behind - ahead) / 2e-5, slope, rtol=1e-6)


@both_methods
def test_overlapping_atoms_part_gently(method: Method) -> None:
    generator = torch.Generator().manual_seed(3)
    positions = 6 * torch.rand(200, 3, generator=generator).double()
    cell = 6 * torch.eye(3).double()
    closest = neighbor_pairs(positions, cell, (True,) * 3, 1.0).vector.norm(dim=1).min()
    assert closest < 0.2
    field = LennardJones([(positions, cell)], 2.5)
    found = minimize(field, positions, cell[None], method=method, fmax=1e-3, max_steps=50)
    jumps = [
        float((after - before).norm(dim=1).max())
        for before, after in zip(field.asked, field.asked[1:], strict=False)
    ]
    # fire: from a step to the next; cg: from the start of a line, so twice that between two
    assert max(jumps) < (0.1 if method == "fire" else 0.2) + 1e-9
    assert found.forces.energy < found.energy_before
    parted = neighbor_pairs(found.positions, cell, (True,) * 3, 1.0).vector.norm(dim=1)
    assert len(parted) == 0 or parted.min() > 3 * closest


@both_methods
def test_running_out_of_steps_is_told(method: Method) -> None:
    field = LennardJones([crystal(1.6, 0.05), crystal(1.6)], 1.9)
    found = minimize(field, field.start, field.cell, method=method, max_steps=7)
    assert found.converged.tolist() == [False, True]
    assert found.steps.tolist() == [7, 0]
    assert found.largest_force[0] > 1e-4
    assert found.forces.energy[0] < found.energy_before[0]
    again = field(found.positions, found.cell)
    assert torch.equal(again.forces, found.forces.forces)
    none = minimize(field, field.start, field.cell, method=method, max_steps=0)
    assert torch.equal(none.positions, field.start)


def test_conjugate_gradients_end_at_an_accepted_point() -> None:
    field = LennardJones([crystal(1.6, 0.08)], 1.9)
    energies = [
        float(minimize(field, field.start, field.cell, method="cg", max_steps=k).forces.energy)
        for k in range(15)
    ]
    assert all(after <= before for before, after in itertools.pairwise(energies))
    assert energies[-1] < energies[0]


def test_a_harmonic_well_takes_as_many_lines_as_dimensions() -> None:
    # n steps of conjugate gradients end a quadratic problem of n dimensions
    stiffness = torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0, 16.0]).double()

    class Wells:
        system = torch.zeros(2, dtype=torch.int64)

        def __call__(self, positions: Tensor, cell: Tensor) -> Forces:
            x = positions.reshape(-1)
            energy = 0.5 * (stiffness * x * x).sum().view(1)
            force = -(stiffness * x).view(2, 3)
            return Forces(energy, force, torch.zeros(1, 3, 3).double(), energy.expand(2) / 2)

    start = torch.tensor([[0.02, -0.03, 0.04], [0.03, 0.05, -0.04]]).double()
    cell = 9 * torch.eye(3).double()[None]
    steps = {}
    for method in ("cg", "fire"):
        found = minimize(Wells(), start, cell, method=method, fmax=1e-6)  # type: ignore[arg-type]
        assert found.positions.abs().max() < 1e-5
        steps[method] = int(found.steps)
    assert steps["cg"] < 25 < steps["fire"]


@both_methods
def test_atoms_on_one_another_have_no_energy(method: Method) -> None:
    field = LennardJones([crystal(1.6), dimer(0.9)], 1.9)
    field.start[-1] = field.start[-2]
    with pytest.raises(Diverged, match="system 1: energy or forces are not finite at step 0"):
        minimize(field, field.start, field.cell, method=method)


@both_methods
def test_a_cell_that_explodes_is_an_error(method: Method) -> None:
    field = LennardJones([crystal(1.6), crystal(1.6)], 1.9)
    with pytest.raises(Diverged, match=r"the cell has come to 1\de?\+?\d* times its volume"):
        minimize(
            field, field.start, field.cell, method=method, free_cell="isotropic", pressure=-99.0
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "newton"}, "no method 'newton': choose fire or cg"),
        ({"free_cell": "a"}, "no free cell 'a': choose None, isotropic or full"),
        ({"fmax": 0.0}, "fmax is 0 eV/Å"),
        ({"stress_tolerance": -1.0}, "stress tolerance -1 eV/Å³, expected positive"),
        ({"max_steps": -1}, "max_steps is -1, expected 0 or more"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, object], message: str) -> None:
    field = LennardJones([dimer(1.0)], 3.0)
    with pytest.raises(UsageError, match=message):
        minimize(field, field.start, field.cell, **settings)  # type: ignore[arg-type]


def test_progress_counts_systems_at_rest() -> None:
    field = LennardJones([dimer(DIMER), dimer(1.0), dimer(1.4)], 3.0)
    told: list[tuple[int, int]] = []
    minimize(
        field,
        field.start,
        field.cell,
        progress=lambda done, total, **info: told.append((done, total)),
    )
    assert told[0] == (1, 3)
    assert told[-1] == (3, 3)
    assert sorted(told) == told


@pytest.mark.parametrize("minimizer", [Fire, ConjugateGradients])
def test_a_system_at_zero_force_spreads_no_nan(
    minimizer: type[Fire] | type[ConjugateGradients],
) -> None:
    field = LennardJones([crystal(1.6), crystal(1.6, 0.05)], 1.9)
    enthalpy = Enthalpy(field, field.start, field.cell)
    state, x = minimizer(enthalpy.batch, enthalpy.start), enthalpy.start
    moving = torch.tensor([False, True])
    for _ in range(10):
        x = state.propose(x, enthalpy(x), moving)
        assert torch.isfinite(x).all()
    assert torch.equal(x.view(-1, 3)[:32], field.start[:32])


def test_sums_and_largest_of_systems_of_different_sizes() -> None:
    system = torch.tensor([0, 0, 1, 2, 2, 2])
    batch = FlatBatch(system, 3, extra=9)
    values = torch.randn(18 + 27, generator=torch.Generator().manual_seed(0)).double()
    atoms, rest = values[:18].view(6, 3), values[18:].view(3, 3, 3)
    for i in range(3):
        mine = torch.cat([atoms[system == i], rest[i]])
        assert float(batch.sum(values)[i]) == pytest.approx(float(mine.sum()))
        assert float(batch.dot(values, values)[i]) == pytest.approx(float((mine**2).sum()))
        assert float(batch.largest(values)[i]) == pytest.approx(float(mine.norm(dim=1).max()))
    spread = batch.spread(torch.tensor([1.0, 2.0, 3.0]))
    assert spread.tolist() == [1] * 6 + [2] * 3 + [3] * 9 + [1] * 9 + [2] * 9 + [3] * 9
