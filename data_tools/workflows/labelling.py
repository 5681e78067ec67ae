"""From structure files to labelled structure files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mgsym.data_tools.formats import file_stem, output_format, read_frames, write
from mgsym.data_tools.formats.species import warn_unused_types
from mgsym.data_tools.sample import sample_structures
from mgsym.data_tools.simulation.labelling.barriers import Labels, SearchRun, label, merge
from mgsym.data_tools.simulation.labelling.event_files import (
    event_lines,
    read_events,
    write_events,
)
from mgsym.data_tools.simulation.labelling.saddle_files import join_saddles
from mgsym.data_tools.simulation.labelling.schedule import Plan
from mgsym.data_tools.simulation.labelling.selection import (
    format_rows,
    parse_rows,
    parse_shard,
    rows_of_ids,
)
from mgsym.data_tools.simulation.optimizers.relax import relax
from mgsym.data_tools.simulation.potentials.ase_calculator import ASEPotential
from mgsym.data_tools.simulation.potentials.evaluation import Potential
from mgsym.data_tools.simulation.saddle_search.settings import ArtnSettings
from mgsym.data_tools.workflows.posterior import rows_to_label
from mgsym.errors import UsageError
from mgsym.structure import Structure
from mgsym.utils import processes
from mgsym.utils.devices import device_for_jobs
from mgsym.utils.files import lock_output, refuse_existing
from mgsym.utils.settings import changed_settings

EVENTS_SUFFIX, SADDLES = ".events.csv", ".saddles.xyz"
DEMONSTRATION = "sample-labelled.xyz"
FEW_ATOMS, FEW_SEARCHES, SMALL_RADIUS = "0:4", 4, 9.5
CHOSEN = 500  # atoms, where a run chooses


@dataclass(frozen=True, eq=False)
class Labelled:
    """What came out and where it is.

    Attributes:
        labels: the result.
        paths: the files written.
    """

    labels: Labels
    paths: tuple[Path, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON; energies in eV."""
        return {**self.labels.to_dict(), "files": self.paths}


def artn_settings(changes: Iterable[str] = (), radius: float | None = None) -> ArtnSettings:
    """The settings of the search from texts such as ``artn.radius=9.5``.

    Args:
        changes: settings by dotted name, each as a text.
        radius: of the active region, Å; the same as ``artn.radius``.

    Raises:
        UsageError: no such setting, or a value of the wrong type or range.
    """
    given = [*changes, *([] if radius is None else [f"artn.radius={radius}"])]
    changed: ArtnSettings = changed_settings(ArtnSettings(), "artn", given)
    return changed


def label_file(
    file: str | Path | None,
    potential: Potential,
    out: str | Path | None = None,
    settings: ArtnSettings | None = None,
    *,
    atoms: str | None = None,
    ids: str | None = None,
    choose: str | Path | None = None,
    count: int = CHOSEN,
    searches: int | None = None,
    events: int | None = None,
    types: Mapping[int, str] | None = None,
    frames: str | None = None,
    save_saddles: bool = False,
    run: SearchRun | None = None,
) -> Labelled:
    """Label the atoms of a structure file and write them beside the file of their searches.

    Where torchrun started several processes, each searches from its share of the atoms, and the
    first joins what they found. While they run, each has a file of its own,
    ``<out without suffix>.process1of2.events.csv``; what a killed run left there, resuming takes
    up, with any number of processes.

    Args:
        file: a structure at a minimum of the potential; None demonstrates it on a few atoms of
            the sample's test glass, which is relaxed first.
        potential: EAM, or a calculator of ASE.
        out: the labelled structure, its suffix choosing the format; default:
            ``<file>-labelled.xyz``. The searches go to ``<out without suffix>.events.csv``, or
            ``<out without suffix>.2of8.events.csv`` for a shard, which writes nothing else.
        settings: of the search.
        atoms: which rows, as `selection.parse_rows` reads them; default: all.
        ids: which ids, as `selection.rows_of_ids` reads them.
        choose: a run; of the atoms that the file has no label for, those that it is least certain
            of are searched from.
        count: how many of these.
        searches: most attempts of an atom; default: 20, or 10 for each of `events`.
        events: successes at which an atom is done.
        types, frames: as `formats.read_frames` takes them.
        save_saddles: also write the saddles, to ``<out without suffix>.saddles.xyz``.
        run: how it goes. Where it resumes, an older `out` is replaced; its device may be ``auto``,
            which means the CPU with several jobs.

    Raises:
        UsageError: an output exists, an option makes no sense.
        InputError: a file is wrong, the structure not at a minimum or too small.
        Interrupted: the work was stopped; the message tells how to go on.
    """
    if sum(chosen is not None for chosen in (atoms, ids, choose)) > 1:
        raise UsageError("--atoms, --ids and --choose all choose atoms: give one of them")
    run = run or SearchRun()
    if processes.count() > 1 and run.shard is not None:
        raise UsageError("--shard is for runs without a launcher: its processes share the atoms")
    place = device_for_jobs(processes.own_device(run.device), run.jobs)
    settings = settings or artn_settings()
    if file is None:
        warn_unused_types(types, "the sample's test glass")
        structure, stem = _demonstration(potential), "sample"
        atoms = atoms if atoms or ids or choose else FEW_ATOMS
        searches = searches or (None if events else FEW_SEARCHES)
    else:
        structure, stem = _read_one(file, types, frames), file_stem(Path(file))
    plan = Plan.of(searches, events)
    if choose is not None:
        eam = (
            None if isinstance(potential, ASEPotential) else potential
        )  # a model's inputs need one
        rows = rows_to_label(structure, choose, count, plan.searches, eam, place)
    elif ids is not None:
        rows = rows_of_ids(ids, structure)
    else:
        rows = parse_rows(atoms or "all", len(structure), run.seed)
    out = Path(out or f"{stem}-labelled.xyz")
    if run.shard is None:
        output_format(out)
        refuse_existing(out, run.overwrite or run.resume)
    path, run = events_path(out, run.shard), replace(run, device=str(place))
    saddles = saddles_path(out, run.shard) if save_saddles else None
    more = (saddles,) if saddles is not None else ()
    request = _Request(structure, potential, settings, rows, plan)
    if processes.count() > 1:
        found = request.shared(path, saddles, run)
        if processes.rank() > 0:
            return Labelled(found, ())
    else:
        if run.shard is None:
            with lock_output(path):
                _take_up_shares(structure, path, saddles, run)
        found = request.label(path, saddles, run)
    if run.shard is not None:
        return Labelled(found, (path, *more))
    write(found.structure, out, overwrite=True)
    return Labelled(found, (out, path, *more))


