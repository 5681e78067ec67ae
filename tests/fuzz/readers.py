"""Every kind of file that mgsym reads: a small good one, and the command lines that read it."""

from __future__ import annotations

import csv
import pickle
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import mutations
import numpy as np
import torch

import mgsym
from mgsym.data_tools.formats import csv_table
from mgsym.data_tools.simulation.labelling.event_files import (
    EVENT_TYPE,
    Heading,
    event_lines,
    structure_hash,
    write_events,
)
from mgsym.data_tools.simulation.potentials.eam import potential_hash
from mgsym.data_tools.simulation.potentials.zhou_johnson_wadley import zhou_cu_zr
from mgsym.data_tools.simulation.saddle_search.events import STATUSES
from mgsym.data_tools.simulation.saddle_search.settings import ArtnSettings
from mgsym.graph import build_graph
from mgsym.models import create_model
from mgsym.nn.rotations import distributions_of
from mgsym.prediction.ensemble import Ensemble, Member, save_ensemble
from mgsym.structure import Column, Structure
from mgsym.training.checkpoint import save_checkpoint
from mgsym.training.config import ModelConfig, preset
from mgsym.training.runs import write_history
from mgsym.uncertainty.out_of_distribution import TrainingSet
from mgsym.utils.files import write_json


@dataclass(frozen=True)
class Reader:
    """A kind of file.

    Attributes:
        name: of the file; in a folder of its own where it has one.
        make: writes a good file.
        commands: that read it, {} standing for the file; one of them is taken at a time.
        mutations: how it is damaged.
        zipped: whether it may be compressed with gzip as well.
    """

    name: str
    make: Callable[[Path], None]
    commands: Sequence[Sequence[str]]
    mutations: Sequence[mutations.Mutation] = mutations.TEXT
    zipped: bool = False


def structure(atoms: int = 24, name: str = "tiny") -> Structure:
    """A few atoms of copper and zirconium with labels."""
    generator = torch.Generator().manual_seed(0)
    sites = 2.9 * torch.cartesian_prod(torch.arange(3.0), torch.arange(2.0), torch.arange(4.0))
    return Structure(
        positions=(sites + 0.3 * torch.rand(24, 3, generator=generator))[:atoms],
        cell=torch.diag(torch.tensor([8.7, 5.8, 11.6])),
        types=torch.arange(atoms) % 2,
        species=("Cu", "Zr"),
        columns={
            "barrier": Column(1 + torch.rand(atoms, generator=generator), "eV"),
            "barrier_stderr": Column(0.1 * torch.rand(atoms, generator=generator), "eV"),
        },
        name=name,
        glass=name,
        split="train",
    )


TYPES = ["--types", "1=Cu,2=Zr"]
OUT = ["-o", "out", "--overwrite"]
AS_IT_IS = ["--max-steps", "0", "--fmax", "1e99"]  # compute energies, move nothing
READ = [
    ["info", "{}", *TYPES],
    ["info", "{}", *TYPES, "--frames", ":"],
    ["build-graph", "{}", *TYPES, *OUT],
    ["build-graph", "{}", *TYPES, *OUT],
    ["convert", "{}", "-o", "out.xyz", "--overwrite", *TYPES],
    ["relax", "{}", *AS_IT_IS, *TYPES, *OUT, "--device", "cpu"],
]
GOOD = "good.xyz"


def _written(name: str, frames: int = 2) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        content = [structure(), structure(20, "other")][:frames]
        mgsym.write(content if frames > 1 else content[0], path, format=name)

    return make


def _cfg(path: Path) -> None:
    lines = ["Number of particles = 4", "A = 1 Angstrom (basic length-scale)"]
    lines += [f"H0({i},{j}) = {6 if i == j else 0} A" for i in (1, 2, 3) for j in (1, 2, 3)]
    lines += [".NO_VELOCITY.", "entry_count = 3"]
    lines += ["63.546", "Cu", "0 0 0", "0.5 0.5 0", "91.224", "Zr", "0.5 0 0.5", "0 0.5 0.5", ""]
    path.write_text("\n".join(lines))


