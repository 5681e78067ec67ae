"""Node features as inputs of a model: standardised per species, averaged over neighbours."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mgsym.descriptors.physical import PhysicalInputs, physical_inputs_of
from mgsym.errors import UsageError
from mgsym.graph import Graph, build_graph
from mgsym.models import create_model
from mgsym.structure import Structure
from mgsym.training.config import ModelConfig, preset


@pytest.fixture
def pair() -> Graph:
    """Two atoms 2 Å apart, Cu and Zr, with one feature."""
    structure = Structure(
        torch.tensor([[1.0, 1, 1], [3, 1, 1]]),
        20 * torch.eye(3),
        torch.tensor([0, 1]),
        ("Cu", "Zr"),
    )
    return build_graph(structure, 3.0).replace(node_features={"energy": torch.tensor([1.0, 3.0])})


def test_the_average_has_gaussian_weights(pair: Graph) -> None:
    found = PhysicalInputs(("energy",), (1.0, 1e6), species=2)(pair)
    near = float(torch.exp(torch.tensor(-2.0)))  # r²/2σ² = 2
    first, second = (1 + 3 * near) / (1 + near), (3 + near) / (1 + near)
    expected = torch.tensor([[1.0, first, 2.0], [3.0, second, 2.0]])
    torch.testing.assert_close(found, expected)


def test_a_weight_counts_neighbours(pair: Graph) -> None:
    inputs = PhysicalInputs(("energy",), (1e6,), species=2)
    found = inputs(pair, torch.tensor([0.5, 0.0]))
    # the first edge arrives at atom 0
    torch.testing.assert_close(found, torch.tensor([[1.0, 2.5 / 1.5], [3.0, 3.0]]))


def test_features_are_standardised_within_each_species(disordered: Structure) -> None:
    generator = torch.Generator().manual_seed(0)
    graph = build_graph(disordered, 4.0)
    values = 5 + 3 * torch.randn(64, generator=generator) - 10 * graph.types
    graph = graph.replace(node_features={"energy": values, "none": torch.ones(64)})
    inputs = PhysicalInputs(("energy", "none"), (), species=2)
    inputs.fit([graph])
    found = inputs(graph)
    for kind in (0, 1):
        own = found[graph.types == kind]
        torch.testing.assert_close(own.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
        torch.testing.assert_close(own.std(0, correction=0), torch.tensor([1.0, 0.0]))


def test_available_inputs_are_those_that_every_training_graph_has(pair: Graph) -> None:
    values = torch.ones(2)
    full = pair.replace(node_features={"stiffness_1": values, "energy": values, "own": values})
    some = pair.replace(node_features={"energy": values, "own": values})
    options = {"node_input": "descriptors", "physical_inputs": ("own", "available")}
    config = ModelConfig(options=options)
    for graphs, names in (
        ([full], ("own", "energy", "stiffness_1")),
        ([full, some], ("own", "energy")),
    ):
        assert config.for_graphs(graphs).options["physical_inputs"] == names
    without = ModelConfig(options={**options, "physical_inputs": ("available",)}).for_graphs(
        [pair.replace(node_features={}), some]
    )
    assert without.options["physical_inputs"] == ()
    assert ModelConfig("gcn").for_graphs([full]).options["physical_inputs"] == ()


@pytest.mark.parametrize("name", ["symgnn", "ridge", "gcn"])
def test_available_means_the_same_for_every_model(pair: Graph, name: str) -> None:
    """None and the setting's spelling; without training graphs a model takes what is named."""
    full = pair.replace(node_features={"energy": torch.ones(2), "own": torch.ones(2)})
    for spelling in (None, ("available",), ["available"]):
        given = {"physical_inputs": spelling}
        if name == "symgnn":
            given["node_input"] = "descriptors"  # type: ignore[assignment]
        config = ModelConfig(name, given)
        assert config.complete().options["physical_inputs"] is None
        assert config.for_graphs([full]).options["physical_inputs"] == ("energy",)
        model = create_model(name, ("Cu", "Zr"), 3.0, given)
        assert physical_inputs_of(model) == ()
    with pytest.raises(UsageError, match="physical_inputs is 'available', expected names"):
        create_model(name, ("Cu", "Zr"), 3.0, {"physical_inputs": "available"})


def test_the_preset_makes_a_model_by_hand(make_graph: Callable[..., Graph]) -> None:
    graphs = [make_graph("a"), make_graph("b", seed=1)]
    chosen = preset("fast").model
    model = create_model(chosen.name, graphs[0].species, graphs[0].cutoff, chosen.options)
    model.fit_statistics(graphs)
    assert bool(torch.isfinite(model.eval()(graphs[0])).all())
    text = preset("fast").to_toml()
    assert 'physical_inputs = ["available"]' in text
