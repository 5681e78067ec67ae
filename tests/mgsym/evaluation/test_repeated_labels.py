from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import mgsym
from mgsym.data_tools.sample import sample_structures
from mgsym.evaluation.label_noise import ceiling, label_variance, repeated_labels
from mgsym.evaluation.metrics import noise_ceiling, pearson, score
from mgsym.graph import Graph, build_graph

Make = Callable[..., Graph]
SIGMA = 0.14  # eV, of the noise; about that of the public labels


def noisy(
    graph: Graph, seed: int, sigma: float = SIGMA, name: str = "", moved: float = 0.0
) -> Graph:
    """A structure labelled again: its true barriers and fresh noise; atoms moved a little."""
    generator = torch.Generator().manual_seed(seed)
    noise = sigma * torch.randn(graph.num_nodes, generator=generator)
    steps = torch.randn(graph.num_nodes, 3, generator=generator, dtype=torch.float64)
    return graph.replace(
        target=graph.target + noise,
        target_stderr=torch.full((graph.num_nodes,), float("nan")),
        positions=graph.positions + moved * steps,
        names=(name or f"again{seed}",),
    )


@pytest.fixture(scope="module")
def truth(make_graph: Make) -> Graph:
    """True barriers of 1,728 atoms."""
    return make_graph("truth", glass="g", side=12, seed=5)


def test_two_sets_of_labels_give_the_noise_and_the_ceiling(truth: Graph) -> None:
    pair = [noisy(truth, 1, moved=0.02), noisy(truth, 2, moved=0.02)]
    (found,) = repeated_labels(pair)
    assert found.names == ("again1", "again2")
    assert found.atoms == truth.num_nodes
    # the sampling error of a variance is √(2/n) of it
    assert found.variance == pytest.approx(SIGMA**2, rel=4 * math.sqrt(2 / truth.num_nodes))
    limit = ceiling(pair[:1], label_variance(pair))
    assert limit is not None
    # what the perfect predictor does reach
    assert limit.pearson == pytest.approx(pearson(truth.target, pair[0].target), abs=0.02)
    assert limit.rmse == pytest.approx(SIGMA, rel=0.1)
    # and the square root of the correlation of the two sets
    between = pearson(pair[0].target, pair[1].target)
    assert limit.pearson == pytest.approx(math.sqrt(between), abs=0.01)


def test_standard_errors_give_the_same_ceiling(truth: Graph) -> None:
    known = noisy(truth, 3).replace(target_stderr=torch.full((truth.num_nodes,), SIGMA))
    limit = ceiling([known])
    assert limit is not None
    assert limit.pearson == pytest.approx(pearson(truth.target, known.target), abs=0.02)
    assert limit.rmse == pytest.approx(SIGMA, rel=1e-4)
    # where an atom's standard error is known, the noise of other glasses does not count
    assert ceiling([known], variance=1.0) == limit


def test_uneven_standard_errors_count_by_their_variance(truth: Graph) -> None:
    sigma = torch.where(torch.arange(truth.num_nodes) % 2 == 0, 0.05, 0.25)
    generator = torch.Generator().manual_seed(4)
    label = truth.target + sigma * torch.randn(truth.num_nodes, generator=generator)
    limit = ceiling([truth.replace(target=label, target_stderr=sigma)])
    assert limit is not None
    assert limit.pearson == pytest.approx(pearson(truth.target, label), abs=0.02)
    assert limit.rmse == pytest.approx(math.sqrt((0.05**2 + 0.25**2) / 2), rel=1e-4)


def test_a_common_offset_is_no_noise(truth: Graph) -> None:
    pair = [noisy(truth, 1), noisy(truth, 2)]
    shifted = [pair[0], pair[1].replace(target=pair[1].target + 0.5)]
    assert label_variance(shifted) == pytest.approx(label_variance(pair), rel=1e-4)


def test_atoms_are_matched_by_id_across_the_boundary(truth: Graph) -> None:
    first, second = noisy(truth, 1), noisy(truth, 2)
    order = torch.randperm(truth.num_nodes, generator=torch.Generator().manual_seed(0))
    shuffled = second.replace(
        positions=second.positions[order] + second.cell[0, 0],  # whole cells away
        types=1 - second.types[order],
        species=("Zr", "Cu"),
        ids=second.ids[order],
        target=second.target[order],
    )
    assert label_variance([first, shuffled]) == pytest.approx(label_variance([first, second]))


def test_atoms_that_moved_are_left_out(truth: Graph) -> None:
    first, second = noisy(truth, 1), noisy(truth, 2)
    places, labels = second.positions.clone(), second.target.clone()
    places[:50] += 1.0
    labels[:50] += 3.0
    (found,) = repeated_labels([first, second.replace(positions=places, target=labels)])
    assert found.atoms == truth.num_nodes - 50
    assert found.variance == pytest.approx(SIGMA**2, rel=0.15)


def test_other_structures_are_no_repetition(truth: Graph, make_graph: Make) -> None:
    again = noisy(truth, 1)
    others = {
        "another glass": noisy(truth, 2).replace(glasses=("h",)),
        "other places": make_graph("o", glass="g", side=12, seed=6, spacing=3.4),
        "other elements": noisy(truth, 2).replace(types=1 - truth.types),
        "other ids": noisy(truth, 2).replace(ids=truth.ids + 1),
        "fewer atoms": make_graph("s", glass="g", side=4),
        "no labels": noisy(truth, 2).replace(target=torch.full_like(truth.target, float("nan"))),
        "too many moved": noisy(truth, 2, moved=0.2),
    }
    for what, other in others.items():
        assert repeated_labels([again, other]) == [], what
    assert label_variance([again]) is None
    assert ceiling([again]) is None


def test_the_public_glass_labelled_twice(public_data: Path) -> None:
    structures = [mgsym.read(public_data / f"train{i}.pickle") for i in (0, 1, 5, 6)]
    graphs = [mgsym.build_graph(s, 3.0) for s in structures]
    (found,) = repeated_labels(graphs)
    assert found.names == ("train0", "train1")
    assert 0.019 < found.variance < 0.021
    limit = ceiling(graphs[:1], found.variance)
    assert limit is not None
    assert limit.pearson == pytest.approx(0.88, abs=0.005)


def test_the_sample_labelled_twice_correlates_as_its_standard_errors_say() -> None:
    """√ρ₁ √ρ₂ of both labellings, each with its interval, holds the correlation that is found."""
    named = {s.name: s for s in sample_structures()}
    first, again = (build_graph(named[name]) for name in ("train_a", "train_a_again"))
    both = first.labelled & again.labelled
    found = pearson(first.target[both], again.target[both])
    limits = [noise_ceiling(g.target[both], g.target_stderr[both]) for g in (first, again)]
    assert limits[0].low * limits[1].low < found < limits[0].high * limits[1].high
    for graph in (first, again):
        scores = score(graph.target, graph.target, graph.target_stderr)
        limit = ceiling([graph])
        assert limit is not None
        assert limit.atoms == scores.count == int(graph.labelled.sum())
        assert (limit.pearson, limit.low, limit.high) == (
            scores.ceiling,
            scores.ceiling_low,
            scores.ceiling_high,
        )
