"""Models by name: ablations of the paper, what is said of each, and that each can be trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mgsym.errors import UsageError
from mgsym.graph import Graph
from mgsym.models import MODELS, create_model, model_options, summarize_models
from mgsym.models.networks.symgnn import SymGNN
from mgsym.training import train
from mgsym.training.config import load_config


def made(name: str, **options: object) -> SymGNN:
    torch.manual_seed(0)
    model = create_model(name, ("Cu", "Zr"), 4.0, {"dropout": 0.0, **options})
    assert isinstance(model, SymGNN)
    return model


def test_a_name_may_change_defaults_and_the_user_may_change_them_again() -> None:
    ours = model_options("symgnn")
    for name, change in {
        "egat": {"transforms": "none"},
        "egat-augmented": {"transforms": "augment"},
        "egat-length": {"edge_input": "length"},
    }.items():
        assert model_options(name) == {**ours, **change}
    assert model_options("egat", {"transforms": "haar"})["transforms"] == "haar"


def test_augmentation_transforms_in_training_only(five_graphs: list[Graph]) -> None:
    augmented, plain = made("egat-augmented"), made("egat")
    graph = five_graphs[0]
    with torch.no_grad():
        first, second = augmented(graph), augmented(graph)
        assert (first - second).abs().max() > 1e-4
        torch.testing.assert_close(plain(graph), plain(graph), atol=1e-5, rtol=0)
        plain.load_state_dict(augmented.state_dict())
        assert torch.equal(augmented.eval()(graph), plain.eval()(graph))


def test_without_symmetrisation_twelve_parameters_are_gone() -> None:
    assert made("symgnn").num_parameters - made("egat").num_parameters == 12


def test_summaries_say_what_models_declare() -> None:
    state = torch.get_rng_state()
    summaries = {s.name: s for s in summarize_models()}
    assert torch.equal(torch.get_rng_state(), state)
    assert list(summaries) == list(MODELS)
    assert all(s.source for s in summaries.values())
    assert (summaries["symgnn"].parameters, summaries["symgnn"].receptive_field) == (102_385, 20)
    assert [summaries[n].invariant for n in ("egat", "gcn-edges", "egnn")] == ["no", "no", "yes"]
    assert summaries["egat"].changed == {"transforms": "none"}
    assert not summaries["mlp"].uses_edges


# regressions see less far than by default: that they can be trained does not depend on it
NEAR = {"descriptor_cutoff": 4.0, "radial": 3, "l_max": 2, "wide_cutoff": 4.5, "wide_radial": 4}
NEARER: dict[str, dict[str, object]] = {"ridge": NEAR, "boosting": NEAR}


@pytest.mark.parametrize("name", MODELS)
def test_the_default_schedule_trains_every_model(
    five_graphs: list[Graph], name: str, tmp_path: Path
) -> None:
    near = {f"model.{option}": value for option, value in NEARER.get(name, {}).items()}
    config = load_config(overrides={"model.name": name, "training.epochs": 1, **near})
    run = train(five_graphs, config, run=tmp_path / "run", device="cpu")
    assert all(torch.isfinite(torch.tensor(row["train_loss"])) for row in run.history)
    assert run.scores["test"].pooled.count == 64
    assert (tmp_path / "run/best.pt").exists()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gcn", {"layers": 1}),
        ("gcn-edges", {}),
        ("egnn", {}),
        ("egat", {"heads": (2, 1)}),
        ("mlp", {"node_input": "descriptors"}),
        ("schnet", {"width": 16}),
        ("mgcn", {"width": 16, "layers": 2}),
        ("faenet", {"width": 16, "layers": 2}),
        ("bapst", {"width": 32, "steps": 2}),
    ],
)
def test_neighbours_of_one_species_can_be_counted(
    five_graphs: list[Graph], name: str, options: dict[str, object]
) -> None:
    """The planted label is the number of Zr neighbours."""
    settings = {"model.name": name, **{f"model.{k}": v for k, v in options.items()}}
    config = load_config(overrides={**settings, "training.epochs": 30})
    assert train(five_graphs, config, device="cpu").scores["test"].mean_pearson > 0.8


def test_an_atom_by_itself_cannot_count_its_neighbours(five_graphs: list[Graph]) -> None:
    config = load_config(overrides={"model.name": "mlp", "training.epochs": 30})
    assert abs(train(five_graphs, config, device="cpu").scores["test"].mean_pearson) < 0.4


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gcn", {"layers": 0}, "model.layers is 0, expected at least 1"),
        ("mlp", {"width": 0}, "model.width is 0, expected at least 1"),
        ("egnn", {"dropout": 1.0}, "model.dropout is 1.0, expected at least 0 and less than 1"),
        ("gcn-edges", {"edge_input": "angle"}, "edge_input is 'angle', expected vector or length"),
        ("mlp", {"node_input": "mass"}, "node_input is 'mass', expected types or descriptors"),
        ("mlp", {"heads": 2}, "model mlp has no option 'heads'; it has width"),
    ],
)
def test_bad_options_are_named(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_model(name, ("Cu", "Zr"), 5.0, options)
