"""Models with physical inputs: predict computes what they need, from the potential given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mgsym.data_tools.formats import read, write
from mgsym.data_tools.simulation.optimizers.relax import relax
from mgsym.data_tools.simulation.potentials.eam import EAM
from mgsym.data_tools.simulation.potentials.files import load_potential
from mgsym.data_tools.workflows.graphs import with_physical_inputs
from mgsym.data_tools.workflows.model_inputs import graph_for, physical_names, physics_warning
from mgsym.data_tools.workflows.predictions import evaluate_files, predict_files
from mgsym.errors import InputError
from mgsym.graph import Graph, build_graph
from mgsym.models import create_model
from mgsym.prediction.ensemble import read_ensemble
from mgsym.structure import Column, Structure
from mgsym.training.checkpoint import save_checkpoint
from mgsym.training.config import ModelConfig

CUTOFF = 4.0


@pytest.fixture(scope="module")
def potential() -> EAM:
    return load_potential()


@pytest.fixture(scope="module")
def structure(potential: EAM) -> Structure:
    """54 atoms of an ordered CuZr crystal, off its sites and back at its minimum, with labels."""
    side = 3.2
    corners = side * torch.cartesian_prod(*[torch.arange(3.0).double()] * 3)
    positions = torch.cat([corners, corners + side / 2])
    types = torch.cat([torch.zeros(27), torch.ones(27)]).long()
    cell = 3 * side * torch.eye(3).double()
    start = Structure(positions, cell, types, ("Cu", "Zr"), name="crystal")
    (found,) = relax([start], potential, cell="full", device="cpu")
    generator = torch.Generator().manual_seed(0)
    labels = 1.5 + 0.3 * torch.randn(54, generator=generator)
    return found.structure.replace(columns={"barrier": Column(labels, "eV")})


@pytest.fixture(scope="module")
def graph(structure: Structure, potential: EAM) -> Graph:
    return with_physical_inputs(build_graph(structure, CUTOFF), structure, potential)


@pytest.fixture(scope="module")
def run(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of an untrained model that takes energy and stiffness."""
    options = {
        "width": 8, "heads": [1], "decoder_layers": 1, "edge_input": "length",
        "node_input": "descriptors", "radial": 4, "l_max": 2,
        "physical_inputs": ["energy", "stiffness_1"], "physical_smoothing": [1.5],
    }  # fmt: skip
    torch.manual_seed(0)
    model = create_model("symgnn", ("Cu", "Zr"), CUTOFF, options)
    model.fit_statistics([graph])
    path = tmp_path_factory.mktemp("run") / "best.pt"
    save_checkpoint(path, model.eval(), ModelConfig("symgnn", options))
    return path


def test_inputs_are_computed_with_the_potential(
    run: Path, structure: Structure, graph: Graph, potential: EAM, tmp_path: Path
) -> None:
    ensemble = read_ensemble(run)
    assert physical_names(ensemble) == ("energy", "stiffness_1")
    found = graph_for(structure, ensemble, potential)
    assert torch.equal(found.node_features["energy"], graph.node_features["energy"])
    assert graph_for(graph, ensemble) is graph
    file, out = tmp_path / "crystal.npz", tmp_path / "out.npz"
    write([structure], file)
    predict_files([file], run, out, potential=potential, device="cpu")
    with torch.no_grad():
        expected = ensemble.models[0](graph)
    predicted = read(out).columns["barrier_predicted"].values.float()
    torch.testing.assert_close(predicted, expected, atol=1e-5, rtol=0)
    scored = evaluate_files([file], run, potential=potential, device="cpu")
    assert scored.scores.pooled.count == 54
    assert scored.reliability is None


def test_without_the_potential_it_says_what_is_missing(
    run: Path, structure: Structure, tmp_path: Path
) -> None:
    write([structure], tmp_path / "crystal.npz")
    with pytest.raises(InputError, match=r"crystal: the model takes energy, stiffness_1 .* give"):
        predict_files([tmp_path / "crystal.npz"], run, tmp_path / "out.npz", device="cpu")


def test_another_potential_is_warned_of(run: Path, graph: Graph) -> None:
    ensemble = read_ensemble(run)
    assert physics_warning(graph, ensemble) == ()
    shifted = {**graph.node_features, "energy": graph.node_features["energy"] + 3.0}
    (warning,) = physics_warning(replace(graph, node_features=shifted), ensemble)
    assert "crystal has atoms whose energy is far" in warning
