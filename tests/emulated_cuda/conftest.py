"""The emulated device as a fixture."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from mgsym.graph import Graph, build_graph
from mgsym.structure import Structure

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


@pytest.fixture
def gpu(request: pytest.FixtureRequest) -> EmulatedCuda | None:
    """A real GPU where there is one (None), else the emulated one.

    With MGSYM_GPU=real, as `make test-cuda` sets it, only a real one will do.
    """
    if torch.cuda.is_available():
        return None
    if os.environ.get("MGSYM_GPU") == "real":
        pytest.skip("there is no GPU here")
    return request.getfixturevalue("cuda")


@pytest.fixture(scope="session")
def glasses() -> list[Structure]:
    """Three disordered crystals of 64 labelled atoms, 10.4 Å wide."""
    made = []
    for seed, split in enumerate(("train", "validation", "test")):
        generator = torch.Generator().manual_seed(seed)
        lattice = torch.cartesian_prod(*[torch.arange(4, dtype=torch.float64) * 2.6] * 3)
        place = lattice + 0.9 * torch.rand(64, 3, generator=generator, dtype=torch.float64)
        types = torch.randint(2, (64,), generator=generator)
        structure = Structure(
            place, 10.4 * torch.eye(3, dtype=torch.float64), types, ("Cu", "Zr"),
            name=split, glass=split, split=split,
        )  # fmt: skip
        barrier = 1.5 + 0.3 * torch.randn(64, generator=generator)
        made.append(structure.with_column("barrier", barrier, "eV"))
    return made


@pytest.fixture(scope="session")
def graphs(glasses: list[Structure]) -> list[Graph]:
    """Their graphs."""
    return [build_graph(glass, 3.6) for glass in glasses]
