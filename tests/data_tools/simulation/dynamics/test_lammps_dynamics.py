"""The same start gives the energies and temperatures that LAMMPS finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mgsym.data_tools.simulation.dynamics.integrator import Dynamics
from mgsym.data_tools.simulation.potentials.eam_forces import EAMForces
from mgsym.data_tools.simulation.potentials.zhou_johnson_wadley import zhou_cu_zr
from mgsym.structure import Structure

REFERENCE = Path(__file__).resolve().parents[3] / "reference" / "lammps_nve_cu128zr72.npz"
STEPS = 500  # of the 1000 there


def test_nve_follows_lammps() -> None:
    with np.load(REFERENCE, allow_pickle=False) as file:
        known = {name: torch.from_numpy(file[name]) for name in file.files}
    for name in ("potential", "kinetic", "temperature"):
        known[name] = known[name][:STEPS]
    liquid = Structure(known["positions"], known["cell"], known["types"], ("Cu", "Zr"))
    field = EAMForces(zhou_cu_zr(), [liquid])
    dynamics = Dynamics(field, field.masses, timestep=0.002)
    state = dynamics.start(known["positions"], known["velocities"], known["cell"][None])
    forces = dynamics.forces(state)
    rows = []
    for step in range(STEPS):
        if step:
            state, forces = dynamics.step(state, forces)
        temperature = dynamics.observe(state, forces).temperature
        rows.append(torch.cat((forces.energy, state.kinetic, temperature)))
    potential, kinetic, temperature = torch.stack(rows).unbind(1)
    # chaos lets the paths part, until then they are the same
    early = slice(0, 150)
    exact = {"rtol": 0, "atol": 2e-5}
    torch.testing.assert_close(potential[early], known["potential"][early], **exact)
    torch.testing.assert_close(kinetic[early], known["kinetic"][early], **exact)
    ours, theirs = potential + kinetic, known["potential"] + known["kinetic"]
    assert float(ours.mean() - theirs.mean()) == pytest.approx(0.0, abs=5e-4)
    assert float(ours.std() / theirs.std()) == pytest.approx(1.0, abs=0.1)
    assert float(temperature.mean() / known["temperature"].mean()) == pytest.approx(1.0, abs=5e-3)
