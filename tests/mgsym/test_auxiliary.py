"""Auxiliary targets: learned beside the barrier, dropped at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from mgsym.auxiliary import Auxiliary, hidden_features
from mgsym.config import Config, load_config
from mgsym.errors import InputError, Interrupted, UsageError
from mgsym.graph import Graph, collate
from mgsym.models import MODELS, create_model
from mgsym.objective import Objective
from mgsym.training import train

MakeConfig = Callable[..., Config]


def with_energy(graphs: list[Graph]) -> list[Graph]:
    """An energy per atom that follows from the number of neighbours."""
    found = []
    for g in graphs:
        count = torch.bincount(g.destination, minlength=g.num_nodes).float()
        found.append(g.replace(node_features={"energy": -count, "pressure": 0.1 * count**2}))
    return found


def asking(config: Config, **changes: object) -> Config:
    return config.changed({f"training.{k}": v for k, v in changes.items()})


def test_heads_learn_what_the_representation_holds(
    five_graphs: list[Graph], tiny_config: MakeConfig
) -> None:
    graphs = with_energy(five_graphs)
    config = tiny_config(epochs=1).training
    config = replace(config, auxiliary=("energy", "pressure"), auxiliary_weight=0.5)
    torch.manual_seed(0)
    model = create_model("symgnn", graphs[0].species, graphs[0].cutoff, {"width": 8})
    model.fit_statistics(graphs)
    objective, batch = Objective(config, model, graphs), collate(graphs)
    assert objective.auxiliary is not None
    plain = float(Objective(replace(config, auxiliary=()), model.eval(), graphs)(batch).detach())
    with hidden_features(model) as hidden:
        model(batch)
    assert [tuple(h.shape) for h in hidden] == [(batch.num_nodes, 8)]
    extra = float(objective.auxiliary.loss(hidden, batch).detach())
    assert float(objective(batch).detach()) == pytest.approx(plain + 0.5 * extra)
    names = {name for name, _ in objective.named_parameters()}
    assert {n for n in names if not n.startswith("model.")} == {
        "auxiliary.heads.weight",
        "auxiliary.heads.bias",
    }


def test_targets_are_standardised_per_species(five_graphs: list[Graph]) -> None:
    graphs = with_energy(five_graphs)
    model = create_model("symgnn", graphs[0].species, graphs[0].cutoff, {"width": 8})
    found = Auxiliary(["energy"], model, graphs)
    nn.init.zeros_(found.heads.weight)
    nn.init.zeros_(found.heads.bias)
    batch = collate(graphs)
    # a head that says the mean of each element is wrong by one standard deviation
    loss = found.loss([torch.zeros(batch.num_nodes, 8)], batch)
    assert float(loss.detach()) == pytest.approx(1, rel=1e-4)


def test_training_with_them_leaves_a_model_like_any_other(
    five_graphs: list[Graph], tiny_config: MakeConfig
) -> None:
    graphs = with_energy(five_graphs)
    plain = train(graphs, tiny_config())
    asked = asking(tiny_config(), auxiliary=["energy"], auxiliary_weight=1.0)
    helped = train(graphs, asked)
    assert helped.model.state_dict().keys() == plain.model.state_dict().keys()
    moved = [
        not torch.equal(a, b)
        for a, b in zip(helped.model.parameters(), plain.model.parameters(), strict=True)
    ]
    assert any(moved)
    unweighted = train(graphs, asking(asked, auxiliary_weight=0.0, gradient_clip=0.0))
    without = train(graphs, asking(tiny_config(), gradient_clip=0.0))
    for a, b in zip(unweighted.model.parameters(), without.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_resumed_with_heads_ends_in_the_same_bits(
    five_graphs: list[Graph], tiny_config: MakeConfig, tmp_path: Path
) -> None:
    graphs = with_energy(five_graphs)
    config = asking(tiny_config(), auxiliary=["energy"], label_weights="stderr")
    whole = train(graphs, config, run=tmp_path / "whole")
    steps = iter(range(100))
    with pytest.raises(Interrupted):
        train(graphs, config, run=tmp_path / "part", should_stop=lambda: next(steps) == 4)
    again = train(graphs, config, run=tmp_path / "part", resume=True)
    for name, values in again.model.state_dict().items():
        assert torch.equal(values, whole.model.state_dict()[name])


def test_mistakes(five_graphs: list[Graph], tiny_config: MakeConfig) -> None:
    asked = asking(tiny_config(), auxiliary=["energy", "stress"])
    with pytest.raises(InputError, match=r"no node feature stress, which training\.auxiliary asks"):
        train(with_energy(five_graphs), asked)
    model = create_model("symgnn", ("Cu",), 5.0, {})
    model.decoder = nn.Identity()
    with pytest.raises(UsageError, match="SymGNN has no hidden representation to predict"):
        Auxiliary(["energy"], model, [])
    with pytest.raises(UsageError, match=r"training\.auxiliary is 'energy', expected a list"):
        load_config(None, ["training.auxiliary=energy"])
    with pytest.raises(
        UsageError, match=r"training\.label_weights is 'sterr', expected none or std"
    ):
        load_config(None, ["training.label_weights=sterr"])
    chosen = load_config(None, ['training.auxiliary=["energy"]']).training
    assert chosen.auxiliary == ("energy",)


@pytest.mark.parametrize("name", MODELS)
def test_what_enters_the_last_layer_is_a_representation_of_each_atom(
    name: str, five_graphs: list[Graph]
) -> None:
    graph = with_energy(five_graphs)[0]
    with torch.random.fork_rng():
        model = create_model(name, graph.species, graph.cutoff, {})
    if model.readout is None:
        with pytest.raises(UsageError, match="has no hidden representation"):
            Auxiliary(["energy"], model, [graph])
        return
    model.fit_statistics([graph])
    with hidden_features(model) as hidden:
        model.eval()(graph)
    assert {tuple(h.shape) for h in hidden} == {(graph.num_nodes, model.readout.in_features)}
