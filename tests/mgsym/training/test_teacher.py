"""A regression that is fitted first teaches a network."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from mgsym.benchmark import BenchmarkPlan, run_benchmark
from mgsym.descriptors.local import LocalOptions
from mgsym.errors import Interrupted, UsageError
from mgsym.evaluation.metrics import pearson
from mgsym.graph import Graph
from mgsym.models import MODELS, create_model
from mgsym.models.regression.base import DirectModel
from mgsym.nn.scatter import segment_sum
from mgsym.training import train
from mgsym.training.config import Config, ModelConfig, TrainingConfig, load_config
from mgsym.training.loss import regression_loss, training_loss
from mgsym.training.runs import TrainedRun
from mgsym.training.teacher import TAUGHT, teacher_share, with_teacher
from mgsym.utils.progress import Progress

MakeConfig = Callable[..., Config]
FITTED_ON: list[list[str]] = []


class Knowing(DirectModel):
    """It knows the barrier without any label: how many Zr neighbours an atom has."""

    def fit(self, graphs: Sequence[Graph], progress: Progress | None = None) -> None:
        self.fit_statistics(graphs)
        FITTED_ON.append([name for g in graphs for name in g.names])
        if progress is not None:
            progress(1, 1)

    def from_positions(self, graph: Graph, progress: Progress | None = None) -> dict[str, Tensor]:
        return {}

    def standardised(self, graph: Graph, edge_weight: Tensor | None) -> Tensor:
        return zr_neighbours(graph) / 3


def zr_neighbours(graph: Graph) -> Tensor:
    zr = (graph.types[graph.source] == graph.species.index("Zr")).float()
    return segment_sum(zr, graph.destination, graph.num_nodes) - 2.0


@pytest.fixture
def knowing(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a teacher that is exact."""
    module = types.ModuleType("tests.regression.knowing")
    module.Knowing, module.LocalOptions = Knowing, LocalOptions  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(MODELS, "knowing", (module.__name__, "Knowing", "LocalOptions"))
    FITTED_ON.clear()
    return "knowing"


def scrambled(graph: Graph) -> Graph:
    """Labels that tell nothing, on half of the atoms."""
    generator = torch.Generator().manual_seed(graph.num_edges)
    target = 1 + torch.rand(graph.num_nodes, generator=generator)
    target[::2] = float("nan")
    return graph.replace(target=target)


def history(run: TrainedRun) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k not in ("seconds", "teacher_share")}
            for row in run.history]  # fmt: skip


def same_bits(one: TrainedRun, other: TrainedRun) -> bool:
    ours, theirs = one.model.state_dict(), other.model.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_share_falls_from_its_beginning_to_zero() -> None:
    config = TrainingConfig(teacher="ridge", teacher_share=0.8, teacher_until=0.5)
    shares = [teacher_share(config, step, 100) for step in range(100)]
    assert shares[0] == 0.8
    assert shares[25] == pytest.approx(0.4)
    assert all(a > b for a, b in pairwise(shares[:51]))
    assert shares[50:] == [0.0] * 50
    kept = TrainingConfig(teacher="ridge", teacher_share=0.8, teacher_last_share=0.2)
    assert [teacher_share(kept, step, 100) for step in (0, 25, 50, 99)] == pytest.approx(
        [0.8, 0.5, 0.2, 0.2]
    )
    assert teacher_share(TrainingConfig(), 0, 100) == 0
    assert teacher_share(TrainingConfig(teacher="ridge", teacher_until=0.0), 0, 100) == 0


def test_the_loss_is_the_mean_of_both(five_graphs: list[Graph], tiny: str, knowing: str) -> None:
    graph = scrambled(five_graphs[0])
    torch.manual_seed(0)
    model = create_model(tiny, graph.species, graph.cutoff, {"dropout": 0.0})
    model.fit_statistics([graph])
    (taught,) = with_teacher([graph], knowing, model)
    exact = zr_neighbours(graph) / 3
    torch.testing.assert_close(
        (taught.node_features[TAUGHT] - model.label_mean) / model.label_scale, exact
    )
    prediction = model.standardised(graph, None)
    target = (graph.target - model.label_mean) / model.label_scale
    for kind in ("mse", "huber"):
        config = TrainingConfig(loss=kind)
        labels, teacher = (regression_loss(kind, prediction, t) for t in (target, exact))
        for share in (0.0, 0.25, 1.0):
            found = training_loss(config, model, taught, share)
            torch.testing.assert_close(found, share * teacher + (1 - share) * labels)


@pytest.mark.parametrize("batch_size", [0, 1])
def test_a_network_learns_from_its_teacher_what_labels_do_not_tell(
    five_graphs: list[Graph], tiny_config: MakeConfig, knowing: str, batch_size: int
) -> None:
    graphs = [scrambled(g) for g in five_graphs]
    epochs = 60 if batch_size else 180  # of three steps or of one
    asked: dict[str, Any] = {"epochs": epochs, "learning_rate": 2e-2, "batch_size": batch_size}
    asked |= {"evaluate_every": epochs, "ema_decay": 0.0, "options": {"dropout": 0.0}}
    alone = train(graphs, tiny_config(**asked))
    taught = train(graphs, tiny_config(teacher=knowing, teacher_last_share=1.0, **asked))
    test = five_graphs[-1]
    with torch.no_grad():
        found = [pearson(run.model(test), zr_neighbours(test)) for run in (alone, taught)]
    assert found[0] < 0.5  # by chance, and no more
    assert found[1] > 0.9
    assert FITTED_ON == [["s0", "s1", "s2"]]


