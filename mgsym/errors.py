"""What can go wrong in a way the caller can mend.

Each error is one line for a person: the file, where in it, what was expected, what was found and
what to do. The command line prints that line and leaves with the error's exit code.
"""

from __future__ import annotations

from pathlib import Path


class MgsymError(Exception):
    """Something failed that is not the input's fault (a diverged training, a full disk)."""

    exit_code = 1


class UsageError(MgsymError):
    """The request itself is wrong: options that clash, an output that exists, a missing device."""

    exit_code = 2


class InputError(MgsymError):
    """The data are wrong.

    Args:
        message: what was expected, what was found and what to do, in one line.
        path: the file at fault.
        where: the place in it, such as ``"line 12"`` or ``"frame 3"``.
    """

    exit_code = 3

    def __init__(
        self, message: str, *, path: str | Path | None = None, where: str | None = None
    ) -> None:
        place = ", ".join(str(part) for part in (path, where) if part is not None)
        super().__init__(f"{place}: {message}" if place else message)
        self.message, self.path, self.where = message, path, where

    def at(self, path: str | Path, where: str | None = None) -> InputError:
        """The same error, told with the file (and the place in it) where it was met."""
        return type(self)(self.message, path=path, where=where or self.where)


class InputWarning(UserWarning):
    """Data were read, but not quite as they stand; one line that names the file and what was done.

    Python shows it once; the command line prints it as ``mgsym: warning: …``.
    """


class Interrupted(MgsymError):
    """Ctrl-C or SIGTERM stopped long work; what was saved, and how to go on, is in the message."""

    exit_code = 130


def missing_extra(package: str, extra: str, purpose: str) -> UsageError:
    """The error for an optional library that is not installed."""
    return UsageError(
        f'{purpose} needs {package}, which is not installed: pip install "mgsym[{extra}]"'
    )
