"""Time and memory of the neighbour search beside vesin's, as ratios measured in one run.

    OMP_NUM_THREADS=1 python tests/benchmarks/neighbors.py [--data FOLDER]

Both give the full list of pairs with shifts and vectors (vesin's "ijSD"). FOLDER holds
train0.pickle of the public dataset; without it a random structure of a glass's density, no two
atoms closer than 2 Å, stands in. Every case runs in its own process, so that the peak memory is
its own; the programs take turns, and the least of several times counts.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import mgsym
from mgsym.structure.neighbors import neighbor_pairs

CUTOFF = 5.0
DENSITY = 0.063
CASES = ((8_000, 1, 7), (64_000, 2, 5), (1_000_000, 5, 2))


def structure(folder: Path | None, repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions [8000 · repeats³, 3] and cell [3, 3], Å."""
    if folder is None:
        positions, cell = random_structure(8_000)
    else:
        train0 = mgsym.read(folder / "train0.pickle")
        positions, cell = train0.positions.numpy(), train0.cell.numpy()
    corners = np.stack(np.meshgrid(*[np.arange(repeats)] * 3, indexing="ij"), -1).reshape(-1, 3)
    return (positions + (corners @ cell)[:, None]).reshape(-1, 3), cell * repeats


def random_structure(atoms: int) -> tuple[np.ndarray, np.ndarray]:
    """Atoms pushed apart from random places until none are closer than 2 Å."""
    generator = torch.Generator().manual_seed(0)
    length = (atoms / DENSITY) ** (1 / 3)
    cell = torch.eye(3, dtype=torch.float64) * length
    positions = torch.rand(atoms, 3, generator=generator, dtype=torch.float64) * length
    for _ in range(200):
        pairs = neighbor_pairs(positions, cell, (True, True, True), 2.2)
        distance = pairs.vector.norm(dim=1, keepdim=True).double().clamp(min=1e-3)
        if float(distance.min()) > 2:
            break
        push = -0.3 * pairs.vector * (2.2 - distance) / distance
        positions = positions.index_add(0, pairs.edge_index[1], push) % length
    return positions.numpy(), cell.numpy()


def search_with(program: str, positions: np.ndarray, cell: np.ndarray) -> Callable[[], int]:
    """A call that searches and returns the number of pairs."""
    if program == "mgsym":
        place, box = torch.from_numpy(positions), torch.from_numpy(cell)
        return lambda: len(neighbor_pairs(place, box, (True, True, True), CUTOFF).shift)
    from vesin import NeighborList

    def search() -> int:
        calculator = NeighborList(cutoff=CUTOFF, full_list=True)
        found = calculator.compute(points=positions, box=cell, periodic=True, quantities="ijSD")
        return len(found[0])

    return search


def measure(program: str, repeats: int, turns: int, folder: Path | None) -> dict[str, float]:
    """Pairs, least wall and processor time in s, and peak memory of the process in GB."""
    search = search_with(program, *structure(folder, repeats))
    wall, processor, pairs = [], [], 0
    for _ in range(turns):
        start, busy = time.perf_counter(), time.process_time()
        pairs = search()
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - busy)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"pairs": pairs, "wall": min(wall), "processor": min(processor), "memory": memory}


def in_its_own_process(program: str, repeats: int, turns: int, data: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--case", program, str(repeats), str(turns)]
    command += ["--data", data] if data else []
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="", help="folder of the public dataset")
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        program, repeats, turns = options.case
        folder = Path(options.data) if options.data else None
        print(json.dumps(measure(program, int(repeats), int(turns), folder)))
        return
    threads = os.environ.get("OMP_NUM_THREADS", str(torch.get_num_threads()))
    name = "train0" if options.data else "random structure"
    print(f"{name}, {CUTOFF:g} Å, {threads} thread(s)\n")
    print("| atoms | pairs | program | wall s | of vesin | processor s | of vesin | memory GB |")
    print("|---|---|---|---|---|---|---|---|")
    for atoms, repeats, turns in CASES:
        least: dict[str, dict[str, float]] = {}
        for program in ("vesin", "mgsym") * 2:
            new = in_its_own_process(program, repeats, turns, options.data)
            old = least.get(program, new)
            least[program] = {key: min(old[key], new[key]) for key in new}
        for program, figures in least.items():
            wall, processor = (figures[k] / least["vesin"][k] for k in ("wall", "processor"))
            print(
                f"| {atoms:,} | {figures['pairs']:,} | {program} | {figures['wall']:.3f} | "
                f"{wall:.2f} | {figures['processor']:.3f} | {processor:.2f} | "
                f"{figures['memory']:.2f} |"
            )


if __name__ == "__main__":
    main()
