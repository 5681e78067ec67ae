"""Labels that are known better count more."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mgsym.errors import InputError
from mgsym.evaluation.label_weights import with_label_weights
from mgsym.graph import Graph, build_graph, collate
from mgsym.structure import Structure
from mgsym.training.loss import regression_loss

NAN = float("nan")


def graph_of(target: list[float], stderr: list[float], name: str = "a") -> Graph:
    count = len(target)
    places = 2.5 * torch.cartesian_prod(*[torch.arange(3.0)] * 3)[:count]
    structure = Structure(places, 9 * torch.eye(3), torch.zeros(count), ("Cu",), name=name)
    structure = structure.with_column("barrier", torch.tensor(target), "eV")
    return build_graph(structure.with_column("barrier_stderr", torch.tensor(stderr), "eV"), 3.0)


def weights(*graphs: Graph, floor: float = 0.5) -> Tensor:
    found = [g.label_weight for g in with_label_weights(graphs, "stderr", floor)]
    return torch.cat([w for w in found if w is not None])


def test_weights_are_inverse_variances_with_a_floor_and_mean_one() -> None:
    first = graph_of([1.0, 2.0, NAN], [0.1, 0.3, 0.2])
    second = graph_of([1.0, 2.0], [0.2, NAN], "b")  # NaN gets the median, 0.2
    found = weights(first, second)
    sd = 0.5  # of 1, 2, 1, 2
    raw = [1 / (0.5**2 + (s / sd) ** 2) for s in (0.1, 0.3, 0.2, 0.2)]
    expected = torch.tensor([raw[0], raw[1], 0.0, raw[2], raw[3]]) / (sum(raw) / 4)
    torch.testing.assert_close(found, expected)


def test_a_floor_bounds_what_a_lucky_label_weighs() -> None:
    graph = graph_of([1.0, 2.0, 3.0], [1e-6, 0.3, 0.3])
    sd = (2 / 3) ** 0.5
    high, low = weights(graph, floor=0.5)[:2]
    assert float(high / low) == pytest.approx(1 + (0.3 / sd) ** 2 / 0.25, rel=1e-5)


def test_unknown_standard_errors_weigh_alike_and_none_weighs_nothing() -> None:
    graph = graph_of([1.0, 2.0, NAN], [NAN] * 3)
    assert weights(graph).tolist() == [1.0, 1.0, 0.0]
    (same,) = with_label_weights([graph], "none", 0.5)
    assert same is graph
    assert same.label_weight is None


def test_the_loss_is_a_weighted_mean() -> None:
    prediction, target = torch.tensor([1.0, 2.0, 9.0]), torch.tensor([0.0, 0.0, NAN])
    weight = torch.tensor([1.5, 0.5, 0.0])
    assert float(regression_loss("mse", prediction, target, weight)) == pytest.approx(1.75)
    assert float(regression_loss("huber", prediction, target, weight)) == pytest.approx(0.75)
    assert float(regression_loss("mse", prediction, target)) == pytest.approx(2.5)


def test_a_node_feature_of_that_name_weighs_nothing() -> None:
    """A user's own feature is an input, whatever it is called."""
    graph = graph_of([1.0, 2.0], [0.1, 0.3])
    named = graph.replace(node_features={"label_weight": torch.tensor([9.0, 0.0])})
    assert named.label_weight is None
    assert collate([named, named]).label_weight is None
    (found,), (plain,) = (with_label_weights([one], "stderr", 0.5) for one in (named, graph))
    torch.testing.assert_close(found.label_weight, plain.label_weight)
    assert torch.equal(found.node_features["label_weight"], torch.tensor([9.0, 0.0]))


def test_weights_are_part_of_a_graph(tmp_path: Path) -> None:
    (graph,) = with_label_weights([graph_of([1.0, 2.0], [0.1, 0.3])], "stderr", 0.5)
    graph.save(tmp_path / "one.npz")
    again = Graph.load(tmp_path / "one.npz")
    torch.testing.assert_close(again.label_weight, graph.label_weight, atol=0, rtol=0)
    assert not again.node_features
    part, _ = graph.subgraph(torch.tensor([1]))
    assert graph.label_weight is not None
    torch.testing.assert_close(part.label_weight, graph.label_weight[1:])
    with pytest.raises(InputError, match="label weights differ between graphs"):
        collate([graph, graph.replace(label_weight=None)])


def test_weights_stay_with_their_atoms_in_a_batch() -> None:
    graphs = [graph_of([1.0, 2.0], [0.1, 0.3]), graph_of([1.0, 2.0], [0.3, 0.1], "b")]
    batch = collate(with_label_weights(graphs, "stderr", 0.5))
    found = batch.label_weight
    assert found is not None
    torch.testing.assert_close(found, weights(*graphs))
