"""Work that is shared out over new processes of this machine (`--jobs`); messages as they come."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from typing import Any, Generic, TypeVar

import torch

from mgsym.errors import MgsymError

Share = TypeVar("Share")
Send = Callable[[Any], None]
# what a process does: work(its share, send a message, whether to stop)
Work = Callable[[Share, Send, Callable[[], bool]], None]
HEARTBEAT = 0.5  # s between looks at whether to stop


def in_processes(
    work: Work[Share],
    shares: Sequence[Share],
    should_stop: Callable[[], bool] | None = None,
    lost: str = "",
) -> Generator[Any, None, None]:
    """Do each share of some work in a process of its own, of one thread.

    The processes end with the generator, and when this process dies.

    Args:
        work: a function that a new process can import by its name.
        shares: what each works on; pickled.
        should_stop: asked now and then; the work hears of it, and has time to save.
        lost: what to do where a process died, for the message.

    Yields:
        what the work sends, never None; None now and then while nothing comes.

    Raises:
        MgsymError: a process died; whatever the work raises comes through too.
    """
    context = _context(work)
    stopping = context.Event()
    workers = [_Worker(context, work, share, stopping) for share in shares]
    try:
        with _interrupts_waiting():  # they are for the parent to hear, which ends the workers
            for worker in workers:
                worker.start()
        by_pipe = {worker.pipe: worker for worker in workers}
        while by_pipe:
            for pipe in wait(list(by_pipe), HEARTBEAT):
                worker = by_pipe[pipe]  # type: ignore[index]
                message = worker.receive(lost)
                if message is None:
                    del by_pipe[worker.pipe]
                elif isinstance(message, Exception):
                    raise message
                else:
                    yield message
            yield None
            if should_stop is not None and should_stop():
                stopping.set()
    finally:
        for worker in workers:
            worker.end()


def _context(work: Work[Share]) -> BaseContext:
    """How processes start: free of this one's threads and CUDA, which do not survive a fork.

    On Linux they are forked from a process that has imported the work and done nothing else, so
    that torch is loaded once for all of them.
    """
    if not sys.platform.startswith("linux"):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__])
    return context


class _Worker(Generic[Share]):
    """A process, and the pipe on which its messages come."""

    def __init__(
        self, context: BaseContext, work: Work[Share], share: Share, stopping: Event
    ) -> None:
        self.pipe, self._far = context.Pipe(duplex=False)
        arguments = (work, share, self._far, stopping)
        self.process: BaseProcess = context.Process(  # type: ignore[attr-defined]
            target=_work, args=arguments, daemon=True
        )

    def start(self) -> None:
        self.process.start()
        self._far.close()  # so that the pipe ends when the process does

    def receive(self, lost: str) -> Any:
        """A message, what the work raised, or None when it is done."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            return MgsymError(
                f"a worker process died (exit code {self.process.exitcode}; -9 is often a lack of "
                f"memory): {lost}"
            )

    def end(self) -> None:
        if self.process.pid is not None:
            self.process.kill()
            self.process.join()
        self.pipe.close()


def _work(work: Work[Share], share: Share, pipe: Connection, stopping: Event) -> None:
    """What a process does: its work, then None; or what went wrong."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    try:
        work(share, pipe.send, stopping.is_set)
        pipe.send(None)
    except BrokenPipeError:
        pass  # the parent is gone
    except Exception as error:
        pipe.send(error)
    finally:
        pipe.close()


@contextmanager
def _interrupts_waiting() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait; processes started meanwhile, which inherit that, never hear them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    from multiprocessing import resource_tracker  # where there are signals to block

    resource_tracker.ensure_running()  # its start, with the first worker, would let them through
    numbers = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
