"""Files of settings in TOML."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from mgsym.errors import UsageError, short

LONGEST_FILE = 1_000_000  # bytes


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file of settings.

    Raises:
        UsageError: the file is missing, too large for one, or not TOML.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(LONGEST_FILE + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot read the settings: {error.strerror}") from error
    if len(content) > LONGEST_FILE:
        raise UsageError(f"{path}: no file of settings: longer than {LONGEST_FILE:,} bytes")
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
        return tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not a TOML file: byte {error.start} is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not a TOML file: {short(error, 200)}") from error
    except RecursionError as error:
        raise UsageError(f"{path}: not a file of settings: nested too deeply") from error
    except ValueError as error:  # Python refuses numbers of more than 4,300 digits
        key = _key_of_long_number(text)
        raise UsageError(f"{path}: {key} is a number with too many digits") from error


def _key_of_long_number(text: str) -> str:
    """The key that stands before the longest run of digits."""
    digits = max(re.finditer(r"[\d_]+", text), key=lambda found: found.end() - found.start())
    before = text[: digits.start()]
    keys = re.findall(r"^[ \t]*([\w.\"'-]+)[ \t]*=", before, re.MULTILINE)
    tables = re.findall(r"^[ \t]*\[([\w.\"'-]+)\]", before, re.MULTILINE)
    return ".".join([*tables[-1:], *keys[-1:]]) or "a value"
