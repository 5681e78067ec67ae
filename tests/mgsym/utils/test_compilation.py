"""C++ is compiled once, and whoever has no compiler goes on without, told once."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from mgsym.utils import compilation
from mgsym.utils.compilation import compiled_library

compiler = pytest.mark.skipif(
    not any(map(compilation.shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler"
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MGSYM_COMPILE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    compilation._library.cache_clear()
    yield
    compilation._library.cache_clear()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "answer.cpp"
    path.write_text('extern "C" int answer() { return ANSWER; }\n')
    return path


def libraries(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache" / "mgsym").iterdir())


@compiler
def test_compiled_once_for_what_it_is_made_of(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compiled_library(source, ANSWER=42)
    assert first is not None
    assert first.answer() == 42
    other = compiled_library(source, ANSWER=7)
    assert other is not None
    assert other.answer() == 7
    names = libraries(tmp_path)
    assert len(names) == 2
    compilation._library.cache_clear()  # as in another process
    monkeypatch.setattr(compilation, "atomic_path", None)  # compiling again would fail
    again = compiled_library(source, ANSWER=42)
    assert again is not None
    assert again.answer() == 42
    assert libraries(tmp_path) == names


@compiler
def test_a_compiler_that_fails_is_told_of_once(source: Path, tmp_path: Path) -> None:
    source.write_text("nonsense\n")
    with pytest.warns(RuntimeWarning, match=r"answer.cpp could not be compiled .*error.*slower"):
        assert compiled_library(source) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compiled_library(source) is None
    assert libraries(tmp_path) == []  # nothing half-written


def test_no_compiler(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation.shutil, "which", lambda name: None)
    with pytest.warns(RuntimeWarning, match="there is no C\\+\\+ compiler.*MGSYM_COMPILE=0"):
        assert compiled_library(source, ANSWER=1) is None


@compiler
def test_a_cache_that_cannot_be_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning, match="could not be compiled"):
        assert compiled_library(source, ANSWER=1) is None


def test_turned_off_without_a_word(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MGSYM_COMPILE", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compiled_library(source, ANSWER=1) is None
    assert not (tmp_path / "cache").exists()


def test_a_compiler_named_by_no_command(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "g++ 'open")
    with pytest.warns(RuntimeWarning, match=r"CXX is .*, no command: No closing quotation"):
        assert compiled_library(source, ANSWER=1) is None
