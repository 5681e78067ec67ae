"""Parts of work tell how far the whole is."""

from __future__ import annotations

from mgsym.utils.progress import part, silent


def test_a_part_tells_how_far_the_whole_is() -> None:
    told: list[tuple[float, float | None, dict[str, object]]] = []

    def whole(done: float, total: float | None = None, **info: object) -> None:
        told.append((done, total, info))

    third = part(whole, 2, 4, seed=7)
    assert third is not None
    third(1, 4, loss=0.5)
    third(4, 4)
    third(10)  # of nobody knows how much
    inner = part(third, 1, 2)  # the second half of the third of four
    assert inner is not None
    inner(1, 2)
    pair = part(whole, 1, 4, size=2)
    assert pair is not None
    pair(1, 2)
    second = part(whole, 1, 3, alike=True)
    assert second is not None
    second(4, 5)
    assert told == [
        (2.25, 4, {"seed": 7, "loss": 0.5}),
        (3.0, 4, {"seed": 7}),
        (2.0, 4, {"seed": 7}),
        (2.75, 4, {"seed": 7}),
        (2.0, 4, {}),
        (9, 15, {}),
    ]


def test_nobody_watches() -> None:
    assert part(None, 0, 1) is None
    silent(1, 2, loss=0.5)