@dataclass(frozen=True, eq=False)
class _Request:
    """What to label: rows of a structure, in a potential, by so many searches."""

    structure: Structure
    potential: Potential
    settings: ArtnSettings
    rows: list[int]
    plan: Plan

    def label(self, path: Path, saddles: Path | None, run: SearchRun) -> Labels:
        """Make the searches of a run, in this process."""
        return label(
            self.structure, self.potential, path, self.settings,
            rows=self.rows, plan=self.plan, saddles=saddles, run=run,
        )  # fmt: skip

    def shared(self, path: Path, saddles: Path | None, run: SearchRun) -> Labels:
        """Make the searches of a share in this process; in the first, the labels of all."""
        number, count = processes.rank() + 1, processes.count()
        if count > len(self.rows):
            raise UsageError(
                f"{count} processes, but {len(self.rows)} atoms: start {len(self.rows)} at most"
            )
        shares = [_share_path(path, i, count) for i in range(1, count + 1)]
        own = shares[number - 1]
        with processes.joined(), lock_output(path) if number == 1 else nullcontext():
            if number == 1:
                _take_up_shares(self.structure, path, saddles, run)
                self._deal(path, saddles, shares)
            processes.barrier()
            with processes.alone():
                run = replace(run, shard=f"{number}/{count}", resume=True)
                found = self.label(own, saddles and _beside(own), run)
            made = int(processes.total(torch.tensor([float(found.made)])))
            if number > 1:
                return found
            labels = _join_shares(self.structure, path, saddles, shares, self.plan)
            return replace(labels, made=made, seconds=found.seconds)

    def _deal(self, path: Path, saddles: Path | None, shares: Sequence[Path]) -> None:
        """Give each share the searches that were made before from its atoms."""
        if not path.exists():
            return
        heading, events, _ = read_events(path)
        for i, share in enumerate(shares):
            rows = self.rows[i :: len(shares)]
            own = events[np.isin(events["atom"], rows)]
            shard = f"{i + 1}/{len(shares)}"
            head = replace(heading, rows=format_rows(rows), shard=shard)
            write_events(share, head, event_lines(own))
            if saddles is not None and saddles.exists():
                join_saddles([saddles], own, _beside(share))


def _share_path(path: Path, number: int | str, count: int | str) -> Path:
    """Where one of several processes keeps the searches that go to `path` at the end."""
    stem = path.name.removesuffix(EVENTS_SUFFIX)
    return path.with_name(f"{stem}.process{number}of{count}{EVENTS_SUFFIX}")


def _beside(events: Path) -> Path:
    """Where the saddles of a file of events are."""
    return events.with_name(events.name.removesuffix(EVENTS_SUFFIX) + SADDLES)


