"""Quenches: what they give, and that an interrupted one goes on to the same bits."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mgsym import read
from mgsym.data_tools.formats import read_frames
from mgsym.data_tools.formats.extxyz import parse_info
from mgsym.data_tools.simulation.dynamics import melt_quench as module
from mgsym.data_tools.simulation.dynamics.glass_structure import coordination, mean_by_species
from mgsym.data_tools.simulation.dynamics.melt_quench import melt_quench
from mgsym.data_tools.simulation.dynamics.packing import fcc_volume, random_packing, starting_edge
from mgsym.data_tools.simulation.dynamics.recipe import Recipe
from mgsym.data_tools.simulation.potentials.eam import EAM
from mgsym.data_tools.simulation.potentials.eam_forces import evaluate_structures
from mgsym.data_tools.simulation.potentials.files import read_potential
from mgsym.data_tools.simulation.potentials.zhou_johnson_wadley import zhou_cu_zr
from mgsym.data_tools.simulation.units import GRAMS_PER_CM3
from mgsym.data_tools.workflows.quenching import quench
from mgsym.errors import InputError, Interrupted, MgsymError, UsageError
from mgsym.structure.neighbors import neighbor_pairs

# two glasses that are done at different times, after a third of a picosecond
SHORT = Recipe(atoms=50, rates=(9.9e15, 8e15), seeds=(5,), melt=0.08, timestep=2.0)


@pytest.fixture(scope="module")
def potential() -> EAM:
    return zhou_cu_zr()


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEGMENT", 40)


class StopAfter:
    """A should_stop that becomes true after some segments."""

    def __init__(self, segments: int) -> None:
        self.left = segments

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


def test_atoms_at_random_keep_apart() -> None:
    generator = torch.Generator().manual_seed(3)
    packing = random_packing({"Cu": 320, "Zr": 180}, 20.8, generator)
    assert packing.composition == {"Cu": 320, "Zr": 180}
    pairs = neighbor_pairs(packing.positions, packing.cell, packing.periodic, 4.0)
    assert float(pairs.vector.norm(dim=1).min()) >= 2.0 - 1e-6
    again = random_packing({"Cu": 320, "Zr": 180}, 20.8, torch.Generator().manual_seed(3))
    assert torch.equal(packing.positions, again.positions)
    with pytest.raises(UsageError, match="lower density"):
        random_packing({"Cu": 100}, 8.0, generator)


def test_the_first_density_comes_from_the_crystals_or_from_the_user(potential: EAM) -> None:
    # 3.615 Å is the lattice constant of fcc copper, 23.3 Å³ the volume of an atom in zirconium
    assert fcc_volume("Cu", potential) == pytest.approx(3.615**3 / 4, rel=0.02)
    assert fcc_volume("Zr", potential) == pytest.approx(23.3, rel=0.03)
    counts = {"Cu": 320, "Zr": 180}
    volume = 1.1 * (320 * 3.615**3 / 4 + 180 * 23.3)
    assert starting_edge(counts, potential) ** 3 == pytest.approx(volume, rel=0.03)
    mass = 320 * 63.546 + 180 * 91.224
    edge = starting_edge(counts, potential, density=7.0)
    assert mass / edge**3 * GRAMS_PER_CM3 == pytest.approx(7.0, rel=1e-3)


def test_an_interrupted_quench_goes_on_to_the_same_bits(potential: EAM, tmp_path: Path) -> None:
    whole, log = melt_quench(SHORT, potential)
    checkpoint = tmp_path / "quench.checkpoint"
    for segments in (1, 3):  # interrupted in the melt, and again when one glass is done
        with pytest.raises(Interrupted, match="--resume"):
            melt_quench(
                SHORT,
                potential,
                checkpoint=checkpoint,
                resume=checkpoint.exists(),
                should_stop=StopAfter(segments),
            )
    resumed, log_again = melt_quench(SHORT, potential, checkpoint=checkpoint, resume=True)
    for one, other in zip(whole, resumed, strict=True):
        assert one.glass == other.glass
        assert torch.equal(one.structure.positions, other.structure.positions)
        assert torch.equal(one.structure.cell, other.structure.cell)
    assert log == log_again
    # what is finished stays so
    finished, _ = melt_quench(SHORT, potential, checkpoint=checkpoint, resume=True)
    assert torch.equal(finished[0].structure.positions, whole[0].structure.positions)


def test_a_glass_does_not_depend_on_the_batch_it_is_made_in(potential: EAM) -> None:
    melt = replace(SHORT, melt=0.02, final=1900.0, rates=(4e14, 3e14))
    together, _ = melt_quench(melt, potential)
    alone, _ = melt_quench(replace(melt, rates=(3e14,)), potential)
    assert together[1].glass == alone[0].glass
    close = {"atol": 1e-6, "rtol": 0}  # before chaos takes over
    torch.testing.assert_close(
        together[1].structure.positions, alone[0].structure.positions, **close
    )


def test_other_settings_do_not_resume(potential: EAM, tmp_path: Path) -> None:
    checkpoint = tmp_path / "quench.checkpoint"
    with pytest.raises(Interrupted):
        melt_quench(SHORT, potential, checkpoint=checkpoint, should_stop=StopAfter(1))
    other = replace(SHORT, melt=0.2, seeds=(1,))
    with pytest.raises(UsageError, match="another seeds and melt"):
        melt_quench(other, potential, checkpoint=checkpoint, resume=True)
    heavier = replace(potential, masses=(70.0, 90.0))
    with pytest.raises(UsageError, match="another potential"):
        melt_quench(SHORT, heavier, checkpoint=checkpoint, resume=True)
    checkpoint.write_bytes(b"PK nonsense")
    with pytest.raises(InputError, match="checkpoint of mgsym quench"):
        melt_quench(SHORT, potential, checkpoint=checkpoint, resume=True)
    with pytest.raises(InputError, match="no such file"):
        melt_quench(SHORT, potential, checkpoint=tmp_path / "none", resume=True)


def test_a_quench_that_explodes_says_when_and_what_to_do(potential: EAM) -> None:
    wild = replace(SHORT, timestep=60.0, melt=6.0, rates=(1e14,))
    with pytest.raises(MgsymError, match=r"seed5: the .* at [\d.]+ ps: take a smaller --timestep"):
        melt_quench(wild, potential)


def test_a_quench_writes_glasses_at_rest_and_its_log(potential: EAM, tmp_path: Path) -> None:
    out = tmp_path / "glasses"
    glasses, written = quench(SHORT, potential, out)
    assert written == [*(out / f"{g.name}.xyz" for g in SHORT.glasses), out / "quench.csv"]
    assert sorted(out.iterdir()) == sorted(written)  # no checkpoint is left
    for glass, path in zip(glasses, written, strict=False):
        found = read(path)
        assert found.name == found.glass == glass.name
        assert found.composition == {"Cu": 32, "Zr": 18}
        forces = evaluate_structures(potential, found)
        assert glass.relaxed
        assert float(forces.forces.abs().max()) < 1e-3
        assert abs(float(forces.stress.diagonal().mean())) < 1e-4
        assert float(found.columns["energy"].values.mean()) == pytest.approx(glass.energy)
        header = parse_info(path.read_text().splitlines()[1])
        assert float(header["quench_rate"]) == glass.rate
        assert header["seed"] == "5"
        assert header["potential"] == potential.name
    with (out / "quench.csv").open() as file:
        rows = list(csv.DictReader(file))
    last = [row for row in rows if row["glass"] == glasses[1].name][-1]
    assert float(last["time_ps"]) == pytest.approx(0.08 + 1999 / 8e15 * 1e12, abs=2e-3)
    assert 6.0 < float(last["density_g_cm3"]) < 8.5
    with pytest.raises(UsageError, match="exists already"):
        quench(SHORT, potential, out)


def test_several_glasses_in_one_file(potential: EAM, tmp_path: Path) -> None:
    glasses, written = quench(SHORT, potential, tmp_path / "all.xyz")
    assert written == [tmp_path / "all.xyz", tmp_path / "all.csv"]
    assert [frame.name for frame in read_frames(written[0])] == [g.name for g in glasses]


def test_an_element_that_the_potential_lacks_is_told(potential: EAM) -> None:
    with pytest.raises(InputError, match="Al"):
        melt_quench(replace(SHORT, composition="Cu50Al50"), potential)


@pytest.mark.slow
def test_a_glass_is_as_the_published_ones(mendelev: Path, tmp_path: Path) -> None:
    """Cooled as fast as the fastest of them, but smaller and from a shorter melt."""
    recipe = Recipe(atoms=300, rates=(1e14,), melt=10.0, seeds=(1,), timestep=2.0)
    (glass,), _ = quench(recipe, read_potential(mendelev), tmp_path / "glass.xyz")
    assert glass.density == pytest.approx(7.66, abs=0.06)
    assert glass.energy == pytest.approx(-4.45, abs=0.02)
    assert glass.first_peak == pytest.approx(2.68, abs=0.06)
    around = mean_by_species(glass.structure, coordination(glass.structure))
    assert around["Cu"] == pytest.approx(12.4, abs=0.4)
    assert around["Zr"] == pytest.approx(15.2, abs=0.4)
