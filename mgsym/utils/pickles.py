"""What a pickle would do, told from its instructions before any of them is carried out.

A pickle is a program for a stack machine (Python's `pickletools` documents it). Files of arrays,
numbers and text need few of its instructions. The rest is refused here, and so is what makes a
small file take much memory, or nest so deeply that the interpreter's own stack runs out.
"""

from __future__ import annotations

import pickletools
from collections.abc import Collection

MOST_INSTRUCTIONS = 1 << 20
MOST_TUPLES = 50_000  # hashing tuples that are nested some 100,000 deep ends the interpreter

# what containers of arrays, numbers and text are made of
PLAIN = frozenset(
    {
        "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "NONE", "NEWTRUE", "NEWFALSE",
        "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "SHORT_BINUNICODE",
        "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8",
        "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "LIST", "APPEND", "APPENDS",
        "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "PUT", "BINPUT", "LONG_BINPUT",
        "MEMOIZE", "GET", "BINGET", "LONG_BINGET", "GLOBAL", "REDUCE", "BUILD", "INT", "LONG",
        "FLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE",
    }
)  # fmt: skip


def names_asked_for(
    content: bytes, more: Collection[str] = (), most: int = MOST_INSTRUCTIONS
) -> set[str]:
    """The functions and classes that the GLOBAL instructions of a pickle name: ``module.name``.

    Args:
        content: the pickle.
        more: instructions that it may have beside `PLAIN`.
        most: instructions that it may have at most.

    Raises:
        ValueError: it is damaged, or does what data have no need of.
    """
    names: set[str] = set()
    count = tuples = 0
    for opcode, argument, place in pickletools.genops(content):
        name, count = opcode.name, count + 1
        tuples += name.startswith("TUPLE")
        if name not in PLAIN and name not in more:
            raise ValueError(f"{name} at byte {place} is no instruction that data need")
        # what is kept lies in a table as long as the highest number
        if name.endswith("PUT") and isinstance(argument, int) and argument > most:
            raise ValueError(f"it keeps something under the number {argument}")
        if count > most or tuples > MOST_TUPLES:
            raise ValueError(f"it has more than {most} instructions, or {MOST_TUPLES} for tuples")
        if name == "GLOBAL":
            names.add(str(argument).replace(" ", "."))
    return names
