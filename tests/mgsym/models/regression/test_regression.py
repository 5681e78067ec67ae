"""Ridge regression and boosted trees: planted truths, training runs, large systems."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from mgsym.descriptors.local import LocalInputs, LocalOptions
from mgsym.errors import InputError, Interrupted, UsageError
from mgsym.graph import Graph
from mgsym.models import create_model
from mgsym.models.regression.base import DirectModel
from mgsym.models.regression.boosting import Boosting
from mgsym.models.regression.ridge import Ridge
from mgsym.prediction import predict_graph
from mgsym.prediction.seeds import train_seeds
from mgsym.training import train
from mgsym.training.checkpoint import load_checkpoint
from mgsym.training.config import Config, ModelConfig, load_config

NEAR: dict[str, Any] = {"descriptor_cutoff": 4.0, "radial": 3, "l_max": 2, "wide_radial": 0}
NEAR |= {"smoothing": (1.5,), "physical_inputs": ()}
MODELS = {
    "ridge": NEAR,
    "boosting": {**NEAR, "depth": 3, "shrinkage": 0.1, "columns": 1.0, "regularisation": 2.0},
}


@pytest.fixture(scope="module")
def glasses(make_graph: Callable[..., Graph]) -> list[Graph]:
    """Six glasses of 216 atoms."""
    return [make_graph(f"s{i}", side=6, seed=i) for i in range(6)]


def planted(graphs: Sequence[Graph], bent: float, noise: float = 0.02) -> list[Graph]:
    """Labels linear in one smoothed input, and in the size of another one's deviation."""
    inputs = LocalInputs(LocalOptions(**NEAR), 2)
    inputs.fit(graphs)
    generator = torch.Generator().manual_seed(0)
    found = []
    for graph in graphs:
        features = inputs.features(graph)
        line, bend = features[:, 2], features[:, -40]
        bend = (bend - bend.mean()) / bend.std()
        label = 1.5 + 0.1 * (line + 2 * bend) + 0.2 * bent * bend.square()
        label += noise * torch.randn(len(label), generator=generator)
        found.append(graph.replace(target=label.float()))
    return found


def fitted(name: str, graphs: Sequence[Graph], **options: Any) -> DirectModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_model(name, ("Cu", "Zr"), 4.0, {**MODELS[name], **options})
    assert isinstance(model, DirectModel)
    model.fit(graphs)
    return model.eval()


def pearson(model: DirectModel, graph: Graph) -> float:
    return float(torch.corrcoef(torch.stack([model(graph), graph.target])[:, graph.labelled])[0, 1])


@pytest.mark.parametrize("name", MODELS)
def test_a_planted_line_is_found_in_another_glass(name: str, glasses: list[Graph]) -> None:
    graphs = planted(glasses, bent=0.0)
    model = fitted(name, graphs[:5])
    assert pearson(model, graphs[5]) > 0.97
    assert (model(graphs[5]) - graphs[5].target).abs().mean() < 0.1


def test_a_bend_is_found_by_what_can_bend(glasses: list[Graph]) -> None:
    graphs = planted(glasses, bent=1.0)
    found = {name: pearson(fitted(name, graphs[:5]), graphs[5]) for name in MODELS}
    assert found["ridge"] < 0.9
    assert found["boosting"] > found["ridge"] + 0.03


def test_the_strength_is_chosen_or_given(glasses: list[Graph]) -> None:
    clear, noisy = planted(glasses, 0.0), planted(glasses, 0.0, noise=2.0)
    weak, strong = fitted("ridge", clear), fitted("ridge", noisy)
    assert isinstance(weak, Ridge)
    assert isinstance(strong, Ridge)
    assert float(weak.strength) < 30 < float(strong.strength)
    given = fitted("ridge", clear, strength=5.0)
    assert isinstance(given, Ridge)
    assert float(given.strength) == 5.0
    one = fitted("ridge", clear[:1])
    assert isinstance(one, Ridge)
    assert float(one.strength) == 30.0


def test_trees_that_do_not_help_are_not_grown(glasses: list[Graph]) -> None:
    bent, noisy = planted(glasses, 1.0), planted(glasses, 0.0, noise=2.0)
    some, none = fitted("boosting", bent), fitted("boosting", noisy)
    assert isinstance(some, Boosting)
    assert isinstance(none, Boosting)
    assert int(some.grown) > 20 > int(none.grown)


@pytest.mark.parametrize("name", MODELS)
def test_atoms_and_structures_without_labels_teach_nothing(name: str, glasses: list[Graph]) -> None:
    graphs = planted(glasses, 0.5)
    nothing = torch.full((216,), float("nan"))
    half = graphs[0].replace(target=torch.where(torch.arange(216) < 108, graphs[0].target, nothing))
    model = fitted(name, [half, *graphs[1:3]])
    again = fitted(name, [half, *graphs[1:3], graphs[4].replace(target=nothing)])
    torch.testing.assert_close(model(graphs[5]), again(graphs[5]))
    assert pearson(model, graphs[5]) > 0.8
    with pytest.raises(InputError, match="no atom of the training structures has a label"):
        fitted(name, [graphs[4].replace(target=nothing)])


