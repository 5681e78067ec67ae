"""Molecular dynamics of a batch of systems: NVE, NVT and NPT.

NVE is velocity Verlet. NVT adds a Nosé–Hoover chain per system (see `thermostats`). NPT is the
isotropic barostat of Martyna, Tobias & Klein, J. Chem. Phys. 101, 4177 (1994), with a chain on
the particles and one on the barostat, integrated by the measure-preserving scheme of Tuckerman,
Alejandre, López-Rendón, Jochim & Martyna, J. Phys. A 39, 5629 (2006), section 4.

Every system of the batch has its own cell, thermostats, barostat and target temperature; systems
may differ in size. A state is a tuple of float64 tensors: saved and loaded, it goes on to the
same bits, given a force field with the same history of neighbour lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mgsym.data_tools.simulation.dynamics.thermostats import (
    FOURTH_ORDER,
    SECOND_ORDER,
    Chains,
    advance_chains,
    chain_energy,
    chains_at_rest,
)
from mgsym.data_tools.simulation.potentials.force_field import ForceField, Forces
from mgsym.data_tools.simulation.units import BOLTZMANN, ENERGY_PER_MASS
from mgsym.errors import UsageError
from mgsym.nn.scatter import run_sums

# of the damping time: below it the chains' own error is far below that of the atoms' Verlet step
SMALL_STEP = 0.02


class State(NamedTuple):
    """Where a batch of systems is.

    Attributes:
        positions: [n, 3] Å, not wrapped.
        velocities: [n, 3] Å/ps.
        cell: [b, 3, 3] Å, rows are the cell vectors.
        strain_rate: [b] 1/ps, a third of the relative rate of the volume; moves under NPT only.
        chain_rate, chain_place: [length, c, b], see `thermostats.Chains`; c is 0, 1 or 2 under
            NVE, NVT or NPT.
        kinetic: [b] eV, kept to save a sum over the atoms.
    """

    positions: Tensor
    velocities: Tensor
    cell: Tensor
    strain_rate: Tensor
    chain_rate: Tensor
    chain_place: Tensor
    kinetic: Tensor


class Observables(NamedTuple):
    """What is measured: [b] each.

    Attributes:
        temperature: K.
        pressure: eV/Å³.
        energy: eV, potential.
        volume: Å³.
    """

    temperature: Tensor
    pressure: Tensor
    energy: Tensor
    volume: Tensor


def volume(cell: Tensor) -> Tensor:
    """[b] Å³ of cells [b, 3, 3]."""
    a, b, c = cell.unbind(1)
    return (torch.linalg.cross(a, b) * c).sum(dim=1)


def maxwell_boltzmann(
    masses: Tensor, system: Tensor, temperature: Tensor, generators: Sequence[torch.Generator]
) -> Tensor:
    """Random velocities whose temperature is exact and whose total momentum is zero.

    Args:
        masses: [n] amu.
        system: [n] int64, ascending: the system of each atom.
        temperature: [b] K.
        generators: one per system, on the CPU, so that a batch draws what its singles draw.

    Returns:
        [n, 3] Å/ps.

    Raises:
        UsageError: a system has fewer than two atoms.
    """
    velocities = []
    sizes = torch.bincount(system, minlength=len(generators)).tolist()
    if min(sizes) < 2:
        raise UsageError("a system of one atom has no temperature: take at least two atoms")
    for mass, target, generator in zip(
        masses.cpu().split(sizes), temperature.tolist(), generators, strict=True
    ):
        weight = mass[:, None] * ENERGY_PER_MASS
        normal = torch.randn(len(mass), 3, dtype=torch.float64, generator=generator)
        drawn = normal * weight.rsqrt()
        drawn -= (weight * drawn).sum(dim=0) / weight.sum()
        measured = (weight * drawn**2).sum() / (3 * len(mass) - 3)  # kT
        velocities.append(drawn * (BOLTZMANN * target / measured).sqrt())
    return torch.cat(velocities).to(masses.device)


class Dynamics:
    """The integrator of a batch of systems.

    Args:
        force_field: forces of the batch.
        masses: [n] amu.
        timestep: ps.
        thermostat: ps, damping time of the particles' chains; None for NVE.
        barostat: ps, damping time of barostat and its chain; None for constant volume.
        reference: K, where the barostat has that damping time: its mass W = (f + 3) kT τ² follows
            the target temperature unless this is given. For a quench: a mass that fell with the
            temperature would let the cell ring faster than the atoms.
        pressure: eV/Å³, the target.

    Raises:
        UsageError: a barostat without a thermostat, or a time that is not positive.
    """

    def __init__(
        self,
        force_field: ForceField,
        masses: Tensor,
        *,
        timestep: float = 0.001,
        thermostat: float | None = None,
        barostat: float | None = None,
        reference: float | None = None,
        pressure: float = 0.0,
    ) -> None:
        if barostat is not None and thermostat is None:
            raise UsageError("a barostat needs a thermostat beside it: give both, or neither")
        dampings = [tau for tau in (thermostat, barostat) if tau is not None]
        if not all(0 < time < float("inf") for time in (timestep, *dampings)):
            raise UsageError("timestep and damping times must be positive numbers of ps")
        self.force_field, self.timestep, self.pressure = force_field, timestep, pressure
        self.barostat, self.reference = barostat, reference
        self.mass = masses.double()[:, None] * ENERGY_PER_MASS
        self.system = force_field.system
        self.sizes = torch.bincount(self.system)
        self.systems = len(self.sizes)
        self.freedom = (3.0 * self.sizes - 3.0).double()  # the total momentum stays zero
        # per kind of chain: particles, barostat
        kinds = [self.freedom, torch.ones_like(self.freedom)][: len(dampings)]
        self.chain_freedom = (
            torch.stack(kinds) if kinds else self.freedom.new_zeros(0, self.systems)
        )
        slow = all(timestep <= SMALL_STEP * tau for tau in dampings)
        self.weights = SECOND_ORDER if slow else FOURTH_ORDER
        self.half_step = 0.5 * timestep / self.freedom.new_tensor(dampings)[:, None]

    def start(self, positions: Tensor, velocities: Tensor, cell: Tensor) -> State:
        """A state with thermostats and barostat at rest.

        Args:
            positions: [n, 3] Å.
            velocities: [n, 3] Å/ps.
            cell: [b, 3, 3] Å.
        """
        chains = chains_at_rest(len(self.half_step), self.systems, positions)
        rest = torch.zeros_like(self.freedom)
        kinetic = self._kinetic(velocities)
        return State(positions, velocities, cell, rest, chains.rate, chains.place, kinetic)

    def forces(self, state: State) -> Forces:
        """Evaluate the force field there."""
        return self.force_field(state.positions, state.cell)

    def step(
        self, state: State, forces: Forces, temperature: Tensor | None = None
    ) -> tuple[State, Forces]:
        """One time step.

        Args:
            state: where the systems are.
            forces: the forces there.
            temperature: [b] K, the target; not looked at under NVE.

        Returns:
            The next state, and the forces there.
        """
        if temperature is None or len(self.half_step) == 0:
            return self._verlet(state, forces)
        energy = BOLTZMANN * temperature
        state, scale = self._thermostats(state, energy)
        if self.barostat is None:
            state, forces = self._verlet(state, forces, scale)
        else:
            state, forces = self._expand(state, forces, scale, energy)
        state, scale = self._thermostats(state, energy)
        return state._replace(velocities=state.velocities * self._spread(scale)), forces

    def observe(self, state: State, forces: Forces) -> Observables:
        """Temperature, pressure, energy and volume of each system."""
        volumes = volume(state.cell)
        pressure = (2.0 * state.kinetic - volumes * _trace(forces.stress)) / (3.0 * volumes)
        temperature = 2.0 * state.kinetic / (self.freedom * BOLTZMANN)
        return Observables(temperature, pressure, forces.energy, volumes)

    def conserved(self, state: State, forces: Forces, temperature: Tensor | None = None) -> Tensor:
        """[b] eV: the energy that the extended equations of motion conserve.

        It is constant while the target temperature is.
        """
        total = forces.energy + state.kinetic
        if temperature is None or len(self.half_step) == 0:
            return total
        energy = BOLTZMANN * temperature
        chains = Chains(state.chain_rate, state.chain_place)
        total = total + energy * chain_energy(chains, self.chain_freedom)
        if self.barostat is None:
            return total
        return (
            total
            + 0.5 * self._inertia(energy) * state.strain_rate**2
            + self.pressure * volume(state.cell)
        )

    # ---- the parts of a step ----

    def _verlet(
        self, state: State, forces: Forces, scale: Tensor | None = None
    ) -> tuple[State, Forces]:
        """Velocity Verlet, the velocities being multiplied by `scale` [b] first."""
        half = 0.5 * self.timestep
        velocities = state.velocities
        if scale is not None:
            velocities = velocities * self._spread(scale)
        velocities = torch.addcdiv(velocities, forces.forces, self.mass, value=half)
        positions = torch.add(state.positions, velocities, alpha=self.timestep)
        forces = self.force_field(positions, state.cell)
        velocities = torch.addcdiv(velocities, forces.forces, self.mass, value=half)
        kinetic = self._kinetic(velocities)
        state = state._replace(positions=positions, velocities=velocities, kinetic=kinetic)
        return state, forces

    def _expand(
        self, state: State, forces: Forces, scale: Tensor, energy: Tensor
    ) -> tuple[State, Forces]:
        """Verlet in a cell that breathes: iL_ε,2 and iL₂ for half a step, iL_ε,1 + iL₁, back."""
        rate = self._barostat_kick(state, forces, energy)
        drag, kick = self._kick(rate)
        kick_mass = self._spread(kick) / self.mass
        velocities = state.velocities * self._spread(scale * drag) + forces.forces * kick_mass
        grow = torch.exp(0.5 * self.timestep * rate)
        drift = self.timestep * grow * _sinhc(0.5 * self.timestep * rate)
        stretch = grow * grow
        positions = state.positions * self._spread(stretch) + velocities * self._spread(drift)
        cell = state.cell * stretch[:, None, None]
        forces = self.force_field(positions, cell)
        velocities = velocities * self._spread(drag) + forces.forces * kick_mass
        state = state._replace(
            positions=positions,
            velocities=velocities,
            cell=cell,
            strain_rate=rate,
            kinetic=self._kinetic(velocities),
        )
        return state._replace(strain_rate=self._barostat_kick(state, forces, energy)), forces

    def _barostat_kick(self, state: State, forces: Forces, energy: Tensor) -> Tensor:
        """The strain rate after half a step of Ẇ = (1 + 3/f) 2K − V tr σ − 3 P V."""
        excess = _trace(forces.stress) + 3.0 * self.pressure
        force = (1.0 + 3.0 / self.freedom) * 2.0 * state.kinetic - volume(state.cell) * excess
        return state.strain_rate + 0.5 * self.timestep * force / self._inertia(energy)

    def _kick(self, rate: Tensor) -> tuple[Tensor, Tensor]:
        """Half a step of v̇ = F/m − (1 + 3/f) ε̇ v: v becomes drag · v + kick · F/m."""
        power = 0.25 * self.timestep * (1.0 + 3.0 / self.freedom) * rate
        root = torch.exp(-power)
        return root * root, 0.5 * self.timestep * root * _sinhc(power)

    def _thermostats(self, state: State, energy: Tensor) -> tuple[State, Tensor]:
        """Half a step of the chains; the velocities remain to be multiplied by the result, [b]."""
        ratio = 2.0 * state.kinetic / (self.freedom * energy)
        if self.barostat is None:
            ratio = ratio[None]
        else:
            moving = self._inertia(energy) * state.strain_rate**2 / energy
            ratio = torch.stack((ratio, moving))
        chains = Chains(state.chain_rate, state.chain_place)
        chains, scale = advance_chains(
            chains, ratio, self.chain_freedom, self.half_step, self.weights
        )
        rate = state.strain_rate if self.barostat is None else state.strain_rate * scale[1]
        state = state._replace(
            chain_rate=chains.rate,
            chain_place=chains.place,
            strain_rate=rate,
            kinetic=state.kinetic * scale[0] ** 2,
        )
        return state, scale[0]

    def _inertia(self, energy: Tensor) -> Tensor:
        """[b] eV ps²: the mass of the barostat."""
        assert self.barostat is not None
        if self.reference is not None:
            energy = torch.full_like(energy, BOLTZMANN * self.reference)
        return (self.freedom + 3.0) * energy * self.barostat**2

    def _kinetic(self, velocities: Tensor) -> Tensor:
        atoms = (0.5 * self.mass * velocities * velocities).sum(dim=1)
        if self.systems == 1:
            return atoms.sum(dim=0, keepdim=True)
        return run_sums(atoms, self.sizes)

    def _spread(self, values: Tensor) -> Tensor:
        """A number per system [b], for each of its atoms: [n, 1]."""
        return values[:, None] if self.systems == 1 else values[self.system, None]


def _trace(stress: Tensor) -> Tensor:
    return stress.diagonal(dim1=1, dim2=2).sum(dim=1)


def _sinhc(x: Tensor) -> Tensor:
    """sinh(x)/x of small x; exact to rounding below 0.05."""
    square = x * x
    return 1.0 + square / 6.0 * (1.0 + square / 20.0 * (1.0 + square / 42.0))
