"""Programs in processes of their own, forked from one that has loaded torch and mgsym.

What a program sees of itself is what it sees under ``python program.py``: its arguments, its
environment, its streams and its signals. Only the seconds in which modules load are saved.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.distributed import TCPStore

LOADED = (
    "mgsym.data_tools.workflows.labelling",
    "mgsym.data_tools.workflows.predictions",
    "mgsym.benchmark",
    "mgsym.training.train",
)


class Program:
    """A running program, told of as `subprocess.Popen` does; the streams are kept in files.

    Args:
        program: a file; None is the command `mgsym`.
        words: its arguments.
        environment: instead of this process's.
        limits: of what it may use, by kind (`resource.setrlimit`).
    """

    notes: TCPStore | None = None  # of several processes

    def __init__(
        self,
        program: Path | None,
        *words: str,
        environment: Mapping[str, str] | None = None,
        limits: Mapping[int, int] | None = None,
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(LOADED))
        self._folder = tempfile.TemporaryDirectory()
        self._files = [str(Path(self._folder.name, name)) for name in ("out", "err")]
        given = dict(os.environ if environment is None else environment)
        told = (program and str(program), words, given, self._files, dict(limits or {}))
        self._process = context.Process(target=_run, args=told)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; below 0 where a signal ended it."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float) -> tuple[str, str]:
        """What it said, once it has ended."""
        self._process.join(timeout)
        if self.returncode is None:
            self.kill()
            raise subprocess.TimeoutExpired("program", timeout)
        out, err = (Path(file).read_text(encoding="utf-8") for file in self._files)
        return out, err


def finished(program: Path | None, *words: str, **options: Any) -> tuple[int | None, str, str]:
    """The exit code of a program, and what it said on both streams."""
    running = Program(program, *words, **options)
    said = running.communicate(timeout=300)
    return running.returncode, *said


def started_together(
    program: Path, count: int, *words: str, environment: Mapping[str, str] | None = None
) -> list[Program]:
    """A program in so many processes, with what torchrun tells each.

    As torchrun does, this process keeps what they write for each other, until they are forgotten.
    """
    notes = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    told = {
        **os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(notes.port), "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0", **(environment or {}),
    }  # fmt: skip
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    running = [Program(program, *words, environment={**told, **rank}) for rank in ranks]
    for one in running:
        one.notes = notes
    return running


def _run(
    program: str | None,
    words: tuple[str, ...],
    environment: dict[str, str],
    files: list[str],
    limits: dict[int, int],
) -> None:
    """Become the program."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    os.environ.clear()
    os.environ.update(environment)
    for number, file in zip((1, 2), files, strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w", buffering=1) for number in (1, 2))
    for kind, most in limits.items():
        resource.setrlimit(kind, (most, most))
    sys.argv = [program or "mgsym", *words]
    if program is None:
        from mgsym.cli.main import main

        sys.exit(main(list(words)))
    sys.path.insert(0, str(Path(program).resolve().parent))
    runpy.run_path(program, run_name="__main__")
