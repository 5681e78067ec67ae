"""How long work tells how far it is, and how one part of it tells as a part of the whole."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """What long work calls as it goes.

    Called with what is done and what there is to do (None where nobody knows), in steps that the
    function that is called says, and by name with what may be shown beside (``loss=0.31``).
    """

    def __call__(self, done: float, total: float | None = None, **info: object) -> None: ...


def silent(done: float, total: float | None = None, **info: object) -> None:
    """Say nothing: the progress of work that nobody watches."""


def part(
    progress: Progress | None,
    index: float,
    count: float,
    *,
    size: float = 1,
    alike: bool = False,
    **about: object,
) -> Progress | None:
    """Make what a part of some work calls, so that it tells how far the whole is.

    Args:
        progress: of the whole; None gives None.
        index: how much of the whole is done before this part.
        count: how much there is in all.
        size: how much this part is.
        alike: whether every part has as many steps as this one; these are counted then.
        about: what to show beside what the part itself shows.
    """
    if progress is None:
        return None
    whole = progress

    def tell(done: float, total: float | None = None, **info: object) -> None:
        if alike and total:
            whole(index * total + done, count * total, **about, **info)
            return
        share = done / total if total else 0.0
        whole(round(index + size * share, 3), count, **about, **info)

    return tell
