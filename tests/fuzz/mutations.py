"""Ways to damage a file: bytes, lines, numbers, words, archives and compression.

Each is a function of a random generator and the file's bytes.
"""

from __future__ import annotations

import gzip
import io
import re
import zipfile
from collections.abc import Callable, Sequence
from random import Random

import numpy as np

Mutation = Callable[[Random, bytes], bytes]

NUMBERS = (
    b"nan", b"inf", b"-inf", b"-1", b"0", b"1e400", b"1e-320", b"1e38", b"1e39", b"0x10", b"1_0",
    b"3.5", b"-0.0", b"9" * 30, b"9" * 5000, b"999999999", b"4294967296", b"9223372036854775807",
    b"9223372036854775808", b"-9223372036854775809", b"1000000000000", "١٢".encode(),
    "−1".encode(), b"", b"NaN", b"1d5", b"++1", b"1e", b"true", b"null",
)  # fmt: skip
WORDS = (
    b"", b"\x00", b"\x1b[31m", b"\x9b31m", b"../../evil", b"/tmp/evil", b".", b"..", b"a/b",
    b"a\\b", b"\xff\xfe", b"\xed\xa0\x80", b"x" * 300, b"y" * 200_000, b'"', b"'",
    b"{", b"[" * 20_000, b"{" * 20_000, b"#", b"=", b":", b"k={ " * 5000, b'"\\" ' * 5000,
    b"\r", b"\n", b"\t", b",", b"Xx",
    b"C", b"ITEM: ATOMS", "Å".encode(), "\u202e".encode(), b"$(true)", b"%s", b"{0}", b"-o",
)  # fmt: skip
_NUMBER = re.compile(rb"-?\d+(\.\d+)?([eE][-+]?\d+)?")
_WORD = re.compile(rb"[A-Za-z_][\w./-]*")


def bits(random: Random, content: bytes) -> bytes:
    """Flip a few bits."""
    damaged = bytearray(content)
    for _ in range(random.choice((1, 1, 3, 20))):
        if damaged:
            damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)
    return bytes(damaged)


def cut(random: Random, content: bytes) -> bytes:
    """End somewhere before the end."""
    return content[: random.randrange(len(content) + 1)]


def piece(random: Random, content: bytes) -> bytes:
    """Leave out, repeat or overwrite a stretch of bytes."""
    start = random.randrange(len(content) + 1)
    end = min(len(content), start + random.choice((1, 4, 40, 400)))
    middle = random.choice((b"", content[start:end] * 2, bytes(end - start), random.randbytes(9)))
    return content[:start] + middle + content[end:]


def lines(random: Random, content: bytes) -> bytes:
    """Drop, repeat, swap or empty whole lines."""
    every = content.split(b"\n")
    i, j = (random.randrange(len(every)) for _ in range(2))
    match random.randrange(4):
        case 0:
            del every[i]
        case 1:
            every.insert(j, every[i])
        case 2:
            every[i], every[j] = every[j], every[i]
        case _:
            every[i] = b""
    return b"\n".join(every)


def number(random: Random, content: bytes) -> bytes:
    """Put a nasty number in the place of one; headers, which stand first, twice as often."""
    return _replaced(random, content, _NUMBER, NUMBERS)


def word(random: Random, content: bytes) -> bytes:
    """Put a nasty word in the place of one."""
    return _replaced(random, content, _WORD, WORDS)


def insertion(random: Random, content: bytes) -> bytes:
    """Put a nasty word between two bytes of the beginning, or of the rest."""
    place = random.randrange(min(len(content), random.choice((300, len(content)))) + 1)
    return content[:place] + random.choice(WORDS) + content[place:]


def _replaced(
    random: Random, content: bytes, pattern: re.Pattern[bytes], choices: Sequence[bytes]
) -> bytes:
    found = list(pattern.finditer(content))
    if not found:
        return content
    match = random.choice(found[: random.choice((12, len(found)))])
    return content[: match.start()] + random.choice(choices) + content[match.end() :]


def several(random: Random, content: bytes) -> bytes:
    """Two to four mutations one after the other."""
    for _ in range(random.randint(2, 4)):
        content = random.choice(TEXT)(random, content)
    return content


TEXT: tuple[Mutation, ...] = (bits, cut, piece, lines, number, number, word, word, insertion)


def member(random: Random, content: bytes) -> bytes:
    """Change one member of a zip archive, so that the archive itself stays whole."""
    members = _members(content)
    name = random.choice(sorted(members))
    match random.randrange(6):
        case 0:
            del members[name]
        case 1:
            members[random.choice(sorted(members))] = members[name]
        case 2 if name.endswith(".npy"):
            members[name] = random.choice((_header, _array))(random, members[name])
        case 3 if name.endswith(".npy"):
            members[name] = _array(random, members[name])
        case _:
            members[name] = random.choice((bits, cut, piece))(random, members[name])
    return _archive(members, random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def _members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        return {name: file.read(name) for name in file.namelist()}


def _archive(members: dict[str, bytes], compression: int) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return packed.getvalue()


def _header(random: Random, data: bytes) -> bytes:
    """An .npy that claims another shape or kind than its data have."""
    shape = random.choice(((10**12,), (2**40, 2**40), (2**63,), (), (0,), (3, 0), (-1,), (5,) * 40))
    kind = random.choice(("<f8", "|O", "<U0", "|V0", ">f8", "<c16", "<U1000000", "<M8[s]", "?"))
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data[-64:]


def _array(random: Random, data: bytes) -> bytes:
    """An .npy of another kind or shape, or with a nasty value in it."""
    try:
        values = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception:
        return data
    match random.randrange(6):
        case 0:
            kinds = ("<f4", ">f8", "<i2", "<u8", "?", "<c16", "<U8", "S4")
            with np.errstate(all="ignore"):
                values = values.astype(random.choice(kinds)) if values.dtype.kind != "U" else values
        case 1:
            values = values.reshape(-1)
        case 2:
            values = values[None]
        case 3:
            values = values[: len(values) // 2] if values.ndim else np.stack([values] * 3)
        case _ if values.size and values.dtype.kind in "fiu":
            values = values.copy()
            limits = np.iinfo(values.dtype) if values.dtype.kind in "iu" else np.finfo(values.dtype)
            nasty = [-1, 0, int(limits.max), int(limits.min)]
            if values.dtype.kind == "f":
                nasty += [np.nan, np.inf, -np.inf]
            if values.dtype.kind == "u":
                nasty = nasty[1:]
            values.reshape(-1)[random.randrange(values.size)] = random.choice(nasty)
        case _ if values.dtype.kind == "U":
            texts = ("", "\x00", "../../evil", "\x1b[31m", "\ud800", "Xx", "x" * 300)
            values = np.full(values.shape, random.choice(texts))
        case _:
            pass
    packed = io.BytesIO()
    np.save(packed, values)
    return packed.getvalue()


ARCHIVE: tuple[Mutation, ...] = (bits, cut, piece, member, member, member)


def zipped(mutation: Mutation) -> Mutation:
    """The mutation, and the file compressed after it; now and then the stream is damaged too."""

    def mutate(random: Random, content: bytes) -> bytes:
        packed = gzip.compress(mutation(random, content), 1, mtime=0)
        match random.randrange(6):
            case 0:
                return random.choice((bits, cut, piece))(random, packed)
            case 1:  # much from little
                return packed + gzip.compress(bytes(30_000_000), 9)
        return packed

    return mutate
