"""The physics check where the truth is known: planted atoms decide what the searches find."""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import mgsym
from mgsym.data_tools.displacement_test.changes import (
    Change,
    NodeChanges,
    Searched,
    change_of,
    overall,
    paired_difference,
)
from mgsym.data_tools.displacement_test.displace import (
    ESCAPED,
    RETURNED,
    Displacement,
    Draw,
    disturb,
    lengths,
)
from mgsym.data_tools.displacement_test.measure import PhysicsCheck, measure
from mgsym.data_tools.displacement_test.prepare import Prepared, Request, prepare
from mgsym.data_tools.simulation.labelling import barriers
from mgsym.data_tools.simulation.optimizers.relax import Relaxation, relax
from mgsym.data_tools.simulation.potentials.zhou_johnson_wadley import zhou_cu_zr
from mgsym.data_tools.simulation.saddle_search.events import Event, Search
from mgsym.data_tools.simulation.saddle_search.settings import ArtnSettings
from mgsym.errors import InputError, Interrupted, UsageError
from mgsym.explanation.computation_graph import distance_between_atoms
from mgsym.explanation.controls import BIN
from mgsym.graph import build_graph
from mgsym.models import create_model
from mgsym.structure import Structure
from mgsym.training.checkpoint import save_checkpoint
from mgsym.training.config import ModelConfig

REQUEST = Request(nodes=[2, 9, 20, 33, 41, 60], method="gradient", atoms=3, displace=0.5, repeats=1)
SETTINGS = ArtnSettings(radius=4.0)


@dataclass
class Engine:
    """Searches whose barrier rises with how far the planted atoms of a node are from home."""

    home: torch.Tensor
    planted: Mapping[int, Sequence[int]]
    success: float = 0.8

    def __call__(
        self, structure: Structure, potential: object, searches: Iterator[Search],
        settings: ArtnSettings, *, seed: int, **how: object,
    ) -> Iterator[Event]:  # fmt: skip
        for search in searches:
            chance = random.Random(f"{seed} {search.atom} {search.attempt}")
            rows = list(self.planted.get(search.atom, ()))
            away = (structure.positions - self.home)[rows].norm(dim=1).sum().item()
            found = chance.random() < self.success
            barrier = 1.5 + away + 0.1 * chance.gauss(0, 1) if found else math.nan
            identity = int(structure.ids[search.atom])
            status = "found" if found else "no-mode"
            yield Event(search.atom, identity, search.attempt, seed, status, barrier)


def at_rest(structures: Sequence[Structure], *given: object, **how: object) -> list[Relaxation]:
    """In a potential without forces every structure is at a minimum."""
    return [Relaxation(s, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, True) for s in structures]


@pytest.fixture
def glass(tmp_path: Path) -> Path:
    """Sixty-four atoms of a crystal, slightly shaken, in a file."""
    generator = torch.Generator().manual_seed(4)
    sites = 2.62 * torch.cartesian_prod(*[torch.arange(4.0)] * 3)
    structure = Structure(
        positions=sites + 0.02 * torch.rand(64, 3, generator=generator),
        cell=4 * 2.62 * torch.eye(3),
        types=torch.arange(64) % 2,
        species=("Cu", "Zr"),
        ids=torch.arange(101, 165),
    )
    mgsym.write(structure, tmp_path / "glass.xyz")
    return tmp_path / "glass.xyz"


@pytest.fixture
def run(glass: Path, tmp_path: Path) -> Path:
    return saved(glass, tmp_path / "model.pt", "egat-length", {"width": 8, "heads": [2, 1]})


def saved(glass: Path, path: Path, name: str, options: Mapping[str, Any]) -> Path:
    """An untrained model in a file."""
    torch.manual_seed(0)
    model = create_model(name, ("Cu", "Zr"), 4.0, options)
    structure = mgsym.read(glass)
    barrier = torch.rand(len(structure), generator=torch.Generator().manual_seed(0))
    model.fit_statistics([build_graph(structure.with_column("barrier", barrier, "eV"), 4.0)])
    save_checkpoint(path, model.eval(), ModelConfig(name, dict(options)))
    return path