def test_a_share_of_nothing_is_no_teacher(
    five_graphs: list[Graph], tiny_config: MakeConfig, knowing: str
) -> None:
    alone = train(five_graphs, tiny_config())
    for nothing in ({"teacher_share": 0.0}, {"teacher_until": 0.0}):
        run = train(five_graphs, tiny_config(teacher=knowing, **nothing))
        assert same_bits(alone, run)
        assert history(alone) == history(run)
        assert [row["teacher_share"] for row in run.history] == [0.0] * 4
    assert not FITTED_ON
    assert "teacher_share" not in alone.history[0]
    regression = ModelConfig(knowing), TrainingConfig(teacher=knowing)
    assert "teacher_share" not in train(five_graphs, Config("fast", *regression)).history[0]
    assert FITTED_ON == [["s0", "s1", "s2"]]  # for itself, once


@pytest.mark.parametrize("batch_size", [0, 1])
@pytest.mark.parametrize("stop_after", [2, 7, 14])
def test_resumed_ends_in_the_same_bits(
    five_graphs: list[Graph],
    tiny_config: MakeConfig,
    knowing: str,
    tmp_path: Any,
    stop_after: int,
    batch_size: int,
) -> None:
    epochs = 6 if batch_size else 18
    config = tiny_config(teacher=knowing, epochs=epochs, batch_size=batch_size, patience=0)
    whole = train(five_graphs, config)
    calls = iter(range(1000))
    with pytest.raises(Interrupted):
        # asked once more than there are steps: after the teacher was fitted
        train(five_graphs, config, run=tmp_path, should_stop=lambda: next(calls) >= stop_after)
    before = len(FITTED_ON)
    resumed = train(five_graphs, config, run=tmp_path, resume=True)
    assert same_bits(whole, resumed)
    assert history(whole) == history(resumed)
    # where labels have the word, the teacher is not asked again
    assert len(FITTED_ON) - before == (stop_after < 9)


def test_interrupted_while_the_teacher_is_fitted(
    five_graphs: list[Graph], tiny_config: MakeConfig, knowing: str, tmp_path: Any
) -> None:
    config = tiny_config(teacher=knowing)
    with pytest.raises(Interrupted, match="--resume"):
        train(five_graphs, config, run=tmp_path, should_stop=lambda: True)
    assert same_bits(
        train(five_graphs, config), train(five_graphs, config, run=tmp_path, resume=True)
    )


def test_a_fold_has_a_teacher_of_its_own(
    make_graph: Callable[..., Graph], tiny_config: MakeConfig, knowing: str, tmp_path: Any
) -> None:
    graphs = [make_graph(f"g{k}", glass=f"g{k}", seed=k) for k in range(3)]
    plan = BenchmarkPlan({"m": tiny_config(epochs=1, teacher=knowing)}, rotations=2)
    run_benchmark(graphs, plan, tmp_path, device="cpu")
    assert sorted(FITTED_ON) == [["g0", "g1"], ["g0", "g2"], ["g1", "g2"]]


def test_the_ridge_regression_teaches_what_it_predicts(
    five_graphs: list[Graph], tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"radial": 3, "l_max": 1, "wide_radial": 0, "descriptor_cutoff": 4.0}
    monkeypatch.setitem(MODELS, "ridge", (*MODELS["ridge"][:3], few))
    ridge = train(five_graphs, Config(model=ModelConfig("ridge")), device="cpu")
    model = create_model(tiny, five_graphs[0].species, five_graphs[0].cutoff)
    model.fit_statistics(five_graphs[:3])
    before = torch.get_rng_state()
    taught = with_teacher(five_graphs[:3], "ridge", model)
    assert torch.equal(torch.get_rng_state(), before)
    shifts = [
        ridge.model(plain) - found.node_features[TAUGHT]
        for plain, found in zip(five_graphs, taught, strict=False)
    ]
    # a run moves its predictions by one number in the end (centre_predictions)
    assert float(torch.cat(shifts).std()) < 1e-4
    assert all(found.prepared is plain.prepared for plain, found in zip(five_graphs, taught,
                                                                         strict=False))  # fmt: skip


def test_who_cannot_teach() -> None:
    with pytest.raises(UsageError, match=r"training.teacher is 'schnet', expected nothing or rid"):
        load_config(None, ["training.teacher=schnet"])
    for name in ("teacher_share", "teacher_until"):
        with pytest.raises(UsageError, match=rf"training.{name} is 1.5, expected at most 1"):
            load_config(None, [f"training.{name}=1.5"])
    with pytest.raises(UsageError, match=r"teacher_last_share is 0.7, expected at most .* 0.5"):
        load_config(None, ["training.teacher_share=0.5", "training.teacher_last_share=0.7"])
