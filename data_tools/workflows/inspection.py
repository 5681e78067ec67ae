"""What a file or folder is and holds: a structure, graphs, a checkpoint or a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import torch

from mgsym.data_tools.formats import count_frames, detect_format, read_frames
from mgsym.data_tools.formats.species import warn_unused_types
from mgsym.data_tools.workflows.ensembles import summarise_ensemble
from mgsym.data_tools.workflows.graphs import graph_files, summarise
from mgsym.errors import InputError, UsageError
from mgsym.graph import Graph
from mgsym.graph.files import FORMAT
from mgsym.nn.rotations import ANGLES, HALVES
from mgsym.prediction.ensemble import read_ensemble
from mgsym.structure import Structure
from mgsym.structure.elements import MASS
from mgsym.training.runs import read_history, read_run
from mgsym.utils.files import kind_of
from mgsym.utils.settings import flattened, read_toml

AMU_PER_CUBIC_ANGSTROM = 1.66053906660  # in g/cm³ (CODATA 2018)


def inspect(
    path: str | Path, types: Mapping[int, str] | None = None, frames: str | None = None
) -> dict[str, Any]:
    """Say what `path` is.

    Args:
        path: a structure file, graph file, checkpoint, ensemble, run folder, or folder of graphs
            or runs.
        types: element of each type number, for structure files that have numbers only.
        frames: which frames of a trajectory to describe; None takes the last one.

    Returns:
        ``kind`` (structures, graphs, checkpoint, ensemble, run or runs), ``path``, and what belongs
        to that kind; numbers, text, lists and dicts only. Lengths are in Å, energies in eV.

    Raises:
        InputError: it is none of these, missing or damaged.
    """
    path = Path(path)
    if path.is_dir():
        warn_unused_types(types, path)
        return {"path": str(path), **_folder(path)}
    if not path.exists():
        raise InputError("no such file or folder", path=path)
    archive = _archive(path)
    if archive:
        warn_unused_types(types, path)
    match archive:
        case "checkpoint":
            return {"path": str(path), **_checkpoint(path)}
        case "graph":
            return {"path": str(path), "kind": "graphs", "graphs": [_graph(path)]}
    return {"path": str(path), **_structures(path, types, frames)}


def describe(structure: Structure) -> dict[str, Any]:
    """Name, atoms, composition, cell, densities and columns of a structure.

    The cell is given by its lengths (Å) and its angles between b and c, a and c, a and b (°).
    """
    lengths = structure.cell.norm(dim=1)
    unit = structure.cell / lengths[:, None]
    cosines = torch.stack([unit[1] @ unit[2], unit[0] @ unit[2], unit[0] @ unit[1]])
    mass = sum(MASS[symbol] * count for symbol, count in structure.composition.items())
    return {
        "name": structure.name,
        "atoms": len(structure),
        "composition": structure.composition,
        "cell_lengths": lengths.tolist(),
        "cell_angles": cosines.clamp(-1, 1).arccos().rad2deg().tolist(),
        "periodic": list(structure.periodic),
        "atoms_per_cubic_angstrom": structure.number_density,
        "grams_per_cubic_centimetre": AMU_PER_CUBIC_ANGSTROM * mass / structure.volume,
        "split": structure.split,
        "glass": structure.glass,
        "columns": _columns(structure),
    }


def _columns(structure: Structure) -> list[dict[str, Any]]:
    described = []
    for name, (values, unit) in structure.columns.items():
        numbers = values.double()
        numbers = numbers[~numbers.isnan()]
        described.append(
            {
                "name": name,
                "unit": unit,
                "values": int(numbers.numel()),
                "mean": float(numbers.mean()) if numbers.numel() else None,
                "sd": float(numbers.std(correction=0)) if numbers.numel() else None,
                "lowest": float(numbers.min()) if numbers.numel() else None,
                "highest": float(numbers.max()) if numbers.numel() else None,
            }
        )
    return described


def _structures(path: Path, types: Mapping[int, str] | None, frames: str | None) -> dict[str, Any]:
    return {
        "kind": "structures",
        "format": detect_format(path),
        "frames": count_frames(path),
        "structures": [describe(s) for s in read_frames(path, types, frames or "-1")],
    }


def _archive(path: Path) -> str:
    """``checkpoint`` or ``graph``, told by what the archive holds; empty for anything else."""
    if path.suffix == ".pt":
        return "checkpoint"
    return "graph" if kind_of(path) == FORMAT else ""


def _graph(path: Path) -> dict[str, Any]:
    return asdict(summarise(Graph.load(path), path))


def _checkpoint(path: Path) -> dict[str, Any]:
    """Of one model, or of an ensemble of several; without the tensors that compare surroundings."""
    ensemble = read_ensemble(path)
    first = ensemble.members[0]
    if len(ensemble) > 1 or ensemble.calibration or first.metadata is None:
        return {"kind": "ensemble", **asdict(summarise_ensemble(ensemble, path))}
    facts = asdict(first.metadata)
    del facts["training_set"]["surroundings"]
    return {"kind": "checkpoint", "parameters": first.model.num_parameters, **facts}


def _folder(path: Path) -> dict[str, Any]:
    if (path / "run.json").exists():
        return {"kind": "run", **_run(path)}
    runs = sorted(path.glob("*/run.json"))
    if runs:
        return {"kind": "runs", "runs": [_run(file.parent) for file in runs]}
    graphs = graph_files(path)
    if graphs:
        return {"kind": "graphs", "graphs": [_graph(file) for file in graphs]}
    raise InputError("holds neither runs nor graphs: name a file in it", path=path)


def _run(path: Path) -> dict[str, Any]:
    facts, config, history = read_run(path), _config(path), read_history(path)
    run = {"path": str(path), **facts, "config": config, "history": history}
    return {**run, "transforms": _transforms(run)}


def _transforms(run: Mapping[str, Any]) -> dict[str, Any] | None:
    """The learned distributions of a run's transforms, of its best epoch or else of the last.

    Returns:
        ``samples`` (K), ``epoch``, and a row for each angle of each half of O(3): where it is
        (``location``, radians, and ``concentration``) and how far each ``_moved`` from its start
        (None where the run does not say where that was). None where nothing is learned.
    """
    rows = [row for row in run["history"] if "location_rotation_alpha_rad" in row]
    if not rows:
        return None
    start = run.get("transforms_start") or {}
    best = [row for row in rows if float(row.get("epoch", "nan")) == run.get("best_epoch")]
    row = (best or rows)[-1]
    angles = []
    for half, angle in product(HALVES, ANGLES):
        names = (f"location_{half}_{angle}_rad", f"concentration_{half}_{angle}")
        now = [float(row.get(name, "nan")) for name in names]
        moved = [
            value - start[name] if start.get(name) is not None else None
            for name, value in zip(names, now, strict=True)
        ]
        about = {"half": half, "angle": angle, "location": now[0], "concentration": now[1]}
        angles.append({**about, "location_moved": moved[0], "concentration_moved": moved[1]})
    samples = flattened(run["config"]).get("model.samples")
    return {"samples": samples, "epoch": float(row.get("epoch", "nan")), "angles": angles}


def _config(path: Path) -> dict[str, Any]:
    file = path / "config.toml"
    try:
        return read_toml(file)
    except UsageError as error:  # a mistake in what is asked for, but here the input's
        raise InputError(
            f"cannot be read: {str(error).removeprefix(f'{file}: ')}", path=file
        ) from error
