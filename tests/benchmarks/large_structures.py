"""Time and memory of `mgsym predict` for train3 of the public dataset, repeated along its cell.

    OMP_NUM_THREADS=2 python tests/benchmarks/large_structures.py --data FOLDER [--repeats 2 5]

Each size is predicted with the shipped model in a process of its own; reading the dump and writing
another are included. FOLDER holds train3.pickle.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import mgsym
from mgsym.structure import Structure


def repeated(structure: Structure, times: int) -> Structure:
    """The structure put side by side `times` times along each cell vector."""
    steps = torch.arange(times, dtype=torch.float64)
    corners = torch.cartesian_prod(steps, steps, steps).reshape(-1, 3) @ structure.cell
    positions = (structure.positions[None] + corners[:, None]).reshape(-1, 3)
    types = structure.types.repeat(len(corners))
    return Structure(positions, structure.cell * times, types, structure.species)


def predicted(source: Path, out: Path) -> tuple[float, float, float]:
    """Wall and processor time in s, and peak memory in GB, of the command."""
    command = [sys.executable, "-m", "mgsym.cli.main", "predict", str(source), "--run", "shipped"]
    command += ["--types", "1=Cu,2=Zr", "-o", str(out), "--overwrite", "--device", "cpu", "-q"]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    wall = time.perf_counter() - start
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the public dataset")
    parser.add_argument("--repeats", type=int, nargs="+", default=[2, 5])
    parser.add_argument("--folder", type=Path, help="keep what is read and written here")
    options = parser.parse_args()
    train3 = mgsym.read(options.data / "train3.pickle")
    threads = os.environ.get("OMP_NUM_THREADS", str(torch.get_num_threads()))
    print(f"train3, {threads} thread(s)\n")
    print("| atoms | wall s | processor s | processor ms an atom | memory GB |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        for times in options.repeats:
            source, out = folder / f"x{times}.dump", folder / f"x{times}-predicted.dump"
            atoms = times**3 * len(train3)
            if not source.exists():
                mgsym.write(repeated(train3, times), source)
            wall, processor, memory = predicted(source, out)
            print(
                f"| {atoms:,} | {wall:.1f} | {processor:.1f} | {1000 * processor / atoms:.3f} | "
                f"{memory:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
