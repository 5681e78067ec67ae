"""Time to write and read a million atoms in each format.

python tests/benchmarks/formats.py [atoms]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch

import mgsym
from mgsym.structure import Column, Structure


def structure(atoms: int) -> Structure:
    """Random atoms with one column."""
    generator = torch.Generator().manual_seed(0)
    cell = torch.eye(3, dtype=torch.float64) * (17.0 * atoms) ** (1 / 3)
    fractions = torch.rand(atoms, 3, generator=generator, dtype=torch.float64)
    energy = torch.rand(atoms, generator=generator, dtype=torch.float64)
    return Structure(
        positions=fractions @ cell,
        cell=cell,
        types=torch.arange(atoms) % 2,
        species=("Cu", "Zr"),
        columns={"energy": Column(energy, "eV")},
    )


def main() -> None:
    atoms = structure(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
    print(f"{len(atoms)} atoms\nformat    write/s  read/s  MB")
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".dump", ".dump.gz", ".data", ".xyz", ".npz"):
            path = Path(folder) / f"atoms{suffix}"
            start = time.perf_counter()
            mgsym.write(atoms, path)
            written = time.perf_counter()
            mgsym.read(path)
            read = time.perf_counter()
            size = path.stat().st_size / 1e6
            print(f"{suffix:9} {written - start:7.1f} {read - written:7.1f} {size:6.0f}")


if __name__ == "__main__":
    main()
