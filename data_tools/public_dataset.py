"""The public Cu64Zr36 dataset of the SymGNN paper: which files it has, and getting them.

Files were told apart by comparing their atoms: train0 and train1 are one glass labelled twice,
train4, train5 and train6 descend from one melt, the others stand alone. A split goes by glass,
never by file. The files carry no such key, so each is known by its SHA-256.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

URL = "https://github.com/haoyuli02/SymGNN/raw/main/datasets/raw_data"


@dataclass(frozen=True)
class PublicFile:
    """One file of the dataset.

    Attributes:
        name: file name.
        sha256: of its bytes, in hexadecimal.
        glass: the independent glass it shows.
        split: what it is used for by default: train, validation or test.
    """

    name: str
    sha256: str
    glass: str
    split: str


FILES = (
    PublicFile(
        "train0.pickle",
        "17e71d9599ea0efc0a30470a492d85b0cfcb301060cb7762dff0127b8ee214ac",
        "glass_0_1",
        "train",
    ),
    PublicFile(
        "train1.pickle",
        "c9feb236ca670b16269d493ac1a78ee7940bb1b309f8ab3cb093d3e68fdfaddb",
        "glass_0_1",
        "train",
    ),
    PublicFile(
        "train2.pickle",
        "8b80667c6fbc7365c834a6d10e252dfcb24601ab975be6e83883cf8abccdce87",
        "glass_2",
        "train",
    ),
    PublicFile(
        "train3.pickle",
        "733dbee48fe37b0c8ddcc1918e342bf34ade80d3d5fffd8c51a5218cf622d019",
        "glass_3",
        "validation",
    ),
    PublicFile(
        "train4.pickle",
        "9517cb1de08afc103001f37151a95f33e18032063eba72ae9935c9f8fc41d1f6",
        "glass_4_5_6",
        "train",
    ),
    PublicFile(
        "train5.pickle",
        "f2d3f706fa01209ecb3d54a48a564418a340a70eaf5b1a956f4838a1ce0f3986",
        "glass_4_5_6",
        "train",
    ),
    PublicFile(
        "train6.pickle",
        "bfd476cbcce8e8bf83990b42e94d1d771249d5f417f9798eeb0152f6b11c3b8f",
        "glass_4_5_6",
        "train",
    ),
    PublicFile(
        "test0.pickle",
        "0828b3128532ff6e4e2bcf2fb4cb1976258d327fd68a5f43910390baf2dc45f0",
        "glass_test0",
        "test",
    ),
    PublicFile(
        "test1.pickle",
        "e7a0b757fda235617e9565dac4e3f60575a03dbca548a709ce72b451cb0443d5",
        "glass_test1",
        "test",
    ),
)


def sha256(content: bytes | Path) -> str:
    """SHA-256 of bytes, or of a file's bytes, in hexadecimal."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def identify(content: bytes | Path) -> PublicFile | None:
    """Which file of the dataset these bytes (or this file's) are, or None."""
    digest = sha256(content)
    return next((file for file in FILES if file.sha256 == digest), None)
