"""What many tests share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

# Tests of the physics compile nothing but where they say so: compiling takes longer than they do.
os.environ.setdefault("MGSYM_COMPILE", "0")
# Threads that share out small matrices wait for each other. One a process, also in the programs
# that tests start, and `make test` runs several processes instead; what needs more asks for them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

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


@pytest.fixture(scope="session")
def mendelev() -> Path:
    """The Mendelev 2009 Cu-Zr potential, which users download; tests skip where there is none."""
    name = "Cu-Zr_2.eam.fs"
    data = Path(os.environ.get("MGSYM_DATA", REPOSITORY.parent / "shared" / "data"))
    folders = (data, data.parent, data.parent.parent)
    candidates = [Path(os.environ.get("MGSYM_POTENTIAL", ""))]
    candidates += [folder / "potentials" / name for folder in folders]
    for candidate in candidates:
        if candidate.name == name and candidate.exists():
            return candidate
    pytest.skip(f"{name} is not here: set MGSYM_POTENTIAL to the file (NIST potentials repository)")


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """C++ is compiled, into a folder of the test; tests skip where there is no compiler."""
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("no C++ compiler")
    libraries = import_module("mgsym.utils.compilation")._library
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MGSYM_COMPILE", "1")
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        libraries.cache_clear()
        yield
    libraries.cache_clear()


@pytest.fixture
def fake_searches(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A search engine that draws its events takes the place of the real one (fakes/)."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "tests" / "fakes"))  # workers look there too
    fake = import_module("fake_searches")
    barriers = import_module("mgsym.data_tools.simulation.labelling.barriers")
    labelling = import_module("mgsym.data_tools.workflows.labelling")
    monkeypatch.setattr(barriers, "run_searches", fake.run_searches)
    monkeypatch.setattr(labelling, "ArtnSettings", fake.FakeSettings)
    return fake
