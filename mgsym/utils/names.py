"""Names that files give: shown without what a terminal would obey, and taken as file names."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

from mgsym.errors import InputError

LONGEST = 180  # bytes; file systems allow 255, and endings and temporary names come on top
# control characters, invisible ones that turn the direction of text, halves of characters
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_SEEN = re.compile(r"[\n -~]*")


def visible(text: str) -> str:
    r"""Text in which control characters stand as escapes such as \x1b; line ends stay."""
    if _SEEN.fullmatch(text):
        return text
    return "".join(
        c if c == "\n" or unicodedata.category(c) not in _HIDDEN else _escape(c) for c in text
    )


def file_in(folder: str | Path, name: str, ending: str = "") -> Path:
    """The file in a folder that is called after a structure, or something else a file names.

    Args:
        folder: where it lies.
        name: as a file gave it.
        ending: what the file name has after it.

    Raises:
        InputError: the name leads elsewhere, or cannot be a file's.
    """
    leads_elsewhere = name.startswith(".") or bool(set(name) & set("/\\"))
    # what is hidden includes halves of characters, which no name could be made of
    if not name or leads_elsewhere or visible(name) != name or "\n" in name:
        shortened = name if len(name) <= 60 else f"{name[:57]}..."
        raise InputError(f"a structure is called {shortened!r}, which cannot be a file name")
    if len(os.fsencode(name)) > LONGEST:
        raise InputError(
            f"a structure is called {name[:40]}..., which is too long for a file name: expected "
            f"at most {LONGEST} bytes"
        )
    return Path(folder) / f"{name}{ending}"


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
