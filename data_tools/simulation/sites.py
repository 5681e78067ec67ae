"""Searches in one structure or many, each written to its structure's file as it finishes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import NamedTuple, Protocol

from mgsym.data_tools.simulation.event_files import EventFile
from mgsym.data_tools.simulation.schedule import Schedule
from mgsym.data_tools.simulation.search_workers import Task, run
from mgsym.errors import Interrupted


class Progress(Protocol):
    """Called with what is done and what there is to do, and more by name."""

    def __call__(self, done: float, total: float | None = None, **info: object) -> None: ...


class Site(NamedTuple):
    """What to search in, which searches are to be made, and where they are written."""

    task: Task
    schedule: Schedule
    writer: EventFile


def search_sites(
    sites: Sequence[Site],
    jobs: int = 1,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> None:
    """Make the searches of all sites.

    Args:
        sites: at least one; all have the same plan.
        jobs: processes.
        progress: called with searches (or events, where the plan counts them) done and to do.
        should_stop: asked after every search.

    Raises:
        Interrupted: `should_stop` said so; the message tells how to go on.
    """
    total = sum(site.schedule.total for site in sites)
    before, found, recorded = _done(sites), 0, 0
    if progress is not None:
        progress(0, total - before)
    pieces = [(site.task, site.schedule) for site in sites]
    with closing(run(pieces, jobs)) as events:
        for place, event in events:
            if event is not None:
                sites[place].writer.append(event)
                found += event.found
                recorded += 1
                if progress is not None:
                    share = f"{100 * found / recorded:.0f} %"
                    progress(_done(sites) - before, total - before, success=share)
            if should_stop is not None and should_stop() and _unfinished(sites):
                what = "events" if sites[0].schedule.plan.events else "searches"
                raise Interrupted(
                    f"stopped with {_done(sites)} of {total} {what}, all in {_place(sites)}: the "
                    "same command with --resume goes on"
                )


def _done(sites: Sequence[Site]) -> int:
    return sum(site.schedule.done for site in sites)


def _unfinished(sites: Sequence[Site]) -> bool:
    return any(site.schedule.unfinished for site in sites)


def _place(sites: Sequence[Site]) -> str:
    """The file, or the folder of several."""
    path = sites[0].writer.path
    return str(path if len(sites) == 1 else path.parent)
