"""Labels of atoms: what they are, and that nothing but the searches decides them."""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from mgsym.data_tools.simulation.labelling import barriers
from mgsym.data_tools.simulation.labelling.barriers import (
    Labels,
    SearchRun,
    aggregate,
    label,
    merge,
)
from mgsym.data_tools.simulation.labelling.event_files import (
    EVENT_TYPE,
    MARK,
    EventFile,
    Events,
    event_lines,
    join,
    read_events,
    structure_hash,
    write_events,
)
from mgsym.data_tools.simulation.labelling.schedule import Plan, Schedule, used
from mgsym.data_tools.simulation.potentials.eam import potential_hash
from mgsym.data_tools.simulation.potentials.zhou_johnson_wadley import zhou_cu_zr
from mgsym.data_tools.simulation.saddle_search.events import Event, Search
from mgsym.errors import InputError, Interrupted, MgsymError, UsageError
from mgsym.structure import Structure
from mgsym.utils.files import lock_output

POTENTIAL = zhou_cu_zr()
FOUR = Plan(searches=4)
THREE_EVENTS = Plan.of(events=3)
PLANS = pytest.mark.parametrize("plan", [FOUR, THREE_EVENTS], ids=["searches", "events"])


@pytest.fixture
def glass() -> Structure:
    """Ten atoms whose ids are not their rows; the engine of these tests needs no more."""
    generator = torch.Generator().manual_seed(3)
    return Structure(
        positions=20 * torch.rand(10, 3, generator=generator, dtype=torch.float64),
        cell=20 * torch.eye(3),
        types=torch.arange(10) % 2,
        species=("Cu", "Zr"),
        ids=torch.arange(10).flip(0) + 101,
        name="glass",
    )


@pytest.fixture
def search(fake_searches: ModuleType, glass: Structure, tmp_path: Path) -> Any:
    """label(...) of the glass with the fake engine into a file of tmp_path."""

    def run(file: str = "glass.events.csv", success: float = 0.6, **options: Any) -> Labels:
        settings = fake_searches.FakeSettings(success=success, fault=options.pop("fault", ""))
        atoms = options.pop("structure", glass)
        which = {k: options.pop(k) for k in ("rows", "plan") if k in options}
        how = SearchRun(**options)
        return label(atoms, POTENTIAL, tmp_path / file, settings, run=how, **which)

    return run


def events(*rows: tuple[int, int, str, float]) -> Events:
    """Searches of (atom, attempt, status, barrier)."""
    made = [Event(atom, atom + 1, k, 0, status, barrier) for atom, k, status, barrier in rows]
    return np.array([tuple(event) for event in made], EVENT_TYPE)


def same(a: Labels, b: Labels) -> bool:
    """Whether labels are equal to the bit."""
    for name in ("barrier", "barrier_stderr", "events"):
        first, second = a.structure.columns[name].values, b.structure.columns[name].values
        if not torch.equal(first.nan_to_num(-1.0), second.nan_to_num(-1.0)):
            return False
    return (a.rows, a.statuses, a.unlabelled) == (b.rows, b.statuses, b.unlabelled)


