"""The run directory: where a training run keeps what it is and what came of it.

``config.toml`` settings · ``run.json`` versions, seed, device, command line, data, scores ·
``metrics.csv`` one line per evaluation · ``best.pt`` the model · ``last.pt`` to resume from.
A folder of ``seed0``, ``seed1``, … holds one such directory per seed, and ``ensemble.pt``, in which
they are merged.
"""

from __future__ import annotations

import csv
import platform
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import torch

from mgsym.errors import InputError, UsageError, short
from mgsym.evaluation.metrics import SplitScores
from mgsym.models.base import BarrierModel
from mgsym.training.config import Config
from mgsym.utils.files import atomic_path, read_json, write_json, write_text
from mgsym.version import __version__

RUNS = "runs"
ENSEMBLE = "ensemble.pt"  # the models of a folder of seeds in one file
# of a value in a JSON file: what is expected, in words, and whether it is that
Kind: TypeAlias = tuple[str, Callable[[Any], bool]]
Kinds: TypeAlias = Mapping[str, Kind]  # by key
PARTS = ("config.toml", "run.json", "metrics.csv", "best.pt", "last.pt")


def default_run(config: Config, seeds: Sequence[int] | None = None, folder: str = RUNS) -> Path:
    """``runs/<date>-<time>-<model>-<preset>-seed<k>``: names sort by time."""
    now = datetime.now().strftime("%Y%m%d-%H%M%S")
    last = f"seed{config.seed}" if not seeds else f"{len(seeds)}seeds"
    return Path(folder) / f"{now}-{config.model.name}-{config.preset}-{last}"


def latest_run(folder: str | Path = RUNS) -> Path:
    """The run in `folder` that was started last; of several seeds, the folder that holds them.

    Raises:
        UsageError: there is none.
    """
    records = [*Path(folder).glob("*/run.json"), *Path(folder).glob("*/seed*/run.json")]
    if not records:
        raise UsageError(f"no run in {folder}/: train one with mgsym train, or name one with --run")
    latest = max(records, key=lambda path: (read_run(path.parent).get("started", ""), str(path)))
    run = latest.parent
    nested = run.parent != Path(folder) and not (run.parent / "run.json").exists()
    return run.parent if nested else run


def run_checkpoints(run: str | Path) -> list[Path]:
    """The best models of a run: its ``best.pt``, or one for each of its seeds.

    Args:
        run: a run directory, a folder of seeds, or a checkpoint file.

    Raises:
        InputError: there is none.
    """
    run = Path(run)
    if run.is_file():
        return [run]
    if (run / "best.pt").exists():
        return [run / "best.pt"]
    checkpoints = sorted(run.glob("seed*/best.pt"), key=lambda path: _seed_of(path.parent))
    if not checkpoints:
        problem = "has no best.pt" if run.is_dir() else "no such run"
        raise InputError(f"{problem}: expected a folder that mgsym train wrote", path=run)
    return checkpoints


def only_checkpoint(run: str | Path) -> Path:
    """The best model of a run of one seed, or the checkpoint file itself.

    Raises:
        InputError: there is none.
        UsageError: there are several.
    """
    first, *others = run_checkpoints(run)
    if others:
        raise UsageError(f"{run} holds {1 + len(others)} models: name one, such as {first.parent}")
    return first


def run_home(run: str | Path) -> Path | None:
    """The folder of a run, also of one named by its best.pt or ensemble.pt; None without one."""
    run = Path(run)
    home = run.parent if run.name in ("best.pt", ENSEMBLE) else run
    is_run = (home / "run.json").exists() or any(home.glob("seed*/run.json"))
    return home if is_run and home.is_dir() else None


def run_seeds(run: str | Path) -> list[int]:
    """The seeds that a folder of runs was started with; empty for a run of one seed.

    Raises:
        InputError: its summary.json is damaged.
    """
    return list(read_summary(run).get("seeds", []))


