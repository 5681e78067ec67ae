"""Glasses and crystals under strain: LAMMPS, elastic constants, planted strains, work done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import mgsym
from mgsym.data_tools.simulation.deformation import finite_rate, run
from mgsym.data_tools.simulation.deformation.batch import Deformed
from mgsym.data_tools.simulation.deformation.finite_rate import DeformingDynamics
from mgsym.data_tools.simulation.deformation.nonaffine import NonAffine
from mgsym.data_tools.simulation.deformation.plan import Plan
from mgsym.data_tools.simulation.deformation.run import deform, frame_structures
from mgsym.data_tools.simulation.deformation.strain import (
    MOST_TILT,
    Direction,
    deformation_gradient,
    increments,
    reduced,
)
from mgsym.data_tools.simulation.dynamics.integrator import maxwell_boltzmann
from mgsym.data_tools.simulation.optimizers.relax import relax
from mgsym.data_tools.simulation.potentials.eam import EAM
from mgsym.data_tools.simulation.potentials.eam_forces import EAMForces, evaluate_structures
from mgsym.data_tools.simulation.potentials.files import read_potential
from mgsym.data_tools.simulation.potentials.zhou_johnson_wadley import embedded, f, phi, zhou_cu_zr
from mgsym.data_tools.simulation.units import BAR, GPA
from mgsym.errors import InputError, Interrupted, MgsymError, UsageError
from mgsym.structure import Structure

REFERENCE = Path(__file__).resolve().parents[3] / "reference" / "lammps_aqs_test0.npz"
SHEAR = Direction("shear-xy")


@pytest.fixture(scope="module")
def zhou() -> EAM:
    return zhou_cu_zr()


def copper(a: float = 3.615, cells: int = 2, name: str = "copper") -> Structure:
    """A conventional fcc crystal."""
    corner = torch.cartesian_prod(*[torch.arange(float(cells))] * 3).double()
    base = torch.tensor([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]).double()
    sites = (corner[:, None] + base).reshape(-1, 3) * a
    box = cells * a * torch.eye(3).double()
    return Structure(sites, box, torch.zeros(len(sites)), ("Cu",), name=name)


def cluster(seed: int = 0, atoms: int = 60, edge: float = 10.0, name: str = "gas") -> Structure:
    """Random atoms in a cell that leans."""
    generator = torch.Generator().manual_seed(seed)
    cell = torch.tensor([[edge, 0, 0], [2.0, edge, 0], [-1.5, 1.0, edge]]).double()
    scaled = torch.rand(atoms, 3, generator=generator, dtype=torch.float64)
    return Structure(scaled @ cell, cell, torch.zeros(atoms), ("Cu",), name=name)


@pytest.fixture(scope="module")
def small_glass(zhou: EAM) -> Structure:
    """A disordered piece of Cu at a minimum, 60 atoms."""
    start = cluster(3, atoms=60, edge=9.0, name="glass")
    (found,) = relax([start], zhou, method="fire", cell="isotropic", fmax=1e-5)
    assert found.converged
    return found.structure


# ---- LAMMPS ----------------------------------------------------------------------------------


def against_lammps(public_data: Path, mendelev: Path, steps: int) -> tuple[Tensor, Tensor]:
    """Differences of the energy (eV) and the stress (bar), largest component, by state."""
    glass = mgsym.read(public_data / "test0.dump", types={1: "Cu", 2: "Zr"})
    plan = Plan(strain=1e-3 * steps, step=1e-3, method="cg", fmax=1e-6)
    (found,) = deform([glass], read_potential(mendelev), plan)
    reference = np.load(REFERENCE, allow_pickle=False)
    energy = torch.tensor([row.energy for row in found.rows], dtype=torch.float64)
    xx, yy, zz, yz, xz, xy = torch.tensor([row.stress for row in found.rows], dtype=torch.float64).T
    pressure = -BAR * torch.stack([xx, yy, zz, xy, xz, yz], dim=1)  # LAMMPS' order and sign
    states = slice(0, steps + 1)
    off = (energy - torch.from_numpy(reference["energy"][states])).abs()
    wrong = (pressure - torch.from_numpy(reference["pressure_bar"][states])).abs().amax(1)
    return off, wrong


def test_the_first_states_are_those_of_lammps(public_data: Path, mendelev: Path) -> None:
    energy, stress = against_lammps(public_data, mendelev, 1)
    assert float(energy.max()) < 1e-6
    assert float(stress.max()) < 0.2


@pytest.mark.slow
def test_the_glass_shears_as_in_lammps(public_data: Path, mendelev: Path) -> None:
    energy, stress = against_lammps(public_data, mendelev, 30)
    assert int(((energy < 1e-6) & (stress < 0.2)).sum()) >= 29


# ---- elastic constants -----------------------------------------------------------------------


def second_derivative(energy: Callable[[Tensor], Tensor], volume: float) -> Tensor:
    """GPa [3, 3, 3, 3] of an energy as a function of the deformation gradient."""
    found = torch.autograd.functional.hessian(energy, torch.eye(3).double())
    return GPA * torch.as_tensor(found) / volume


def lattice_energy(a: float) -> Callable[[Tensor], Tensor]:
    """The energy of an atom of fcc Cu from the analytic functions, by the gradient F."""
    steps = torch.cartesian_prod(*[torch.arange(-6.0, 7.0)] * 3).double()
    steps = steps[(steps != 0).any(dim=1)]
    cell = a / 2 * torch.tensor([[0, 1, 1], [1, 0, 1], [1, 1, 0]]).double()

    def energy(gradient: Tensor) -> Tensor:
        r = ((steps @ cell) @ gradient.T).norm(dim=1)
        return 0.5 * phi(r, "Cu", "Cu").sum() + embedded(f(r, "Cu").sum(), "Cu")

    return energy


def by_deforming(potential: EAM, structure: Structure, step: float = 1e-5) -> tuple[float, ...]:
    """C11, C12 and C44 in GPa from central differences of `deform`'s stresses."""
    modes = Direction("uniaxial-x"), Direction("shear-yz")
    directions = tuple(Direction(d.mode, sign) for d in modes for sign in (False, True))
    plan = Plan(directions, strain=step, step=step, fmax=1e-9, max_steps=200)
    strained = deform([structure], potential, plan)
    stress = [torch.tensor(d.rows[1].stress, dtype=torch.float64) for d in strained]
    pulled, sheared = (GPA * (stress[i] - stress[i + 1]) / (2 * step) for i in (0, 2))
    return float(pulled[0]), float(pulled[1]), float(sheared[3])


