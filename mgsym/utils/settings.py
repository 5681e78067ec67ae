"""Settings: TOML files, KEY=VALUE on the command line, and what differs between two sets."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
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
    digits = max(re.finditer(r"[\d_]+", text), key=lambda match: match.end() - match.start())
    before = text[: digits.start()]
    keys = re.findall(r"^[ \t]*([\w.\"'-]+)[ \t]*=", before, re.MULTILINE)
    tables = re.findall(r"^[ \t]*\[([\w.\"'-]+)\]", before, re.MULTILINE)
    return ".".join([*tables[-1:], *keys[-1:]]) or "a value"


LARGEST = 2**63  # of whole numbers, beyond which tensors and seeds cannot go


def parse_override(text: str) -> tuple[str, Any]:
    """The dotted name and the value of a text such as ``training.epochs=30``.

    The value is read as TOML; a bare word is a string.

    Raises:
        UsageError: there is no ``=``.
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    if not (key and equals):
        raise UsageError(f"{text!r} is no setting, expected NAME=VALUE such as training.epochs=30")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value
    except (ValueError, RecursionError):
        raise UsageError(f"{short(key)} is {short(value)}, which is too long or deep") from None


def changed_settings(settings: Any, table: str, texts: Iterable[str]) -> Any:
    """A dataclass of settings with some of them changed.

    Args:
        settings: a frozen dataclass of plain values.
        table: what its settings are called before the dot.
        texts: such as ``artn.radius=9.5`` for the table ``artn``.

    Raises:
        UsageError: no such setting, or a value of the wrong type or range.
    """
    flat = {f"{table}.{field.name}": getattr(settings, field.name) for field in fields(settings)}
    changes = {}
    for key, value in map(parse_override, texts):
        if key not in flat:
            raise UsageError(unknown_setting(key, flat))
        changes[key.rpartition(".")[2]] = setting_like(key, flat[key], {key: value})
    return replace(settings, **changes)


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """One text such as ``training.epochs: 60, now 30`` per flat setting that differs."""
    return [
        f"{key}: {before.get(key, 'absent')}, now {after.get(key, 'absent')}"
        for key in {**before, **after}
        if before.get(key) != after.get(key)
    ]


def flattened(tables: Mapping[str, Any]) -> dict[str, Any]:
    """The values of TOML's tables by their dotted names."""
    flat: dict[str, Any] = {}
    for key, value in tables.items():
        if isinstance(value, dict):
            flat.update({f"{key}.{name}": inner for name, inner in value.items()})
        else:
            flat[key] = value
    return flat


def unknown_setting(key: str, settings: Mapping[str, Any]) -> str:
    """Say that there is no such setting, and which there are."""
    table = key.rpartition(".")[0]
    alike = [k for k in settings if k.rpartition(".")[0] == table]
    if not alike:  # of all tables, the names that stand in none, and the tables
        alike = list(
            dict.fromkeys(k.rpartition(".")[0] + ".…" if "." in k else k for k in settings)
        )
    return f"no setting is called {short(key)}; there are {', '.join(alike)}"


def setting_like(key: str, example: Any, changes: Mapping[str, Any]) -> Any:
    """What a setting is changed to, of the type of `example`; `example` where it is not changed.

    Raises:
        UsageError: it is of another type.
    """
    if key not in changes:
        return example
    try:
        return _like(example, changes[key])
    except TypeError as error:
        raise UsageError(f"{key} is {short(changes[key])}, expected {error}") from None


def _like(example: Any, value: Any) -> Any:
    """`value` as the type of `example`; TypeError names the type where it is another."""
    if isinstance(value, int) and not -LARGEST <= value < LARGEST:
        raise TypeError("a number of less than 64 bits")
    if example is None or (type(value) is type(example) and not isinstance(value, tuple | list)):
        return value
    if isinstance(example, float) and type(value) is int:
        return float(value)
    if isinstance(example, tuple | list) and isinstance(value, tuple | list):
        return type(example)(_like(example[0], v) if example else v for v in value)
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    raise TypeError(names.get(type(example), "a list"))


def toml_value(value: Any) -> str:
    """Write a value as TOML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Sequence):
        return f"[{', '.join(toml_value(v) for v in value)}]"
    return repr(value)