def test_labels_of_weight_zero_teach_nothing(glasses: list[Graph]) -> None:
    graphs = planted(glasses[:2], 0.5)
    first, wrong = graphs[0], torch.arange(216) < 108
    nothing = torch.full((216,), float("nan"))
    spoilt = first.replace(
        target=torch.where(wrong, first.target + 3.0 * (torch.arange(216) % 2), first.target),
        label_weight=(~wrong).float(),
    )
    expected = fitted("ridge", [first.replace(target=torch.where(wrong, nothing, first.target))])
    torch.testing.assert_close(
        fitted("ridge", [spoilt])(graphs[1]), expected(graphs[1]), atol=2e-3, rtol=0
    )


@pytest.mark.parametrize("name", MODELS)
def test_large_systems_keep_their_neighbours(
    name: str, glasses: list[Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the number of edges allowed, no atom loses what lies around it."""
    graphs = planted(glasses, 0.5)
    model = fitted(name, graphs[:2])
    whole = predict_graph(model, graphs[3])
    monkeypatch.setattr("mgsym.descriptors.neighborhoods._SEARCH", 50)
    pieces = predict_graph(model, graphs[3], max_edges=100)
    torch.testing.assert_close(pieces, whole, atol=1e-5, rtol=0)


def config_of(name: str, seed: int = 0, **options: Any) -> Config:
    return Config("fast", ModelConfig(name, {**MODELS[name], **options}).complete(), seed=seed)


@pytest.mark.parametrize("name", MODELS)
def test_training_fits_scores_and_writes_a_run(
    name: str, five_graphs: list[Graph], tmp_path: Path
) -> None:
    steps: list[tuple[int, int]] = []
    run = train(
        five_graphs,
        config_of(name),
        run=tmp_path / "run",
        progress=lambda done, total, **_: steps.append((done, total)),
    )
    assert steps[-1][0] == steps[-1][1] > 3
    assert steps == sorted(steps)
    assert run.scores["test"].mean_pearson > 0.8
    assert (run.best_epoch, len(run.history)) == (0, 1)
    files = {p.name for p in (tmp_path / "run").iterdir()}
    assert files == {"config.toml", "run.json", "metrics.csv", "best.pt", "last.pt"}
    model, metadata = load_checkpoint(tmp_path / "run/best.pt")
    assert torch.equal(model(five_graphs[4]), run.model(five_graphs[4]))
    assert metadata.model.name == name
    facts = json.loads((tmp_path / "run/run.json").read_text())
    assert (facts["status"], facts["epochs"]) == ("finished", 0)
    assert facts["parameters"] == run.model.num_parameters > 50
    assert facts["scores"]["validation"] == run.scores["validation"].as_dict()
    assert load_config(tmp_path / "run/config.toml").model == config_of(name).model
    again = train(five_graphs, config_of(name))
    assert torch.equal(again.model(five_graphs[4]), run.model(five_graphs[4]))


def test_an_interrupted_fit_is_done_again(five_graphs: list[Graph], tmp_path: Path) -> None:
    whole = train(five_graphs, config_of("ridge"))
    with pytest.raises(Interrupted, match="go on with: mgsym train --resume"):
        train(five_graphs, config_of("ridge"), run=tmp_path / "r", should_stop=lambda: True)
    for _ in range(2):  # what is finished stays as it is
        resumed = train(five_graphs, config_of("ridge"), run=tmp_path / "r", resume=True)
        assert torch.equal(resumed.model(five_graphs[4]), whole.model(five_graphs[4]))
        assert len(resumed.history) == 1


def test_seeds_and_a_start_from_another_model(five_graphs: list[Graph], tmp_path: Path) -> None:
    runs = train_seeds(five_graphs, config_of("boosting"), [0, 1], tmp_path / "seeds")
    a, b = (run.model(five_graphs[4]) for run in runs)
    assert torch.equal(a, b)  # its rows and columns are drawn from a seed of its own
    with pytest.raises(UsageError, match=r"boosting is fitted in one go.*--model boosting"):
        train(five_graphs, config_of("ridge"), start_from=tmp_path / "seeds/seed0/best.pt")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ridge", {"strength": -1.0}, "model.strength is -1.0, expected at least 0"),
        ("boosting", {"trees": 0}, "model.trees is 0, expected at least 1"),
        ("boosting", {"bins": 1}, "model.bins is 1, expected at least 2"),
        ("boosting", {"bins": 257}, "model.bins is 257, expected at most 256"),
        ("boosting", {"rows": 1.5}, "model.rows is 1.5, expected above 0, at most 1"),
        (
            "boosting",
            {"regularisation": -1.0},
            "model.regularisation is -1.0, expected at least 0",
        ),
    ],
)
def test_options_that_make_no_sense(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_model(name, ("Cu",), 4.0, {**NEAR, **options})