def test_elastic_constants_are_second_derivatives(zhou: EAM) -> None:
    (at_rest,) = relax([copper()], zhou, cell="isotropic", fmax=1e-9, stress_tolerance=1e-10)
    a = float(at_rest.structure.cell[0, 0]) / 2
    exact = second_derivative(lattice_energy(a), a**3 / 4)
    found = by_deforming(zhou, at_rest.structure)
    expected = (exact[0, 0, 0, 0], exact[0, 0, 1, 1], exact[1, 2, 1, 2])
    assert found == pytest.approx([float(x) for x in expected], rel=1e-4)
    assert found[0] > found[1] > found[2] > 50  # as in copper


def test_elastic_constants_of_a_file_are_its_second_derivatives(mendelev: Path) -> None:
    potential = read_potential(mendelev)
    (at_rest,) = relax([copper()], potential, cell="isotropic", fmax=1e-9, stress_tolerance=1e-10)
    crystal = at_rest.structure
    field = EAMForces(potential, [crystal])

    def energy(gradient: Tensor) -> float:
        at = crystal.positions @ gradient.T, (crystal.cell @ gradient.T)[None]
        return float(field(*at).energy[0])

    def second(row: int, column: int, size: float = 1e-5) -> float:
        found = [energy(gradient_with(row, column, s * size)) for s in (-1, 0, 1)]
        return GPA * (found[0] - 2 * found[1] + found[2]) / size**2 / crystal.volume

    c11, _, c44 = by_deforming(potential, crystal)
    assert c11 == pytest.approx(second(0, 0), rel=1e-3)
    assert c44 == pytest.approx(second(1, 2), rel=1e-3)


