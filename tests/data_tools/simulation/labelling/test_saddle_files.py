"""Saved saddles: what other programs find in them, and that nothing is lost or half-written."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import ModuleType

import pytest
import torch

from mgsym.data_tools.formats import read_frames
from mgsym.data_tools.simulation.labelling.barriers import SearchRun, label
from mgsym.data_tools.simulation.labelling.event_files import read_events
from mgsym.data_tools.simulation.labelling.saddle_files import SaddleFile
from mgsym.data_tools.simulation.labelling.schedule import Plan
from mgsym.data_tools.simulation.optimizers.relax import relax
from mgsym.data_tools.simulation.potentials.bonds import eam_bonds
from mgsym.data_tools.simulation.potentials.eam_forces import evaluate_structures
from mgsym.data_tools.simulation.potentials.zhou_johnson_wadley import zhou_cu_zr
from mgsym.data_tools.simulation.saddle_search.events import Event, SaddleEvent
from mgsym.data_tools.simulation.saddle_search.settings import ArtnSettings
from mgsym.data_tools.simulation.vibrations.hessian import eam_hessian
from mgsym.errors import InputError, UsageError
from mgsym.structure import Structure

POTENTIAL = zhou_cu_zr()

AGAIN = SearchRun(resume=True)


def vacancy() -> Structure:
    """256 sites of copper, one of them empty, at rest; its box does not begin at 0."""
    basis = torch.tensor([[0.0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    corners = torch.tensor(list(itertools.product(range(4), repeat=3)))
    places = (corners[:, None] + basis).reshape(-1, 3).double()[1:] * 3.615 - 7.0
    crystal = Structure(
        places,
        torch.eye(3).double() * 4 * 3.615,
        torch.zeros(len(places), dtype=torch.int64),
        ("Cu",),
        origin=torch.full((3,), -7.0),
        ids=torch.arange(2, 257),
        name="vacancy",
    )
    return relax([crystal], POTENTIAL, fmax=1e-5, compile=False)[0].structure


def test_a_saved_saddle_has_no_force_and_one_negative_curvature(tmp_path: Path) -> None:
    ase_io = pytest.importorskip("ase.io")
    settings = ArtnSettings(precision="float64", force=0.01)
    minimum, path = vacancy(), tmp_path / "v.saddles.xyz"
    labels = label(
        minimum, POTENTIAL, tmp_path / "v.events.csv", settings,
        rows=[0], plan=Plan(1), saddles=path,
    )  # fmt: skip
    _, events, _ = read_events(tmp_path / "v.events.csv")
    saddles, seen = read_frames(path, None, ":"), ase_io.read(path, ":")
    assert len(saddles) == len(seen) == labels.statuses["found"] >= 1
    for saddle, atoms in zip(saddles, seen, strict=True):
        event = events[atoms.info["event"]]
        assert (atoms.info["id"], atoms.info["atom"]) == (event["id"], event["atom"])
        there = evaluate_structures(POTENTIAL, saddle)
        assert float(there.forces.norm()) < settings.force
        curvatures = torch.linalg.eigvalsh(
            eam_hessian(eam_bonds(POTENTIAL, saddle)).product(torch.eye(3 * len(saddle)).double())
        )
        assert int((curvatures < -1e-3).sum()) == 1
        assert float(curvatures[0]) == pytest.approx(atoms.info["eigenvalue"], rel=0.02)
        assert atoms.get_potential_energy() == pytest.approx(float(there.energy), abs=1e-9)
        rise = atoms.get_potential_energy() - atoms.info["energy_minimum"]
        assert rise == pytest.approx(atoms.info["barrier"], abs=1e-6)
        assert event["barrier"] == pytest.approx(atoms.info["barrier"], abs=1e-8)


def keys(path: Path) -> list[tuple[int, int, int]]:
    """id, attempt and event of each frame."""
    lines = [line for line in path.read_text().splitlines() if line.startswith("Lattice")]
    found = [dict(pair.split("=") for pair in line.split()[-3:]) for line in lines]
    return [(int(f["id"]), int(f["attempt"]), int(f["event"])) for f in found]


def test_what_a_kill_tore_is_made_again(fake_searches: ModuleType, tmp_path: Path) -> None:
    structure, settings = vacancy(), fake_searches.FakeSettings()
    file, path = tmp_path / "v.events.csv", tmp_path / "v.saddles.xyz"
    options = {"rows": [0, 1, 2], "plan": Plan(4), "saddles": path}
    label(structure, POTENTIAL, file, settings, **options)
    whole, searches = keys(path), file.read_text().splitlines(keepends=True)
    events = read_events(file)[1]
    assert [events["attempt"][event] for *_, event in whole] == [k for _, k, _ in whole]
    frames = path.read_bytes()
    # the last search reached one file but not the other, and its saddle is torn
    file.write_text("".join(searches[:-1]))
    path.write_bytes(frames[:-40])
    with pytest.raises(UsageError, match="exists: go on with it by --resume"):
        label(structure, POTENTIAL, file, settings, **options)
    label(structure, POTENTIAL, file, settings, run=AGAIN, **options)
    assert sorted(k[:2] for k in keys(path)) == sorted(k[:2] for k in whole)
    events = read_events(file)[1]
    for id_, attempt, event in keys(path):
        assert (events["id"][event], events["attempt"][event]) == (id_, attempt)


def test_saddles_found_without_the_option_are_told_to_be_missing(
    fake_searches: ModuleType, tmp_path: Path
) -> None:
    structure, settings = vacancy(), fake_searches.FakeSettings(success=1.0)
    file, path = tmp_path / "v.events.csv", tmp_path / "v.saddles.xyz"
    label(structure, POTENTIAL, file, settings, rows=[0], plan=Plan(2))
    found = label(
        structure, POTENTIAL, file, settings, rows=[0], plan=Plan(3), saddles=path, run=AGAIN
    )
    assert found.warnings == (
        f"2 saddles of earlier searches, which were made without --save-saddles, are not in {path}",
    )
    assert [k[2] for k in keys(path)] == [2]


def test_a_file_of_something_else_is_not_touched(fake_searches: ModuleType, tmp_path: Path) -> None:
    structure, settings = vacancy(), fake_searches.FakeSettings()
    file, path = tmp_path / "v.events.csv", tmp_path / "v.saddles.xyz"
    label(structure, POTENTIAL, file, settings, rows=[0], plan=Plan(2))
    path.write_text("my notes\nof yesterday\n")
    with pytest.raises(InputError, match=r"v.saddles.xyz: is not a file of saddles: .* move it"):
        label(structure, POTENTIAL, file, settings, rows=[0], plan=Plan(3), saddles=path, run=AGAIN)
    assert path.read_text() == "my notes\nof yesterday\n"


def test_a_full_disk_leaves_no_half_of_a_saddle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    structure, path = vacancy(), tmp_path / "v.saddles.xyz"
    event = SaddleEvent.of(Event(0, 2, 0, 0, "found", 1.0), structure.positions.numpy())
    with SaddleFile(path, structure, POTENTIAL) as file:
        file.append(event)
        kept = path.read_bytes()

        class Filling:
            """Takes half of the first write, then has no room left."""

            name = str(path)

            def __init__(self, inner: object) -> None:
                self.inner, self.calls = inner, 0

            def write(self, content: memoryview) -> int:
                self.calls += 1
                if self.calls > 1:
                    raise OSError(28, "No space left on device")
                return self.inner.write(content[: len(content) // 2])  # type: ignore[attr-defined]

            def __getattr__(self, name: str) -> object:
                return getattr(self.inner, name)

        monkeypatch.setattr(file, "_file", Filling(file._file))
        with pytest.raises(OSError, match="No space left") as raised:
            file.append(event)
        assert raised.value.filename == str(path)
        assert path.read_bytes() == kept
