"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from mgsym.errors import UsageError
from mgsym.utils.files import (
    atomic_folder,
    atomic_path,
    holds_output,
    lock_output,
    refuse_existing,
)


def fail_half_way(output: AbstractContextManager[Path]) -> None:
    with output as temporary:
        (temporary / "a" if temporary.is_dir() else temporary).write_text("half")
        raise RuntimeError


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.npz"
    with atomic_path(target) as temporary:
        temporary.write_text("whole")
        assert not target.exists()
        assert temporary.name.endswith("a.npz")
    assert target.read_text() == "whole"
    assert os.listdir(target.parent) == ["a.npz"]


def test_a_failure_leaves_the_older_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("older")
    with pytest.raises(RuntimeError):
        fail_half_way(atomic_path(target))
    assert target.read_text() == "older"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_names_the_file_that_was_meant(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with pytest.raises(OSError) as caught, atomic_path(target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(target)


def test_an_error_about_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, atomic_path(tmp_path / "a.txt"):
        (tmp_path / "input.txt").read_text()
    assert caught.value.filename == str(tmp_path / "input.txt")


def test_files_of_a_folder_appear_together(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "graphs"
    with atomic_folder(folder) as temporary:
        for name in ("a", "b"):
            (temporary / name).write_text(name)
        assert not (folder / "a").exists()
    assert sorted(os.listdir(folder)) == ["a", "b"]


def test_a_failure_undoes_the_folder(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fail_half_way(atomic_folder(tmp_path / "deep" / "graphs"))
    assert os.listdir(tmp_path) == []


def test_a_full_disk_names_the_file_of_the_folder_that_was_meant(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught, atomic_folder(tmp_path) as temporary:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(temporary / "a.npz"))
    assert caught.value.filename == str(tmp_path / "a.npz")


def test_a_failure_keeps_what_a_folder_held(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("older")
    with pytest.raises(RuntimeError):
        fail_half_way(atomic_folder(tmp_path))
    assert (tmp_path / "a").read_text() == "older"
    assert os.listdir(tmp_path) == ["a"]


def test_existing_output_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    assert refuse_existing(target) == target
    target.touch()
    with pytest.raises(UsageError, match=r"a\.txt exists already: .*--overwrite"):
        refuse_existing(target)
    assert refuse_existing(target, overwrite=True) == target


def test_an_output_is_held_while_a_function_runs(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out.xyz"

    @holds_output("path")
    def write(number: int, *, path: Path) -> int:
        told = r"out\.xyz is being written by another mgsym"
        with pytest.raises(UsageError, match=told), lock_output(out):
            pass
        return number

    assert write(3, path=out) == 3
    assert not out.parent.exists()  # the lock is gone, and the folder that it was made in
    with lock_output(out):
        pass
