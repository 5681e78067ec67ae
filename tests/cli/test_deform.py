"""`mgsym deform` and `mgsym potential`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import mgsym
from mgsym.cli.main import main
from mgsym.data_tools.formats import read_frames
from mgsym.data_tools.simulation.optimizers.relax import relax
from mgsym.data_tools.simulation.potentials.zhou_johnson_wadley import zhou, zhou_cu_zr
from mgsym.data_tools.workflows.plasticity import foretelling
from mgsym.structure import Column, Structure

Captured = pytest.CaptureFixture[str]
FAST = ["--strain", "0.04", "--step", "0.02", "--every", "1", "--fmax", "1e-2"]


@pytest.fixture(scope="module")
def small() -> Structure:
    """Sixty disordered Cu atoms at a minimum, with a column."""
    generator = torch.Generator().manual_seed(3)
    cell = 9.0 * torch.eye(3).double()
    start = Structure(
        torch.rand(60, 3, generator=generator, dtype=torch.float64) @ cell,
        cell, torch.zeros(60), ("Cu",), name="glass",
    )  # fmt: skip
    (found,) = relax([start], zhou_cu_zr(), cell="isotropic", fmax=1e-3)
    column = Column(torch.rand(60, generator=generator, dtype=torch.float64), "eV")
    return found.structure.replace(columns={"barrier": column})


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Structure) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MGSYM_POTENTIAL", raising=False)
    mgsym.write(small, "glass.xyz")


def test_with_nothing_to_resume_it_begins() -> None:
    command = ["deform", "glass.xyz", "-q", "--mode", "shear-xy", *FAST]
    assert main([*command, "-o", "begun", "--resume"]) == 0
    assert main([*command, "-o", "plain"]) == 0
    names = sorted(path.name for path in Path("plain").iterdir())
    assert sorted(path.name for path in Path("begun").iterdir()) == names
    for name in names:
        assert Path("begun", name).read_bytes() == Path("plain", name).read_bytes()


def rows(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_frames_curves_comparison_and_figures(capsys: Captured) -> None:
    command = ["deform", "glass.xyz", "--mode", "shear-xy", "--reverse", *FAST]
    assert main([*command, "--compare", "barrier", "--figures", "-o", "out"]) == 0
    out, err = capsys.readouterr()
    assert "Zhou" in err.splitlines()[0]
    assert "glass" in out
    assert "random" in out
    names = {path.name for path in Path("out").iterdir()}
    assert names == {
        "glass_shear-xy.xyz", "glass_shear-xy-reverse.xyz", "stress_strain.csv", "compared.csv",
        "stress_strain.png", "compared.png", "glass_shear-xy_d2min.png",
        "glass_shear-xy-reverse_d2min.png",
    }  # fmt: skip
    frames = read_frames("out/glass_shear-xy.xyz")
    assert len(frames) == 3
    assert {"barrier", "energy", "d2min", "shear_strain"} == set(frames[-1].columns)
    assert frames[-1].columns["d2min"].unit == "Å²"
    tilt = frames[-1].cell[1, 0] / frames[-1].cell[1, 1]
    assert float(tilt) == pytest.approx(0.04)
    curve = rows("out/stress_strain.csv")
    assert [float(row["strain"]) for row in curve] == pytest.approx(
        [0, 0.02, 0.04, 0, -0.02, -0.04]
    )
    first, second = (float(row["stress_xy_GPa"]) for row in curve[:2])
    assert second > first
    compared = rows("out/compared.csv")
    assert {row["name"] for row in compared} == {
        "barrier", "energy", "coordination", "compliance", "random"
    }  # fmt: skip
    assert len(compared) == 2 * 2 * 5
    assert main([*command, "-o", "out"]) == 2
    assert "exists already" in capsys.readouterr().err


def test_dumps_and_json(capsys: Captured) -> None:
    command = ["deform", "glass.xyz", "--mode", "uniaxial-z", "--transverse", "0", *FAST]
    assert main([*command, "--format", "dump", "--json", "-q", "-o", "out"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["glasses"][0]["direction"] == "uniaxial-z"
    assert told["foretold"] == []
    assert len(read_frames("out/glass_uniaxial-z.dump")) == 3
    last = rows("out/stress_strain.csv")[-1]
    assert abs(float(last["stress_xx_GPa"])) + abs(float(last["stress_yy_GPa"])) < 1.0


def test_an_interrupted_deformation_says_how_to_go_on(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def at_once() -> Iterator[Callable[[], bool]]:
        yield lambda: True

    command = ["deform", "glass.xyz", *FAST, "-o", "out"]
    with monkeypatch.context() as patched:
        patched.setattr("mgsym.cli.console.interruptible", at_once)
        assert main(command) == 130
    assert "go on with the same command and --resume" in capsys.readouterr().err
    assert [path.name for path in Path("out").iterdir()] == ["deform.checkpoint"]
    assert main(command) == 2
    assert "deform.checkpoint exists already" in capsys.readouterr().err
    assert main([*command, "--strain", "0.06", "--resume"]) == 2
    assert "made with another strain" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0
    assert not Path("out/deform.checkpoint").exists()


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (["--compare", "hope"], 3, "no column 'hope' to compare with, found barrier"),
        (["--strain", "0"], 2, "the strain is 0"),
        (["--rate", "1e9"], 2, "a rate and a temperature belong together"),
        (["--mode", "twist"], 2, "twist"),
        (["--potential", "zhou:Al"], 3, "openkim.org"),
        (["--potential", "zhou:Xe"], 3, "has no Xe (it has Cu, Ag, Au"),
    ],
)
def test_wrong_requests_are_one_line(
    options: list[str], code: int, told: str, capsys: Captured
) -> None:
    assert main(["deform", "-q", "glass.xyz", *options]) == code
    err = capsys.readouterr().err
    assert told in err
    assert len(err.splitlines()) == 1
    assert not Path("deformed").exists()


def test_foretelling_knows_truth_chance_and_the_opposite() -> None:
    moved = torch.arange(200).double()
    assert foretelling(moved**3, moved) == pytest.approx((1.0, 1.0, 1.0))
    assert foretelling(-moved, moved) == pytest.approx((-1.0, 0.0, 0.0))
    generator = torch.Generator().manual_seed(0)
    chance = foretelling(torch.rand(20_000, generator=generator), torch.arange(20_000).double())
    assert chance == pytest.approx((0.0, 0.05, 0.5), abs=0.03)
    assert foretelling(torch.ones(200), moved)[2] == pytest.approx(0.5)


# Å and eV: the metals as the potential's authors fitted them
METALS = {
    "Cu": ("fcc", 3.615, 3.54), "Ag": ("fcc", 4.09, 2.85), "Au": ("fcc", 4.08, 3.93),
    "Ni": ("fcc", 3.52, 4.45), "Pd": ("fcc", 3.89, 3.91), "Pt": ("fcc", 3.92, 5.77),
    "Al": ("fcc", 4.05, 3.58), "Pb": ("fcc", 4.95, 2.02), "Fe": ("bcc", 2.866, 4.29),
    "Mo": ("bcc", 3.15, 6.81), "Ta": ("bcc", 3.3026, 8.09), "W": ("bcc", 3.165, 8.76),
    "Mg": ("hcp", 3.20, 1.55), "Co": ("hcp", 2.51, 4.41), "Ti": ("hcp", 2.94, 4.87),
    "Zr": ("hcp", 3.21, 6.36),
}  # fmt: skip


@pytest.mark.parametrize("metal", METALS)
def test_the_sixteen_metals_are_themselves(metal: str, capsys: Captured) -> None:
    lattice, a, energy = METALS[metal]
    assert main(["potential", f"zhou:{metal}", "--json", "-q"]) == 0
    found = json.loads(capsys.readouterr().out)
    (lowest,) = (crystal for crystal in found["crystals"] if crystal["lowest"])
    assert lowest["lattice"] == lattice
    assert lowest["a"] == pytest.approx(a, rel=2e-3)
    assert lowest["cohesive_energy"] == pytest.approx(energy, abs=2e-3)


def test_a_potential_is_shown_and_drawn(capsys: Captured) -> None:
    assert main(["potential", "zhou:Cu,Zr", "--figure", "functions.png"]) == 0
    out, err = capsys.readouterr()
    assert "Cu-Zr 7.52" in out
    assert "hcp" in out
    assert Path("functions.png").read_bytes().startswith(b"\x89PNG")
    assert "Wrote functions.png" in err


def test_the_elements_choose_the_metals(capsys: Captured) -> None:
    alloy = zhou(("Zr", "Cu", "Al"))
    assert alloy.species == ("Zr", "Cu", "Al")
    cell = 4.05 * torch.eye(3).double()
    sites = torch.tensor([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]).double() @ cell
    mgsym.write(Structure(sites, cell, torch.tensor([0, 1, 0, 0]), ("Al", "Cu")), "al.xyz")
    assert main(["relax", "al.xyz", "--cell", "isotropic", "-o", "rested.xyz"]) == 0
    assert "(analytic) of Al, Cu" in capsys.readouterr().err
    assert main(["quench", "--composition", "Zr50Cu40Al10", "--rate", "1e18"]) == 2
    assert "lower the rate" in capsys.readouterr().err