def test_searches_take_one_thread_and_leave_the_others(
    search: Any, fake_searches: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside other work two threads took three times as long as one, and alone no less."""
    seen: list[int] = []
    engine = fake_searches.run_searches

    def watched(*given: Any, **how: Any) -> Iterator[Event]:
        for event in engine(*given, **how):
            seen.append(torch.get_num_threads())
            yield event

    monkeypatch.setattr(barriers, "run_searches", watched)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        search(plan=FOUR)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert seen == [1] * 40


# what a label is


def test_a_label_is_the_mean_of_the_successful_searches(glass: Structure) -> None:
    found = aggregate(
        glass,
        events(
            (0, 0, "found", 1.0), (0, 1, "no-mode", math.nan), (0, 2, "found", 2.0),
            (0, 3, "found", 1.5), (4, 0, "found", 0.7), (5, 0, "refinement", math.nan),
        ),
        [0, 4, 5],
        Plan(),
    )  # fmt: skip
    columns = found.structure.columns
    assert columns["barrier"].values[[0, 4]].tolist() == [1.5, 0.7]
    # standard deviation 0.5 of three, over √3
    assert columns["barrier_stderr"].values[0] == pytest.approx(0.5 / math.sqrt(3), rel=1e-14)
    assert columns["barrier_stderr"].values[4].isnan()
    assert columns["events"].values.tolist() == [3, 0, 0, 0, 1, 0, 0, 0, 0, 0]
    assert int(columns["barrier"].values.isnan().sum()) == 8
    assert {columns[name].unit for name in ("barrier", "barrier_stderr")} == {"eV"}
    assert found.statuses == {"found": 4, "no-mode": 1, "refinement": 1}
    assert found.unlabelled == (105,)
    assert found.warnings == (
        "1 atom without a successful search and so without a label (id 105): go on with "
        "--resume --searches 40",
    )


def test_statistics_are_over_the_labelled_atoms(glass: Structure) -> None:
    rows = [(a, k, "found", 1.0 + a + 0.1 * k) for a in range(3) for k in range(3)]
    found = aggregate(glass, events(*rows), [0, 1, 2], Plan())
    stderr = 0.1 / math.sqrt(3)
    assert found.statistics() == pytest.approx(
        {
            "mean": 2.1,
            "sd": 1.0,
            "mean_stderr": stderr,
            "ceiling": math.sqrt(1 - stderr**2 / (2 / 3)),
            "ceiling_low": found.statistics()["ceiling_low"],
            "ceiling_high": found.statistics()["ceiling_high"],
        }
    )
    limits = found.statistics()
    assert 0 <= limits["ceiling_low"] < limits["ceiling"] < limits["ceiling_high"] <= 1
    empty = aggregate(glass, events(), [0, 1], Plan())
    assert all(math.isnan(value) for value in empty.statistics().values())
    assert math.isnan(empty.success)


def test_the_noise_ceiling_is_what_a_second_labelling_shows(search: Any) -> None:
    """Two labellings correlate by the square of the ceiling: √r₁√r₂ of their reliabilities."""
    atoms = 1500
    many = Structure(
        positions=torch.rand(atoms, 3),
        cell=20 * torch.eye(3),
        types=torch.zeros(atoms),
        species=("Cu",),
    )
    a, b = (search(f"{s}.csv", structure=many, seed=s, plan=Plan(10)) for s in (1, 2))
    both = torch.stack([x.structure.columns["barrier"].values for x in (a, b)])
    both = both[:, ~both.isnan().any(0)]
    assert float(both.corrcoef()[0, 1]) == pytest.approx(a.statistics()["ceiling"] ** 2, abs=0.05)


def test_events_that_count_are_the_first_ones_in_order() -> None:
    table = events(
        (0, 0, "found", 1.0), (0, 1, "no-mode", math.nan), (0, 2, "found", 2.0),
        (0, 3, "found", 0.1), (0, 4, "no-mode", math.nan), (2, 0, "no-mode", math.nan),
        (2, 1, "found", 3.0),
    )  # fmt: skip
    kept = used(table, Plan(searches=20, events=2))
    assert list(zip(kept["atom"], kept["attempt"], strict=True)) == [
        (0, 0), (0, 1), (0, 2), (2, 0), (2, 1),
    ]  # fmt: skip
    assert used(table, Plan(searches=1))["atom"].tolist() == [0, 2]
    assert len(used(events(), Plan.of(events=2))) == 0


# what decides it


@PLANS
@pytest.mark.parametrize("slots", [1, 3, 7])
def test_labels_do_not_depend_on_the_order_in_which_searches_end(
    search: Any, plan: Plan, slots: int
) -> None:
    whole = search("64.csv", plan=plan)
    assert same(search("other.csv", plan=plan, slots=slots), whole)
    if plan.events:
        counts = whole.structure.columns["events"].values
        assert counts.tolist() == [3] * 10


def test_counting_events_makes_few_searches_in_vain(search: Any, tmp_path: Path) -> None:
    found = search(plan=THREE_EVENTS, slots=4)
    # an attempt begins only where those before it are not expected to suffice
    assert found.searches <= found.made <= found.searches + 4


def test_an_atom_without_success_is_given_up(search: Any) -> None:
    found = search(success=0.0, plan=Plan.of(events=2))
    assert found.searches == 10 * 20
    assert len(found.unlabelled) == 10
    assert "10 atoms without a successful search" in found.warnings[0]
    assert "(id 110, 109, 108, 107, 106, 105, 104, 103, …)" in found.warnings[0]


@PLANS
def test_torn_anywhere_the_file_is_resumed_to_the_same_labels(
    search: Any, tmp_path: Path, plan: Plan
) -> None:
    whole = search("whole.csv", plan=plan, slots=5)
    content = (tmp_path / "whole.csv").read_bytes()
    begin = content.index(b"\n", content.index(b"\n") + 1) + 1
    for cut in range(begin, len(content) + 1, 41):
        (tmp_path / "torn.csv").write_bytes(content[:cut])
        again = search("torn.csv", plan=plan, slots=3, resume=True)
        assert same(again, whole), cut
        kept = content[begin:cut].count(b"\n")
        lines = (tmp_path / "torn.csv").read_bytes().splitlines()
        assert len(lines) == 2 + kept + again.made


@PLANS
@pytest.mark.parametrize("after", [1, 2, 17, 30])
def test_stopped_after_any_search_it_goes_on(search: Any, plan: Plan, after: int) -> None:
    whole = search("whole.csv", plan=plan)
    asked = iter([False] * (after - 1) + [True])
    with pytest.raises(Interrupted, match=r"the same command with --resume goes on"):
        search("part.csv", plan=plan, slots=4, should_stop=lambda: next(asked))
    rest = search("part.csv", plan=plan, resume=True)
    assert same(rest, whole)
    assert after + rest.made <= whole.made + 20


def test_resume_adds_searches_and_atoms(search: Any) -> None:
    first = search("a.csv", plan=Plan(2), rows=[0, 1])
    more = search("a.csv", plan=FOUR, rows=[1, 2], resume=True)
    assert (first.made, more.made) == (4, 2 + 4)
    assert more.rows == (0, 1, 2)
    assert more.warnings[0].startswith("1 of 3 atoms have fewer searches than asked for")
    last = search("a.csv", plan=FOUR, resume=True)
    assert same(last, search("b.csv", plan=FOUR))
    fewer = search("a.csv", plan=Plan(2), resume=True)
    assert fewer.made == 0
    assert same(fewer, search("c.csv", plan=Plan(2)))


def test_resume_begins_where_there_is_no_file(search: Any) -> None:
    assert search("a.csv", plan=FOUR, resume=True).made == 40


def test_other_searches_are_not_resumed(
    search: Any, fake_searches: ModuleType, glass: Structure, tmp_path: Path
) -> None:
    search("a.csv", plan=FOUR, seed=1)
    with pytest.raises(InputError, match=r"a\.csv: holds .*\(seed: 1, now 2\).*--overwrite"):
        search("a.csv", plan=FOUR, seed=2, resume=True)
    with pytest.raises(InputError, match=r"artn\.success: 0\.6, now 0\.7"):
        search("a.csv", plan=FOUR, seed=1, success=0.7, resume=True)
    moved = glass.replace(positions=glass.positions + 1e-9)
    with pytest.raises(InputError, match=r"structure: glass \w{12}, now glass \w{12}\)"):
        search("a.csv", plan=FOUR, seed=1, structure=moved, resume=True)
    with pytest.raises(UsageError, match=r"a\.csv exists: go on with it by --resume"):
        search("a.csv", plan=FOUR, seed=1)
    assert search("a.csv", plan=FOUR, seed=2, overwrite=True).made == 40
    # columns and names do not decide a search
    renamed = glass.with_column("barrier", torch.zeros(10)).replace(name="other")
    assert search("b.csv", plan=FOUR, structure=renamed).made == 40


def test_a_structure_that_is_refused_leaves_no_file(search: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"glass\.xyz: largest force"):
        search("a.csv", fault="input")
    assert list(tmp_path.iterdir()) == []


def test_progress_tells_what_is_left(search: Any) -> None:
    told: list[tuple[float, float | None]] = []

    def tell(done: float, total: float | None = None, **info: object) -> None:
        told.append((done, total))

    search("a.csv", plan=Plan(2), progress=tell)
    assert told == [(k, 20) for k in range(21)]
    told.clear()
    search(
        "a.csv",
        plan=FOUR,
        resume=True,
        progress=lambda done, total, **_: told.append((done, total)),
    )
    assert told[-1] == (20, 20)
    told.clear()
    search("b.csv", plan=THREE_EVENTS, progress=tell)
    assert told[-1] == (30, 30)
    assert told == sorted(told)


# several processes


@PLANS
def test_two_processes_give_the_labels_of_one(search: Any, plan: Plan) -> None:
    assert same(search("two.csv", plan=plan, jobs=2), search("one.csv", plan=plan))


def test_what_goes_wrong_in_a_process_comes_through(search: Any) -> None:
    with pytest.raises(InputError, match=r"^glass\.xyz: largest force is 0\.3"):
        search("a.csv", fault="input", jobs=2, rows=[0])
    with pytest.raises(MgsymError, match=r"a worker process died \(exit code 9;.*--resume"):
        search("b.csv", fault="death", jobs=2, rows=[0])
    with pytest.raises(ZeroDivisionError, match="a bug"):
        search("c.csv", fault="bug")


# shards


@PLANS
@pytest.mark.parametrize("shares", [1, 3])
def test_merged_shards_are_one_run(
    search: Any, glass: Structure, tmp_path: Path, plan: Plan, shares: int
) -> None:
    whole = search("whole.csv", plan=plan)
    names = [f"shard{i}.csv" for i in range(1, shares + 1)]
    for i, name in enumerate(names, start=1):
        part = search(name, plan=plan, shard=f"{i}/{shares}", slots=2 + i)
        assert part.rows == tuple(range(i - 1, 10, shares))
    merged, heading, found = merge(glass, [tmp_path / name for name in reversed(names)])
    assert same(merged, whole)
    assert merged.warnings == whole.warnings
    assert (heading.rows, heading.shard) == ("0:10", "")
    # the joined file can be merged again, and duplicates that agree are one
    write_events(tmp_path / "all.csv", heading, event_lines(found))
    again, _, _ = merge(glass, [tmp_path / "all.csv", tmp_path / names[0]])
    assert same(again, whole)


def test_missing_and_unfinished_shards_are_told(
    search: Any, glass: Structure, tmp_path: Path
) -> None:
    search("1.csv", plan=FOUR, shard="1/3")
    search("3.csv", plan=FOUR, shard="3/3")
    heading, found, _ = read_events(tmp_path / "3.csv")
    found = found[(found["atom"] == 5) | (found["attempt"] == 0)]
    write_events(tmp_path / "3.csv", heading, event_lines(found))
    merged, _, _ = merge(glass, [tmp_path / "1.csv", tmp_path / "3.csv"])
    assert merged.warnings[0] == "not among the files: shard 2/3"
    assert merged.warnings[1].startswith("2 of 7 atoms have fewer searches than asked for")


def test_files_that_do_not_belong_together(search: Any, glass: Structure, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.csv", "b.csv", "c.csv", "d.csv")]
    search("a.csv", plan=FOUR, shard="1/2")
    search("b.csv", plan=FOUR, shard="2/2", seed=1)
    search("c.csv", plan=Plan(5), shard="2/2")
    with pytest.raises(InputError, match=r"b\.csv: does not belong with .*a\.csv \(seed: 0, now 1"):
        merge(glass, files[:2])
    with pytest.raises(UsageError, match=r"--searches 4 and --searches 5: say which"):
        merge(glass, [files[0], files[2]])
    assert same(merge(glass, [files[0], files[2]], FOUR)[0], search("whole.csv", plan=FOUR))
    with pytest.raises(InputError, match=r"a\.csv: holds searches in another structure \(glass"):
        merge(glass.replace(cell=21 * torch.eye(3)), files[:1])
    heading, found, _ = read_events(files[0])
    found["barrier"] += 1e-6  # as sums of other batches round
    write_events(files[3], heading, event_lines(found))
    assert len(merge(glass, [files[0], files[3]])[2]) == 20
    found["barrier"] += 1e-3
    write_events(files[3], heading, event_lines(found))
    other = r"d\.csv: attempt \d of atom id \d+ has another result than in .*a\.csv"
    with pytest.raises(InputError, match=other):
        merge(glass, [files[0], files[3]])
    for shard in ("0/2", "3/2", "2", "a/b"):
        with pytest.raises(UsageError, match="such as 2/8"):
            search("e.csv", shard=shard)
    with pytest.raises(UsageError, match=r"shard 11/11 has no atom"):
        search("e.csv", shard="11/11")


# the schedule and the file


def test_one_attempt_of_every_atom_after_the_other() -> None:
    schedule = Schedule([3, 5], Plan(2))
    assert list(schedule.searches()) == [Search(3, 0), Search(5, 0), Search(3, 1), Search(5, 1)]
    assert schedule.unfinished == [3, 5]  # begun is not finished
    for search in [Search(3, 0), Search(3, 1), Search(5, 1)]:
        schedule.record(Event(search.atom, 0, search.attempt, 0, "no-mode"))
    assert schedule.unfinished == [5]
    assert (schedule.done, schedule.total) == (3, 4)
    assert list(schedule.searches()) == [Search(5, 0)]


def test_after_an_interruption_the_atoms_behind_come_first() -> None:
    """However often a run is cut short, no atom is far ahead of the others."""
    made = events((0, 0, "no-mode", 0.0), (1, 0, "found", 1.0), (0, 1, "found", 1.0))
    schedule = Schedule([0, 1, 2], Plan(3), made)
    left = [(2, 0), (1, 1), (2, 1), (0, 2), (1, 2), (2, 2)]
    assert list(schedule.searches()) == [Search(*search) for search in left]


def test_a_gap_before_the_last_event_is_searched_first() -> None:
    made = events((0, 0, "found", 1.0), (0, 2, "found", 2.0))
    schedule = Schedule([0], Plan.of(events=2), made)
    assert schedule.unfinished == [0]
    assert next(schedule.searches()) == Search(0, 1)
    schedule.record(Event(0, 1, 1, 0, "found", 1.5))
    assert schedule.unfinished == []


@pytest.mark.parametrize(
    ("searches", "count", "message"),
    [(0, None, "searches is 0"), (None, -1, "events is -1"), (3, 4, "4 events cannot come of")],
)
def test_plans_that_make_no_sense(searches: int | None, count: int | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Plan.of(searches, count)


def test_a_file_reads_back_to_the_same_lines(search: Any, tmp_path: Path) -> None:
    search("a.csv", plan=FOUR)
    heading, found, lines = read_events(tmp_path / "a.csv")
    assert event_lines(found) == lines
    assert (heading.searches, heading.rows, heading.atoms) == (4, "0:10", 10)
    first, second = (tmp_path / "a.csv").read_text().splitlines()[:2]
    assert first.startswith('# mgsym events {"format": 1')
    assert "barrier [eV]" in second
    assert "eigenvalue [eV/A^2]" in second


def test_every_search_is_on_disk_when_append_returns(search: Any, tmp_path: Path) -> None:
    search("a.csv", plan=Plan(1))
    heading, _, _ = read_events(tmp_path / "a.csv")
    with EventFile(tmp_path / "b.csv", heading) as file:
        assert not (tmp_path / "b.csv").exists()
        for k in range(3):
            file.append(Event(0, 110, k, 0, "found", 1.0 + k))
            assert len(read_events(tmp_path / "b.csv")[1]) == k + 1


def test_a_disk_that_fills_names_the_file(
    search: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search("a.csv", plan=Plan(1))
    heading, _, _ = read_events(tmp_path / "a.csv")
    path = tmp_path / "b.csv"

    def open_full(file: EventFile) -> None:
        file._file = Path("/dev/full").open("a", encoding="utf-8", buffering=1)  # noqa: SIM115

    monkeypatch.setattr(EventFile, "_open", open_full)
    with pytest.raises(OSError) as caught, EventFile(path, heading) as file:
        file.append(Event(0, 110, 0, 0, "found", 1.0))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert not list(tmp_path.glob(".*"))  # the lock, too, is gone


def test_two_programs_at_one_file_of_searches(search: Any, tmp_path: Path) -> None:
    search("a.csv", plan=Plan(1))
    with (
        lock_output(tmp_path / "a.csv"),
        pytest.raises(UsageError, match=r"a\.csv is being written by another mgsym"),
    ):
        search("a.csv", plan=Plan(2), resume=True)
    assert search("a.csv", plan=Plan(2), resume=True).made == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace("found", "fuond", 1), r"line \d+: is not a search: '.*fuond"),
        (lambda t: t.replace("\n0,110", "\n0.5,110", 1), r"line \d+: is not a search: '0\.5,110"),
        (lambda t: t.replace("\n0,110", "\n10,110", 1), r"line \d+: is not a search"),
        (lambda t: t.replace(",100,", ",", 1), r"line 3: is not a search"),
        (lambda t: t.replace(",100,", ",1e400,", 1), r"line 3: is not a search"),
        (lambda t: t[5:], "is not a file of searches: expected one that mgsym label wrote"),
        (lambda t: t.replace('"seed": 0', '"seed"', 1), r"line 1: the heading is damaged"),
        (lambda t: t.replace('"seed": 0,', "", 1), r"line 1: the heading is damaged"),
        (lambda t: t.replace('"0:10"', '"0:x"', 1), r"line 1: the heading is damaged"),
        (lambda t: t.replace('"format": 1', '"format": 9', 1), r"format 9, but this mgsym"),
        (lambda t: t.replace("barrier [eV]", "barrier [J]", 1), r"line 2: expected the columns"),
        (lambda t: t.splitlines()[0], r"line 2: expected the columns"),
        (lambda t: f"{MARK}{'[' * 200_000}\n{t}", r"line 1: the heading is damaged \("),
        (lambda t: "", "the file is empty"),
    ],
)
def test_damaged_files(search: Any, tmp_path: Path, change: Any, message: str) -> None:
    search("a.csv", plan=FOUR)
    path = tmp_path / "a.csv"
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=message):
        read_events(path)


def test_hashes_see_what_decides_a_search(glass: Structure) -> None:
    swapped = glass.replace(species=("Zr", "Cu"), types=1 - glass.types)
    assert structure_hash(swapped) == structure_hash(glass)
    for change in (
        {"types": 1 - glass.types},
        {"ids": glass.ids + 1},
        {"periodic": (True,) * 2 + (False,)},
    ):
        assert structure_hash(glass.replace(**change)) != structure_hash(glass)
    pair = POTENTIAL.pair.clone()
    pair[0, 0, 500] *= 1.001
    altered = type(POTENTIAL)(**{**vars(POTENTIAL), "pair": pair})
    assert potential_hash(altered) != potential_hash(POTENTIAL)
    same_to_rounding = type(POTENTIAL)(**{**vars(POTENTIAL), "pair": POTENTIAL.pair * (1 + 2**-52)})
    assert potential_hash(same_to_rounding) == potential_hash(POTENTIAL)


def test_join_sorts(glass: Structure) -> None:
    table = events((4, 1, "found", 1.0), (0, 0, "found", 2.0), (4, 0, "no-mode", math.nan))
    joined = join([table[:1], table], ["a", "b"])
    assert joined["atom"].tolist() == [0, 4, 4]
    assert joined["attempt"].tolist() == [0, 0, 1]