def gradient_with(row: int, column: int, value: float) -> Tensor:
    gradient = torch.eye(3).double()
    gradient[row, column] += value
    return gradient


def test_free_lengths_across_give_youngs_modulus(zhou: EAM) -> None:
    (at_rest,) = relax([copper()], zhou, cell="isotropic", fmax=1e-9, stress_tolerance=1e-10)
    c11, c12, _ = by_deforming(zhou, at_rest.structure)
    plan = Plan((Direction("uniaxial-y"),), strain=1e-4, step=1e-4, fmax=1e-7, transverse=0.0)
    (found,) = deform([at_rest.structure], zhou, plan)
    _, pulled = found.rows
    xx, yy, zz = pulled.stress[:3]
    assert abs(GPA * xx) + abs(GPA * zz) < 1e-4
    young = (c11 - c12) * (c11 + 2 * c12) / (c11 + c12)
    assert GPA * yy / 1e-4 == pytest.approx(young, rel=2e-3)
    a = found.frames[-1].cell.diagonal() / at_rest.structure.cell.diagonal() - 1
    assert float(a[0]) == pytest.approx(-1e-4 * c12 / (c11 + c12), rel=5e-3)


# ---- strain and cells ------------------------------------------------------------------------


def test_shear_tilts_as_lammps_does() -> None:
    cell = torch.diag(torch.tensor([10.0, 20.0, 30.0]).double())
    sheared = cell @ deformation_gradient(SHEAR, 0.1).T
    assert sheared.tolist() == [[10.0, 0.0, 0.0], [2.0, 20.0, 0.0], [0.0, 0.0, 30.0]]
    back = cell @ deformation_gradient(Direction("shear-yz", True), 0.1).T
    assert back[2].tolist() == [0.0, -3.0, 30.0]
    pulled = cell @ deformation_gradient(Direction("uniaxial-z"), 0.1).T
    assert pulled[2].tolist() == pytest.approx([0.0, 0.0, 33.0])


def test_increments_follow_one_another() -> None:
    directions = [Direction("uniaxial-x", True), SHEAR]
    both = increments(directions, 0.1, 0.3) @ increments(directions, 0.0, 0.1)
    whole = torch.stack([deformation_gradient(d, 0.3) for d in directions])
    assert torch.allclose(both, whole, atol=1e-15)


@pytest.mark.parametrize("tilt", [-7.3, -0.7, 0.61, 1.5, 33.0])
def test_a_reduced_cell_is_the_same_lattice(tilt: float, zhou: EAM) -> None:
    start = cluster()
    gradient = deformation_gradient(SHEAR, tilt) @ deformation_gradient(Direction("shear-yz"), tilt)
    positions, cell = start.positions @ gradient.T, start.cell @ gradient.T
    less = reduced(cell)
    steps = torch.linalg.solve(cell, less, left=False)
    assert torch.allclose(steps, steps.round(), atol=1e-9)
    assert float(torch.linalg.det(steps)) == pytest.approx(1.0)
    assert not less.triu(1).any()
    lean = less[1, 0] / less[0, 0], less[2, 1] / less[1, 1], less[2, 0] / less[0, 0]
    assert max(map(abs, lean)) <= MOST_TILT + 1e-9
    one, other = (
        evaluate_structures(zhou, start.replace(positions=positions, cell=box))
        for box in (cell, less)
    )
    assert float(one.energy) == pytest.approx(float(other.energy), rel=1e-12)
    assert torch.allclose(one.stress, other.stress, rtol=1e-9, atol=1e-9)
    assert torch.allclose(one.forces, other.forces, rtol=1e-9, atol=1e-7)


def test_cells_that_lean_little_stay() -> None:
    hexagonal = torch.tensor([[3.0, 0, 0], [-1.5, 2.6, 0], [0, 0, 5.0]]).double()
    assert torch.equal(reduced(hexagonal), hexagonal)
    assert MOST_TILT > 0.5


