"""Run a schedule of searches here or in several processes; events come as they finish."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, TypeAlias

import torch

from mgsym.data_tools.simulation.labelling.event_files import EventFile
from mgsym.data_tools.simulation.labelling.saddle_files import SaddleFile
from mgsym.data_tools.simulation.labelling.schedule import Schedule
from mgsym.data_tools.simulation.potentials.evaluation import Potential
from mgsym.data_tools.simulation.saddle_search.events import Event
from mgsym.errors import Interrupted, MgsymError
from mgsym.structure import Structure
from mgsym.utils.progress import Progress

# run_searches(structure, potential, searches, settings, *, seed, slots, device, compile, saddles)
Engine = Callable[..., Iterable[Event]]
HEARTBEAT = 0.5  # s between looks at whether to stop
MANY = 60  # searches in one process from which on compiling pays


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
        """Make all searches of a schedule, which hears of each as it finishes."""
        while schedule.unfinished:
            before = schedule.recorded
            left = schedule.total - schedule.done
            for event in self.engine(
                self.structure,
                self.potential,
                schedule.searches(),
                self.settings,
                seed=self.seed,
                slots=min(self.slots, max(1, left)),
                device=self.device,
                compile=left >= MANY,
                saddles=self.saddles,
            ):
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
    schedules = [schedule for _, schedule in pieces]
    workers = [_Worker(share) for share in shares if share]
    try:
        with _interrupts_waiting():  # they are for the parent to hear, which ends the workers
            for worker in workers:
                worker.start()
        yield from _collect(workers, schedules)
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """A process, and the pipe on which its events come."""

    def __init__(self, parts: Sequence[_Part]) -> None:
        context = multiprocessing.get_context("spawn")  # threads and CUDA do not survive a fork
        self.pipe, self._far = context.Pipe(duplex=False)
        given = (parts, self._far)
        self.process: BaseProcess = context.Process(target=_work, args=given, daemon=True)

    def start(self) -> None:
        self.process.start()
        self._far.close()  # so that the pipe ends when the process does

    def end(self) -> None:
        if self.process.pid is not None:
            self.process.kill()
            self.process.join()
        self.pipe.close()


def _collect(
    workers: list[_Worker], schedules: Sequence[Schedule]
) -> Iterator[tuple[int, Event | None]]:
    by_pipe = {worker.pipe: worker for worker in workers}
    while by_pipe:
        for pipe in wait(list(by_pipe), HEARTBEAT):
            worker = by_pipe[pipe]  # type: ignore[index]
            message = _receive(worker)
            if message is None:
                del by_pipe[worker.pipe]
            elif isinstance(message, Exception):
                raise message
            else:
                place, event = message
                schedules[place].record(event)
                yield place, event
        yield 0, None


def _receive(worker: _Worker) -> tuple[int, Event] | Exception | None:
    """An event and its place, what a worker raised, or None when it is done."""
    try:
        message: tuple[int, Event] | Exception | None = worker.pipe.recv()
        return message
    except (EOFError, OSError):
        worker.process.join()
        return MgsymError(
            f"a worker process died (exit code {worker.process.exitcode}; -9 is often a lack of "
            "memory): take fewer --jobs or --slots and go on with --resume; no finished search "
            "is lost"
        )


def _work(parts: Sequence[_Part], pipe: Connection) -> None:
    """What a worker does: send each event, then None; or what went wrong."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    try:
        for place, task, schedule in parts:
            for event in task.events(schedule):
                pipe.send((place, event))
        pipe.send(None)
    except BrokenPipeError:
        pass  # the parent is gone
    except Exception as error:
        pipe.send(error)
    finally:
        pipe.close()


@contextmanager
def _interrupts_waiting() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait; processes started meanwhile, which inherit that, never hear them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    from multiprocessing import resource_tracker  # where there are signals to block

    resource_tracker.ensure_running()  # its start, with the first worker, would let them through
    numbers = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
