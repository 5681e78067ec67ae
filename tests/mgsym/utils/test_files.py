"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from programs import finished

from mgsym.errors import InputError, UsageError
from mgsym.utils.files import (
    atomic_folder,
    atomic_path,
    holds_output,
    lock_output,
    read_json,
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


KILLED = """
import os, signal, sys
from mgsym.utils.files import atomic_folder, atomic_path, lock_output
with lock_output("out", folder=True), atomic_folder("out") as folder, atomic_path("out/a.txt") as a:
    a.write_text("half")
    (folder / "b.txt").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_program_left_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("program.py").write_text(KILLED)
    assert finished(Path("program.py"))[0] == -signal.SIGKILL
    left = os.listdir("out")
    assert len([name for name in left if name.startswith(".writing-")]) == 2
    assert ".lock" in left
    Path("out/.writing-mine").write_text("not named as ours are")
    with lock_output("out", folder=True), atomic_path("out/c.txt") as temporary:
        temporary.write_text("whole")
    assert sorted(os.listdir("out")) == [".writing-mine", "c.txt"]


def test_what_another_program_is_writing_stays(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.txt") as first:
        first.write_text("a")
        with atomic_folder(tmp_path) as second:
            (second / "b.txt").write_text("b")
            with atomic_path(tmp_path / "c.txt") as third:
                third.write_text("c")
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "b.txt", "c.txt"]


def test_links_are_not_followed_when_leftovers_are_removed(tmp_path: Path) -> None:
    (tmp_path / "dear.txt").write_text("dear")
    link = tmp_path / "out" / ".writing-abcdefgh-a.txt"
    link.parent.mkdir()
    link.symlink_to(tmp_path / "dear.txt")
    with atomic_path(tmp_path / "out" / "b.txt") as temporary:
        temporary.write_text("b")
    assert link.is_symlink()
    assert (tmp_path / "dear.txt").read_text() == "dear"


def _write_beside(target: Path, ours: str, theirs: str) -> None:
    with atomic_path(target, overwrite=False) as temporary:
        temporary.write_text(ours)
        target.write_text(theirs)


def test_a_file_that_came_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with pytest.raises(UsageError, match=r"a\.txt exists already"):
        _write_beside(target, "ours", "theirs")
    assert target.read_text() == "theirs"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_an_output_is_locked_once(tmp_path: Path) -> None:
    output = tmp_path / "new" / "a.txt"
    with lock_output(output):
        again = pytest.raises(UsageError, match=r"a\.txt is being written by another mgsym \(proc")
        with again, lock_output(output):
            pytest.fail("it was locked twice")
        with lock_output(tmp_path / "new" / "b.txt"), lock_output(tmp_path / "new", folder=True):
            pass  # another output
    assert os.listdir(tmp_path) == []  # nor is the folder left that was made for it
    with lock_output(output):
        output.write_text("a")
    assert os.listdir(output.parent) == ["a.txt"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[" * 200_000, "cannot be read as JSON: nested too deeply"),
        (b'{"a": ' * 200_000, "cannot be read as JSON: nested too deeply"),
        (b'{"a": "\xff"}', "cannot be read as JSON"),
        (b"[1, 2]", "expected a JSON object"),
        (b'{"a": 1' + 5000 * b"0" + b"}", "cannot be read as JSON"),
        (b"", "cannot be read as JSON"),
    ],
)
def test_json_that_cannot_be_read_is_told(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_json(path)
    told = str(caught.value)
    assert f"run.json: {words}" in told
    assert len(told) < 400 + len(str(path))
    assert "\n" not in told
