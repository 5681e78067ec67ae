"""Strain at a rate and a temperature: molecular dynamics in a box that deforms steadily.

The equations are SLLOD's (Evans & Morriss, Statistical Mechanics of Nonequilibrium Liquids (2008),
chap. 6) with the box deforming along: with the velocity gradient L = Ḟ F⁻¹ and velocities v beside
the flow, ẋ = v + L x and v̇ = f/m − L v. For a strain that grows linearly in time this is Newton's
law, driven by the box; the internal energy grows by the work V σ:L alone, σ with the kinetic part
−Σ m v⊗v / V. Nosé–Hoover chains act on v.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mgsym.data_tools.simulation.deformation.batch import Batch, Row, Watch, stress_rows
from mgsym.data_tools.simulation.deformation.strain import strained, transformed
from mgsym.data_tools.simulation.dynamics.integrator import Dynamics, State, maxwell_boltzmann
from mgsym.data_tools.simulation.optimizers.minimize import minimize
from mgsym.data_tools.simulation.potentials.ase_calculator import ASEForces
from mgsym.data_tools.simulation.potentials.eam_forces import EAMForces
from mgsym.data_tools.simulation.potentials.force_field import Forces
from mgsym.data_tools.simulation.units import BOLTZMANN
from mgsym.nn.scatter import segment_sum
from mgsym.utils.seeds import derived_seed

NAN = float("nan")
SEGMENT = 1000  # time steps between two states that can be saved
SAMPLE = 10  # time steps between two looks at stress, energy and temperature


class DeformingDynamics(Dynamics):
    """Dynamics whose positions and cells are strained in the middle of each time step.

    Attributes:
        halves: F [b, 3, 3] of the first and of the second half of the next time step; None where
            the box rests.
    """

    halves: tuple[Tensor, Tensor] | None = None

    def _verlet(
        self, state: State, forces: Forces, scale: Tensor | None = None
    ) -> tuple[State, Forces]:
        if self.halves is None:
            return super()._verlet(state, forces, scale)
        (first, second), half = self.halves, 0.5 * self.timestep
        velocities = state.velocities
        if scale is not None:
            velocities = velocities * self._spread(scale)
        velocities = transformed(torch.linalg.inv(first), velocities, self.system)
        velocities = torch.addcdiv(velocities, forces.forces, self.mass, value=half)
        positions, cell = strained(state.positions, state.cell, first, self.system)
        positions = torch.add(positions, velocities, alpha=self.timestep)
        positions, cell = strained(positions, cell, second, self.system)
        forces = self.force_field(positions, cell)
        velocities = torch.addcdiv(velocities, forces.forces, self.mass, value=half)
        velocities = transformed(torch.linalg.inv(second), velocities, self.system)
        kinetic = self._kinetic(velocities)
        return state._replace(
            positions=positions, velocities=velocities, cell=cell, kinetic=kinetic
        ), forces

    def stress(self, state: State, forces: Forces) -> Tensor:
        """[b, 3, 3] eV/Å³, positive under tension, with the kinetic part."""
        v = state.velocities
        flux = segment_sum(
            self.mass[:, :, None] * v[:, :, None] * v[:, None, :], self.system, self.systems
        )
        return forces.stress - flux / torch.linalg.det(state.cell).abs()[:, None, None]


class DynamicsBatch(Batch):
    """Glasses at a temperature, strained at a rate; see `Batch`.

    The first row is the glass at rest; then it is brought to the temperature, and strained.

    Attributes:
        time_step: done since the glasses were heated; the first ones equilibrate.
        state: of the dynamics; its cells are the reduced ones.
        sums: [4 kinds of numbers], of the samples since the row before: see `_sample`.
    """

    def begin(self, watch: Watch) -> None:
        """Come to rest, keep that, and draw velocities."""
        plan = self.plan
        cells = self.reduced_cells()
        field = self.field()
        minimum = minimize(
            field, self.positions, cells, method=plan.method, fmax=plan.fmax,
            max_steps=plan.max_steps, progress=lambda *_, **info: watch(relaxing=info["step"]),
        )  # fmt: skip
        self.positions, self.step, self.time_step = minimum.positions, 0, 0
        forces = minimum.forces
        self._keep(
            forces.energy, forces.stress, torch.zeros_like(forces.energy), forces.atom_energy,
            minimum.steps.tolist(), minimum.converged.tolist(),
        )  # fmt: skip
        target = self._target()
        generators = [
            torch.Generator().manual_seed(derived_seed(plan.seed, "deform", glass.name))
            for glass in self.glasses
        ]
        velocities = maxwell_boltzmann(field.masses, field.system, target, generators)
        self.state = self._dynamics(field).start(self.positions, velocities, cells)
        self.sums = self._nothing()

    def advance(self, watch: Watch) -> None:
        """Go on by some time steps: to the next row, or by SEGMENT."""
        if self.step < 0:
            self.begin(watch)
            return
        dynamics = self._dynamics(self.field())
        state = self.state._replace(cell=self.reduced_cells())
        forces = dynamics.forces(state)
        first, end = self._segment()
        sums, target = self.sums, self._target()
        for time in range(first, end):
            dynamics.halves = self._halves(time)
            state, forces = dynamics.step(state, forces, target)
            if (time + 1) % SAMPLE == 0 or time + 1 == end:
                sums = self._sample(sums, dynamics, state, forces)
                watch(time=f"{(time + 1) * self.plan.picoseconds:.4g} ps")
        self._take(state, first, end)
        self.sums = sums
        if self._strain_steps(end) % self.plan.times_a_step == 0 and self._strain_steps(end) > 0:
            self.step += 1
            self._mean_rows(forces)
            self.sums = self._nothing()
        elif self._strain_steps(end) == 0:
            self.sums = self._nothing()  # what was seen while it was heated does not count

    @property
    def share(self) -> float:
        """Steps done, parts of one included."""
        if self.step < 0:
            return 0
        return max(0, self._strain_steps(self.time_step)) / self.plan.times_a_step

    def more(self) -> dict[str, Any]:
        """The state of the dynamics and the sums of the samples."""
        if self.step < 0:
            return {}
        state = {name: value.cpu() for name, value in self.state._asdict().items()}
        return {"time": self.time_step, "state": state, "sums": [x.cpu() for x in self.sums]}

    def restore_more(self, content: dict[str, Any]) -> None:  # type: ignore[override]
        """Take what `more` gave."""
        if self.step < 0:
            return
        self.time_step = content["time"]
        self.state = State(**{k: v.to(self.device) for k, v in content["state"].items()})
        self.sums = tuple(x.to(self.device) for x in content["sums"])

    # ---- parts of a segment ----

    def _dynamics(self, field: EAMForces | ASEForces) -> DeformingDynamics:
        plan = self.plan
        return DeformingDynamics(
            field, field.masses, timestep=plan.picoseconds, thermostat=plan.thermostat
        )

    def _target(self) -> Tensor:
        kelvin = torch.full((len(self.glasses),), float(self.plan.temperature or 0.0))
        return kelvin.double().to(self.device)

    @property
    def _heating(self) -> int:
        """Time steps before the strain begins."""
        return round(self.plan.equilibrate / self.plan.picoseconds)

    def _strain_steps(self, time: int) -> int:
        """Time steps of the strain; negative before it begins."""
        return time - self._heating

    def _segment(self) -> tuple[int, int]:
        """The time steps from here to the next row, to the strain's begin, or to SEGMENT more."""
        done, whole = self._strain_steps(self.time_step), self.plan.times_a_step
        goal = -done if done < 0 else whole - done % whole
        return self.time_step, self.time_step + min(goal, SEGMENT)

    def _halves(self, time: int) -> tuple[Tensor, Tensor] | None:
        done = self._strain_steps(time)
        if done < 0:
            return None
        start, middle, end = ((done + x) / self.plan.times_a_step for x in (0.0, 0.5, 1.0))
        return self.gradient(start, middle), self.gradient(middle, end)

    def _take(self, state: State, first: int, end: int) -> None:
        """Follow the cell that is not reduced by all time steps at once."""
        before, after = (
            max(0, self._strain_steps(t)) / self.plan.times_a_step for t in (first, end)
        )
        self.cell = self.cell @ self.gradient(before, after).mT
        self.state, self.positions, self.time_step = state, state.positions, end

    def _nothing(self) -> tuple[Tensor, ...]:
        zero = torch.zeros(len(self.glasses), dtype=torch.float64, device=self.device)
        return zero[:1].clone(), zero, zero[:, None, None].expand(-1, 3, 3).clone(), zero

    def _sample(
        self, sums: tuple[Tensor, ...], dynamics: DeformingDynamics, state: State, forces: Forces
    ) -> tuple[Tensor, ...]:
        """Add one look: how many, energy [b], stress [b, 3, 3], temperature [b]."""
        temperature = 2.0 * state.kinetic / (dynamics.freedom * BOLTZMANN)
        seen = torch.ones_like(sums[0]), forces.energy, dynamics.stress(state, forces), temperature
        return tuple(a + b for a, b in zip(sums, seen, strict=True))

    def _mean_rows(self, forces: Forces) -> None:
        count, energy, stress, temperature = self.sums
        calls = [self.plan.times_a_step] * len(self.glasses)
        self._keep(
            energy / count, stress / count, temperature / count, forces.atom_energy, calls,
            [True] * len(calls),
        )  # fmt: skip

    def _keep(
        self, energy: Tensor, stress: Tensor, temperature: Tensor, of_atoms: Tensor,
        calls: list[int], converged: list[bool],
    ) -> None:  # fmt: skip
        strain, volume = self.plan.strain_at(self.step), torch.linalg.det(self.cell).tolist()
        rows = [
            Row(
                direction.sign * strain + 0.0, float(energy[i]), each, volume[i],
                float(temperature[i]), NAN, calls[i], converged[i],
            )
            for i, (direction, each) in enumerate(
                zip(self.directions, stress_rows(stress), strict=True)
            )
        ]  # fmt: skip
        self.keep(rows, of_atoms)
