"""Physics on the emulated device: forces, relaxations, dynamics and searches are the CPU's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mgsym.data_tools.formats import write
from mgsym.data_tools.sample import sample_structures
from mgsym.data_tools.simulation.dynamics.integrator import Dynamics, maxwell_boltzmann
from mgsym.data_tools.simulation.labelling.barriers import SearchRun
from mgsym.data_tools.simulation.optimizers.relax import relax
from mgsym.data_tools.simulation.potentials.eam_forces import EAMForces
from mgsym.data_tools.simulation.potentials.zhou_johnson_wadley import zhou_cu_zr
from mgsym.data_tools.simulation.saddle_search.artn import run_searches
from mgsym.data_tools.simulation.saddle_search.events import Event, Search
from mgsym.data_tools.simulation.saddle_search.pipeline import Pipeline
from mgsym.data_tools.simulation.saddle_search.settings import ArtnSettings
from mgsym.data_tools.workflows import labelling
from mgsym.errors import Interrupted, UsageError
from mgsym.structure import Structure
from mgsym.structure.neighbors import neighbor_pairs

pytestmark = pytest.mark.cuda

PLACES = ("cpu", "cuda")


@pytest.fixture(scope="module")
def glass() -> Structure:
    return next(s for s in sample_structures() if s.split == "test")


@pytest.fixture(scope="module")
def minimum(glass: Structure) -> Structure:
    (found,) = relax([glass], zhou_cu_zr(), device="cpu", compile=False)
    return found.structure


@pytest.mark.parametrize("method", ["brute", "cells"])
@pytest.mark.parametrize("periodic", [(True,) * 3, (True, False, True), (False,) * 3])
def test_pairs(
    gpu: Any, glasses: list[Structure], method: str, periodic: tuple[bool, bool, bool]
) -> None:
    place = glasses[0]
    for cutoff in (3.0, 9.0):
        here, there = (
            neighbor_pairs(
                place.positions, place.cell, periodic, cutoff, method=method, device=device
            )
            for device in PLACES
        )
        for a, b in zip(here, there, strict=True):
            assert torch.equal(a, b)


def test_energy_forces_and_stress_of_several_systems(gpu: Any, glasses: list[Structure]) -> None:
    found = []
    for device in PLACES:
        field = EAMForces(zhou_cu_zr(), glasses, device=device)
        positions = torch.cat([s.positions for s in glasses]).to(device)
        forces = field(positions, torch.stack([s.cell for s in glasses]).to(device))
        assert forces.energy.device.type == forces.stress.device.type == device
        found.append(forces)
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(b.cpu(), a, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize(("method", "cell"), [("fire", None), ("cg", None), ("fire", "isotropic")])
def test_relaxations(gpu: Any, glasses: list[Structure], method: str, cell: str | None) -> None:
    here, there = (
        relax(
            glasses[:2], zhou_cu_zr(), method=method, cell=cell, max_steps=6, device=device,
            compile=False,
        )
        for device in PLACES
    )  # fmt: skip
    for a, b in zip(here, there, strict=True):
        torch.testing.assert_close(b.structure.positions, a.structure.positions)
        torch.testing.assert_close(b.structure.cell, a.structure.cell)
        assert (b.converged, b.steps) == (a.converged, a.steps)


@pytest.mark.parametrize("barostat", [None, 1.0])
def test_dynamics(gpu: Any, glasses: list[Structure], barostat: float | None) -> None:
    ends = []
    for device in PLACES:
        field = EAMForces(zhou_cu_zr(), glasses[:2], device=device, compile=False)
        positions = torch.cat([s.positions for s in glasses[:2]]).to(device)
        cell = torch.stack([s.cell for s in glasses[:2]]).to(device)
        heat = torch.tensor([300.0, 600.0], dtype=torch.float64, device=device)
        draws = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
        velocities = maxwell_boltzmann(field.masses, field.system, heat, draws)
        moves = Dynamics(field, field.masses, thermostat=0.1, barostat=barostat)
        state = moves.start(positions, velocities, cell)
        forces = moves.forces(state)
        for _ in range(5):
            state, forces = moves.step(state, forces, heat)
        assert state.positions.device.type == device
        ends.append([x.cpu() for x in (*state, *moves.observe(state, forces))])
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-9)


def search(minimum: Structure, device: str, asked: list[Search], **settings: Any) -> list[Event]:
    chosen = ArtnSettings(radius=7.0, refine_radii=(8.0,), **settings)
    found = run_searches(
        minimum, zhou_cu_zr(), iter(asked), chosen, slots=2, device=device, compile=False
    )
    return sorted(found, key=lambda event: (event.atom, event.attempt))


@pytest.mark.slow
@pytest.mark.parametrize("connect", [False, True])
def test_searches(gpu: Any, minimum: Structure, connect: bool) -> None:
    asked = [Search(0, attempt) for attempt in range(4)]
    here, there = (
        search(minimum, device, asked, connect=connect, precision="float64") for device in PLACES
    )
    assert any(event.found for event in here)
    for a, b in zip(here, there, strict=True):
        assert (b.status, b.connected) == (a.status, a.connected)
        assert b.barrier == pytest.approx(a.barrier, abs=1e-5, nan_ok=True)
        assert b.barrier_back == pytest.approx(a.barrier_back, abs=1e-3, nan_ok=True)


def copper() -> Structure:
    """An fcc crystal of 256 atoms, at rest by symmetry."""
    basis = torch.tensor([[0.0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    corners = torch.cartesian_prod(*[torch.arange(4.0)] * 3)
    places = (corners[:, None] + basis).reshape(-1, 3).double() * 3.615
    types = torch.zeros(len(places), dtype=torch.int64)
    return Structure(places, torch.eye(3).double() * 3.615 * 4, types, ("Cu",), name="copper")


def test_walks_that_end_are_on_the_cpu(gpu: Any) -> None:
    """All the way through the pipeline, in a few force calls."""
    crystal, asked = copper(), [Search(3, 0), Search(8, 0)]
    settings = ArtnSettings(call_limit=12, precision="float64")
    ends = []
    for device in PLACES:
        line = Pipeline(
            crystal, zhou_cu_zr(), settings, [6.5], seed=0, slots=2, device=device, compile=False
        )
        states = {r.search.atom: r.states[-1] for r in line.run(iter(asked))}
        assert all(w.end.device.type == w.mode.device.type == "cpu" for w in states.values())
        ends.append(states)
    for atom, here in ends[0].items():
        there = ends[1][atom]
        assert (there.status, there.calls_leave) == (here.status, here.calls_leave)
        torch.testing.assert_close(there.end, here.end, rtol=0, atol=1e-6)


def test_several_jobs_label_on_the_cpu(
    gpu: Any, glass: Structure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`mgsym label relaxed.xyz --jobs 2` on a machine with a GPU, as the README has it."""
    asked: list[tuple[str, int]] = []

    def label(*given: Any, run: SearchRun, **how: Any) -> Any:
        asked.append((run.device, run.jobs))
        raise Interrupted("that is all")

    monkeypatch.setattr(labelling, "label", label)
    write(glass, tmp_path / "relaxed.xyz")
    for device, jobs in (("auto", 2), ("auto", 1), ("cpu", 2)):
        with pytest.raises(Interrupted):
            labelling.label_file(
                tmp_path / "relaxed.xyz", zhou_cu_zr(), tmp_path / "labelled.xyz",
                run=SearchRun(device=device, jobs=jobs),
            )  # fmt: skip
    assert asked == [("cpu", 2), ("cuda:0", 1), ("cpu", 2)]
    with pytest.raises(UsageError, match="processes are for CPUs"):
        labelling.label_file(
            tmp_path / "relaxed.xyz", zhou_cu_zr(), run=SearchRun(device="cuda", jobs=2)
        )


def test_the_host_waits_for_no_slot_alone(gpu: Any, minimum: Structure) -> None:
    """A step without new lists waits for what decides; the number of slots changes nothing."""
    counts = []
    for slots in (2, 6):
        line = Pipeline(
            minimum, zhou_cu_zr(), ArtnSettings(skin=2.0), [6.5], seed=0, slots=slots,
            device="cuda", compile=False,
        )  # fmt: skip
        stage = line.stages[0]
        stage.waiting.extend(line._begin(Search(40 * k, 0)) for k in range(slots))
        stage.fill()
        stage.batch.step()
        gpu.reset()
        for _ in range(12):
            stage.batch.step()
        assert stage.batch.busy == slots
        counts.append(sum(gpu.waits.values()))
    assert counts == [24, 24]
