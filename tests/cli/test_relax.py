"""`mgsym relax`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import mgsym
from mgsym.cli.main import main
from mgsym.data_tools.formats import read_frames, write
from mgsym.structure import Column, Structure

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MGSYM_POTENTIAL", raising=False)  # the analytic one, unless a test says


def crystal(name: str, noise: float = 0.03, seed: int = 0, a: float = 3.615) -> Structure:
    """Rattled fcc copper, 108 atoms, with a label."""
    corner = torch.cartesian_prod(*[torch.arange(3.0)] * 3).double()
    base = torch.tensor([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]).double()
    sites = (corner[:, None] + base).reshape(-1, 3) * a
    rattle = torch.randn(108, 3, generator=torch.Generator().manual_seed(seed)).double()
    return Structure(
        sites + noise * rattle,
        3 * a * torch.eye(3).double(),
        torch.zeros(108),
        ("Cu",),
        ids=torch.arange(108) + 1000,
        columns={"barrier": Column(torch.ones(108), "eV")},
        name=name,
        glass="mine",
        split="test",
    )


def test_files_into_a_folder(capsys: Captured) -> None:
    write(crystal("a"), "a.xyz")
    write(crystal("b", a=3.7), "b.npz")
    assert main(["relax", "a.xyz", "b.npz", "--cell", "full", "--method", "cg"]) == 0
    out, err = capsys.readouterr()
    heading, a, b = out.splitlines()
    assert heading.split()[:2] == ["structure", "atoms"]
    assert a.split()[:2] == ["a", "108"]
    assert b.split()[-1] == "yes"
    assert "Without --potential: Zhou-Johnson-Wadley 2004 (analytic)" in err
    assert "Not written, as they belong to the old positions: barrier" in err
    assert err.splitlines()[-1] == "Wrote relaxed/a.extxyz, relaxed/b.extxyz"
    one, other = mgsym.read("relaxed/a.extxyz"), mgsym.read("relaxed/b.extxyz")
    assert (one.name, one.glass, one.split) == ("a", "mine", "test")
    assert int(one.ids[0]) == 1000
    assert dict(one.columns).keys() == {"energy"}
    assert one.columns["energy"].unit == "eV"
    assert one.columns["energy"].values.tolist() == pytest.approx([-3.54] * 108, abs=1e-3)
    assert other.volume == pytest.approx(one.volume, rel=1e-4)
    assert main(["relax", "a.xyz", "b.npz"]) == 2
    assert "relaxed/a.extxyz exists already" in capsys.readouterr().err


def test_json_frames_and_a_file(capsys: Captured) -> None:
    write([crystal("x", seed=1), crystal("y", seed=2), crystal("z", 0.0)], "three.dump")
    command = ["relax", "three.dump", "--types", "1=Cu", "-o", "low.dump", "--json", "-q"]
    assert main([*command, "--frames", "1:"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err == ""
    assert [each["name"] for each in found] == ["three_1", "three_2"]
    assert found[0]["energy_before"] > found[0]["energy_after"]
    assert found[0]["energy_after"] == pytest.approx(found[1]["energy_after"], abs=1e-6)
    assert 0 < found[0]["largest_force"] < 1e-4
    assert found[0]["density_before"] == found[0]["density_after"]
    assert found[1]["steps"] == 0
    assert found[1]["moved"] == pytest.approx(0, abs=1e-6)
    assert [len(frame) for frame in read_frames("low.dump", {1: "Cu"})] == [108, 108]
    assert main(command) == 2
    assert "low.dump exists already" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0


def test_pressure_in_gpa(capsys: Captured) -> None:
    write(crystal("a", 0.0), "a.xyz")
    command = ["relax", "a.xyz", "--pressure", "2", "--json"]
    assert main(command) == 2
    assert "a pressure of 2 GPa acts on a free cell only" in capsys.readouterr().err
    assert main([*command, "--cell", "isotropic"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["pressure"] == pytest.approx(2.0, abs=0.002)
    assert found["density_after"] > found["density_before"]


def test_without_a_minimum_it_fails_but_writes(capsys: Captured) -> None:
    write(crystal("a", 0.1), "a.xyz")
    write(crystal("b", 0.0), "b.xyz")
    assert main(["relax", "a.xyz", "b.xyz", "--max-steps", "3"]) == 1
    out, err = capsys.readouterr()
    assert [line.split()[-1] for line in out.splitlines()[1:]] == ["no", "yes"]
    last = err.splitlines()[-1]
    assert last.startswith("mgsym: error: 1 of 2 structures not at a minimum after 3 steps (a: ")
    assert "written as they stand: relax the output further" in last
    assert main(["relax", "relaxed/a.extxyz", "-o", "rest.xyz"]) == 0
    assert mgsym.read("rest.xyz").columns["energy"].values.mean() == pytest.approx(-3.54, abs=1e-3)


def test_a_potential_file_is_taken_from_the_environment(
    mendelev: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(crystal("a", 0.0), "a.xyz")
    assert main(["relax", "a.xyz", "--potential", str(mendelev), "--json", "-o", "1.xyz"]) == 0
    given = capsys.readouterr()
    monkeypatch.setenv("MGSYM_POTENTIAL", str(mendelev))
    assert main(["relax", "a.xyz", "--json", "-o", "2.xyz"]) == 0
    named = capsys.readouterr()
    assert "Without --potential" not in given.err + named.err
    energy = json.loads(given.out)[0]["energy_after"]
    assert energy == json.loads(named.out)[0]["energy_after"]
    assert energy == pytest.approx(-3.28, abs=0.02)  # Mendelev's fcc copper


def _twice_at_one_place() -> Structure:
    bad = crystal("bad")
    positions = bad.positions.clone()
    positions[1] = positions[0]
    return bad.replace(positions=positions)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["none.xyz"], 3, "none.xyz: no such file"),
        (["bad.xyz"], 3, "atoms 1000 and 1001 are closest, 0.00 Å apart"),
        (["tin.xyz"], 3, "Sn"),
        (["a.xyz", "--potential", "none.fs"], 3, "none.fs: no such file"),
        (["a.xyz", "--method", "newton"], 2, "'newton' is not one of 'fire', 'cg'"),
        (["a.xyz", "--fmax", "0"], 2, "--fmax"),
        (["a.xyz", "film.xyz", "-o", "b.xyz"], 2, "b.xyz is one file, but 2 are given"),
        (["a.xyz", "a.xyz"], 2, "two structures have one name"),
        (["a.xyz", "-o", "a.unknown"], 2, "cannot tell a format to write"),
        (["two.xyz", "--frames", ":", "-o", "b.npz"], 2, "npz holds one structure, 2 given"),
        (["film.xyz", "--cell", "full"], 2, "film is not periodic along all its cell vectors"),
        (["a.xyz", "--cell", "full", "--pressure", "-300"], 1, "times its volume"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str], code: int, message: str, capsys: Captured
) -> None:
    write(crystal("a"), "a.xyz")
    write(_twice_at_one_place(), "bad.xyz")
    write(crystal("tin").replace(species=("Sn",)), "tin.xyz")
    write(crystal("film").replace(periodic=(True, True, False)), "film.xyz")
    write([crystal("a"), crystal("b")], "two.xyz")
    before = set(Path().iterdir())
    assert main(["relax", "-q", *arguments]) == code
    out, err = capsys.readouterr()
    assert message in err
    assert len(err.splitlines()) == 1
    assert out == ""
    assert set(Path().iterdir()) == before


@pytest.mark.slow
def test_without_files_the_sample_is_relaxed(capsys: Captured) -> None:
    assert main(["relax", "--method", "cg"]) == 0
    out, err = capsys.readouterr()
    assert err.startswith("No files given: taking the sample that ships with mgsym")
    names = ["test", "train_a", "train_a_again", "train_b", "validation"]
    assert [line.split()[0] for line in out.splitlines()[1:]] == names
    assert sorted(path.stem for path in Path("relaxed").iterdir()) == names
