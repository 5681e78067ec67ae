"""Seconds and memory of the physical inputs, and how each goes with the label.

    python tests/benchmarks/physical_inputs.py --data data/cu64zr36 --potential Cu-Zr_2.eam.fs

Correlations are those of each input with the label within train2, element means subtracted.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import torch
from torch import Tensor

import mgsym
from mgsym.data_tools.simulation.potentials.files import read_potential
from mgsym.data_tools.simulation.vibrations.compliance import compliance, physical_inputs


def centred(values: Tensor, types: Tensor) -> Tensor:
    mean = torch.stack([values[types == kind].mean() for kind in range(int(types.max()) + 1)])
    return values - mean[types]


def pearson(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


def ranks(values: Tensor) -> Tensor:
    return values.argsort().argsort().double()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the public dataset")
    parser.add_argument("--potential", type=Path, required=True)
    parser.add_argument("--structure", default="train2")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--double", action="store_true", help="compare with float64 factors")
    given = parser.parse_args()
    potential = read_potential(given.potential)
    structure = mgsym.read(given.data / f"{given.structure}.pickle")
    wall, processor = time.perf_counter(), time.process_time()
    found = physical_inputs(potential, structure, device=given.device)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{len(structure)} atoms, {torch.get_num_threads()} threads, {given.device}: "
        f"{wall:.1f} s, {processor:.1f} s of processor, {memory:.2f} GB"
    )
    label = structure.columns["barrier"].values.reshape(-1).double()
    print("| input | unit | mean | Pearson | Spearman |\n| --- | --- | --- | --- | --- |")
    for name, (values, unit) in found.items():
        x, y = centred(values, structure.types), centred(label, structure.types)
        both = f"{pearson(x, y):.3f} | {pearson(ranks(x), ranks(y)):.3f}"
        print(f"| {name} | {unit} | {float(values.mean()):.4g} | {both} |")
    if given.double:
        exact = compliance(potential, structure, device=given.device, dtype=torch.float64)
        single = torch.stack([found["compliance_6"].values, found["compliance_9"].values], dim=1)
        print(f"largest relative error of float32: {float((single / exact - 1).abs().max()):.1e}")


if __name__ == "__main__":
    main()
