"""Potentials of ASE: what they compute, and that searches find with them what the kernel finds."""

from __future__ import annotations

import pickle
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from mgsym.data_tools.formats import write
from mgsym.data_tools.simulation.optimizers.relax import relax
from mgsym.data_tools.simulation.potentials.ase_calculator import ASEForces, ASEPotential
from mgsym.data_tools.simulation.potentials.eam_forces import evaluate_structures
from mgsym.data_tools.simulation.potentials.evaluation import force_field
from mgsym.data_tools.simulation.potentials.files import (
    load_potential,
    read_potential,
    write_potential,
)
from mgsym.data_tools.simulation.potentials.zhou_johnson_wadley import zhou
from mgsym.data_tools.simulation.saddle_search.artn import run_searches
from mgsym.data_tools.simulation.saddle_search.calculator_regions import (
    CalculatorRegionMaker,
    evaluate_region,
)
from mgsym.data_tools.simulation.saddle_search.events import Event, Search
from mgsym.data_tools.simulation.saddle_search.settings import ArtnSettings
from mgsym.data_tools.workflows import quenching
from mgsym.errors import InputError, UsageError
from mgsym.structure import Structure

pytest.importorskip("ase")
FACTORIES = """
from ase.calculators.eam import EAM
from ase.calculators.emt import EMT

def kernel():
    return EAM(potential="cu.eam.alloy")

def whole():
    calculator = kernel()
    calculator.cutoff = None
    return calculator

def emt():
    return EMT()

def emt_near():
    calculator = EMT()
    calculator.cutoff = 5.6
    return calculator

def emt_too_near():
    calculator = EMT()
    calculator.cutoff = 2.0
    return calculator

def number():
    return 3

def broken():
    raise RuntimeError("no licence")
"""


@pytest.fixture(autouse=True)
def _factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a user's own module of calculators, and a potential file for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    sys.modules.pop("my_calculators", None)
    Path("my_calculators.py").write_text(FACTORIES)
    write_potential("cu.eam.alloy", zhou(["Cu"]))


