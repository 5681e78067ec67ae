"""torch.compile where it works, and going on without where it does not."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mgsym.data_tools.simulation.potentials import compilation
from mgsym.data_tools.simulation.potentials.compilation import run_compiled

HERE = "cuda"


def double(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MGSYM_COMPILE", "1")
    monkeypatch.setattr(compilation, "_FAILING", set())
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: True)
    compilation.compiled.cache_clear()
    yield
    compilation.compiled.cache_clear()


def compiler(monkeypatch: pytest.MonkeyPatch, call: Callable[..., Any]) -> list[int]:
    """torch.compile gives `call`; how often it was asked."""
    asked: list[int] = []

    def compile(function: Any, **options: Any) -> Any:
        asked.append(1)
        return call

    monkeypatch.setattr(torch, "compile", compile)
    return asked


def test_what_works_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = compiler(monkeypatch, lambda x: x + 40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            assert run_compiled(double, HERE, torch.tensor(2.0)) == 42.0
    assert len(asked) == 1


def test_what_fails_warns_once_and_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: Any) -> Any:
        raise RuntimeError("Python.h: No such file or directory\nand a hundred lines more")

    asked = compiler(monkeypatch, fail)
    message = r"torch.compile failed on cuda \(Python.h: No such file or directory\); going on"
    with pytest.warns(RuntimeWarning, match=message) as heard:
        found = [run_compiled(double, HERE, torch.tensor(2.0)) for _ in range(3)]
    assert found == [None] * 3
    assert len(heard) == len(asked) == 1
    assert not compilation.can_compile(HERE)


def test_turned_off_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = compiler(monkeypatch, double)
    monkeypatch.setenv("MGSYM_COMPILE", "0")
    assert run_compiled(double, HERE, torch.tensor(2.0)) is None
    assert not asked


SCRIPT = """
import warnings, torch
from mgsym.data_tools.sample import sample_structures
from mgsym.data_tools.simulation.potentials.eam_forces import EAMForces
from mgsym.data_tools.simulation.potentials.zhou_johnson_wadley import zhou_cu_zr
glass = sample_structures()[0]
energies = []
with warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter("always")
    for compile in (True, True, False):
        field = EAMForces(zhou_cu_zr(), [glass], compile=compile)
        energies.append(float(field(glass.positions, glass.cell[None]).energy))
told = [str(w.message) for w in heard if "eam_rows.cpp could not" in str(w.message)]
assert len(told) == 1, told
assert energies[0] == energies[2], energies
"""


@pytest.mark.slow
def test_a_compiler_that_cannot_compile_leaves_the_forces(tmp_path: Path) -> None:
    environment = {**os.environ, "CXX": "false", "XDG_CACHE_HOME": str(tmp_path)}
    environment |= {"MGSYM_COMPILE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("name", ["recompile_limit", "cache_size_limit"])
@pytest.mark.parametrize(("before", "after"), [(8, 64), (100, 100)])
def test_the_limit_of_versions_under_both_its_names(name: str, before: int, after: int) -> None:
    """torch 2.7 renamed it."""
    config = SimpleNamespace(**{name: before})
    compilation.allow_versions(config, 64)
    assert vars(config) == {name: after}


def test_torch_has_one_of_the_names() -> None:
    from torch._dynamo import config

    assert hasattr(config, "recompile_limit") or hasattr(config, "cache_size_limit")
