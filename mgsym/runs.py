"""The run directory: where a training run keeps what it is and what came of it.

``config.toml`` settings · ``run.json`` versions, seed, device, command line, data, scores ·
``metrics.csv`` one line per evaluation · ``best.pt`` the model · ``last.pt`` to resume from.
A folder of ``seed0``, ``seed1``, … holds one such directory per seed, and ``ensemble.pt``, in which
they are merged.
"""

from __future__ import annotations

import csv
import hashlib
import json
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from mgsym import __version__
from mgsym.atomic import atomic_path
from mgsym.config import Config
from mgsym.errors import InputError, UsageError
from mgsym.graph import Graph

RUNS = "runs"
ENSEMBLE = "ensemble.pt"  # the models of a folder of seeds in one file
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
    found = [*Path(folder).glob("*/run.json"), *Path(folder).glob("*/seed*/run.json")]
    if not found:
        raise UsageError(f"no run in {folder}/: train one with mgsym train, or name one with --run")
    latest = max(found, key=lambda path: (str(read_json(path).get("started", "")), str(path)))
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
    found = sorted(run.glob("seed*/best.pt"), key=lambda path: _seed_of(path.parent))
    if not found:
        what = "has no best.pt" if run.is_dir() else "no such run"
        raise InputError(f"{what}: expected a folder that mgsym train wrote", path=run)
    return found


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
    known = (home / "run.json").exists() or any(home.glob("seed*/run.json"))
    return home if known and home.is_dir() else None


def run_seeds(run: str | Path) -> list[int]:
    """The seeds that a folder of runs was started with; empty for a run of one seed."""
    path = Path(run) / "summary.json"
    return [int(seed) for seed in read_json(path)["seeds"]] if path.exists() else []


def run_config(run: str | Path) -> Path:
    """The config.toml of a run, or of the first of its seeds.

    Raises:
        InputError: there is none.
    """
    found = [Path(run) / "config.toml", *sorted(Path(run).glob("seed*/config.toml"))]
    for path in found:
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


def graph_hash(graph: Graph) -> str:
    """SHA-256 of what training sees of a graph: its arrays and names, not how a file packs them."""
    digest = hashlib.sha256(repr((graph.species, graph.cutoff, graph.names)).encode())
    arrays = {
        name: getattr(graph, name)
        for name in ("types", "edge_index", "edge_shift", "edge_vector", "target", "target_stderr")
    }
    for name, values in {**arrays, **dict(sorted(graph.node_features.items()))}.items():
        digest.update(f"{name}{tuple(values.shape)}{values.dtype}".encode())
        digest.update(values.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read as JSON: {error}", path=path) from error
    if not isinstance(content, dict):
        raise InputError("expected a JSON object", path=path)
    return content


def write_history(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write metrics.csv: one line per evaluation; the header names quantity and unit."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(history[0]) if history else [])
        writer.writeheader()
        writer.writerows(history)


def _seed_of(folder: Path) -> tuple[int, str]:
    digits = folder.name.removeprefix("seed")
    return (int(digits) if digits.isdigit() else -1, folder.name)