def crystal(size: int, missing: int = 1, jitter: float = 0.0) -> Structure:
    """fcc copper of size³ cells without its first atoms."""
    basis = torch.tensor([[0.0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    corners = torch.cartesian_prod(*[torch.arange(float(size))] * 3)
    places = (corners[:, None] + basis).reshape(-1, 3).double()[missing:] * 3.615
    noise = torch.randn(places.shape, generator=torch.Generator().manual_seed(1)).double()
    types = torch.zeros(len(places), dtype=torch.int64)
    cell = torch.eye(3).double() * size * 3.615
    return Structure(places + jitter * noise, cell, types, ("Cu",), name="copper")


def bar() -> Structure:
    """A bar of copper of 2 × 2 × 12 cells in the open."""
    one = crystal(2, missing=0, jitter=0.02)
    above = torch.tensor([0.0, 0.0, 7.23]).double()
    places = torch.cat([one.positions + k * above for k in range(6)])
    types = torch.zeros(len(places), dtype=torch.int64)
    return Structure(places, 60 * torch.eye(3).double(), types, ("Cu",), (False,) * 3, name="bar")


def test_ase_and_the_kernel_agree_on_one_file() -> None:
    """Splines of the same tables: ASE's are not LAMMPS', so forces agree to some 1e-4 eV/Å."""
    structure = crystal(2, missing=1, jitter=0.1)
    own = evaluate_structures(read_potential("cu.eam.alloy"), structure)
    ase = ASEForces(ASEPotential("my_calculators:kernel"), [structure])
    found = ase(structure.positions, structure.cell[None])
    assert float(found.energy) == pytest.approx(float(own.energy), abs=1e-4)
    torch.testing.assert_close(found.forces, own.forces, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.stress[0], own.stress, rtol=0, atol=1e-5)
    assert bool(found.atom_energy.isnan().all())  # ASE's EAM tells no energies of atoms


def test_the_same_minimum() -> None:
    structure = crystal(2, missing=1, jitter=0.1)
    ends = [
        relax([structure], potential, method="cg", fmax=1e-3, compile=False)[0]
        for potential in (read_potential("cu.eam.alloy"), ASEPotential("my_calculators:kernel"))
    ]
    assert ends[0].energy_after == pytest.approx(ends[1].energy_after, abs=1e-4)
    apart = ends[0].structure.positions - ends[1].structure.positions
    apart = apart - apart.mean(dim=0)  # nothing holds the crystal as a whole
    assert float(apart.norm(dim=1).max()) < 0.01


def test_emt_with_a_batch_of_two_sizes() -> None:
    structures = [crystal(2), crystal(2, missing=4)]
    potential = ASEPotential("my_calculators:emt")
    field = force_field(potential, structures)
    positions = torch.cat([s.positions for s in structures])
    cells = torch.stack([s.cell for s in structures])
    together = field(positions, cells)
    assert field.system.tolist() == [0] * 31 + [1] * 28
    assert field.masses.unique().tolist() == [pytest.approx(63.546)]
    for k, part in enumerate(positions.split([31, 28])):
        alone = force_field(potential, [structures[k]])(part, cells[k : k + 1])
        assert float(alone.energy) == pytest.approx(float(together.energy[k]), abs=1e-10)
    sums = together.atom_energy.split([31, 28])
    assert [float(s.sum()) for s in sums] == pytest.approx(together.energy.tolist(), abs=1e-9)
    move = torch.zeros_like(positions)
    move[3, 1] = 1e-4
    slope = (field(positions + move, cells).energy - field(positions - move, cells).energy)[0]
    assert float(slope) / -2e-4 == pytest.approx(float(together.forces[3, 1]), abs=1e-6)


def hop(structure: Structure, potential: object, radius: float) -> Event:
    """The first search from the atom beside the vacancy."""
    settings = ArtnSettings(
        precision="float64", radius=radius, refine_radii=(), force=0.02, relaxation_exponent=0.0
    )
    asked = iter([Search(0, 0)])
    (event,) = run_searches(structure, potential, asked, settings, slots=1, compile=False)  # type: ignore[arg-type]
    return event


@pytest.mark.slow
def test_the_same_saddle_as_the_kernels() -> None:
    own = read_potential("cu.eam.alloy")
    (rest,) = relax([crystal(3)], own, fmax=1e-5, compile=False)
    expected = hop(rest.structure, own, 5.4)
    found = hop(rest.structure, ASEPotential("my_calculators:kernel"), 5.4)
    assert expected.found
    assert found.status == expected.status
    assert found.barrier == pytest.approx(expected.barrier, abs=2e-3)
    assert found.displacement == pytest.approx(expected.displacement, abs=0.02)


def test_a_region_with_a_rim_has_the_forces_of_the_whole() -> None:
    whole, near = (ASEPotential(f"my_calculators:{name}") for name in ("emt", "emt_near"))
    region = CalculatorRegionMaker(bar(), near, 4.0).cut(3)
    assert len(region.atoms) < len(region.place) < len(bar())
    # the same atoms moved, cut out and in the whole
    x = region.start + 0.1 * torch.randn(region.start.shape).double()
    before, _ = evaluate_region(near, region, region.start)
    after, forces = evaluate_region(near, region, x)
    field, structure = force_field(whole, [bar()]), bar()
    moved = structure.positions.clone()
    moved[region.atoms] += x - region.start
    start, end = (field(at, structure.cell[None]) for at in (structure.positions, moved))
    assert after - before == pytest.approx(float(end.energy - start.energy), abs=1e-9)
    torch.testing.assert_close(forces, end.forces[region.atoms], rtol=0, atol=1e-9)


def test_a_cutoff_that_is_too_small_is_found_out() -> None:
    maker = CalculatorRegionMaker(bar(), ASEPotential("my_calculators:emt_too_near"), 2.7)
    with pytest.raises(InputError, match=r"declares a cutoff of 2 Å, but forces change by"):
        maker.cut(3)


def test_it_pickles_by_its_name_and_is_known_again() -> None:
    one, other = ASEPotential("my_calculators:emt"), ASEPotential("my_calculators:emt_near")
    assert pickle.loads(pickle.dumps(one)).fingerprint == one.fingerprint  # noqa: S301
    assert one.fingerprint != other.fingerprint
    assert (one.cutoff, other.cutoff) == (None, 5.6)
    assert ASEPotential("my_calculators:whole").cutoff is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere:emt", r"No module named 'nowhere': install it, or run in the folder"),
        ("my_calculators:nothing", r"no attribute 'nothing': name a class or function of it"),
        ("my_calculators:number", r"made a int, expected a calculator of ASE"),
        ("my_calculators:broken", r"failed: RuntimeError: no licence"),
    ],
)
def test_what_is_no_calculator_is_refused(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ASEPotential(spec)


def test_wrong_specs_and_wrong_places() -> None:
    with pytest.raises(UsageError, match=r"ase:emt: expected ase:package.module:factory"):
        ASEPotential("emt")
    with pytest.raises(UsageError, match="serve mgsym relax, quench, deform and label; this needs"):
        load_potential("ase:my_calculators:emt")
    lone = Structure(torch.zeros(1, 3), 9 * torch.eye(3), torch.zeros(1), ("Zr",), name="zr")
    with pytest.raises(InputError, match=r"my_calculators:emt cannot compute Zr: .*Zr"):
        relax([lone], ASEPotential("my_calculators:emt"))


def test_commands_take_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mgsym.cli.main import main

    # what it computes is of no account here, and EMT takes long: the glass is not brought to rest
    monkeypatch.setattr(quenching, "relax", partial(relax, max_steps=3))

    write([crystal(2, missing=0, jitter=0.01)], "copper.xyz")
    assert (
        main(["relax", "copper.xyz", "--potential", "ase:my_calculators:emt", "-o", "r.xyz"]) == 0
    )
    told = capsys.readouterr().err
    assert "ase:my_calculators:emt takes" in told
    assert "Expect: a relaxation" in told
    strained = ["deform", "r.xyz", "--strain", "2e-3", "--fmax", "1e-2", "-o", "strained", "-q"]
    assert main([*strained, "--potential", "ase:my_calculators:emt"]) == 0
    assert Path("strained/stress_strain.csv").read_text().count("\n") == 4
    made = "quench --composition Cu --atoms 50 --rate 9.9e15 --melt 0.02 --timestep 2 --density 6"
    assert main([*made.split(), "--potential", "ase:my_calculators:emt", "-o", "q.xyz"]) == 0
    assert "slower than built-in potentials: see the time left" in capsys.readouterr().err