def test_a_crystal_sheared_by_a_whole_vector_is_the_crystal(zhou: EAM) -> None:
    start = copper()
    # planes half a cell apart slide by whole cells, so the lattice maps onto itself
    plan = Plan(strain=2.0, step=0.5, every=1, fmax=1e9)
    (found,) = deform([start], zhou, plan)
    assert found.rows[-1].energy == pytest.approx(found.rows[0].energy, abs=1e-9)
    assert found.rows[2].energy > found.rows[0].energy + 1.0
    last = frame_structures(found, plan)[-1]
    assert torch.allclose(last.cell, start.cell, atol=1e-12)
    assert float(last.columns["d2min"].values.max()) < 1e-20
    assert float(last.columns["shear_strain"].values.min()) > 0.5


# ---- D²min -----------------------------------------------------------------------------------


def brute_force(start: Structure, after: Tensor, cell: Tensor, radius: float, atom: int) -> float:
    """D²min of one atom by least squares over explicit images."""
    steps = torch.cartesian_prod(*[torch.arange(-2.0, 3.0)] * 3).double()
    before = (start.positions[:, None] + steps @ start.cell - start.positions[atom]).view(-1, 3)
    moved = (after[:, None] + steps @ cell - after[atom]).view(-1, 3)
    near = (before.norm(dim=1) < radius) & (before.norm(dim=1) > 0)
    # r′ ≈ J r as rows: before @ Jᵀ = moved
    solution = np.linalg.lstsq(before[near].numpy(), moved[near].numpy(), rcond=None)[0]
    return float(((moved[near].numpy() - before[near].numpy() @ solution) ** 2).sum())


def test_d2min_is_the_least_squares_residual() -> None:
    start = cluster()
    generator = torch.Generator().manual_seed(1)
    gradient = deformation_gradient(SHEAR, 0.2)
    noise = 0.2 * torch.randn(len(start), 3, generator=generator, dtype=torch.float64)
    after, cell = start.positions @ gradient.T + noise, start.cell @ gradient.T
    found = NonAffine(start, 4.0)(after, cell).d2min
    for atom in range(0, len(start), 7):
        assert float(found[atom]) == pytest.approx(
            brute_force(start, after, cell, 4.0, atom), rel=1e-9
        )


def test_an_affine_strain_has_no_d2min_and_its_own_shear() -> None:
    start, gamma = cluster(), 0.3
    gradient = deformation_gradient(SHEAR, gamma)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(2)).double())[
        0
    ]
    for map_ in (gradient, turn @ gradient):
        found = NonAffine(start, 4.5)(start.positions @ map_.T, start.cell @ map_.T)
        assert float(found.d2min.max()) < 1e-20
        # η_xy = γ/2, η_yy = γ²/2
        expected = (gamma**2 / 4 + gamma**4 / 12) ** 0.5
        assert found.shear_strain.tolist() == pytest.approx([expected] * len(start), rel=1e-9)


def test_one_atom_that_jumps_shows_around_it() -> None:
    start = copper(cells=3)
    after = start.positions.clone()
    after[40] += torch.tensor([0.5, 0.0, 0.0]).double()
    found = NonAffine(start, 3.2)(after, start.cell).d2min
    near = (start.positions - start.positions[40]).norm(dim=1) < 3.0
    assert int(found.argmax()) == 40 or bool(near[int(found.argmax())])
    assert int((found > 1e-6).sum()) == 13  # itself and the twelve nearest


def test_atoms_without_neighbours_have_none() -> None:
    start = cluster(atoms=2, edge=30.0)
    found = NonAffine(start, 0.01)(start.positions * 1.1, start.cell)
    assert found.d2min.tolist() == [0.0, 0.0]


# ---- a glass at a temperature ----------------------------------------------------------------


