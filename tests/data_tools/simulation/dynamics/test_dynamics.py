"""The integrators keep what they must keep and sample what they must sample."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mgsym.data_tools.simulation.dynamics.integrator import (
    Dynamics,
    Observables,
    State,
    maxwell_boltzmann,
    volume,
)
from mgsym.data_tools.simulation.potentials.force_field import Forces
from mgsym.data_tools.simulation.units import BAR, BOLTZMANN, ENERGY_PER_MASS
from mgsym.errors import UsageError
from mgsym.nn.scatter import segment_sum

EPSILON, SIGMA, CUTOFF, ARGON = 0.0104, 3.4, 7.5, 39.948


class LennardJones:
    """Lennard-Jones, its energy and force shifted to zero at the cutoff.

    Pairs farther apart than 10 Å at the start are left out: in a crystal they never meet.
    """

    def __init__(self, system: Tensor, positions: Tensor, cell: Tensor) -> None:
        self.system = system
        row, column = torch.triu_indices(len(system), len(system), 1)
        same = system[row] == system[column]
        self.row, self.column = row[same], column[same]
        near = self.vectors(positions, cell).norm(dim=1) < 10.0
        self.row, self.column = self.row[near], self.column[near]

    def vectors(self, positions: Tensor, cell: Tensor) -> Tensor:
        """From the second atom of each pair to the nearest image of the first."""
        of = self.system[self.row]
        vector = positions[self.row] - positions[self.column]
        images = torch.einsum("pi,pij->pj", vector, torch.linalg.inv(cell)[of]).round()
        return vector - torch.einsum("pi,pij->pj", images, cell[of])

    def __call__(self, positions: Tensor, cell: Tensor) -> Forces:
        of = self.system[self.row]
        vector = self.vectors(positions, cell)
        r = vector.norm(dim=1)
        near = r < CUTOFF
        energy, slope = lennard_jones(r)
        at_cutoff, slope_there = lennard_jones(torch.tensor(CUTOFF, dtype=torch.float64))
        energy = torch.where(near, energy - at_cutoff - slope_there * (r - CUTOFF), 0.0)
        pull = (torch.where(near, slope - slope_there, 0.0) / r)[:, None] * vector
        forces = torch.zeros_like(positions).index_add(0, self.column, pull)
        forces = forces.index_add(0, self.row, -pull)
        virial = segment_sum(pull[:, :, None] * vector[:, None, :], of, len(cell))
        total = segment_sum(energy, of, len(cell))
        return Forces(total, forces, virial / volume(cell)[:, None, None], energy.new_zeros(0))


def lennard_jones(r: Tensor) -> tuple[Tensor, Tensor]:
    power = (SIGMA / r) ** 6
    return 4 * EPSILON * power * (power - 1), -24 * EPSILON / r * power * (2 * power - 1)


class Springs:
    """Every two atoms of a system bound by springs, stiffer (eV/Å²) along one axis than another.

    The total momentum is conserved and the canonical ensemble of the rest is known.
    """

    stiffness = torch.tensor([0.5, 1.0, 1.7]).double()

    def __init__(self, systems: int, atoms: int) -> None:
        self.system = torch.repeat_interleave(torch.full((systems,), atoms))
        self.shape = (systems, atoms, 3)

    def __call__(self, positions: Tensor, cell: Tensor) -> Forces:
        x = positions.view(self.shape)
        apart = x[:, :, None] - x[:, None]
        forces = -(self.stiffness * apart).sum(dim=2).view(-1, 3)
        energy = 0.25 * (self.stiffness * apart**2).sum(dim=(1, 2, 3))
        return Forces(energy, forces, torch.zeros_like(cell), energy)


class Nothing:
    """No forces: an ideal gas."""

    def __init__(self, system: Tensor) -> None:
        self.system = system

    def __call__(self, positions: Tensor, cell: Tensor) -> Forces:
        zero = positions.new_zeros(len(cell))
        return Forces(zero, torch.zeros_like(positions), torch.zeros_like(cell), zero)


def crystal(repeats: int, lattice: float = 5.3) -> tuple[Tensor, Tensor]:
    """Positions and cell of fcc argon."""
    corner = torch.cartesian_prod(*[torch.arange(repeats, dtype=torch.float64)] * 3)
    basis = torch.tensor([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]).double()
    positions = (corner[:, None] + basis).reshape(-1, 3) * lattice
    return positions, torch.eye(3, dtype=torch.float64) * lattice * repeats


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


class Batch:
    """Argon crystals of different sizes and densities, with velocities."""

    def __init__(self, *lattices: float, temperature: float = 60.0, first: int = 0) -> None:
        parts = [crystal(3 + (k + first) % 2, a) for k, a in enumerate(lattices)]
        sizes = torch.tensor([len(p) for p, _ in parts])
        self.system = torch.repeat_interleave(sizes)
        self.positions = torch.cat([p for p, _ in parts])
        self.cell = torch.stack([c for _, c in parts])
        self.masses = torch.full((len(self.system),), ARGON).double()
        self.temperature = torch.full((len(lattices),), temperature).double()
        seeds = seeded(*(100 + k + first for k in range(len(lattices))))
        self.velocities = maxwell_boltzmann(self.masses, self.system, self.temperature, seeds)

    def dynamics(self, **settings: float) -> Dynamics:
        field = LennardJones(self.system, self.positions, self.cell)
        return Dynamics(field, self.masses, **settings)

    def start(self, dynamics: Dynamics) -> State:
        return dynamics.start(self.positions, self.velocities, self.cell)


def run(
    dynamics: Dynamics,
    state: State,
    steps: int,
    temperature: Tensor | None = None,
    watch: Callable[[State, Forces], None] = lambda state, forces: None,
) -> State:
    forces = dynamics.forces(state)
    for _ in range(steps):
        state, forces = dynamics.step(state, forces, temperature)
        watch(state, forces)
    return state


def stirred(dynamics: Dynamics, state: State, seed: int) -> State:
    """Thermostats that move as they do in equilibrium, and kinetic energies of the ensemble."""
    generator = torch.Generator().manual_seed(seed)
    rate = torch.randn(state.chain_rate.shape, dtype=torch.float64, generator=generator)
    rate[0] /= dynamics.chain_freedom.sqrt()
    shape = (len(dynamics.freedom), int(dynamics.freedom[0]))
    normal = torch.randn(shape, dtype=torch.float64, generator=generator)
    factor = (normal**2).mean(dim=1).sqrt()
    velocities = state.velocities * factor[dynamics.system, None]
    return state._replace(chain_rate=rate, velocities=velocities, kinetic=state.kinetic * factor**2)


ENSEMBLES = {
    "nve": {},
    "nvt": {"thermostat": 0.1},
    "npt": {"thermostat": 0.1, "barostat": 0.5, "pressure": 100 / BAR},
}
every_ensemble = pytest.mark.parametrize("settings", ENSEMBLES.values(), ids=ENSEMBLES)


def worst_drift(settings: dict[str, float], timestep: float, time: float = 0.8) -> float:
    """eV: how far the conserved energy gets from where it began."""
    batch = Batch(5.3)
    dynamics = batch.dynamics(timestep=timestep, **settings)
    seen: list[Tensor] = []
    run(
        dynamics,
        batch.start(dynamics),
        round(time / timestep),
        batch.temperature,
        lambda s, f: seen.append(dynamics.conserved(s, f, batch.temperature)),
    )
    energies = torch.stack(seen)
    return float((energies - energies[0]).abs().max())


@every_ensemble
def test_what_is_conserved_is_conserved_to_the_square_of_the_timestep(
    settings: dict[str, float],
) -> None:
    coarse, fine = worst_drift(settings, 0.008), worst_drift(settings, 0.004)
    # the kinetic energy is 0.83 eV
    assert fine < 5e-4
    assert coarse / fine == pytest.approx(4.0, rel=0.35)


@every_ensemble
def test_momentum_stays_zero(settings: dict[str, float]) -> None:
    batch = Batch(5.3, 5.5)
    dynamics = batch.dynamics(timestep=0.005, **settings)
    state = run(dynamics, batch.start(dynamics), 100, batch.temperature)
    momentum = segment_sum(dynamics.mass * state.velocities, batch.system, 2)
    assert float(momentum.abs().max()) < 1e-12


@every_ensemble
def test_time_runs_backwards(settings: dict[str, float]) -> None:
    batch = Batch(5.3)
    dynamics = batch.dynamics(timestep=0.005, **settings)
    state = run(dynamics, batch.start(dynamics), 40, batch.temperature)
    assert float((state.positions - batch.positions).abs().max()) > 0.1
    back = state._replace(
        velocities=-state.velocities,
        strain_rate=-state.strain_rate,
        chain_rate=-state.chain_rate,
    )
    back = run(dynamics, back, 40, batch.temperature)
    torch.testing.assert_close(back.positions, batch.positions, atol=1e-8, rtol=0)
    torch.testing.assert_close(back.velocities, -batch.velocities, atol=1e-7, rtol=0)


@every_ensemble
def test_a_batch_is_its_singles(settings: dict[str, float]) -> None:
    batch = Batch(5.3, 5.6)
    dynamics = batch.dynamics(timestep=0.005, **settings)
    target = torch.tensor([60.0, 90.0]).double()
    together = run(dynamics, batch.start(dynamics), 50, target)
    for k, lattice in enumerate((5.3, 5.6)):
        single = Batch(lattice, first=k)
        alone = single.dynamics(timestep=0.005, **settings)
        state = run(alone, single.start(alone), 50, target[k : k + 1])
        mine = batch.system == k
        close = {"atol": 1e-9, "rtol": 1e-9}
        torch.testing.assert_close(together.positions[mine], state.positions, **close)
        torch.testing.assert_close(together.velocities[mine], state.velocities, **close)
        torch.testing.assert_close(together.cell[k], state.cell[0], **close)
        torch.testing.assert_close(together.kinetic[k], state.kinetic[0], **close)


def test_a_saved_state_goes_on_to_the_same_bits(tmp_path) -> None:
    batch = Batch(5.3, 5.6)
    dynamics = batch.dynamics(timestep=0.005, **ENSEMBLES["npt"])
    half = run(dynamics, batch.start(dynamics), 30, batch.temperature)
    torch.save(half._asdict(), tmp_path / "state.pt")
    whole = run(dynamics, half, 30, batch.temperature)
    loaded = State(**torch.load(tmp_path / "state.pt", weights_only=True))
    resumed = run(batch.dynamics(timestep=0.005, **ENSEMBLES["npt"]), loaded, 30, batch.temperature)
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))


def test_velocities_have_the_temperature_asked_for_and_no_momentum() -> None:
    system = torch.repeat_interleave(torch.tensor([500, 40]))
    masses = torch.where(torch.arange(540) % 3 == 0, 91.2, 63.5).double()
    target = torch.tensor([2000.0, 300.0]).double()
    velocities = maxwell_boltzmann(masses, system, target, seeded(1, 2))
    weight = masses[:, None] * ENERGY_PER_MASS
    momentum = segment_sum(weight * velocities, system, 2)
    assert float(momentum.abs().max()) < 1e-12
    twice = segment_sum((weight * velocities**2).sum(dim=1), system, 2)
    freedom = torch.tensor([3 * 500 - 3, 3 * 40 - 3])
    torch.testing.assert_close(twice / freedom / BOLTZMANN, target)
    # equipartition: light atoms are faster
    share = (weight * velocities**2)[:500].mean(dim=1)  # ± 4 % for light, ± 6 % for heavy
    light, heavy = masses[:500] < 80, masses[:500] > 80
    assert float(share[light].mean() / share[heavy].mean()) == pytest.approx(1.0, abs=0.25)
    again = maxwell_boltzmann(masses[500:], system[500:] - 1, target[1:], seeded(2))
    assert torch.equal(again, velocities[500:])


def test_nvt_samples_the_canonical_ensemble_of_oscillators() -> None:
    """Energies of f modes: mean f kT/2 and variance f (kT)²/2, kinetic and potential."""
    systems, atoms, kelvin = 400, 4, 300.0
    springs = Springs(systems, atoms)
    masses = torch.tensor([20.0, 33.0, 47.0, 60.0]).double().repeat(systems)
    target = torch.full((systems,), kelvin).double()
    velocities = maxwell_boltzmann(masses, springs.system, target, seeded(*range(systems)))
    dynamics = Dynamics(springs, masses, timestep=0.005, thermostat=0.02)
    cell = torch.eye(3).double()[None].expand(systems, 3, 3)
    state = stirred(dynamics, dynamics.start(torch.zeros_like(velocities), velocities, cell), 3)
    seen: list[Tensor] = []
    run(dynamics, state, 1500, target, lambda s, f: seen.append(torch.stack((s.kinetic, f.energy))))
    energy, freedom = BOLTZMANN * kelvin, 3 * atoms - 3
    for samples in torch.stack(seen[300::4]).unbind(1):
        assert float(samples.mean()) == pytest.approx(freedom * energy / 2, rel=0.015)
        assert float(samples.var()) == pytest.approx(freedom * energy**2 / 2, rel=0.05)


def test_npt_samples_the_volumes_of_an_ideal_gas() -> None:
    """p V / kT follows the gamma distribution of N: mean N, variance N."""
    systems, atoms, kelvin, pressure = 400, 8, 300.0, 1e-3
    system = torch.repeat_interleave(torch.full((systems,), atoms))
    masses = torch.full((len(system),), 20.0).double()
    target = torch.full((systems,), kelvin).double()
    velocities = maxwell_boltzmann(masses, system, target, seeded(*range(systems)))
    unit = BOLTZMANN * kelvin / pressure
    cell = (torch.eye(3) * (atoms * unit) ** (1 / 3)).double()[None].repeat(systems, 1, 1)
    dynamics = Dynamics(
        Nothing(system), masses, timestep=0.01, thermostat=0.2, barostat=0.3, pressure=pressure
    )
    seen: list[Observables] = []
    run(
        dynamics,
        stirred(dynamics, dynamics.start(torch.zeros_like(velocities), velocities, cell), 4),
        1500,
        target,
        lambda s, f: seen.append(dynamics.observe(s, f)),
    )
    found = Observables(*(torch.stack(values[300:]) for values in zip(*seen, strict=True)))
    assert float(found.pressure.mean()) == pytest.approx(pressure, rel=0.02)
    assert float(found.temperature.mean()) == pytest.approx(kelvin, rel=0.02)
    assert float(found.volume.mean() / unit) == pytest.approx(atoms, rel=0.02)
    assert float((found.volume / unit).var()) == pytest.approx(atoms, rel=0.06)


def test_npt_brings_a_crystal_to_the_pressure_asked_for() -> None:
    batch = Batch(5.3)
    dynamics = batch.dynamics(timestep=0.008, thermostat=0.2, barostat=0.4, pressure=500 / BAR)
    seen: list[Observables] = []
    run(
        dynamics,
        batch.start(dynamics),
        1000,
        batch.temperature,
        lambda s, f: seen.append(dynamics.observe(s, f)),
    )
    found = Observables(*(torch.stack(values[400:]) for values in zip(*seen, strict=True)))
    assert float(found.pressure.mean()) * BAR == pytest.approx(500, abs=40)
    assert float(found.temperature.mean()) == pytest.approx(60, abs=2)


def test_a_barostat_wants_a_thermostat_and_times_are_positive() -> None:
    batch = Batch(5.3)
    with pytest.raises(UsageError, match="thermostat"):
        batch.dynamics(barostat=1.0)
    with pytest.raises(UsageError, match="positive"):
        batch.dynamics(timestep=0.0)
    with pytest.raises(UsageError, match="at least two atoms"):
        maxwell_boltzmann(batch.masses[:1], batch.system[:1], batch.temperature, seeded(1))