def run_config(run: str | Path) -> Path:
    """The config.toml of a run, or of the first of its seeds.

    Raises:
        InputError: there is none.
    """
    candidates = [Path(run) / "config.toml", *sorted(Path(run).glob("seed*/config.toml"))]
    for path in candidates:
        if path.exists():
            return path
    raise InputError("no such run: expected a folder that mgsym train wrote", path=run)


def run_graphs(run: str | Path) -> Path | None:
    """The folder of graphs that a run, or the first of its seeds, was trained on.

    None where the run does not say, or that folder is gone.
    """
    home = run_home(run)
    if home is None:
        return None
    for path in [home / "run.json", *sorted(home.glob("seed*/run.json"))]:
        if path.exists():
            folder = read_json(path).get("graphs_from") or ""
            return Path(folder) if folder and Path(str(folder)).exists() else None
    return None


def start_run(folder: Path, config: Config, facts: Mapping[str, Any]) -> None:
    """Write config.toml and run.json as a run starts: versions, machine, seed, command line.

    Args:
        folder: the run directory.
        config: the settings.
        facts: what else run.json is to say: device, split, hashes of the graphs.
    """
    write_text(folder / "config.toml", config.to_toml())
    write_json(
        folder / "run.json",
        {
            "status": "running",
            "started": _now(),
            "preset": config.preset,
            "model": config.model.name,
            "seed": config.seed,
            "threads": torch.get_num_threads(),
            "versions": {
                "mgsym": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            "platform": platform.platform(),
            "command": shlex.join(sys.argv),
            **facts,
        },
    )


def end_run(folder: Path, status: str, facts: Mapping[str, Any]) -> None:
    """Say in run.json that a run is ``finished`` or ``interrupted``, when, and what came of it."""
    path = folder / "run.json"
    write_json(path, {**read_json(path), "status": status, "ended": _now(), **facts})


def clear_run(folder: Path) -> None:
    """Remove the files of an earlier run, and nothing else."""
    for name in PARTS:
        (folder / name).unlink(missing_ok=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def read_run(folder: str | Path) -> dict[str, Any]:
    """What run.json says of a run.

    Raises:
        InputError: missing or damaged; the key is named whose value is of another kind.
    """
    return _known_kinds(Path(folder) / "run.json", _OF_A_RUN)


def read_summary(folder: str | Path) -> dict[str, Any]:
    """What summary.json says of a folder of seeds; nothing where there is none.

    Raises:
        InputError: damaged; the key is named whose value is of another kind.
    """
    path = Path(folder) / "summary.json"
    return _known_kinds(path, _OF_SEEDS) if path.exists() else {}


def _known_kinds(path: Path, kinds: Kinds) -> dict[str, Any]:
    """The content of a JSON file, of whose values these are of their kinds."""
    content = read_json(path)
    check_kinds(content, kinds, path)
    return content


def check_kinds(content: Mapping[str, Any], kinds: Kinds, path: Path) -> None:
    """Refuse values of another kind than their keys say.

    Args:
        content: of a JSON file.
        kinds: by key, what to call what is expected, and whether a value is that; keys that are
            not there are passed over.
        path: of the file.

    Raises:
        InputError: the key is named.
    """
    for key, (expected, holds) in kinds.items():
        if key in content and not holds(content[key]):
            value = short(content[key])
            raise InputError(f"{key} is {value}, expected {expected}: it is damaged", path=path)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_seeds(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_count, value))


def _are_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


def _are_lists(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_are_names, value.values()))


def _are_scores(value: Any) -> bool:
    """By role, numbers by name; those of all atoms pooled and of each structure stand deeper."""
    if not isinstance(value, dict) or not all(isinstance(role, dict) for role in value.values()):
        return False
    return all(
        _are_numbers(role.get("pooled", {}))
        and isinstance(role.get("structures", {}), dict)
        and all(map(_are_numbers, role.get("structures", {}).values()))
        and all(_is_number(role[name]) for name in role if name not in ("pooled", "structures"))
        for role in value.values()
    )


