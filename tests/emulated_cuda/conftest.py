"""The emulated device as a fixture."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from emulated_cuda import EmulatedCuda


@pytest.fixture
def cuda() -> Iterator[EmulatedCuda]:
    """An emulated CUDA device, entered; skips with the reason where there can be none."""
    import emulated_cuda

    try:
        emulated_cuda.hooks()
    except emulated_cuda.Unavailable as reason:
        pytest.skip(str(reason))
    with emulated_cuda.EmulatedCuda() as device:
        yield device
