"""What a GPU does in a second: one table, from the radius graph to an explanation.

    python tests/benchmarks/gpu.py [--device cuda] [--atoms 8000] [--out table.md]
    python tests/benchmarks/gpu.py --emulated --atoms 64    # counts launches and waits instead

Without a GPU it runs on the CPU. On the emulated device (tests/emulated_cuda) its times mean
nothing; what counts there is how many kernels are launched, and how often the host waits. Each
figure is the best of some repetitions, after one that is not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mgsym.data_tools.sample import sample_structures
from mgsym.data_tools.simulation.optimizers.relax import relax
from mgsym.data_tools.simulation.potentials.eam_forces import EAMForces
from mgsym.data_tools.simulation.potentials.zhou_johnson_wadley import zhou_cu_zr
from mgsym.data_tools.simulation.saddle_search.artn import run_searches
from mgsym.data_tools.simulation.saddle_search.events import Search
from mgsym.data_tools.simulation.saddle_search.region_groups import slots_for
from mgsym.data_tools.simulation.saddle_search.settings import ArtnSettings
from mgsym.explanation import explain
from mgsym.graph import Graph, build_graph
from mgsym.models import create_model
from mgsym.models.base import BarrierModel
from mgsym.prediction import predict_graph
from mgsym.structure import Structure
from mgsym.structure.neighbors import neighbor_pairs
from mgsym.training.config import preset
from mgsym.training.optimizer import update_average
from mgsym.utils.devices import device_name, resolve_device

CUTOFF, SPACING = 5.0, 2.513  # Å; the density of a metallic glass


class Row(NamedTuple):
    """One line of the table."""

    what: str
    seconds: float
    each: str
    launches: int | None = None
    waits: int | None = None

    def text(self) -> str:
        counted = "" if self.launches is None else f" {self.launches} | {self.waits} |"
        return f"| {self.what} | {1e3 * self.seconds:.2f} ms | {self.each} |{counted}"


def glass(atoms: int) -> Structure:
    """A disordered lattice of about so many atoms, with labels."""
    side = max(4, round(atoms ** (1 / 3)))
    generator = torch.Generator().manual_seed(0)
    steps = torch.arange(side, dtype=torch.float64) * SPACING
    lattice = torch.cartesian_prod(steps, steps, steps)
    place = lattice + 0.8 * torch.rand(lattice.shape, generator=generator, dtype=torch.float64)
    types = (torch.rand(len(place), generator=generator) < 0.36).long()
    cell = side * SPACING * torch.eye(3, dtype=torch.float64)
    structure = Structure(place, cell, types, ("Cu", "Zr"), name="glass", split="train")
    labels = 1.8 + 0.3 * torch.randn(len(place), generator=generator)
    return structure.with_column("barrier", labels, "eV")


class Bench:
    """Where and how often things are measured.

    Args:
        device: of the work.
        repeat: runs of each; the best counts.
        counter: the emulated device, if it is one.
    """

    def __init__(self, device: torch.device, repeat: int, counter: Any = None) -> None:
        self.device, self.repeat, self.counter = device, repeat, counter
        self.rows: list[Row] = []

    def add(self, what: str, each: str, call: Callable[[], Any]) -> float:
        """Measure a call and keep it; seconds."""
        best = float("inf")
        for turn in range(self.repeat + 1):
            if self.counter is not None:
                self.counter.reset()
            start = time.perf_counter()
            call()
            if self.device.type == "cuda" and self.counter is None:
                torch.cuda.synchronize(self.device)
            if turn:
                best = min(best, time.perf_counter() - start)
        counts: tuple[int, ...] = ()
        if self.counter is not None:
            counts = sum(self.counter.launches.values()), sum(self.counter.waits.values())
        self.rows.append(Row(what, best, each, *counts))
        print(self.rows[-1].text(), file=sys.stderr, flush=True)
        return best

    def table(self) -> str:
        """As markdown."""
        name = "an emulated device" if self.counter is not None else device_name(self.device)
        more = " launches | waits |" if self.counter is not None else ""
        rule = " --- | --- |" if self.counter is not None else ""
        head = f"| {name} | time | of |{more}\n| --- | --- | --- |{rule}"
        return "\n".join([head, *(row.text() for row in self.rows)]) + "\n"


def graphs(bench: Bench, structure: Structure) -> None:
    """The radius graph."""
    place = structure.positions.to(bench.device), structure.cell.to(bench.device)
    bench.add(
        "radius graph", f"{len(structure)} atoms",
        lambda: neighbor_pairs(*place, structure.periodic, CUTOFF, device=bench.device),
    )  # fmt: skip


def training(bench: Bench, graph: Graph) -> None:
    """A step of the preset `paper`: forward, backward, update, averaged weights."""
    settings, batch = preset("paper").model, graph.to(bench.device)
    for precision in (torch.float32, torch.bfloat16, torch.float16):
        torch.manual_seed(0)
        model = create_model(settings.name, graph.species, graph.cutoff, settings.options)
        model.fit_statistics([graph])
        model.to(bench.device).train()
        average = copy.deepcopy(model)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
        step = partial(train_step, model, average, optimizer, batch, precision)
        name = str(precision).removeprefix("torch.")
        bench.add(f"training step, paper, {name}", f"{graph.num_nodes} atoms", step)


def train_step(
    model: BarrierModel,
    average: BarrierModel,
    optimizer: torch.optim.Optimizer,
    batch: Graph,
    precision: torch.dtype,
) -> None:
    """One of them."""
    optimizer.zero_grad()
    lower = precision != torch.float32
    with torch.autocast(batch.target.device.type, precision, enabled=lower):
        out = model.standardised(batch, None)
    (out.float() - batch.target).square().mean().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    update_average(average, model, 0.99, 1000)


def predictions(bench: Bench, graph: Graph) -> None:
    """A prediction and an explanation by the preset `paper`."""
    settings = preset("paper").model
    model = create_model(settings.name, graph.species, graph.cutoff, settings.options)
    model.fit_statistics([graph])
    model.to(bench.device).eval()
    bench.add("predict", f"{graph.num_nodes} atoms", lambda: predict_graph(model, graph))
    bench.add(
        "explain, edge-mask, 20 steps", "one atom",
        lambda: explain(graph, model, 5, "edge-mask", steps=20),
    )  # fmt: skip


def physics(bench: Bench, structure: Structure) -> None:
    """EAM energies, forces and stress."""
    field = EAMForces(zhou_cu_zr(), [structure], device=bench.device)
    positions = structure.positions.to(bench.device)
    cell = structure.cell[None].to(bench.device)
    bench.add("EAM forces", f"{len(structure)} atoms", lambda: field(positions, cell))


def searches(bench: Bench, count: int) -> None:
    """Searches for saddle points in the sample's test glass, at rest."""
    test = next(s for s in sample_structures() if s.split == "test")
    (found,) = relax([test], zhou_cu_zr(), device="cpu", compile=False)
    asked = [Search(i % len(test), i // len(test)) for i in range(count)]
    slots = min(count, slots_for(bench.device))
    limit = ArtnSettings(call_limit=40) if bench.counter is not None else ArtnSettings()

    def run() -> None:
        ended = run_searches(
            found.structure,
            zhou_cu_zr(),
            iter(asked),
            limit,
            slots=slots,
            device=bench.device,
            compile=bench.counter is None,
        )
        assert len(list(ended)) == count

    repeat, bench.repeat = bench.repeat, 1
    bench.add(f"saddle searches, {slots} slots", f"{count} searches", run)
    bench.repeat = repeat
    if bench.counter is None:
        rate = count / bench.rows[-1].seconds
        bench.rows[-1] = bench.rows[-1]._replace(each=f"{count} searches, {rate:.2f} a second")


def main() -> None:
    """Measure what was asked for, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--emulated", action="store_true", help="count on the emulated device")
    parser.add_argument("--atoms", type=int, default=8000)
    parser.add_argument("--searches", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--out", type=Path, help="the table; default: standard output")
    given = parser.parse_args()
    counter: Any = None
    with contextlib.ExitStack() as stack:
        if given.emulated:
            sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "emulated_cuda"))
            from emulated_cuda import EmulatedCuda

            counter = stack.enter_context(EmulatedCuda())
        bench = Bench(resolve_device(given.device), given.repeat, counter)
        structure = glass(given.atoms)
        graph = build_graph(structure, CUTOFF)
        graphs(bench, structure)
        training(bench, graph)
        predictions(bench, graph)
        physics(bench, structure)
        if given.searches:
            searches(bench, given.searches)
    if given.out:
        given.out.write_text(bench.table(), encoding="utf-8")
    else:
        print(bench.table())


if __name__ == "__main__":
    main()
