"""Files that mgsym 0.1.0 wrote are read, and their models predict what they did then.

tests/reference/version_0_1/make.py tells how the files were made.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mgsym.data_tools.formats import read
from mgsym.data_tools.simulation.labelling.event_files import read_events
from mgsym.errors import InputError
from mgsym.graph import Graph
from mgsym.prediction import predict_graph
from mgsym.prediction.ensemble import read_ensemble
from mgsym.training import train
from mgsym.training.config import load_config
from mgsym.training.runs import run_config

FILES = Path(__file__).parent / "reference" / "version_0_1"
PHYSICS = ("energy", "pressure", "stiffness_1")
OLD = "mgsym 0.1.0 is the last version that has it"
MODELS = [
    "symgnn",
    "symgnn_with_companion",
    "ridge",
    "schnet",
    "mlp",
]


def graph(name: str) -> Graph:
    return Graph.load(FILES / f"graph_{name}.npz")


def predicted(name: str) -> torch.Tensor:
    with np.load(FILES / "predictions.npz", allow_pickle=False) as arrays:
        return torch.from_numpy(arrays[name])


def test_graphs_with_labels_and_physical_inputs() -> None:
    for name in ("a", "b"):
        read_back = graph(name)
        assert read_back.names == (name,)
        assert read_back.num_nodes == 64
        assert int(read_back.labelled.sum()) == 56  # every eighth has none
        assert bool((read_back.target_stderr[read_back.labelled] == 0.05).all())
        assert tuple(read_back.node_features) == PHYSICS
        assert all(bool(v.isfinite().all()) for v in read_back.node_features.values())


def test_a_graph_with_neither() -> None:
    bare, full = graph("bare"), graph("b")
    assert not bare.labelled.any()
    assert not bare.node_features
    assert torch.equal(bare.edge_index, full.edge_index)
    torch.testing.assert_close(bare.positions, full.positions)


@pytest.mark.parametrize("name", MODELS)
def test_a_checkpoint_predicts_as_it_did(name: str) -> None:
    (model,) = read_ensemble(FILES / f"{name}.pt").models
    found = predict_graph(model, graph("b"))
    torch.testing.assert_close(found, predicted(name), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        ("kernel", "the model kernel is gone"),
        ("boosting", "model.directions is 2, but that setting is gone"),
        ("symgnn_on_a_ridge", "model.ridge is 10.0, but that setting is gone"),
        ("mlp_of_neighbors", "model.neighbors is True, but that setting is gone"),
        ("ridge_of_bispectrum", "model.bispectrum is 2, but that setting is gone"),
    ],
)
def test_a_checkpoint_of_what_is_gone_says_so(name: str, gone: str) -> None:
    with pytest.raises(InputError, match=rf"{name}\.pt.*{gone}; {OLD}"):
        read_ensemble(FILES / f"{name}.pt")


def test_an_ensemble_predicts_as_it_did() -> None:
    ensemble = read_ensemble(FILES / "ensemble.pt")
    values = torch.stack([predict_graph(model, graph("b")) for model in ensemble.models])
    mean, spread = ensemble.combined(values)
    torch.testing.assert_close(mean, predicted("ensemble"), rtol=0, atol=1e-5)
    torch.testing.assert_close(spread, predicted("ensemble_spread"), rtol=0, atol=1e-5)


def test_a_run_is_read() -> None:
    config = load_config(run_config(FILES / "run"))
    assert (config.model.name, config.training.epochs, config.seed) == ("mlp", 2, 0)
    ensemble = read_ensemble(FILES / "run")
    assert ensemble.metadata is not None
    assert ensemble.metadata.training_set.surroundings is not None
    found = predict_graph(ensemble.models[0], graph("b"))
    torch.testing.assert_close(found, predicted("mlp"), rtol=0, atol=1e-5)


def test_a_run_is_resumed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(FILES / "run", run)
    config = load_config(run_config(run))
    trained = train([graph("a"), graph("b")], config, run=run, device="cpu", resume=True)
    assert [row["epoch"] for row in trained.history] == [1, 2]
    found = predict_graph(trained.model, graph("b"))
    torch.testing.assert_close(found, predicted("mlp"), rtol=0, atol=1e-5)


def test_searches_are_read() -> None:
    heading, events, _ = read_events(FILES / "searched.events.csv")
    assert (heading.atoms, heading.chosen, heading.searches) == (500, [0, 1], 2)
    assert sorted(zip(events["atom"], events["attempt"], strict=True)) == [
        (0, 0), (0, 1), (1, 0), (1, 1),
    ]  # fmt: skip
    (barrier,) = events["barrier"][events["status"] == "found"]
    assert barrier == pytest.approx(-0.1611478329, abs=1e-9)


def test_a_relaxed_structure_is_read() -> None:
    structure = read(FILES / "relaxed.xyz")
    energy = structure.columns["energy"]
    assert energy.unit == "eV"
    # the same as the graph's physical input, in float32
    torch.testing.assert_close(energy.values.float(), graph("a").node_features["energy"])