@pytest.mark.parametrize("direction", [SHEAR, Direction("uniaxial-z", True)])
def test_the_energy_grows_by_the_work_done(
    zhou: EAM, small_glass: Structure, direction: Direction
) -> None:
    field = EAMForces(zhou, [small_glass])
    target = torch.tensor([600.0]).double()
    velocities = maxwell_boltzmann(
        field.masses, field.system, target, [torch.Generator().manual_seed(4)]
    )
    dynamics = DeformingDynamics(field, field.masses, timestep=5e-4)
    state = dynamics.start(small_glass.positions, velocities, small_glass.cell[None])
    forces = dynamics.forces(state)
    steps, size, work = 200, 2e-4, 0.0
    before = float(forces.energy + state.kinetic)

    def power(strain: float) -> float:
        """V σ:L for a strain that grows by `size` in a time step."""
        rate = size * direction.sign / (1 + direction.sign * strain * direction.uniaxial)
        stress = dynamics.stress(state, forces)[0][direction.component]
        return float(stress * torch.linalg.det(state.cell[0])) * rate

    for k in range(steps):
        work += 0.5 * power(k * size)
        ends = [(k + x) * size for x in (0.0, 0.5, 1.0)]
        dynamics.halves = (
            increments([direction], ends[0], ends[1]), increments([direction], ends[1], ends[2])
        )  # fmt: skip
        state, forces = dynamics.step(state, forces)
        work += 0.5 * power((k + 1) * size)
    gained = float(forces.energy + state.kinetic) - before
    assert abs(work) > 0.1
    assert gained == pytest.approx(work, abs=0.01 * abs(work) + 0.01)


def test_a_warm_glass_keeps_temperature_and_rate(zhou: EAM, small_glass: Structure) -> None:
    plan = Plan(
        (SHEAR,), strain=0.04, step=0.02, every=1, rate=2e11, temperature=300.0, equilibrate=0.3,
        timestep=2.0, seed=1,
    )  # fmt: skip
    (found,) = deform([small_glass], zhou, plan)
    assert plan.times_a_step * plan.picoseconds == pytest.approx(0.02 / 2e11 * 1e12)
    assert [row.strain for row in found.rows] == pytest.approx([0.0, 0.02, 0.04])
    assert found.rows[-1].temperature == pytest.approx(300.0, rel=0.25)
    expected = small_glass.cell @ deformation_gradient(SHEAR, 0.04).T
    assert torch.allclose(found.frames[-1].cell, expected, atol=1e-9)


# ---- running ---------------------------------------------------------------------------------

