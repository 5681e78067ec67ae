"""Processes that search: what they hear. (What they make of a schedule: test_barriers.py.)"""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest

PROGRAM = """
from multiprocessing import get_context
from mgsym.utils.workers import _interrupts_waiting

SAY = "import signal; print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())))"
first, second = (get_context("spawn").Process(target=exec, args=(SAY,)) for _ in range(2))
with _interrupts_waiting():
    first.start()
    second.start()
first.join()
second.join()
exec(SAY)
"""


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals cannot be blocked here")
def test_workers_never_hear_interrupts_and_the_parent_does() -> None:
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=True
    )
    said = re.findall(r"\[.*?\]", told.stdout)  # lines of two processes may run into one another
    blocked = str([signal.SIGINT, signal.SIGTERM])
    assert sorted(said) == sorted([blocked, blocked, "[]"])
