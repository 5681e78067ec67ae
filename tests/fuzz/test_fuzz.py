"""Damaged files of every kind end in one line and an exit code, whatever was damaged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from programs import finished

MUTATIONS = os.environ.get("MGSYM_FUZZ", "15")  # of each kind of file; make fuzz: more
SEED = os.environ.get("MGSYM_FUZZ_SEED", "0")


def test_no_damaged_file_is_a_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program = Path(__file__).with_name("fuzz.py")
    code, out, err = finished(program, "--seed", SEED, "--mutations", MUTATIONS)
    assert code == 0, f"{out}\n{err[-3000:]}"
    assert f"{MUTATIONS} mutations, 0 failures" in out
