"""Damaged files of every kind end in one line and an exit code, whatever was damaged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

MUTATIONS = os.environ.get("MGSYM_FUZZ", "15")  # of each kind of file; make fuzz: more
SEED = os.environ.get("MGSYM_FUZZ_SEED", "0")


def test_no_damaged_file_is_a_bug(tmp_path: Path) -> None:
    program = str(Path(__file__).with_name("fuzz.py"))
    done = subprocess.run(
        [sys.executable, program, "--seed", SEED, "--mutations", MUTATIONS],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    assert f"{MUTATIONS} mutations, 0 failures" in done.stdout