def _poscar(path: Path) -> None:
    path.write_text(
        "glass\n1.0\n6 0 0\n0 6 0\n0 0 6\nCu Zr\n2 2\nDirect\n"
        "0 0 0\n0.5 0.5 0\n0.5 0 0.5\n0 0.5 0.5\n"
    )


def _cif(path: Path) -> None:
    from ase import Atoms
    from ase.io import write

    write(path, Atoms("CuZr", [[0, 0, 0], [3, 3, 3]], cell=[6, 6, 6], pbc=True), format="cif")


def _trajectory(path: Path) -> None:
    from ase import Atoms
    from ase.io import write

    write(path, Atoms("CuZr", [[0, 0, 0], [3, 3, 3]], cell=[6, 6, 6], pbc=True), format="traj")


def _pickle(protocol: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        one = structure()
        content = {
            "__header__": b"MATLAB",
            "__globals__": [],
            "box": one.cell.diagonal().numpy().astype("f4"),
            "positions": one.positions.numpy() - 4,
            "types": one.types.numpy().astype("i4") + 1,
            "trajectory_start_velocities": one.columns["barrier"].values.numpy(),
            "pot": np.linspace(-5, -4, len(one)).astype("f4"),
        }
        path.write_bytes(pickle.dumps(content, protocol))

    return make


def _graph(path: Path) -> None:
    build_graph(structure(), 4.0).save(path)


def _model(seed: int) -> tuple[mgsym.models.BarrierModel, ModelConfig]:
    config = ModelConfig("mlp", {}).complete()
    torch.manual_seed(seed)
    return create_model("mlp", ("Cu", "Zr"), 4.0, config.options).eval(), config


def _checkpoint(path: Path) -> None:
    model, config = _model(0)
    known = TrainingSet.of([build_graph(structure(), 4.0)])
    save_checkpoint(path, model, config, known, {"epoch": 3})


def _ensemble(path: Path) -> None:
    from mgsym.training.checkpoint import load_checkpoint

    members = []
    for seed in (0, 1):
        model, config = _model(seed)
        part = path.with_name(f"part{seed}.pt")
        save_checkpoint(part, model, config)
        loaded, known = load_checkpoint(part)
        members.append(Member(loaded, f"seed{seed}", 1.0, known))
    save_ensemble(path, Ensemble(tuple(members)))


def _labels(path: Path) -> None:
    one = structure()
    rows = zip(
        one.ids.tolist(),
        one.columns["barrier"].values.tolist(),
        one.columns["barrier_stderr"].values.tolist(),
        strict=True,
    )
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", csv_table.header("barrier", "eV"), "barrier_stderr"])
        writer.writerows(rows)


def _potential(path: Path) -> None:
    """A coarse eam/alloy file of a potential that looks like one."""
    points, densities, cutoff = 60, 40, 5.9
    r, rho = np.linspace(0, cutoff, points), np.linspace(0, 60, densities)
    lines = ["toy", "", "", "2 Cu Zr"]
    lines.append(f"{densities} {rho[1]:.17g} {points} {r[1]:.17g} {cutoff}")
    pair = r * 2 * np.exp(-2 * r) * (1 - r / cutoff)
    for number, mass in ((29, 63.546), (40, 91.224)):
        lines.append(f"{number} {mass} 3.6 fcc")
        lines += [f"{v:.8g}" for v in -np.sqrt(rho)]
        lines += [f"{v:.8g}" for v in 10 * np.exp(-2 * r)]
    lines += [f"{v:.8g}" for v in np.tile(pair, 3)]
    path.write_text("\n".join(lines) + "\n")


def _events(path: Path) -> None:
    one, potential = mgsym.read(path.with_name(GOOD)), zhou_cu_zr()
    heading = Heading(
        structure=structure_hash(one),
        potential=potential_hash(potential),
        seed=0,
        settings=asdict(ArtnSettings()),
        atoms=len(one),
        rows="all",
        searches=2,
        name=one.name,
    )
    events = np.zeros(2 * len(one), EVENT_TYPE)
    events["atom"] = np.repeat(np.arange(len(one)), 2)
    events["id"] = events["atom"] + 1
    events["attempt"] = np.tile([0, 1], len(one))
    events["status"] = STATUSES[0]
    events["barrier"] = np.linspace(1, 2, len(events))
    write_events(path, heading, event_lines(events))


def _toml(path: Path) -> None:
    path.write_text(preset("fast").to_toml())


def _run(path: Path) -> None:
    """A run's folder, of which one file at a time is damaged."""
    folder = path.parent
    (folder / "config.toml").write_text(preset("fast").to_toml())
    facts = {
        "status": "finished", "started": "2026-01-01", "ended": "2026-01-02", "model": "mlp",
        "preset": "fast", "seed": 0, "device": "cpu", "threads": 1, "split": {"train": ["a"]},
        "versions": {"mgsym": "0.1"}, "scores": {"test": {"rmse": 0.2}}, "command": "mgsym train",
    }  # fmt: skip
    torch.manual_seed(0)
    learned = distributions_of(create_model("symgnn", ("Cu", "Zr"), 4.0))
    facts |= {"transforms_start": learned, "rotation_rms_eV": 0.01, "best_epoch": 2}
    write_json(folder / "run.json", facts)
    history = [{"epoch": 1.0, "loss": 0.5, **learned}, {"epoch": 2.0, "loss": 0.4, **learned}]
    write_history(folder / "metrics.csv", history)
    _checkpoint(folder / "best.pt")


USE = [
    ["info", "{}"],
    ["predict", GOOD, "--run", "{}", "-o", "out.xyz", "--overwrite", "--device", "cpu"],
]
ARCHIVE = mutations.ARCHIVE
READERS = (
    Reader("a.xyz", _written("extxyz"), READ, zipped=True),
    Reader("a.dump", _written("lammps-dump"), READ, zipped=True),
    Reader("a.data", _written("lammps-data", 1), READ, zipped=True),
    Reader("a.npz", _written("npz", 1), READ, ARCHIVE, zipped=True),
    Reader("a.pickle", _pickle(4), READ, mutations.TEXT, zipped=True),
    Reader("b.pickle", _pickle(5), READ, (mutations.bits, mutations.piece), zipped=True),
    Reader("a.cfg", _cfg, READ, zipped=True),
    Reader("POSCAR", _poscar, READ),
    Reader("a.cif", _cif, READ),
    Reader("a.traj", _trajectory, READ),
    Reader(
        "graph.npz",
        _graph,
        [["info", "{}"], ["evaluate", "model.pt", "{}", "--device", "cpu"]],
        ARCHIVE,
    ),
    Reader("a.pt", _checkpoint, USE, ARCHIVE),
    Reader("ensemble.pt", _ensemble, USE, ARCHIVE),
    Reader("labels.csv", _labels, [["build-graph", GOOD, "--labels", "{}", *OUT]], zipped=True),
    Reader(
        "a.events.csv",
        _events,
        [["merge", GOOD, "{}", "-o", "merged.xyz", "--overwrite"]],
        zipped=True,
    ),
    Reader(
        "a.eam",
        _potential,
        [["relax", GOOD, "--potential", "{}", *AS_IT_IS, *OUT, "--device", "cpu"]],
        zipped=True,
    ),
    Reader("config.toml", _toml, [["train", "absent", "--config", "{}"]]),
    Reader("run/config.toml", _run, [["info", "run"]]),
    Reader("run/run.json", _run, [["info", "run"]]),
    Reader("run/metrics.csv", _run, [["info", "run"]]),
)


def make_others() -> None:
    """The good files that command lines need beside the damaged one."""
    mgsym.write(structure(name="good"), GOOD)
    _checkpoint(Path("model.pt"))
