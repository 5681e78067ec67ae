"""What many tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def public_data() -> Path:
    """The folder of the public dataset (train0.pickle …); tests skip where there is none."""
    candidates = [
        os.environ.get("MGSYM_DATA", ""),
        str(REPOSITORY.parent / "shared" / "data" / "cu64zr36"),
    ]
    for candidate in candidates:
        for folder in (Path(candidate), Path(candidate) / "cu64zr36"):
            if candidate and (folder / "train0.pickle").exists():
                return folder
    pytest.skip("the public dataset is not here: run mgsym fetch and set MGSYM_DATA to its folder")