@pytest.fixture
def no_forces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Displaced atoms stay where they are put."""
    monkeypatch.setattr("mgsym.data_tools.displacement_test.displace.relax", at_rest)
    monkeypatch.setattr("mgsym.data_tools.displacement_test.prepare.relax", at_rest)


def selected_atoms(prepared: Prepared) -> dict[int, tuple[int, ...]]:
    return {d.node: d.rows for d in prepared.displacements if d.kind == "selected"}


@pytest.fixture
def check(
    glass: Path, run: Path, no_forces: None, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., PhysicsCheck]:
    """The whole check in a folder; the selected atoms decide the barriers unless told otherwise."""

    def make(
        out: Path, request: Request = REQUEST, planted: Any = selected_atoms,
        success: float = 0.8, **how: Any,
    ) -> PhysicsCheck:  # fmt: skip
        potential = zhou_cu_zr()
        again = {"device": "cpu", "resume": how.pop("resume", False)}
        prepared = prepare(run, glass, potential, request, out=out, radius=4.0, **again)
        engine = Engine(mgsym.read(glass).positions, planted(prepared), success)
        monkeypatch.setattr(barriers, "run_searches", engine)
        how = {"searches": 12, **again, **how}
        return measure(prepared, potential, SETTINGS, **how)

    return make


def test_atoms_that_decide_the_barrier_are_told_from_others(
    check: Callable[..., PhysicsCheck], tmp_path: Path
) -> None:
    found = check(tmp_path / "out")
    assert (found.selected.exceeding, found.selected.nodes) == (6, 6)
    assert found.selected.left == found.matched.left == found.matched.displacements == 6
    # three atoms, each half an Å from home
    assert found.selected.beyond_errors == pytest.approx(1.5, abs=0.1)
    assert found.matched.beyond_errors is not None
    assert found.matched.beyond_errors < 0.05
    assert found.low is not None
    assert found.low > 1.2
    assert "Selected neighbours change the barrier of 6 of 6 atoms" in found.verdict
    assert found.verdict.endswith("a significant difference.")


def test_the_verdict_is_the_other_way_round_where_others_decide(
    check: Callable[..., PhysicsCheck], tmp_path: Path
) -> None:
    def matched(prepared: Prepared) -> dict[int, tuple[int, ...]]:
        return {d.node: d.rows for d in prepared.displacements if d.kind == "matched"}

    found = check(tmp_path / "out", planted=matched)
    assert found.high is not None
    assert found.high < -1.2
    assert found.matched.exceeding == 6


def test_where_nothing_matters_errors_explain_it(
    check: Callable[..., PhysicsCheck], tmp_path: Path
) -> None:
    every = Request(**{**vars(REQUEST), "nodes": 12})
    found = check(tmp_path / "out", every, lambda prepared: {})
    for total in (found.selected, found.matched):
        assert total.by_chance == pytest.approx(12 * 0.33, abs=0.5)
        assert total.exceeding <= 8
        assert total.beyond_errors is not None
        assert total.beyond_errors < 0.05
    assert "no significant difference" in found.verdict


def test_the_files_tell_all_of_it(check: Callable[..., PhysicsCheck], tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = check(out)
    told = json.loads((out / "physics.json").read_text())
    assert told["verdict"] == found.verdict
    assert [node["node"] for node in told["nodes"]] == list(REQUEST.nodes)
    with (out / "physics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    start = mgsym.read(out / "start.xyz")
    graph = build_graph(start, 4.0)
    for row in rows:
        after = mgsym.read(out / row["file"])
        moved = (after.positions - start.positions).norm(dim=1)
        expected = torch.zeros(64, dtype=torch.float64)
        expected[list(map(int, row["rows"].split()))] = 0.5
        torch.testing.assert_close(moved, expected)
        assert torch.equal(after.columns["displaced"].values > 0, moved > 0)
        assert after.columns["explained"].values.nonzero().flatten().tolist() == [int(row["node"])]
        change = float(row["after_mean"]) - float(row["before_mean"])
        assert float(row["change"]) == pytest.approx(change)
        error = math.hypot(float(row["after_stderr"]), float(row["before_stderr"]))
        assert float(row["in_errors"]) == pytest.approx(change / error)
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        assert (first["kind"], second["kind"]) == ("selected", "matched")
        distance = distance_between_atoms(graph, int(first["node"]))
        sets = [list(map(int, row["rows"].split())) for row in (first, second)]
        assert not set(sets[0]) & set(sets[1])
        bins = [(distance[rows_] / BIN).long().sort().values for rows_ in sets]
        assert torch.equal(*bins)


def test_interrupted_and_resumed_it_ends_in_the_same_file(
    check: Callable[..., PhysicsCheck], tmp_path: Path
) -> None:
    check(tmp_path / "whole")
    asked = iter(range(1000))
    with pytest.raises(Interrupted, match=r"stopped with 51 of 216 searches, all in .*searches"):
        check(tmp_path / "part", should_stop=lambda: next(asked) >= 50)
    assert not (tmp_path / "part" / "physics.json").exists()
    check(tmp_path / "part", resume=True)
    for name in ("physics.json", "physics.csv", "plan.json"):
        assert (tmp_path / "part" / name).read_text() == (tmp_path / "whole" / name).read_text()
    more = check(tmp_path / "part", resume=True, searches=14)
    assert more.searches == 18 * 14


def test_a_folder_of_something_else_is_not_gone_on_with(
    check: Callable[..., PhysicsCheck], tmp_path: Path
) -> None:
    check(tmp_path / "out")
    with pytest.raises(UsageError, match=r"plan\.json exists already"):
        check(tmp_path / "out")
    other = Request(**{**vars(REQUEST), "atoms": 2})
    with pytest.raises(InputError, match=r"plan\.json: was made for something else \(atoms: 3"):
        check(tmp_path / "out", other, resume=True)
    plan = tmp_path / "out" / "plan.json"
    whole = json.loads(plan.read_text())
    for damaged in (
        *("{}", "[", "[" * 200_000, "[1]", '{"asked": 1' + 5000 * "0" + "}"),
        json.dumps({**whole, "displacements": [1]}),
        json.dumps({**whole, "asked": 7}),
        json.dumps({**whole, "asked": {}}),
        json.dumps({**whole, "asked": {**whole["asked"], "seed": "one"}}),
    ):
        plan.write_text(damaged)
        with pytest.raises(InputError, match=r"plan\.json: (is damaged|was made for)") as caught:
            check(tmp_path / "out", resume=True)
        assert len(str(caught.value)) < 600 + len(str(plan))
    plan.write_bytes(b'{"asked": "\xff"}')
    with pytest.raises(InputError, match=r"plan\.json: is damaged"):
        check(tmp_path / "out", resume=True)


def test_atoms_without_successful_searches_are_missing(
    check: Callable[..., PhysicsCheck], tmp_path: Path
) -> None:
    found = check(tmp_path / "out", success=0.0)
    assert found.selected.nodes == found.matched.nodes == 0
    assert found.difference is None
    assert "No atom has both" in found.verdict
    assert "atom id 103 (node 2) has 0 successful searches before: missing" in found.warnings
    assert json.loads((tmp_path / "out" / "physics.json").read_text())["selected"]["size"] is None


def test_where_all_fall_back_nothing_is_searched_or_said(
    check: Callable[..., PhysicsCheck], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, glass: Path
) -> None:
    home = mgsym.read(glass)

    def back(structures: Sequence[Structure], *given: object, **how: object) -> list[Relaxation]:
        return at_rest([home] * len(structures))

    monkeypatch.setattr("mgsym.data_tools.displacement_test.displace.relax", back)
    found = check(tmp_path / "out")
    assert found.searches == 6 * 12  # of the undisturbed structure
    assert found.selected.left == found.matched.left == 0
    assert [a.length for a in found.nodes[0].attempts] == [0.5, 0.75, 1.0]
    assert {c.change for node in found.nodes for c in node.changes} == {0.0}
    assert found.verdict.startswith("No displacement led to a new minimum")


@pytest.mark.parametrize(
    ("changes", "radius", "error", "message"),
    [
        ({"nodes": [64]}, 4.0, UsageError, "there is no node 64"),
        ({"nodes": 2}, 4.0, UsageError, "asked for 2 nodes, expected 3"),
        ({"method": "x"}, 4.0, UsageError, "no method is called 'x'"),
        ({}, 9.0, InputError, "an active region of 9 Å does not fit"),
        ({}, 0.0, InputError, "too small for an active region"),
    ],
)
def test_wrong_requests_leave_nothing_behind(
    run: Path, glass: Path, tmp_path: Path, no_forces: None,
    changes: dict[str, Any], radius: float, error: type[Exception], message: str,
) -> None:  # fmt: skip
    request = Request(**{**vars(REQUEST), **changes})
    with pytest.raises(error, match=message):
        prepare(run, glass, zhou_cu_zr(), request, out=tmp_path / "out", radius=radius)
    assert not (tmp_path / "out").exists()


def test_a_model_without_edges_and_a_potential_without_an_element(
    glass: Path, run: Path, tmp_path: Path
) -> None:
    how = {"out": tmp_path / "out", "radius": 4.0, "device": "cpu"}
    blind = saved(glass, tmp_path / "blind.pt", "ridge", {})
    with pytest.raises(UsageError, match="makes no use of edges"):
        prepare(blind, glass, zhou_cu_zr(), REQUEST, **how)
    structure = mgsym.read(glass).replace(species=("Cu", "Al"))
    mgsym.write(structure, tmp_path / "other.xyz")
    with pytest.raises(InputError, match="Al"):
        prepare(run, tmp_path / "other.xyz", zhou_cu_zr(), REQUEST, **how)
    assert not (tmp_path / "out").exists()


# --- displaced and relaxed with real forces ------------------------------------------------------


def crystal(*vacant: int) -> Structure:
    """256 sites of fcc copper, some of them vacant."""
    base = torch.tensor([[0.0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    sites = (torch.cartesian_prod(*[torch.arange(4.0)] * 3)[:, None] + base).reshape(-1, 3)
    kept = [row for row in range(256) if row not in vacant]
    return Structure(
        3.615 * sites[kept].double(), 4 * 3.615 * torch.eye(3), torch.zeros(len(kept)), ("Cu",)
    )


def test_atoms_pushed_into_vacancies_stay_and_others_fall_back() -> None:
    """An atom pushed into the vacancy beside it ends in a new minimum of nearly the same energy
    (the two vacancies see one another); one pushed elsewhere, less far, falls back."""
    hop = torch.tensor([[0.0, 0.5, 0.5]], dtype=torch.float64)
    # sites 1 and 129 are one hop from sites 0 and 128, which are half a box apart
    potential = zhou_cu_zr()
    (found,) = relax([crystal(1, 129)], potential, fmax=1e-4, compile=False)
    assert found.converged
    rows = torch.tensor([0]), torch.tensor([127])  # site 128 is row 127 without site 1
    draw = Draw(*rows, hop / hop.norm(), 0)
    first = 3.615 / math.sqrt(2)
    told, attempts = disturb(found.structure, found.energy_after, 5, [draw], first, potential)
    assert [(d.kind, d.outcome, d.atoms_moved > 0) for d, _ in told] == [
        ("selected", ESCAPED, True), ("matched", ESCAPED, True),
    ]  # fmt: skip
    for disturbance, _ in told:
        assert disturbance.energy == pytest.approx(0.0, abs=0.02)
        assert disturbance.moved == pytest.approx(first, abs=0.15)
    assert [(a.selected, a.matched) for a in attempts] == [(1, 1)]

    away = Draw(*rows, torch.tensor([[1.0, 0, 0]], dtype=torch.float64), 0)
    told, attempts = disturb(found.structure, found.energy_after, 5, [away], 0.3, potential)
    assert [d.outcome for d, _ in told] == [RETURNED, RETURNED]
    assert max(d.moved for d, _ in told) < 0.01
    assert [a.length for a in attempts] == [0.3, 0.55]


def test_lengths_grow_to_twice_the_first() -> None:
    assert list(lengths(1.5)) == [1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0]
    assert list(lengths(0.1)) == [0.1]


# --- numbers -------------------------------------------------------------------------------------


def node_of(changes: Mapping[str, Sequence[float]], error: float = 0.1) -> NodeChanges:
    before = Searched(1.5, error, 10)
    made = [
        change_of(
            Displacement(0, kind, i, (1,), 1.0, ESCAPED, 1.0, 0.0, 1, 0.1, predicted=2.0 + value),
            2.0, before, Searched(1.5 + value, error, 10),
        )
        for kind, values in changes.items()
        for i, value in enumerate(values)
    ]  # fmt: skip
    return NodeChanges(0, 1, "Cu", 2.0, before, (), 0, tuple(made))


def test_a_change_is_the_root_mean_square_of_its_draws() -> None:
    node = node_of({"selected": [0.3, -0.4], "matched": [0.1, 0.1]})
    assert node.size("selected") == pytest.approx(math.sqrt(0.125))
    assert node.error("selected") == pytest.approx(0.1 * math.sqrt(2))
    assert node.exceeds("selected") is True
    assert node.exceeds("matched") is False
    assert node.changes[0].in_errors == pytest.approx(0.3 / (0.1 * math.sqrt(2)))
    total = overall([node], "selected")
    assert total.beyond_errors == pytest.approx(math.sqrt(0.125 - 0.02))
    assert total.predicted == pytest.approx(math.sqrt(0.125))


def test_errors_alone_exceed_themselves_as_often_as_gaussians_do() -> None:
    one = node_of({"selected": [0.0], "matched": [0.0]})
    assert one.chance("selected") == pytest.approx(math.erfc(1 / math.sqrt(2)), abs=0.02)
    back = Displacement(0, "selected", 0, (1,), 1.0, RETURNED, 0.0, 0.0, 0, 0.0)
    changes = (change_of(back, 2.0, one.before, None),)
    fallen = NodeChanges(0, 1, "Cu", 2.0, one.before, (), 0, changes)
    assert fallen.chance("selected") == 0.0
    assert fallen.exceeds("selected") is False


def test_the_paired_difference_has_the_interval_of_a_mean() -> None:
    generator = random.Random(1)
    nodes = [
        node_of({"selected": [0.5 + 0.1 * generator.gauss(0, 1)], "matched": [0.2]})
        for _ in range(40)
    ]
    mean, low, high = paired_difference(nodes)
    assert mean is not None
    assert low is not None
    assert high is not None
    assert low < 0.3 < high
    assert high - low == pytest.approx(2 * 1.96 * 0.1 / math.sqrt(40), rel=0.3)
    assert paired_difference(nodes[:5])[1:] == (None, None)
    assert paired_difference([]) == (None, None, None)


def test_one_event_has_no_standard_error_and_is_missing() -> None:
    d = Displacement(0, "selected", 0, (1,), 1.0, ESCAPED, 1.0, 0.0, 1, 0.1, predicted=2.5)
    found = change_of(d, 2.0, Searched(1.5, 0.1, 9), Searched.of(1.7, math.nan, 1))
    assert found == Change(d, Searched(1.7, None, 1), None, None, 0.5)
