"""Compiled EAM forces and lists of active regions are PyTorch's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mgsym.data_tools.sample import sample_structures
from mgsym.data_tools.simulation.potentials import eam_rows
from mgsym.data_tools.simulation.potentials.eam import EAM
from mgsym.data_tools.simulation.potentials.eam_forces import EAMForces
from mgsym.data_tools.simulation.potentials.zhou_johnson_wadley import zhou_cu_zr
from mgsym.data_tools.simulation.saddle_search.region_groups import RegionGroups
from mgsym.data_tools.simulation.saddle_search.regions import RegionMaker
from mgsym.structure import Structure

pytestmark = pytest.mark.usefixtures("compiler")


@pytest.fixture(scope="module")
def glass() -> Structure:
    return next(s for s in sample_structures() if s.split == "test")


def symmetric(potential: EAM) -> EAM:
    """The same where both atoms of a pair give each other the same density."""
    density = 0.5 * (potential.density + potential.density.transpose(0, 1))
    return replace(potential, density=density)


POTENTIALS = [zhou_cu_zr(), symmetric(zhou_cu_zr())]
TOLERANCE = {torch.float64: 1e-11, torch.float32: 3e-5}


@pytest.mark.parametrize("potential", POTENTIALS, ids=["alloy", "symmetric"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("threads", [1, 3])
def test_energies_forces_and_stresses(
    glass: Structure,
    potential: EAM,
    dtype: torch.dtype,
    threads: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(eam_rows, "_SHARE", 16)
    # a squeezed glass, so that densities go beyond their table too
    both = [glass, glass.replace(cell=0.8 * glass.cell, positions=0.8 * glass.positions)]
    positions = torch.cat([s.positions for s in both])
    cell = torch.stack([s.cell for s in both])
    fields = [EAMForces(potential, both, dtype=dtype, compile=c) for c in (True, False)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        compiled, eager = (field(positions, cell) for field in fields)
        assert not torch.equal(compiled.forces, eager.forces)
        for name in ("energy", "forces", "stress", "atom_energy"):
            a, b = getattr(compiled, name), getattr(eager, name)
            scale = float(b.abs().max())
            torch.testing.assert_close(a, b, rtol=0, atol=TOLERANCE[dtype] * scale)
        positions = positions + 0.4 * torch.randn(positions.shape, generator=generator).double()


def test_numbers_of_threads_change_nothing(
    glass: Structure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eam_rows, "_SHARE", 16)
    found = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(EAMForces(zhou_cu_zr(), [glass])(glass.positions, glass.cell[None]))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("lost", [float("nan"), float("inf")])
def test_an_atom_that_is_lost_shows(glass: Structure, lost: float) -> None:
    """It has been in the lists, and is nowhere now."""
    field = EAMForces(zhou_cu_zr(), [glass], skin=2.0)
    rows, sites = glass.positions.T.contiguous(), None
    field(glass.positions, glass.cell[None])
    assert field._lists is not None
    rows[:, 7] = lost
    sites = field._lists.sites(rows.T, glass.cell[None], field.system)
    library = eam_rows.library_for(rows)
    assert library is not None
    _, forces, _, _ = eam_rows.compiled_forces(
        library, field._tables, field._lists.where, sites, rows, False
    )
    assert bool(forces[:, 7].isnan().any())


def test_there_is_none_for_other_devices_and_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    assert eam_rows.library_for(torch.empty(3, 1)) is not None
    assert eam_rows.library_for(torch.empty(3, 1, dtype=torch.float16)) is None
    assert eam_rows.library_for(torch.empty(3, 1, device="meta")) is None
    monkeypatch.setenv("MGSYM_COMPILE", "0")
    assert eam_rows.library_for(torch.empty(3, 1)) is None


@pytest.mark.parametrize("potential", POTENTIALS, ids=["alloy", "symmetric"])
@pytest.mark.parametrize("radius", [5.5, None])
def test_regions_that_move_and_give_way_to_others(
    glass: Structure, potential: EAM, radius: float | None
) -> None:
    """Lists are the same in every entry, through all their sizes; forces to rounding."""
    # memory that is kept between calls holds what other regions left there
    other = RegionMaker(glass, potential, 7.0, 0.6)
    before = RegionGroups(potential, 4, other.rows(), 0.6, frozen=True)
    place = torch.zeros(before.slots, 3, before.rows, dtype=torch.float64)
    for slot in range(before.slots):
        region = other.cut(slot)
        before.insert(slot, region)
        place[slot, :, : len(region.atoms)] = region.start.T
    before.refresh(place)
    before.forces(place, torch.ones(len(place), dtype=torch.bool))

    maker = RegionMaker(glass, potential, radius, 0.6)
    both = [
        RegionGroups(
            potential, 3, maker.rows(), 0.6, frozen=radius is not None, compile=compile
        )
        for compile in (True, False)
    ]  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    x = torch.zeros(both[0].slots, 3, both[0].rows, dtype=torch.float64)
    wanted = torch.ones(len(x), dtype=torch.bool)
    for turn in range(5):
        for slot in range(3) if turn == 0 else [turn % 3] * (turn < 4):
            region = maker.cut(100 * turn + slot)
            x[slot] = 0.0
            x[slot, :, : len(region.atoms)] = region.start.T
            for groups in both:
                groups.insert(slot, region)
        moved = x + 0.2 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        for groups in both:
            groups.refresh(moved)
        for batch, other in zip(*(groups.batches for groups in both), strict=True):
            assert batch.sizes == other.sizes
            for name in ("_neighbor", "_row", "_strips", "_pair_place", "_pair_boundary"):
                assert torch.equal(getattr(batch, name), getattr(other, name)), name
        (energy, force), (e, f) = (groups.forces(moved, wanted) for groups in both)
        torch.testing.assert_close(energy, e, rtol=1e-12, atol=1e-9)
        torch.testing.assert_close(force, f, rtol=1e-9, atol=1e-9)
