from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mgsym.errors import InputError
from mgsym.graph import Graph, collate
from mgsym.graph.operations import receptive_nodes, transformed
from mgsym.models import create_model
from mgsym.models.base import BarrierModel
from mgsym.nn.rotations import random_orthogonal
from mgsym.prediction import predict, predict_graph, predict_with_spread, rotation_spread
from mgsym.prediction.seeds import train_seeds
from mgsym.training import train
from mgsym.training.checkpoint import load_checkpoint
from mgsym.training.config import Config
from mgsym.uncertainty.out_of_distribution import TrainingSet, ood_report

Make = Callable[..., Graph]


@pytest.fixture
def model(tiny: str, five_graphs: list[Graph]) -> BarrierModel:
    torch.manual_seed(0)
    model = create_model(tiny, ("Cu", "Zr"), 4.0)
    model.fit_statistics(five_graphs)
    return model


class Directed(BarrierModel):
    """0.5 eV plus 0.1 eV/Å times the sum of x over an atom's edges: not invariant on purpose."""

    def __init__(self) -> None:
        super().__init__(("Cu", "Zr"), 4.0, hops=1)
        self.label_mean.fill_(0.5)
        self.label_scale.fill_(0.1)

    def standardised(self, graph: Graph, edge_weight: Tensor | None) -> Tensor:
        sums = torch.zeros(graph.num_nodes)
        return sums.index_add(0, graph.destination, graph.edge_vector[:, 0])