def _take_up_shares(structure: Structure, path: Path, saddles: Path | None, run: SearchRun) -> None:
    """Join what several processes left that were stopped, where the run resumes; else refuse it.

    Raises:
        UsageError: there are such files, or `path`, and the run is neither to be resumed nor to
            overwrite them.
    """
    pattern = escape(path.name.removesuffix(EVENTS_SUFFIX))
    shares = sorted(path.parent.glob(f"{pattern}.process*of*{EVENTS_SUFFIX}"))
    if run.resume:
        if shares:
            _join_shares(structure, path, saddles, shares)
        return
    if processes.count() > 1 and saddles is not None:
        refuse_existing(saddles, run.overwrite)
    for file in (*shares, *([path] if processes.count() > 1 else [])):
        if file.exists() and not run.overwrite:
            raise UsageError(
                f"{file} exists: go on with it by --resume, or begin again by --overwrite"
            )
        for old in (file, _beside(file)):
            old.unlink(missing_ok=True)


def _join_shares(
    structure: Structure,
    path: Path,
    saddles: Path | None,
    shares: Sequence[Path],
    plan: Plan | None = None,
) -> Labels:
    """Join the searches of shares with those in `path`, and remove the shares."""
    there = [share for share in shares if share.exists()]
    files = [*([path] if path.exists() else []), *there]
    if plan is None:  # what they were made for is told by the run that takes them up
        plan = Plan(max(read_events(file)[0].searches for file in files))
    with ExitStack() as stack:
        for share in there:
            stack.enter_context(lock_output(share))
        labels, heading, events = merge(structure, files, plan)
        write_events(path, heading, event_lines(events))
        frames = [frame for frame in map(_beside, files) if frame.exists()]
        if frames:
            join_saddles(frames, events, _beside(path))
        for share in there:
            share.unlink()
            _beside(share).unlink(missing_ok=True)
    return labels


def merge_files(
    file: str | Path,
    event_files: Sequence[str | Path],
    out: str | Path,
    searches: int | None = None,
    events: int | None = None,
    types: Mapping[int, str] | None = None,
    frames: str | None = None,
    overwrite: bool = False,
) -> Labelled:
    """Join files of searches into a labelled structure and one file of all searches.

    Args:
        file: the structure that was labelled.
        event_files: of its shards, or other runs with the same seed and settings.
        out: the labelled structure; the searches go to ``<out without suffix>.events.csv``, and
            where there are files of saddles beside the event files, to ``.saddles.xyz`` likewise.
        searches, events: which searches the labels rest on; default: as they were made.
        types, frames: as `formats.read_frames` takes them.
        overwrite: replace existing files.

    Raises:
        UsageError: an output exists, or the files were made for different numbers of searches.
        InputError: the files do not belong together or to the structure.
    """
    out = Path(out)
    output_format(out)
    path, saddles = events_path(out), saddles_path(out)
    parts = [part for part in map(_saddles_beside, event_files) if part is not None]
    for target in (out, path, *([saddles] if parts else [])):
        refuse_existing(target, overwrite)
    plan = None if searches is None and events is None else Plan.of(searches, events)
    structure = _read_one(file, types, frames)
    labels, heading, found = merge(structure, event_files, plan)
    write_events(path, heading, event_lines(found))
    if parts:
        join_saddles(parts, found, saddles)
    write(labels.structure, out, overwrite=True)
    return Labelled(labels, (out, path, *([saddles] if parts else [])))


def saddles_path(out: Path, shard: str | None = None) -> Path:
    """Where the saddles behind a labelled structure are."""
    return events_path(out, shard, SADDLES)


def _saddles_beside(events: str | Path) -> Path | None:
    """The file of saddles that belongs to one of events; None where there is none."""
    beside = _beside(Path(events))
    return beside if str(events).endswith(EVENTS_SUFFIX) and beside.exists() else None


def events_path(out: Path, shard: str | None = None, suffix: str = EVENTS_SUFFIX) -> Path:
    """Where the searches behind a labelled structure are."""
    stem = file_stem(out)
    if shard is not None:
        index, shares = parse_shard(shard)
        stem += f".{index}of{shares}"
    return out.with_name(stem + suffix)


def _read_one(file: str | Path, types: Mapping[int, str] | None, frames: str | None) -> Structure:
    structures = read_frames(file, types, frames or "-1")
    if len(structures) != 1:
        raise UsageError(f"one structure is labelled at a time, --frames chose {len(structures)}")
    return structures[0]


def _demonstration(potential: Potential) -> Structure:
    """The sample's test glass at a minimum of this potential, which may not be its own."""
    (test,) = [structure for structure in sample_structures() if structure.split == "test"]
    return relax([test], potential)[0].structure
