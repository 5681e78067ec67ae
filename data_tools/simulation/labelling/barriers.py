"""Labels from searches: the mean barrier of each atom, its standard error, how many events.

The label of an atom is the mean of E(saddle) − E(minimum) over the successful searches that start
at it. How the search works is told in `artn`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from mgsym.data_tools.simulation.labelling.event_files import (
    EventFile,
    Events,
    Heading,
    join,
    read_events,
    structure_hash,
)
from mgsym.data_tools.simulation.labelling.saddle_files import SaddleFile
from mgsym.data_tools.simulation.labelling.schedule import Plan, Schedule, used
from mgsym.data_tools.simulation.labelling.selection import format_rows, parse_shard
from mgsym.data_tools.simulation.labelling.workers import (
    SearchTarget,
    Task,
    search_targets,
)
from mgsym.data_tools.simulation.potentials.evaluation import Potential, potential_hash
from mgsym.data_tools.simulation.saddle_search.artn import run_searches
from mgsym.data_tools.simulation.saddle_search.events import FOUND
from mgsym.data_tools.simulation.saddle_search.region_groups import slots_for
from mgsym.data_tools.simulation.saddle_search.settings import ArtnSettings
from mgsym.errors import InputError, UsageError
from mgsym.evaluation.metrics import noise_ceiling
from mgsym.structure import Structure
from mgsym.structure.columns import BARRIER, BARRIER_STDERR, EVENTS
from mgsym.utils.files import refuse_existing
from mgsym.utils.progress import Progress

NAN = float("nan")
SHOWN = 8  # ids that a warning names


@dataclass(frozen=True, eq=False)
class Labels:
    """A labelled structure and what its labels rest on.

    Attributes:
        structure: with the columns barrier and barrier_stderr (eV) and events; NaN, NaN and 0
            where there is no successful search.
        rows: the atoms searched from.
        statuses: searches that the labels rest on, by how they ended.
        calls: mean force calls of a search.
        unlabelled: ids of the atoms of `rows` without a label.
        warnings: what the user should know, a line each.
        made: searches made by this call, not read from a file.
        seconds: what they took.
    """

    structure: Structure
    rows: tuple[int, ...]
    statuses: dict[str, int]
    calls: float
    unlabelled: tuple[int, ...]
    warnings: tuple[str, ...] = ()
    made: int = 0
    seconds: float = 0.0

    @property
    def searches(self) -> int:
        """How many the labels rest on."""
        return sum(self.statuses.values())

    @property
    def success(self) -> float:
        """Share of searches that found a saddle."""
        return self.statuses.get(FOUND, 0) / self.searches if self.searches else NAN

    def statistics(self) -> dict[str, float]:
        """Over the labelled atoms, eV: mean, standard deviation between atoms, mean standard error.

        Also ``ceiling``: the Pearson correlation with these labels that a perfect predictor of
        the true means would reach, given the standard errors, and its 95 % interval.
        """
        rows = torch.tensor(self.rows)
        barrier = self.structure.columns[BARRIER].values[rows]
        stderr = self.structure.columns[BARRIER_STDERR].values[rows]
        known = barrier[~barrier.isnan()]
        limit = noise_ceiling(known, stderr[~barrier.isnan()])
        return {
            "mean": float(known.mean()) if len(known) else NAN,
            "sd": float(known.std()) if len(known) > 1 else NAN,
            "mean_stderr": float(stderr.nanmean()),
            **dict(zip(("ceiling", "ceiling_low", "ceiling_high"), limit[:3], strict=True)),
        }

    def to_dict(self) -> dict[str, Any]:
        """For JSON; energies in eV."""
        return {
            "atoms": len(self.rows),
            "labelled": len(self.rows) - len(self.unlabelled),
            "unlabelled_ids": self.unlabelled,
            "searches": self.searches,
            "searches_by_status": self.statuses,
            "success": self.success,
            "force_calls_per_search": self.calls,
            **self.statistics(),
            "searches_made": self.made,
            "seconds": self.seconds,
            "warnings": self.warnings,
        }


class System(NamedTuple):
    """A structure, the atoms (ascending rows) to label in it, its file of events and its seed."""

    structure: Structure
    rows: Sequence[int]
    file: Path
    seed: int


@dataclass(frozen=True)
class SearchRun:
    """How a run of searches goes: which part of the work it does, where, and who watches.

    Attributes:
        seed: of everything random.
        shard: ``"2/8"`` searches from the second of eight shares of the atoms.
        resume: go on with a file of searches; begin where it is missing.
        overwrite: begin again where the file exists.
        device: where to compute.
        jobs: processes.
        slots: searches that advance together in each process; None: 64, on a GPU as many as its
            free memory allows, up to 1,024.
        progress: called with searches (or events, where the plan counts them) done and to do.
        should_stop: asked after every search; when it says yes, `Interrupted` is raised.
    """

    seed: int = 0
    shard: str | None = None
    resume: bool = False
    overwrite: bool = False
    device: str = "cpu"
    jobs: int = 1
    slots: int | None = None
    progress: Progress | None = None
    should_stop: Callable[[], bool] | None = None


def label(
    structure: Structure,
    potential: Potential,
    file: str | Path,
    settings: ArtnSettings,
    *,
    rows: Sequence[int] | None = None,
    plan: Plan | None = None,
    saddles: Path | None = None,
    run: SearchRun | None = None,
) -> Labels:
    """Search for saddles from each atom and label it with their mean barrier.

    Every finished search is in `file` at once. The labels depend on structure, potential,
    settings, seed and plan; on jobs, slots, shards and interruptions only by rounding, since
    searches that advance together share their sums. The order in which they end is of no account.

    Args:
        structure: at a minimum of the potential.
        potential: EAM, or a calculator of ASE.
        file: the events go there.
        settings: of the search.
        rows: the atoms; default: all. Those that `file` has already are labelled too.
        plan: how many searches each gets; default: 20.
        saddles: a file for the saddles that are found, see `saddle_files`.
        run: how it goes.

    Raises:
        UsageError: `file` exists, and is neither to be resumed nor overwritten; no such shard.
        InputError: the structure is not at a minimum or too small, or `file` is of other searches.
        Interrupted: `should_stop` said so; the message tells how to go on.
    """
    file, plan, run = Path(file), plan or Plan(), run or SearchRun()
    rows = list(range(len(structure)) if rows is None else rows)
    if run.shard is not None:
        index, shares = parse_shard(run.shard)
        rows = rows[index - 1 :: shares]
        if not rows:
            raise UsageError(f"shard {run.shard} has no atom: take fewer shards")
    heading = _heading(structure, potential, settings, rows, plan, run.seed, run.shard)
    with ExitStack() as stack:
        writer, saddle_file, absent = stack.enter_context(EventFile(file, heading)), None, 0
        before = _begin(writer, run.resume, run.overwrite)
        if saddles is not None:
            refuse_existing(saddles, run.overwrite or before is not None)
            saddle_file = stack.enter_context(SaddleFile(saddles, structure, potential))
            absent = saddle_file.begin(before)
        schedule = Schedule(rows, plan, before)
        task = Task(
            run_searches, structure, potential, settings, run.seed,
            run.slots or slots_for(run.device), run.device, saddles is not None,
        )  # fmt: skip
        start = time.monotonic()
        target = SearchTarget(task, schedule, writer, saddle_file)
        search_targets([target], run.jobs, run.progress, run.should_stop)
        seconds = time.monotonic() - start
    events = join([read_events(file)[1]], [file])
    found = aggregate(structure, events, writer.heading.chosen, plan)
    warnings = (*_absent(absent, saddles), *_unfinished(found.rows, plan, events), *found.warnings)
    return replace(found, warnings=warnings, made=schedule.recorded, seconds=seconds)


def label_each(
    systems: Sequence[System],
    potential: Potential,
    settings: ArtnSettings,
    *,
    plan: Plan | None = None,
    run: SearchRun | None = None,
) -> list[Labels]:
    """Label a few atoms in each of many structures, as `label` does in one.

    Args:
        systems: where to search, and where the events go.
        potential, settings, plan: as `label` takes them.
        run: how it goes; processes share the structures, seed and shard play no part.

    Raises:
        as `label`.
    """
    plan, run = plan or Plan(), run or SearchRun()
    together = run.slots or slots_for(run.device)
    with ExitStack() as stack:
        targets = []
        for atoms in systems:
            heading = _heading(
                atoms.structure, potential, settings, atoms.rows, plan, atoms.seed, None
            )
            writer = stack.enter_context(EventFile(atoms.file, heading))
            schedule = Schedule(atoms.rows, plan, _begin(writer, run.resume, run.overwrite))
            task = Task(
                run_searches, atoms.structure, potential, settings, atoms.seed, together, run.device
            )
            targets.append(SearchTarget(task, schedule, writer))
        search_targets(targets, run.jobs, run.progress, run.should_stop)
    return [
        aggregate(s.structure, join([read_events(s.file)[1]], [s.file]), s.rows, plan)
        for s in systems
    ]


def merge(
    structure: Structure, files: Sequence[str | Path], plan: Plan | None = None
) -> tuple[Labels, Heading, Events]:
    """Labels from the events of several files, such as those of shards.

    Args:
        structure: the one that was searched.
        files: written by `label`.
        plan: which searches the labels rest on; default: what the files were made for.

    Returns:
        the labels, and heading and events of a file that holds them all.

    Raises:
        InputError: the files belong to different searches or another structure, or contradict
            one another.
        UsageError: they were made for different numbers of searches, and no plan is given.
    """
    paths = [Path(file) for file in files]
    parts = [read_events(path)[:2] for path in paths]
    first = parts[0][0]
    _check_structure(structure, first, paths[0])
    for path, (heading, _) in zip(paths, parts, strict=True):
        if conflicts := first.conflicts(heading):
            raise InputError(
                f"does not belong with {paths[0]} ({'; '.join(conflicts)}): merge files of one "
                "structure, potential, seed and settings",
                path=path,
            )
    headings = [heading for heading, _ in parts]
    plan = plan or _common_plan(headings)
    rows = sorted({row for heading in headings for row in heading.chosen})
    events = join([found for _, found in parts], paths)
    labels = aggregate(structure, events, rows, plan)
    warnings = (*_missing_shards(headings), *_unfinished(rows, plan, events), *labels.warnings)
    whole = replace(
        first, rows=format_rows(rows), searches=plan.searches, events=plan.events, shard=""
    )
    return replace(labels, warnings=warnings), whole, events


def aggregate(structure: Structure, events: Events, rows: Sequence[int], plan: Plan) -> Labels:
    """Mean barrier, standard error (sample standard deviation / √n) and count for each atom.

    Args:
        structure: of the events.
        events: [searches], sorted by atom and attempt.
        rows: the atoms that were to be labelled.
        plan: which of the searches count.
    """
    chosen = used(events[np.isin(events["atom"], rows)], plan)
    found = chosen[chosen["status"] == FOUND]
    n, atom = len(structure), found["atom"]
    count = np.bincount(atom, minlength=n)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(atom, found["barrier"], n) / count
        square = np.bincount(atom, (found["barrier"] - mean[atom]) ** 2, n)
        stderr = np.where(count > 1, np.sqrt(square / (count - 1) / count), NAN)
    labelled = structure.with_column(BARRIER, torch.from_numpy(mean), "eV")
    labelled = labelled.with_column(BARRIER_STDERR, torch.from_numpy(stderr), "eV")
    labelled = labelled.with_column(EVENTS, torch.from_numpy(count))
    empty = tuple(int(structure.ids[row]) for row in rows if count[row] == 0)
    calls = sum(chosen[name].sum() for name in ("calls_leave", "calls_climb", "calls_refine"))
    return Labels(
        labelled,
        tuple(rows),
        dict(Counter(chosen["status"].tolist()).most_common()),
        float(calls) / len(chosen) if len(chosen) else NAN,
        empty,
        _warn_unlabelled(empty, plan),
    )


def _heading(
    structure: Structure,
    potential: Potential,
    settings: ArtnSettings,
    rows: Sequence[int],
    plan: Plan,
    seed: int,
    shard: str | None,
) -> Heading:
    return Heading(
        structure=structure_hash(structure),
        potential=potential_hash(potential),
        seed=seed,
        settings=asdict(settings),
        atoms=len(structure),
        rows=format_rows(rows),
        searches=plan.searches,
        events=plan.events,
        shard=shard or "",
        name=structure.name,
        potential_name=potential.name,
    )


def _begin(writer: EventFile, resume: bool, overwrite: bool) -> Events | None:
    """The searches made before; the file is made ready for more."""
    path = writer.path
    if resume and path.exists():
        heading, events, lines = read_events(path)
        if conflicts := heading.conflicts(writer.heading):
            raise InputError(
                f"holds searches made otherwise ({'; '.join(conflicts)}): resume with what it "
                "was begun with, or begin again with --overwrite",
                path=path,
            )
        rows = sorted({*heading.chosen, *writer.heading.chosen})
        writer.heading = replace(writer.heading, rows=format_rows(rows), version=heading.version)
        writer.resume(lines)
        return events
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists: go on with it by --resume, or begin again by --overwrite")
    refuse_existing(path, overwrite)
    return None


def _check_structure(structure: Structure, heading: Heading, path: Path) -> None:
    if structure_hash(structure) != heading.structure:
        raise InputError(
            f"holds searches in another structure ({heading.name or 'unnamed'}, {heading.atoms} "
            f"atoms) than {structure.name or 'the one given'}, {len(structure)} atoms: give the "
            "file that was labelled",
            path=path,
        )


def _common_plan(headings: Sequence[Heading]) -> Plan:
    plans = {Plan(heading.searches, heading.events) for heading in headings}
    if len(plans) > 1:
        told = " and ".join(sorted(map(str, plans)))
        raise UsageError(f"the files were made with {told}: say which to use")
    return plans.pop()


def _missing_shards(headings: Sequence[Heading]) -> list[str]:
    shards = [parse_shard(heading.shard) for heading in headings if heading.shard]
    for shares in sorted({n for _, n in shards}):
        there = {i for i, n in shards if n == shares}
        missing = [f"{i}/{shares}" for i in range(1, shares + 1) if i not in there]
        if missing:
            return [f"not among the files: shard {', '.join(missing)}"]
    return []


def _unfinished(rows: Sequence[int], plan: Plan, events: Events) -> list[str]:
    count = len(Schedule(rows, plan, events).unfinished)
    if not count:
        return []
    return [
        f"{count} of {len(rows)} atoms have fewer searches than asked for: finish their shards "
        "with mgsym label --resume, then merge again"
    ]


def _absent(count: int, path: Path | None) -> list[str]:
    if not count:
        return []
    return [
        f"{count} saddle{'s' * (count > 1)} of earlier searches, which were made without "
        f"--save-saddles, are not in {path}"
    ]


def _warn_unlabelled(ids: Sequence[int], plan: Plan) -> tuple[str, ...]:
    if not ids:
        return ()
    names = ", ".join(map(str, ids[:SHOWN])) + (", …" if len(ids) > SHOWN else "")
    atoms = f"{len(ids)} atom{'s' * (len(ids) > 1)}"
    return (
        f"{atoms} without a successful search and so without a label (id {names}): go on with "
        f"--resume --searches {2 * plan.searches}",
    )
