"""From structure files to labelled structure files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mgsym.data_tools.formats import file_stem, output_format, read_frames, write
from mgsym.data_tools.formats.species import warn_unused_types
from mgsym.data_tools.sample import sample_structures
from mgsym.data_tools.simulation.labelling.barriers import Labels, SearchRun, label, merge
from mgsym.data_tools.simulation.labelling.event_files import event_lines, write_events
from mgsym.data_tools.simulation.labelling.saddle_files import join_saddles
from mgsym.data_tools.simulation.labelling.schedule import Plan
from mgsym.data_tools.simulation.labelling.selection import parse_rows, parse_shard, rows_of_ids
from mgsym.data_tools.simulation.optimizers.relax import relax
from mgsym.data_tools.simulation.potentials.ase_calculator import ASEPotential
from mgsym.data_tools.simulation.potentials.evaluation import Potential
from mgsym.data_tools.simulation.saddle_search.settings import ArtnSettings
from mgsym.data_tools.workflows.posterior import rows_to_label
from mgsym.errors import UsageError
from mgsym.structure import Structure
from mgsym.utils.devices import device_for_jobs
from mgsym.utils.files import refuse_existing
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
    place = device_for_jobs(run.device, run.jobs)
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
    found = label(
        structure, potential, path, settings, rows=rows, plan=plan, saddles=saddles, run=run
    )
    if run.shard is not None:
        return Labelled(found, (path, *more))
    write(found.structure, out, overwrite=True)
    return Labelled(found, (out, path, *more))


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
    name = Path(events).name
    beside = Path(events).with_name(name.removesuffix(EVENTS_SUFFIX) + SADDLES)
    return beside if name.endswith(EVENTS_SUFFIX) and beside.exists() else None


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
