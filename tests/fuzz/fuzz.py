"""Put damaged files of every kind through the command line's own door and list what fails.

    python tests/fuzz/fuzz.py --seed 0 --mutations 40 [--only a.xyz]

Whatever a file holds, a command ends by itself within seconds and a fixed amount of memory: done
(0), with one line for a wrong setting (2) or wrong data (3), never with a traceback or a bug. Runs
in a process of its own, since the memory it may take is limited. What is left in `failures/` of
the working folder are the files that failed.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import os
import resource
import signal
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from types import FrameType
from typing import NoReturn

os.environ.setdefault("MGSYM_COMPILE", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import mutations
from readers import READERS, Reader, make_others

from mgsym.cli.main import main

ROOM = 600 << 20  # bytes beyond what the program takes before it reads anything
SECONDS = 10  # for one command line
LINE = 1700  # characters of a message


class Hang(BaseException):
    """A command took too long."""


def check(arguments: Sequence[str]) -> str:
    """Run a command line; what is wrong with how it ended, or nothing."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(arguments)
    except Hang:
        return "took too long"
    except BaseException as error:
        return f"escaped: {type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return _wrong(code, out.getvalue(), err.getvalue())


def _wrong(code: int, out: str, err: str) -> str:
    lines = [line for line in err.splitlines() if line.startswith("mgsym: error: ")]
    told = lines[0] if lines else err[-200:]
    if "Traceback" in err or "(a bug" in err or code not in (0, 2, 3):
        return f"exit {code}: {told[:300]}"
    if code and (len(lines) != 1 or len(told) > LINE):
        return f"exit {code} with {len(lines)} lines of {len(told)}: {told[:300]}"
    control = [c for c in out + err if not c.isprintable() and c != "\n"]
    if control:
        return f"shows the control characters {control[:5]!r}"
    return ""


def _too_long(number: int, frame: FrameType | None) -> NoReturn:
    raise Hang


@contextlib.contextmanager
def limits() -> Iterator[None]:
    """A limit of memory and a time for every command, in a temporary working folder."""
    with Path("/proc/self/status").open() as file:
        (data,) = (int(line.split()[1]) << 10 for line in file if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (data + ROOM, data + ROOM))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, _too_long)
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder, "a", "b", "work")
        work.mkdir(parents=True)
        os.chdir(work)
        try:
            yield
        finally:
            os.chdir(home)


def strays(folder: Path) -> list[str]:
    """Files outside the working folder, which no command may write."""
    above = folder.parents[1]
    return [str(p) for p in above.parent.rglob("*") if p.is_file() and folder not in p.parents]


def fuzz(reader: Reader, count: int, seed: int, keep: Path) -> list[str]:
    """Damage a file `count` times; one line for each failure."""
    random = Random(f"{seed} {reader.name}")
    path = Path(reader.name)
    path.parent.mkdir(exist_ok=True)
    reader.make(path)
    good = path.read_bytes()
    failures = []
    for number in range(count):
        mutation = random.choice((*reader.mutations, mutations.several))
        packed = reader.zipped and random.randrange(4) == 0
        name = f"{reader.name}.gz" if packed else reader.name
        content = (mutations.zipped(mutation) if packed else mutation)(random, good)
        arguments = [part.replace("{}", name) for part in random.choice(reader.commands)]
        Path(name).write_bytes(content)
        # a crash of the interpreter leaves this line last
        print(f"# {reader.name} {number}: {' '.join(arguments)}", file=sys.stderr, flush=True)
        faulthandler.dump_traceback_later(6 * SECONDS, exit=True)
        started = time.monotonic()
        wrong = check(arguments)
        faulthandler.cancel_dump_traceback_later()
        spent = time.monotonic() - started
        if not wrong and (stray := strays(Path.cwd())):
            wrong = f"wrote {stray}"
            for one in stray:
                Path(one).unlink()
        if wrong:
            keep.mkdir(exist_ok=True)
            kept = keep / f"{number}-{zlib.crc32(content):08x}-{path.name}{'.gz' if packed else ''}"
            kept.write_bytes(content)
            told = f"{number} {mutation.__name__}, {kept.name}: {arguments[0]}, {spent:.1f} s"
            failures.append(f"{told}: {wrong}")
        if packed:
            Path(name).unlink()
    path.write_bytes(good)
    return failures


def peak_memory() -> float:
    """MiB that this program held at most; ru_maxrss would count what its parent held, too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run() -> int:
    """The program; 1 when anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mutations", type=int, default=40, help="of each kind of file")
    parser.add_argument("--only", default="", help="kinds whose name holds this")
    chosen = parser.parse_args()
    keep = Path.cwd() / "failures"
    total, failures = 0, []
    warnings.simplefilter("ignore")
    with limits():
        make_others()
        for reader in READERS:
            if chosen.only not in reader.name:
                continue
            started = time.monotonic()
            found = fuzz(reader, chosen.mutations, chosen.seed, keep)
            total += chosen.mutations
            failures += found
            seconds = time.monotonic() - started
            told = f"{chosen.mutations} mutations, {len(found)} failures, {seconds:.1f} s"
            print(f"{reader.name}: {told}", flush=True)
    for line in failures:
        print(ascii(line)[1:-1])
    peak = peak_memory()
    print(f"{total} mutations, {len(failures)} failures, at most {peak:.0f} MiB of memory")
    return 1 if failures or peak > 1000 else 0


if __name__ == "__main__":
    sys.exit(run())
