"""Saddle searches where the saddle is known: analytic surfaces and a vacancy's hop in copper."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from mgsym.data_tools.sample import sample_structures
from mgsym.data_tools.simulation.optimizers.minimize import minimize
from mgsym.data_tools.simulation.potentials.eam_forces import EAMForces
from mgsym.data_tools.simulation.potentials.zhou_johnson_wadley import zhou_cu_zr
from mgsym.data_tools.simulation.saddle_search.artn import active_radius, run_searches
from mgsym.data_tools.simulation.saddle_search.events import Search
from mgsym.data_tools.simulation.saddle_search.lanczos import Lanczos
from mgsym.data_tools.simulation.saddle_search.pipeline import (
    Pipeline,
    Record,
    connection,
    descents,
)
from mgsym.data_tools.simulation.saddle_search.region_groups import RegionGroups
from mgsym.data_tools.simulation.saddle_search.regions import Region, RegionMaker
from mgsym.data_tools.simulation.saddle_search.search_batch import Kind, SearchBatch, SearchState
from mgsym.data_tools.simulation.saddle_search.settings import ArtnSettings
from mgsym.errors import InputError, UsageError
from mgsym.structure import Structure

CPU = torch.device("cpu")


# --- the lowest mode -----------------------------------------------------------------------------


def test_lanczos_finds_the_lowest_eigenpair_of_every_slot() -> None:
    generator = torch.Generator().manual_seed(3)
    a = torch.randn(3, 12, 12, generator=generator, dtype=torch.float64)
    matrices = a + a.transpose(1, 2)
    start = torch.randn(3, 12, generator=generator, dtype=torch.float64)
    lanczos = Lanczos(3, 12, 12, CPU)
    slots = torch.arange(3)
    lanczos.start(slots, start)
    values, modes = torch.empty(3, dtype=torch.float64), torch.empty(3, 12, dtype=torch.float64)
    for step in range(12):
        # slots may be at different steps: one more slot joins at each of the first steps
        product = (matrices[slots] @ lanczos.asked(slots)[:, :, None]).squeeze(2)
        least = most = torch.full_like(slots, 12)
        found = lanczos.advance(slots, product)
        done = lanczos.decide(
            slots, found, found.value, found.remainder, least, most, torch.zeros(len(slots))
        )
        assert bool(done.all()) == (step == 11)
        values[slots[done]], modes[slots[done]] = lanczos.value[slots[done]], found.mode[done]
    expected = torch.linalg.eigh(matrices)
    torch.testing.assert_close(values, expected.eigenvalues[:, 0], rtol=1e-10, atol=1e-10)
    overlap = (modes * expected.eigenvectors[:, :, 0]).sum(1).abs()
    torch.testing.assert_close(overlap, torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-9)


def test_lanczos_stops_where_the_value_has_settled() -> None:
    matrix = torch.diag(torch.tensor([-2.0, 1.0, 1.5, 2.0, 2.5, 3.0], dtype=torch.float64))
    lanczos = Lanczos(1, 6, 6, CPU)
    slot = torch.tensor([0])
    lanczos.start(slot, torch.tensor([[1.0, 0.1, 0.1, 0.1, 0.1, 0.1]], dtype=torch.float64))
    limits = torch.tensor([2]), torch.tensor([6]), torch.tensor([0.01], dtype=torch.float64)
    for steps in range(1, 7):  # noqa: B007
        found = lanczos.advance(slot, lanczos.asked(slot) @ matrix)
        if lanczos.decide(slot, found, found.value, found.remainder, *limits):
            break
    assert steps < 6
    assert float(lanczos.value) == pytest.approx(-2.0, rel=0.01)


# --- a surface that can be solved by hand --------------------------------------------------------


class DoubleWell(RegionGroups):
    """One atom on V = h (x² − 1)² + ½ k (y² + z²): minima at x = ±1, saddle of height h at 0."""

    height, stiffness = 1.0, 5.0

    def __init__(self, slots: int) -> None:
        self.slots, self.rows, self.device, self.dtype = slots, 1, CPU, torch.float64

    def insert(self, slot: int, region: Region) -> None:
        pass

    def refresh(self, x: Tensor) -> None:
        pass

    def forces(self, x: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        a, b, c = x[:, 0, 0], x[:, 1, 0], x[:, 2, 0]
        energy = self.height * (a**2 - 1) ** 2 + 0.5 * self.stiffness * (b**2 + c**2)
        force = -torch.stack(
            (4 * self.height * a * (a**2 - 1), self.stiffness * b, self.stiffness * c), 1
        )
        return energy, force[:, :, None]


def region_of_one(start: Tensor) -> Region:
    none = torch.empty(0, dtype=torch.int64)
    atoms = torch.zeros(1, dtype=torch.int64)
    base = torch.empty(0, 3, dtype=torch.float64)
    return Region(atoms, start[None], atoms, base, none, none, none, none, none.double())


def test_the_saddle_of_a_double_well_is_exact() -> None:
    settings = ArtnSettings(force=1e-7)
    batch = SearchBatch(DoubleWell(4), settings, Kind.CLIMB)
    start = torch.tensor([-1.0, 0.0, 0.0], dtype=torch.float64)
    for push in ([1.0, 0.3, 0.0], [1.0, -0.5, 0.2], [0.8, 0.1, -0.4], [1.0, 0.0, 0.05]):
        axis = torch.tensor(push, dtype=torch.float64)[:, None]
        axis = axis / axis.norm()
        batch.insert(SearchState(region_of_one(start), start[:, None] + 0.5 * axis, axis))
    while batch.busy:
        batch.step()
    for state in batch.finished:
        assert state.status == "found"
        assert state.barrier == pytest.approx(1.0, abs=1e-9)
        assert state.end.flatten().tolist() == pytest.approx([0.0, 0.0, 0.0], abs=1e-6)
        # V″ along x is −4 h; the finite difference adds 12 h δ/2 · … of second order
        assert state.eigenvalue == pytest.approx(-4.0, rel=1e-3)
        assert abs(float(state.mode[0])) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        (ArtnSettings(leave_curvature=-100.0, energy_limit=1e9), "no-mode"),
        (ArtnSettings(climb_steps=1, climb_step=0.01), "climb-limit"),
        (ArtnSettings(call_limit=5), "call-limit"),
        (ArtnSettings(energy_limit=0.1), "energy-limit"),
    ],
)
def test_searches_that_fail_say_why(settings: ArtnSettings, status: str) -> None:
    batch = SearchBatch(DoubleWell(1), settings, Kind.CLIMB)
    start = torch.tensor([-1.0, 0.0, 0.0], dtype=torch.float64)
    axis = torch.tensor([[1.0], [0.0], [0.0]], dtype=torch.float64)
    batch.insert(SearchState(region_of_one(start), start[:, None] + 0.5 * axis, axis))
    while batch.busy:
        batch.step()
    assert [state.status for state in batch.finished] == [status]


@pytest.mark.parametrize(("minimum", "connected"), [(-1.0, 1), (1.0, 1), (0.2, 0)])
def test_both_ends_of_a_saddle(minimum: float, connected: int) -> None:
    """Where the search began in a minimum beside the saddle, one end leads back to it."""
    origin = torch.tensor([minimum, 0.0, 0.0], dtype=torch.float64)
    axis = torch.tensor([[1.0], [0.0], [0.0]], dtype=torch.float64)
    saddle = SearchState(region_of_one(origin), torch.zeros(3, 1).double(), axis)
    saddle.status, saddle.barrier, saddle.end, saddle.mode = "found", 1.0, 0 * axis, axis
    record = saddle.tag = Record(Search(0, 0), [saddle])
    assert connection(record)[0] == -1
    batch = SearchBatch(DoubleWell(2), ArtnSettings(force=1e-4), Kind.DESCEND)
    for state in descents(saddle):
        batch.insert(state)
    while batch.busy:
        batch.step()
    record.ends = batch.finished
    assert sorted(float(state.end[0]) for state in record.ends) == pytest.approx([-1, 1], abs=1e-4)
    found, back = connection(record)
    assert found == connected
    if connected:
        assert back == pytest.approx(1.0, abs=1e-6)
    else:
        assert back != back


# --- active regions ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def glass() -> Structure:
    return next(s for s in sample_structures() if s.split == "test")


@pytest.mark.parametrize("radius", [7.0, 9.5, None])
def test_forces_in_a_region_are_those_of_the_whole_system(
    glass: Structure, radius: float | None
) -> None:
    potential, centres = zhou_cu_zr(), [3, 400]
    maker = RegionMaker(glass, potential, radius, 0.6)
    regions = [maker.cut(centre) for centre in centres]
    batch = RegionGroups(potential, 2, maker.rows(), 0.6, frozen=radius is not None, compile=False)
    x = torch.zeros(2, 3, batch.rows, dtype=torch.float64)
    for slot, region in enumerate(regions):
        batch.insert(slot, region)
        x[slot, :, : len(region.atoms)] = region.start.T
    all_slots = torch.ones(batch.slots, dtype=torch.bool)
    whole = EAMForces(potential, [glass], compile=False)
    zero = whole(glass.positions, glass.cell[None])
    batch.refresh(x)
    energy_0, _ = batch.forces(x, all_slots)
    generator = torch.Generator().manual_seed(1)
    for size in (0.05, 0.3):  # the second asks for new lists
        move = size * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        batch.refresh(x + move)
        energy, force = batch.forces(x + move, all_slots)
        for slot, region in enumerate(regions):
            count = len(region.atoms)
            moved = glass.positions.clone()
            moved[region.atoms] += move[slot, :, :count].T
            there = whole(moved, glass.cell[None])
            rise = float(there.energy[0] - zero.energy[0])
            assert float(energy[slot] - energy_0[slot]) == pytest.approx(rise, abs=1e-8)
            expected = there.forces[region.atoms]
            torch.testing.assert_close(force[slot, :, :count].T, expected, rtol=1e-9, atol=1e-9)
    if batch.together == 1:
        assert batch.keep_busy([False, True]) == [1]
        alone = batch.forces((x + move)[1:], all_slots[1:])
        assert torch.equal(alone[0], energy[1:])
        assert torch.equal(alone[1], force[1:])


def test_all_batches_of_a_pipeline_read_the_same_tables(glass: Structure) -> None:
    line = Pipeline(
        glass, zhou_cu_zr(), ArtnSettings(connect=True), [7.0, 9.0], seed=0, slots=64,
        device="cpu", compile=False,
    )  # fmt: skip
    batches = [batch for stage in line.stages for batch in stage.batch.regions.batches]
    assert len(batches) > len(line.stages) == 3
    assert len({id(batch._tables) for batch in batches}) == 1


def test_a_region_holds_the_atoms_within_its_radius(glass: Structure) -> None:
    region = RegionMaker(glass, zhou_cu_zr(), 7.0, 0.6).cut(10)
    assert bool((region.start.norm(dim=1) < 7.0).all())
    assert bool((region.atoms.diff() > 0).all())
    offset = glass.positions - glass.positions[10]
    box = glass.cell.diagonal()
    nearest = (offset - box * (offset / box).round()).norm(dim=1)
    assert torch.equal(region.atoms, (nearest < 7.0).nonzero().squeeze(1))


# --- a vacancy in copper -------------------------------------------------------------------------


def copper(size: int) -> Structure:
    """An fcc crystal of size³ cells at the potential's lattice constant."""
    basis = torch.tensor([[0.0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    corners = torch.tensor(list(itertools.product(range(size), repeat=3)))
    places = (corners[:, None] + basis).reshape(-1, 3).double() * 3.615
    types = torch.zeros(len(places), dtype=torch.int64)
    return Structure(places, torch.eye(3).double() * 3.615 * size, types, ("Cu",), name="copper")


def test_the_hop_of_a_vacancy_goes_over_the_midpoint() -> None:
    potential, crystal = zhou_cu_zr(), copper(3)
    rest = crystal.replace(
        positions=crystal.positions[1:], types=crystal.types[1:], ids=crystal.ids[1:]
    )
    field = EAMForces(potential, [rest], compile=False)
    cell = rest.cell[None]
    ground = minimize(field, rest.positions, cell, fmax=1e-5)
    minimum = rest.replace(positions=ground.positions)

    # by symmetry the saddle is where the hopping atom is halfway and all others are relaxed
    hopper = 0
    halfway = rest.positions.clone()
    halfway[hopper] = 0.5 * rest.positions[hopper]
    top = minimize(field, halfway, cell, fmax=1e-5)
    barrier = float(top.forces.energy[0] - ground.forces.energy[0])
    assert 0.5 < barrier < 1.0  # eV; experiment: 0.70 (Balluffi, J. Nucl. Mater. 69, 240 (1978))

    region = RegionMaker(minimum, potential, None, 0.6).cut(hopper)
    regions = RegionGroups(potential, 1, len(minimum), 0.6, frozen=False, compile=False)
    batch = SearchBatch(regions, ArtnSettings(force=0.005), Kind.CLIMB)
    axis = torch.zeros(3, len(minimum), dtype=torch.float64)
    axis[:, hopper] = -rest.positions[hopper] / rest.positions[hopper].norm()
    batch.insert(SearchState(region, region.start.T + 0.5 * axis, axis))
    while batch.busy:
        batch.step()
    (state,) = batch.finished
    assert state.status == "found"
    assert state.barrier == pytest.approx(barrier, abs=1e-4)

    end = minimum.positions + (state.end.T - region.start)
    hessian = _hessian(field, end, cell)
    values = torch.linalg.eigvalsh(hessian)
    assert int((values < -1e-3).sum()) == 1
    assert float(values[0]) == pytest.approx(state.eigenvalue, rel=0.02)


@pytest.mark.parametrize("slots", [1, 4])
def test_a_vacancy_that_hops_leads_back_whatever_the_slots(slots: int) -> None:
    """All atoms are free, float64: states keep their ends when their slots go to others."""
    potential, crystal = zhou_cu_zr(), copper(4)
    rest = crystal.replace(
        positions=crystal.positions[1:], types=crystal.types[1:], ids=crystal.ids[1:]
    )
    field = EAMForces(potential, [rest], compile=False)
    ground = minimize(field, rest.positions, rest.cell[None], fmax=1e-3)
    minimum = rest.replace(positions=ground.positions)
    settings = ArtnSettings(connect=True, precision="float64")
    asked = iter([Search(0, 0), Search(0, 2), Search(0, 3)])
    for event in run_searches(minimum, potential, asked, settings, slots=slots, compile=False):
        assert event.found
        assert event.displacement < 2.0
        assert event.connected == 1
        # both ends are the same minimum but for symmetry
        assert event.barrier_back == pytest.approx(event.barrier, abs=1e-3)


def _hessian(field: EAMForces, positions: Tensor, cell: Tensor) -> Tensor:
    """[3n, 3n] eV/Å², by differences of forces."""
    columns = []
    for atom, axis in itertools.product(range(len(positions)), range(3)):
        step = torch.zeros_like(positions)
        step[atom, axis] = 1e-4
        ahead, behind = field(positions + step, cell), field(positions - step, cell)
        columns.append((behind.forces - ahead.forces).flatten() / 2e-4)
    hessian = torch.stack(columns)
    return 0.5 * (hessian + hessian.T)


# --- searches in a glass -------------------------------------------------------------------------


@pytest.mark.slow
def test_a_search_does_not_depend_on_those_beside_it(glass: Structure) -> None:
    potential = zhou_cu_zr()
    field = EAMForces(potential, [glass], compile=False)
    ground = minimize(field, glass.positions, glass.cell[None], fmax=1e-4)
    minimum = glass.replace(positions=ground.positions)
    asked = [Search(atom, attempt) for atom in (5, 250) for attempt in range(3)]
    runs = []
    for slots, order in ((6, asked), (2, asked[::-1])):
        found = run_searches(minimum, potential, iter(order), slots=slots, compile=False)
        runs.append({(e.atom, e.attempt): e for e in found})
    assert runs[0].keys() == runs[1].keys() == set(asked)
    for key, event in runs[0].items():
        other = runs[1][key]
        assert event.status == other.status
        if event.found:
            assert event.barrier == pytest.approx(other.barrier, abs=1e-6)
            assert event.eigenvalue < 0
            assert event.barrier_local >= event.barrier - 1e-3


def test_a_box_too_small_for_the_region_is_refused(glass: Structure) -> None:
    assert active_radius(glass, 0.0) == pytest.approx(0.95 * 9.965, abs=0.01)
    with pytest.raises(InputError, match=r"active region of 12 Å .* is 19.9 Å wide: .* 9.97 Å"):
        active_radius(glass, 12.0)
    with pytest.raises(InputError, match=r"10.8 Å wide, too small .* at least 12.6 Å"):
        active_radius(copper(3), 0.0)


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match=r"artn.climb_step is -1, expected a positive number"):
        ArtnSettings(climb_step=-1.0)
