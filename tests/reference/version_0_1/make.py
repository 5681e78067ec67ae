"""Write one small file of every kind with mgsym 0.1.0, and what the models predicted.

Later versions must read these files and predict the same (tests/test_old_files.py). This script
belongs to the version that wrote them (the commit that added it) and is
kept to tell what they are; files of a later version would go beside them, in a folder of its own.

    python tests/reference/version_0_1/make.py
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch

from mgsym.data_tools.formats import read, write
from mgsym.data_tools.simulation.potentials.files import load_potential
from mgsym.data_tools.workflows.graphs import build_graphs
from mgsym.data_tools.workflows.labelling import label_file
from mgsym.data_tools.workflows.relaxation import relax_files
from mgsym.graph import Graph
from mgsym.prediction import predict_graph
from mgsym.prediction.ensemble import merge, read_ensemble, save_ensemble
from mgsym.structure import Column, Structure
from mgsym.training import train
from mgsym.training.checkpoint import FORMAT, FORMAT_VERSION
from mgsym.training.config import Config, ModelConfig, TrainingConfig
from mgsym.utils.files import load_safely, save_safely

HERE = Path(__file__).parent
CUTOFF = 3.2
PHYSICS = ("energy", "pressure", "stiffness_1")
NEAR = {"radial": 3, "l_max": 2, "wide_radial": 0, "smoothing": (1.5,), "physical_smoothing": ()}
SYMGNN = {
    "width": 8,
    "heads": (1, 1),
    "decoder_layers": 1,
    "edge_input": "length",
    "node_input": "descriptors",
    "radial": 3,
    "l_max": 2,
}
# name of the file: model and options; those below the line use what later versions do not have
MODELS = {
    "symgnn": ("symgnn", {**SYMGNN, "physical_inputs": PHYSICS, "smoothing": (1.5,)}),
    "symgnn_with_companion": ("symgnn", {**SYMGNN, "companion": 0.6}),
    "ridge": ("ridge", {**NEAR, "physical_inputs": PHYSICS}),
    "schnet": ("schnet", {"width": 8}),
    "mlp": ("mlp", {"width": 8, "physical_inputs": PHYSICS}),
    # ----
    "kernel": ("kernel", {**NEAR, "directions": 2, "waves": 4}),
    "boosting": ("boosting", {**NEAR, "directions": 2, "trees": 5, "depth": 2, "bins": 4}),
    "symgnn_on_a_ridge": ("symgnn", {**SYMGNN, "ridge": 10.0}),
    "mlp_of_neighbors": ("mlp", {"width": 8, "neighbors": True}),
    "ridge_of_bispectrum": ("ridge", {**NEAR, "bispectrum": 2}),
}


def glass(name: str, seed: int) -> Structure:
    """64 atoms near the sites of a cubic lattice, 10.8 Å wide."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.cartesian_prod(*[torch.arange(4, dtype=torch.float64) * 2.7] * 3)
    positions = grid + 0.4 * torch.rand(64, 3, generator=generator, dtype=torch.float64)
    types = (torch.rand(64, generator=generator) < 0.36).long()
    cell = 10.8 * torch.eye(3, dtype=torch.float64)
    return Structure(positions, cell, types, ("Cu", "Zr"), name=name, glass=name)


def with_barriers(structure: Structure, seed: int) -> Structure:
    """The structure with labels that rise with the energy of the atom; every eighth has none."""
    noise = np.random.default_rng(seed).normal(size=len(structure.types))
    energy = structure.columns["energy"].values
    barrier = 1.6 + 0.2 * (energy - energy.mean()) / energy.std() + 0.05 * torch.tensor(noise)
    barrier[::8] = float("nan")
    stderr = torch.where(barrier.isnan(), barrier, torch.full_like(barrier, 0.05))
    labels = {"barrier": Column(barrier, "eV"), "barrier_stderr": Column(stderr, "eV")}
    return structure.replace(columns={**structure.columns, **labels})


def write_graphs(work: Path) -> list[Graph]:
    """Graphs of two relaxed glasses with labels and physical inputs; the second also bare."""
    potential = load_potential()
    names = ("a", "b")
    for seed, name in enumerate(names):
        write(glass(name, seed), work / f"{name}.xyz")
    done = relax_files([work / f"{n}.xyz" for n in names], potential, work / "relaxed")
    shutil.copy(done[0].path, HERE / "relaxed.xyz")
    relaxed = [read(file.path) for file in done]
    labelled = [with_barriers(s, seed) for seed, s in enumerate(relaxed)]
    build_graphs(labelled, work / "graphs", CUTOFF, potential=potential)
    build_graphs([relaxed[1]], work / "bare", CUTOFF)
    for name in names:
        path = work / "graphs" / f"{name}.npz"
        graph = Graph.load(path)
        features = {k: graph.node_features[k] for k in PHYSICS}
        units = {k: u for k, u in graph.feature_units.items() if k in PHYSICS}
        graph.replace(node_features=features, feature_units=units).save(HERE / f"graph_{name}.npz")
    shutil.copy(work / "bare" / "b.npz", HERE / "graph_bare.npz")
    return [Graph.load(HERE / f"graph_{n}.npz") for n in names]


def write_models(work: Path, graphs: list[Graph]) -> None:
    """A checkpoint of each model, an ensemble of two, and the run directory of one."""
    predicted = {}
    for name, (model, options) in MODELS.items():
        config = Config("fast", ModelConfig(model, options), TrainingConfig(epochs=2), seed=0)
        train(graphs, config, run=work / name, device="cpu", validation=["b"])
        copy_checkpoint(work / name / "best.pt", HERE / f"{name}.pt")
        predicted[name] = predict_graph(read_ensemble(HERE / f"{name}.pt").models[0], graphs[1])
    shutil.copytree(work / "mlp", HERE / "run", dirs_exist_ok=True)
    ensemble = merge([read_ensemble(HERE / f"{n}.pt") for n in ("mlp", "ridge")], [1.0, 2.0])
    save_ensemble(HERE / "ensemble.pt", ensemble)
    values = torch.stack([predict_graph(model, graphs[1]) for model in ensemble.models])
    predicted["ensemble"], predicted["ensemble_spread"] = ensemble.combined(values)
    np.savez_compressed(HERE / "predictions.npz", **{k: v.numpy() for k, v in predicted.items()})


def copy_checkpoint(source: Path, target: Path) -> None:
    """Copy a checkpoint without what it knows of the training atoms' surroundings, 40 kB each.

    The run directory keeps its own with them.
    """
    content = load_safely(source, FORMAT, FORMAT_VERSION)
    content["training_set"]["surroundings"] = None
    save_safely(target, content)


def write_events(work: Path) -> None:
    """Searches from two atoms of the sample's test glass."""
    label_file(None, load_potential(), work / "searched.xyz", atoms="0:2", searches=2)
    shutil.copy(work / "searched.events.csv", HERE / "searched.events.csv")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_models(Path(folder), write_graphs(Path(folder)))
        write_events(Path(folder))