def _are_means(value: Any) -> bool:
    """By role, means over seeds by name."""
    return isinstance(value, dict) and all(
        isinstance(role, dict) and role and all(isinstance(x, float | int) for x in role.values())
        for role in value.values()
    )


def _are_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


def _are_floats(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(x, float) for x in value.values())


def _is_split(value: Any) -> bool:
    return _are_lists(value) and set(value) <= {"train", "validation", "test", "unused"}


TEXT, NUMBER, COUNT = ("text", _is_text), ("a number", _is_number), ("a count", _is_count)
TABLE: Kind = ("values by name", lambda value: isinstance(value, dict))
NAMES: Kind = ("a list of names", _are_names)
SEEDS: Kind = ("a list of seeds", _are_seeds)
SCORES: Kind = ("scores by train, validation and test", _are_scores)
_OF_A_RUN: Kinds = {
    **dict.fromkeys(("status", "started", "ended", "preset", "model", "platform"), TEXT),
    **dict.fromkeys(("command", "device", "start_from", "stopped"), TEXT),
    **dict.fromkeys(("seed", "threads", "epochs", "best_epoch", "parameters"), COUNT),
    **dict.fromkeys(("seconds", "rotation_rms_eV"), NUMBER),
    "transforms_start": ("fractions by name", _are_floats),
    "versions": ("versions by name", _are_texts),
    "graphs_sha256": ("hashes by structure", _are_texts),
    "split": ("names by train, validation and test", _is_split),
    "scores": SCORES,
}
_OF_SEEDS: Kinds = {
    "seeds": SEEDS,
    "scores": ("means over seeds by train, validation and test", _are_means),
    **dict.fromkeys(
        ("validation", "test"), ("a list of names", lambda v: v is None or _are_names(v))
    ),
    "start_from": ("text", lambda value: value is None or _is_text(value)),
}


def read_history(folder: str | Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, numbers as they stand there; none before the first evaluation.

    Raises:
        InputError: it is damaged; the line is named.
    """
    path = Path(folder) / "metrics.csv"
    if not path.exists():
        return []
    rows: list[dict[str, str]] = []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.reader(file)
            names = next(table, [])
            for row in table:
                if len(row) != len(names):
                    raise ValueError(f"{len(row)} values, expected {len(names)}")
                for value in row:
                    float(value)  # only numbers are in it
                rows.append(dict(zip(names, row, strict=True)))
    except (OSError, ValueError, csv.Error) as error:
        where = f"line {len(rows) + 2}"
        raise InputError(f"is damaged ({short(error)})", path=path, where=where) from error
    return rows


def write_history(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write metrics.csv: one line per evaluation; the header names quantity and unit.

    What the lines of an older version lack, of a run that went on, stands as nan.
    """
    names = list(dict.fromkeys(name for row in history for name in row))
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=names, restval="nan")
        writer.writeheader()
        writer.writerows(history)


def _seed_of(folder: Path) -> tuple[int, str]:
    digits = folder.name.removeprefix("seed")
    return (int(digits) if digits.isdigit() else -1, folder.name)


@dataclass(frozen=True)
class TrainedRun:
    """What training returns.

    Attributes:
        model: with the best weights, in eval mode.
        config: the settings.
        history: one dict per evaluation, the rows of metrics.csv.
        scores: of ``train``, ``validation`` and ``test``, as far as there are any.
        split: names of the structures by role.
        best_epoch: the epoch of the best weights, chosen on validation alone.
        stopped: why training ended early, or empty.
        folder: the run directory, if any.
    """

    model: BarrierModel
    config: Config
    history: list[dict[str, float]]
    scores: dict[str, SplitScores]
    split: dict[str, list[str]]
    best_epoch: int
    stopped: str = ""
    folder: Path | None = None
