"""`mgsym fetch`, from a folder; what a server can do is in tests/data_tools."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mgsym.cli.main import main
from mgsym.data_tools import public_dataset
from mgsym.data_tools.public_dataset import PublicFile, sha256

Captured = pytest.CaptureFixture[str]
CONTENT = {"train0.pickle": b"one", "train1.pickle": b"two", "test0.pickle": b"three"}


@pytest.fixture(autouse=True)
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    table = [
        PublicFile(name, "glass_a", "test" if "test" in name else "train", sha256(content))
        for name, content in CONTENT.items()
    ]
    monkeypatch.setattr(public_dataset, "FILES", tuple(table))
    Path("source").mkdir()
    for name in ("train0.pickle", "train1.pickle"):
        Path("source", name).write_bytes(CONTENT[name])
    return tmp_path / "source"


def test_says_what_became_of_each_file(capsys: Captured) -> None:
    assert main(["fetch", "train0", "--base", "source"]) == 0
    assert main(["fetch", "--base", "source"]) == 0
    lines = capsys.readouterr().out.splitlines()[-3:]
    assert [line.split()[:3] for line in lines] == [
        ["train0.pickle", "glass_a", "train"],
        ["train1.pickle", "glass_a", "train"],
        ["test0.pickle", "glass_a", "test"],
    ]
    assert [" ".join(line.split()[3:]) for line in lines] == [
        "was there",
        "fetched",
        "skipped, not in source",
    ]
    folder = Path("data", "cu64zr36")
    assert sorted(p.name for p in folder.iterdir()) == ["train0.pickle", "train1.pickle"]


def test_json_and_another_folder(capsys: Captured) -> None:
    assert main(["fetch", "--base", "source", "-o", "here", "--json", "-q"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "folder": "here",
        "downloaded": ["train0.pickle", "train1.pickle"],
        "present": [],
        "skipped": [["test0.pickle", "not in source"]],
    }
    assert err == ""


def test_failures_have_their_exit_codes(capsys: Captured) -> None:
    assert main(["fetch", "--base", "http://127.0.0.1:1"]) == 1
    assert "http://127.0.0.1:1/train0.pickle: cannot be downloaded" in capsys.readouterr().err
    assert main(["fetch", "train7"]) == 2
    assert main(["fetch", "test0", "--base", "source"]) == 3
    Path("source", "train0.pickle").write_bytes(b"tampered")
    assert main(["fetch", "--base", "source"]) == 3
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("mgsym: error: source/train0.pickle: not the published file")
    assert not Path("data/cu64zr36/train0.pickle").exists()