QUASISTATIC = Plan((SHEAR, Direction("uniaxial-x")), strain=0.03, step=0.01, every=1, fmax=1e-3)
WARM = Plan(
    (SHEAR, Direction("shear-xz", True)), strain=0.7, step=0.35, every=1, rate=1e13,
    temperature=300.0, equilibrate=0.06, timestep=1.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("plan", "looks"), [(QUASISTATIC, 12), (WARM, 6)], ids=["quasistatic", "warm"]
)
def test_interrupted_and_resumed_is_the_same(
    plan: Plan,
    looks: int,
    zhou: EAM,
    small_glass: Structure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(finite_rate, "SEGMENT", 15)
    monkeypatch.setitem(run.ATOMS_AT_ONCE, "cpu", 70)  # one glass at a time
    whole = deform([small_glass], zhou, plan)
    told = iter(range(1_000_000))
    checkpoint = tmp_path / "deform.checkpoint"
    pieces, again = 0, None
    while again is None:
        stop_at = next(told) + looks * (pieces + 1)

        def stop(until: int = stop_at) -> bool:
            return next(told) >= until

        try:
            again = deform(
                [small_glass], zhou, plan, checkpoint=checkpoint, resume=checkpoint.exists(),
                should_stop=stop,
            )  # fmt: skip
        except Interrupted:
            pieces += 1
        assert pieces < 60
    assert pieces >= 2
    assert_same(whole, again)


def assert_same(whole: list[Deformed], again: list[Deformed]) -> None:
    for one, other in zip(whole, again, strict=True):
        assert repr(one.rows) == repr(other.rows)
        for a, b in zip(one.frames, other.frames, strict=True):
            assert torch.equal(a.positions, b.positions)
            assert torch.equal(a.cell, b.cell)


def test_a_batch_is_its_singles(zhou: EAM, small_glass: Structure) -> None:
    structures = [small_glass, copper(name="crystal")]
    plan = Plan(
        (SHEAR, Direction("uniaxial-z")), strain=0.01, step=0.005, fmax=1e-5, transverse=1.0
    )
    together = deform(structures, zhou, plan)
    assert [d.name for d in together] == [
        "glass_shear-xy", "glass_uniaxial-z", "crystal_shear-xy", "crystal_uniaxial-z"
    ]  # fmt: skip
    apart = [d for s in structures for d in deform([s], zhou, plan)]
    for one, other in zip(together, apart, strict=True):
        assert one.rows[-1].energy == pytest.approx(other.rows[-1].energy, abs=1e-6)
    for row in together[1].rows:
        assert GPA * row.stress[0] == pytest.approx(-1.0, abs=0.01)
        assert GPA * row.stress[1] == pytest.approx(-1.0, abs=0.01)


def test_a_glass_resists_and_its_frames_say_how(zhou: EAM, small_glass: Structure) -> None:
    plan = Plan((SHEAR,), strain=0.01, step=0.005, every=1, fmax=1e-4)
    (found,) = deform([small_glass], zhou, plan)
    first, _, last = frame_structures(found, plan)
    assert 5 < GPA * (found.rows[-1].stress[5] - found.rows[0].stress[5]) / 0.01 < 60
    assert float(first.columns["d2min"].values.max()) < 1e-12
    assert float(last.columns["d2min"].values.median()) < 0.1
    # the glass as a whole is sheared by γ: η_xy = γ/2
    assert float(last.columns["shear_strain"].values.median()) == pytest.approx(0.005, rel=0.7)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"strain": 0.0}, "the strain is 0"),
        ({"step": 0.2}, "the step is 0.2"),
        ({"strain": 0.01, "step": 0.003}, "no whole number of steps"),
        ({"directions": ()}, "at least one mode"),
        ({"directions": (SHEAR, SHEAR)}, "none of them twice"),
        ({"directions": (Direction("twist"),)}, "no mode 'twist'"),
        ({"directions": (Direction("uniaxial-x", True),), "strain": 0.9}, "compress by less"),
        ({"rate": 1e8}, "a rate and a temperature belong together"),
        ({"rate": 1e8, "temperature": -1.0}, "temperature is -1"),
        ({"transverse": 0.0}, "goes with a uniaxial mode"),
        (
            {
                "directions": (Direction("uniaxial-x"),),
                "rate": 1e9,
                "temperature": 300.0,
                "transverse": 0.0,
            },
            "at rest only",
        ),
        ({"method": "newton"}, "choose fire or cg"),
        ({"fmax": float("nan")}, "fmax is nan"),
    ],
)
def test_senseless_plans_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Plan(**settings)


def test_what_cannot_be_strained_is_told(zhou: EAM, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="copper is not periodic"):
        deform([copper().replace(periodic=(True, True, False))], zhou, QUASISTATIC)
    with pytest.raises(UsageError, match="two structures are called copper"):
        deform([copper(), copper()], zhou, QUASISTATIC)
    with pytest.raises(UsageError, match="no structures"):
        deform([], zhou, QUASISTATIC)
    with pytest.raises(InputError, match="has Al, for which the potential"):
        deform([copper().replace(species=("Al",))], zhou, QUASISTATIC)
    close = copper().replace(positions=torch.zeros(32, 3))
    with pytest.raises(MgsymError, match="not finite before any strain"):
        deform([close], zhou, QUASISTATIC)
    checkpoint = tmp_path / "deform.checkpoint"
    deform([copper()], zhou, QUASISTATIC, checkpoint=checkpoint)
    other = Plan((SHEAR,), strain=0.02, step=0.01)
    with pytest.raises(UsageError, match="another directions and strain and every and fmax"):
        deform([copper()], zhou, other, checkpoint=checkpoint, resume=True)
    with pytest.raises(UsageError, match="another structures"):
        deform([copper(3.7)], zhou, QUASISTATIC, checkpoint=checkpoint, resume=True)
