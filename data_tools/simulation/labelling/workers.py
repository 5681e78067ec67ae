"""Run a schedule of searches here or in several processes; events come as they finish."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeAlias

from mgsym.data_tools.simulation.labelling.event_files import EventFile
from mgsym.data_tools.simulation.labelling.saddle_files import SaddleFile
from mgsym.data_tools.simulation.labelling.schedule import Schedule
from mgsym.data_tools.simulation.potentials.evaluation import Potential
from mgsym.data_tools.simulation.saddle_search.events import Event
from mgsym.errors import Interrupted, MgsymError
from mgsym.structure import Structure
from mgsym.utils.devices import one_thread
from mgsym.utils.progress import Progress
from mgsym.utils.workers import in_processes

# run_searches(structure, potential, searches, settings, *, seed, slots, device, compile, saddles)
Engine = Callable[..., Iterable[Event]]
LOST = "take fewer --jobs or --slots and go on with --resume; no finished search is lost"
MANY = 60  # searches from which on compiling for a GPU pays


@dataclass(frozen=True)
class Task:
    """What every process works on.

    Attributes:
        engine: a function that a new process can import by its name.
        structure: at a minimum of the potential.
        potential: EAM, or a calculator of ASE.
        settings: of the search, whatever the engine takes.
        seed: of the run.
        slots: searches that advance together in each process.
        device: where to compute.
        saddles: whether events are to bring their saddles.
    """

    engine: Engine
    structure: Structure
    potential: Potential
    settings: Any
    seed: int
    slots: int
    device: str
    saddles: bool = False

    def __getstate__(self) -> dict[str, Any]:
        """For another process: the atoms as plain fields, since frozen columns do not pickle."""
        atoms = {f.name: getattr(self.structure, f.name) for f in fields(Structure)}
        del atoms["columns"]
        return {**self.__dict__, "structure": atoms}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, structure=Structure(**state["structure"]))

    def events(self, schedule: Schedule) -> Iterator[Event]:
        """Make all searches of a schedule, which hears of each as it finishes.

        With one thread: steps are so short that a second one only waits for the first.
        """
        while schedule.unfinished:
            before = schedule.recorded
            left = schedule.total - schedule.done
            found = self.engine(
                self.structure,
                self.potential,
                schedule.searches(),
                self.settings,
                seed=self.seed,
                slots=min(self.slots, max(1, left)),
                device=self.device,
                compile=self.device == "cpu" or left >= MANY,
                saddles=self.saddles,
            )
            with one_thread():
                for event in found:
                    schedule.record(event)
                    yield event
            if schedule.recorded == before:
                raise MgsymError("the search engine ended without an event (a bug)")


Piece: TypeAlias = tuple[Task, Schedule]
_Part: TypeAlias = tuple[int, Task, Schedule]  # of a piece, with its place


def run(pieces: Sequence[Piece], jobs: int = 1) -> Generator[tuple[int, Event | None], None, None]:
    """Make all searches of one schedule, or of several, such as those in different structures.

    Args:
        pieces: what to search in and how, each with the schedule that hears of its searches.
        jobs: processes, each of one thread and with its share of the atoms of every schedule; 1
            stays in this one.

    Yields:
        each finished search with the place of its piece; (0, None) now and then while nothing
        finishes.

    Raises:
        MgsymError: a process died; whatever a search raises comes through too.
    """
    if jobs == 1:
        for place, (task, schedule) in enumerate(pieces):
            yield from ((place, event) for event in task.events(schedule))
        return
    shares: list[list[_Part]] = [[] for _ in range(jobs)]
    for place, (task, schedule) in enumerate(pieces):
        for i in range(jobs):
            part = schedule.part(i, jobs)
            if part.unfinished:  # turned by the place, as schedules may have one atom each
                shares[(place + i) % jobs].append((place, task, part))
    for message in in_processes(_search, [share for share in shares if share], lost=LOST):
        if message is not None:
            place, event = message
            pieces[place][1].record(event)
        yield message or (0, None)


def _search(
    parts: Sequence[_Part], send: Callable[[tuple[int, Event]], None], stopped: Callable[[], bool]
) -> None:
    """What a process does. It is ended, not stopped: every finished search has been sent."""
    for place, task, schedule in parts:
        for event in task.events(schedule):
            send((place, event))


class SearchTarget(NamedTuple):
    """What to search in, which searches are to be made, and where they and saddles are written."""

    task: Task
    schedule: Schedule
    writer: EventFile
    saddles: SaddleFile | None = None


def search_targets(
    targets: Sequence[SearchTarget],
    jobs: int = 1,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> None:
    """Make the searches of all targets.

    Args:
        targets: at least one; all have the same plan.
        jobs: processes.
        progress: called with searches (or events, where the plan counts them) done and to do.
        should_stop: asked after every search.

    Raises:
        Interrupted: `should_stop` said so; the message tells how to go on.
    """
    total = sum(target.schedule.total for target in targets)
    before, found, recorded = _done(targets), 0, 0
    if progress is not None:
        progress(0, total - before)
    pieces = [(target.task, target.schedule) for target in targets]
    with closing(run(pieces, jobs)) as events:
        for place, event in events:
            if event is not None:
                _write(targets[place], event)
                found += event.found
                recorded += 1
                if progress is not None:
                    share = f"{100 * found / recorded:.0f} %"
                    progress(_done(targets) - before, total - before, success=share)
            if should_stop is not None and should_stop() and _unfinished(targets):
                what = "events" if targets[0].schedule.plan.events else "searches"
                raise Interrupted(
                    f"stopped with {_done(targets)} of {total} {what}, all in {_place(targets)}: "
                    "the same command with --resume goes on"
                )


def _write(target: SearchTarget, event: Event) -> None:
    """The saddle first: one without its event is dropped when the run is resumed."""
    if target.saddles is not None:
        target.saddles.append(event)
    target.writer.append(event)


def _done(targets: Sequence[SearchTarget]) -> int:
    return sum(target.schedule.done for target in targets)


def _unfinished(targets: Sequence[SearchTarget]) -> bool:
    return any(target.schedule.unfinished for target in targets)


def _place(targets: Sequence[SearchTarget]) -> str:
    """The file, or the folder of several."""
    path = targets[0].writer.path
    return str(path if len(targets) == 1 else path.parent)
