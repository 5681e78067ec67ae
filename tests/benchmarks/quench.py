"""How long a quench takes, and where the time goes.

    OMP_NUM_THREADS=1 MGSYM_POTENTIAL=Cu-Zr_2.eam.fs python tests/benchmarks/quench.py

Times are CPU seconds of this process, which a busy machine changes little.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from mgsym.data_tools.simulation.dynamics.integrator import Dynamics, maxwell_boltzmann
from mgsym.data_tools.simulation.dynamics.melt_quench import SKIN
from mgsym.data_tools.simulation.dynamics.packing import push_off, random_packing, starting_edge
from mgsym.data_tools.simulation.dynamics.recipe import Recipe
from mgsym.data_tools.simulation.potentials.eam_forces import EAMForces
from mgsym.data_tools.simulation.potentials.files import load_potential
from mgsym.data_tools.simulation.potentials.force_field import Forces


@dataclass
class Clock:
    """A force field whose calls are timed."""

    field: EAMForces
    seconds: float = 0.0
    calls: int = 0

    def __post_init__(self) -> None:
        self.system = self.field.system

    def __call__(self, positions: Tensor, cell: Tensor) -> Forces:
        start = time.process_time()
        forces = self.field(positions, cell)
        self.seconds += time.process_time() - start
        self.calls += 1
        return forces


def main() -> None:
    """Measure steps of hot and of cold systems."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--atoms", type=int, default=500)
    options.add_argument("--glasses", type=int, default=1)
    options.add_argument("--skin", type=float, default=SKIN)
    options.add_argument("--steps", type=int, default=400)
    asked = options.parse_args()
    potential, recipe = load_potential(), Recipe(atoms=asked.atoms)
    generators = [torch.Generator().manual_seed(k) for k in range(asked.glasses)]
    edge = starting_edge(recipe.counts, potential)
    starts = [random_packing(recipe.counts, edge, g) for g in generators]
    field = EAMForces(potential, starts, skin=asked.skin)
    cell = torch.stack([s.cell for s in starts])
    positions = push_off(field, torch.cat([s.positions for s in starts]), cell)
    clock = Clock(field)
    dynamics = Dynamics(clock, field.masses, thermostat=0.1, barostat=1.0, reference=2000.0)
    hot = torch.full((asked.glasses,), 2000.0, dtype=torch.float64)
    velocities = maxwell_boltzmann(field.masses, field.system, hot, generators)
    state = dynamics.start(positions, velocities, cell)
    forces = dynamics.forces(state)
    costs = []
    for target in (hot, hot / 6):
        for _ in range(1000):
            state, forces = dynamics.step(state, forces, target)
        clock.seconds, clock.calls = 0.0, 0
        start = time.process_time()
        for _ in range(asked.steps):
            state, forces = dynamics.step(state, forces, target)
        spent = (time.process_time() - start) / asked.steps
        inside = clock.seconds / asked.steps
        start = time.process_time()
        for _ in range(50):
            field(state.positions, state.cell)
        kernel = (time.process_time() - start) / 50
        print(
            f"{float(target[0]):.0f} K: {1e3 * spent:.2f} ms a step: forces {1e3 * kernel:.2f}, "
            f"neighbour lists {1e3 * (inside - kernel):.2f}, integrator "
            f"{1e3 * (spent - inside):.2f}"
        )
        costs.append(spent)
    melt, cold = recipe.melt_steps, recipe.quench_steps(1e13)
    minutes = (costs[0] * (melt + cold / 2) + costs[1] * cold / 2) / 60
    print(f"{asked.glasses} × {asked.atoms} atoms at 1e13 K/s, 50 ps melt: {minutes:.0f} min")


if __name__ == "__main__":
    main()