def test_takes_models_runs_and_paths(
    five_graphs: list[Graph], tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    run = train(five_graphs, tiny_config(), run=tmp_path / "r")
    expected = predict(five_graphs[4], run.model)
    assert expected.dtype == torch.float32
    assert expected.shape == (64,)
    for source in (run, tmp_path / "r", str(tmp_path / "r/best.pt")):
        assert torch.equal(predict(five_graphs[4], source, device="cpu"), expected)
    several = predict(five_graphs, run)
    assert isinstance(several, list)
    assert torch.equal(several[4], expected)
    with pytest.raises(InputError, match="none: no such run"):
        predict(five_graphs[0], tmp_path / "none")
    with pytest.raises(InputError, match="no model was given"):
        predict(five_graphs[0], [])


def test_mean_and_spread_of_several(
    five_graphs: list[Graph], tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    runs = train_seeds(five_graphs, tiny_config(), [0, 1], tmp_path / "s")
    a, b = (predict(five_graphs[0], run) for run in runs)
    (found,) = predict_with_spread([five_graphs[0]], tmp_path / "s", device="cpu")
    torch.testing.assert_close(found.mean, (a + b) / 2)
    torch.testing.assert_close(found.std, (a - b).abs() / 2)
    assert float(predict_with_spread([five_graphs[0]], runs[0])[0].std.max()) == 0


def test_gives_the_model_back_as_it_was(model: BarrierModel, five_graphs: list[Graph]) -> None:
    model.train()
    model.drop.eval()  # type: ignore[operator, union-attr]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    first = predict(five_graphs[0], model)
    assert torch.equal(first, predict(five_graphs[0], model))  # dropout is off
    assert model.training
    assert not model.drop.training  # type: ignore[union-attr]
    assert torch.equal(torch.get_rng_state(), state)
    assert not first.requires_grad
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(("side", "max_edges"), [(6, 1), (12, 12_000), (12, 16_000)])
def test_pieces_equal_the_whole(
    model: BarrierModel, make_graph: Make, side: int, max_edges: int
) -> None:
    graph = make_graph("big", side=side, seed=5)
    whole = predict_graph(model, graph)
    assert graph.num_edges > 1.5 * max_edges
    sizes: list[int] = []
    handle = model.register_forward_pre_hook(lambda _, args: sizes.append(args[0].num_edges))
    pieces = predict_graph(model, graph, max_edges)
    handle.remove()
    torch.testing.assert_close(pieces, whole, atol=1e-5, rtol=0)
    assert len(sizes) > 1
    assert max(sizes) < graph.num_edges
    assert max_edges == 1 or max(sizes) <= max_edges


def test_pieces_of_a_batch_and_of_a_real_model(five_graphs: list[Graph]) -> None:
    torch.manual_seed(1)
    options = {"heads": (2, 1), "width": 8}
    model = create_model("symgnn", ("Cu", "Zr"), 4.0, options)
    batch = collate(five_graphs)
    torch.testing.assert_close(
        predict_graph(model, batch, 1200), predict_graph(model, batch), atol=1e-5, rtol=0
    )


def test_receptive_nodes_are_those_within_hops(make_graph: Make) -> None:
    graph = make_graph("a", side=6)
    for hops in (0, 1, 2):
        expected = graph.hops_to(17, hops) >= 0
        assert torch.equal(
            receptive_nodes(graph, torch.tensor([17]), hops), expected.nonzero()[:, 0]
        )


def test_spread_under_rotation(model: BarrierModel, five_graphs: list[Graph]) -> None:
    invariant = rotation_spread(model, five_graphs[0], 4)
    assert invariant.max < 1e-5
    directed = rotation_spread(Directed(), five_graphs[0], 400)
    # the x component of a vector of length s under random rotations has variance s²/3
    sums = torch.zeros(64, 3).index_add(0, five_graphs[0].destination, five_graphs[0].edge_vector)
    expected = 0.1 * float((sums.square().sum(1) / 3).mean().sqrt())
    assert directed.rms == pytest.approx(expected, rel=0.1)
    assert directed.max > directed.rms
    assert directed.relative_rms == pytest.approx(directed.rms / 0.1)
    again = rotation_spread(Directed(), five_graphs[0], 400)
    assert again == directed


def test_transformed_turns_positions_and_edges_alike(five_graphs: list[Graph]) -> None:
    graph = five_graphs[0]
    turned = transformed(graph, random_orthogonal(1, torch.Generator().manual_seed(2))[0])
    vector = (
        turned.positions[turned.source]
        + torch.einsum("ei,ij->ej", turned.edge_shift.double(), turned.cell[0])
        - turned.positions[turned.destination]
    )
    torch.testing.assert_close(vector.float(), turned.edge_vector, atol=1e-5, rtol=0)
    torch.testing.assert_close(turned.edge_length, graph.edge_length, atol=1e-5, rtol=0)


def test_warnings_say_what_is_unfamiliar(five_graphs: list[Graph], make_graph: Make) -> None:
    facts = TrainingSet.of(five_graphs[:3])
    assert ood_report(five_graphs[4], facts).warnings == ()
    # 4 % longer each way: 12 % thinner
    thin = make_graph("thin", spacing=2.6 * 1.04)
    warning, around = ood_report(thin, facts).warnings
    assert "of its atoms in surroundings farther from the training set" in around
    assert warning.startswith("thin has 0.0506 atoms/Å³, the training structures 0.0569–0.0569")
    close = thin.replace(
        cell=five_graphs[0].cell, edge_vector=five_graphs[0].edge_vector[: thin.num_edges] * 0.8
    )
    warning, _ = ood_report(close, facts).warnings
    assert "shortest distance" in warning
    assert ood_report(thin, TrainingSet()).warnings == ()


def test_an_unknown_element_is_an_error(model: BarrierModel, five_graphs: list[Graph]) -> None:
    with pytest.raises(InputError, match="has Al, but the model knows only Cu, Zr"):
        predict(five_graphs[0].replace(species=("Cu", "Al")), model)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_cuda_run_predicts_on_the_cpu(
    five_graphs: list[Graph], tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    for precision in ("float32", "float16", "bfloat16"):
        folder = tmp_path / precision
        run = train(five_graphs, tiny_config(precision=precision), run=folder, device="cuda")
        model, _ = load_checkpoint(folder / "best.pt")
        torch.testing.assert_close(
            predict(five_graphs[4], model), predict(five_graphs[4], run), atol=1e-5, rtol=0
        )
