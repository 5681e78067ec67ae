"""A trained model small enough to make in a second."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mgsym.graph import Graph, build_graph
from mgsym.structure import Column, Structure
from mgsym.training import train
from mgsym.training.config import preset


@pytest.fixture(scope="session")
def trained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with graphs/ of three crystals of 27 atoms and runs/first, trained two epochs."""
    folder = tmp_path_factory.mktemp("trained")
    generator = torch.Generator().manual_seed(0)
    sites = 2.5 * torch.cartesian_prod(*[torch.arange(3.0)] * 3)
    graphs = []
    for name, split in (("a", "train"), ("b", "validation"), ("c", "test")):
        structure = Structure(
            positions=sites + 0.1 * torch.rand(27, 3, generator=generator),
            cell=7.5 * torch.eye(3),
            types=torch.arange(27) % 2,
            species=("Cu", "Zr"),
            columns={"barrier": Column(torch.rand(27, generator=generator), "eV")},
            name=name,
            glass=name,
            split=split,
        )
        graphs.append(build_graph(structure, 3.0))
        graphs[-1].save(folder / "graphs" / f"{name}.npz")
    # three tiny glasses tell a regression nothing that holds elsewhere
    few = {"training.epochs": 2, "training.evaluate_every": 1, "model.ridge_share": 0.0}
    config = preset("fast").changed(few)
    train(graphs, config, run=folder / "runs" / "first", device="cpu")
    return folder


@pytest.fixture(scope="session")
def vectors_run(trained_folder: Path) -> Path:
    """The run of a SymGNN on displacement vectors: its transforms are learned."""
    graphs = [Graph.load(path) for path in sorted((trained_folder / "graphs").glob("*.npz"))]
    few = {"training.epochs": 3, "training.evaluate_every": 1, "model.width": 8}
    config = preset("paper").changed({**few, "model.heads": (1,), "model.samples": 3})
    train(graphs, config, run=trained_folder / "vectors", device="cpu")
    return trained_folder / "vectors"
