"""Which atoms of a structure are meant: by rows, by ids, at random, one share of several."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from mgsym.errors import UsageError
from mgsym.structure import Structure


def parse_rows(text: str, count: int, seed: int = 0) -> list[int]:
    """``0:100``, ``::2``, ``1,5,9``, ``random:100`` or ``all`` as rows in ascending order.

    Args:
        text: what is meant; rows count from 0, a negative one from the end.
        count: atoms of the structure.
        seed: of the random choice; with one seed, 100 atoms are among the 200.

    Raises:
        UsageError: it is none of these, or a row is not there.
    """
    if text == "all":
        return list(range(count))
    if number := re.fullmatch(r"random:(\d+)", text):
        return _random(int(number[1]), count, seed)
    rows: set[int] = set()
    for part in text.split(","):
        rows.update(_part(part.strip(), count))
    if not rows:
        raise UsageError(f"atoms {text!r} chooses none of the {count} atoms")
    return sorted(rows)


def rows_of_ids(text: str, structure: Structure) -> list[int]:
    """``1,5,9`` or ``1:100`` (which has the id 100 too) as rows in ascending order.

    Raises:
        UsageError: it is neither, or there is no atom with an id.
    """
    row_of = {atom: row for row, atom in enumerate(structure.ids.tolist())}
    rows: set[int] = set()
    for part in text.split(","):
        first, colon, last = part.strip().partition(":")
        if not (first.isdecimal() and (last.isdecimal() or not colon)):
            raise UsageError(f"ids {text!r}: {part!r} is no id, expected such as 1,5,9 or 1:100")
        ids = range(int(first), int(last or first) + 1)
        if not colon and ids[0] not in row_of:
            raise UsageError(f"ids {text!r}: there is no atom with id {first}")
        rows.update(row for atom, row in row_of.items() if atom in ids)
    if not rows:
        raise UsageError(f"ids {text!r} chooses none of the {len(structure)} atoms")
    return sorted(rows)


def format_rows(rows: Sequence[int]) -> str:
    """Ascending rows as a short text that `parse_rows` reads."""
    if len(rows) > 1:
        spread = range(rows[0], rows[-1] + 1, rows[1] - rows[0])
        if len(spread) == len(rows) and list(spread) == list(rows):
            step = f":{spread.step}" if spread.step > 1 else ""
            return f"{rows[0]}:{rows[-1] + 1}{step}"
    return ",".join(map(str, rows))


def parse_shard(text: str) -> tuple[int, int]:
    """``2/8``, the second of eight shares, as (2, 8).

    Raises:
        UsageError: it is not of this form, or there is no such share.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if match and 1 <= int(match[1]) <= int(match[2]):
        return int(match[1]), int(match[2])
    raise UsageError(f"shard {text!r}: expected i/n with i from 1 to n, such as 2/8")


def _random(wanted: int, count: int, seed: int) -> list[int]:
    if not 1 <= wanted <= count:
        raise UsageError(f"random:{wanted} atoms, expected 1 to {count} of this structure")
    generator = torch.Generator().manual_seed(seed)
    return sorted(torch.randperm(count, generator=generator)[:wanted].tolist())


def _part(part: str, count: int) -> Sequence[int]:
    if re.fullmatch(r"-?\d+", part):
        row = int(part)
        if not -count <= row < count:
            raise UsageError(f"there is no atom {row}: rows run from 0 to {count - 1}")
        return [row % count]
    if re.fullmatch(r"(-?\d+)?:(-?\d+)?(:[1-9]\d*)?", part):
        return range(count)[slice(*(int(x) if x else None for x in part.split(":")))]
    raise UsageError(f"atoms {part!r}: expected rows such as 0:100 or 1,5,9, random:100 or all")
