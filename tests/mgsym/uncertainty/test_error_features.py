"""Features of atoms: a planted one is found and told from those that say nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mgsym.errors import InputError
from mgsym.graph import Graph, build_graph
from mgsym.models import create_model
from mgsym.prediction import Prediction, barrier_std
from mgsym.prediction.ensemble import Ensemble, Member
from mgsym.structure import Structure
from mgsym.uncertainty.calibration import Calibration
from mgsym.uncertainty.error_features import (
    DISTANCE,
    PREDICTED,
    ROUGHNESS,
    ErrorFeature,
    error_features,
    folds,
)
from mgsym.uncertainty.out_of_distribution import TrainingSet
from mgsym.uncertainty.reliability import reliability

SIDE, ATOMS, NOISE = 16, 16**3, 0.14


@pytest.fixture(scope="module")
def glasses() -> list[Graph]:
    """Four structures, each a glass of its own."""
    return [graph(seed) for seed in range(4)]


def graph(seed: int, side: int = SIDE) -> Graph:
    """Atoms near the sites of a cubic lattice."""
    generator = torch.Generator().manual_seed(seed)
    steps = 2.5 * torch.arange(side, dtype=torch.float64)
    sites = torch.cartesian_prod(steps, steps, steps)
    positions = sites + 0.8 * torch.rand(len(sites), 3, generator=generator, dtype=torch.float64)
    types = (torch.rand(len(sites), generator=generator) < 0.36).long()
    cell = 2.5 * side * torch.eye(3, dtype=torch.float64)
    return build_graph(Structure(positions, cell, types, ("Cu", "Zr"), name=f"g{seed}"), 3.0)


def planted(graphs: list[Graph], slope: float) -> tuple[list[Tensor], list[Graph], list[dict]]:
    """Predictions, labelled graphs and features; the first of two features decides the error."""
    means, labelled, features = [], [], []
    for seed, one in enumerate(graphs):
        generator = torch.Generator().manual_seed(100 + seed)

        def draw(generator: torch.Generator = generator) -> Tensor:
            return torch.randn(ATOMS, generator=generator, dtype=torch.float64)

        told = {"first": 3 + 2 * draw(), "second": draw()}
        std = 0.15 * torch.exp(slope / 2 * (told["first"] - 3) / 2)
        means.append(torch.full((ATOMS,), 1.5))
        labelled.append(one.replace(target=(1.5 + std * draw() + NOISE * draw()).float()))
        features.append(told)
    return means, labelled, features


def test_a_planted_feature_is_found(glasses: list[Graph]) -> None:
    means, labelled, features = planted(glasses, 0.5)
    spreads = [torch.zeros(ATOMS)] * 4
    found = Calibration.fit(means, spreads, labelled, NOISE, features)
    assert [feature.name for feature in found.used] == ["first"]
    first, second = found.features
    assert first.coefficient == pytest.approx(0.5, abs=0.05)
    assert first.gain > 3 * first.gain_error > 0
    assert second.coefficient == 0
    assert found.floor == pytest.approx(0.15, rel=0.03)
    told = {"first": torch.tensor([1.0, 3.0, 5.0]), "second": torch.zeros(3)}
    expected = torch.tensor([0.15 * math.exp(-0.25), 0.15, 0.15 * math.exp(0.25)])
    torch.testing.assert_close(found.std(torch.zeros(3), told), expected, rtol=0.05, atol=0)
    honest = reliability(means, spreads, labelled, found, NOISE, features)
    assert honest is not None
    assert honest.z_sd == pytest.approx(1, abs=0.02)
    for part in honest.bins:
        assert part.found == pytest.approx(part.predicted, rel=0.1)
    assert "first (coefficient +0.5" in found.verdict


def test_features_that_say_nothing_leave_the_constant(glasses: list[Graph]) -> None:
    means, labelled, features = planted(glasses, 0.0)
    spreads = [torch.zeros(ATOMS)] * 4
    found = Calibration.fit(means, spreads, labelled, NOISE, features)
    plain = Calibration.fit(means, spreads, labelled, NOISE)
    assert found.used == ()
    assert replace(found, features=()) == plain
    assert "nothing tells sure atoms from unsure ones: first, second foretell" in found.verdict
    assert plain.verdict == ""


def test_one_glass_is_divided_into_octants(glasses: list[Graph]) -> None:
    means, labelled, features = (part[:1] for part in planted(glasses, 0.7))
    found = Calibration.fit(means, [torch.zeros(ATOMS)], labelled, NOISE, features)
    assert [feature.name for feature in found.used] == ["first"]
    rows = torch.arange(ATOMS)
    parts = folds(glasses[:1], ["a"], [rows])
    assert parts.unique().tolist() == list(range(8))
    half = glasses[0].positions / glasses[0].cell[0].diagonal() >= 0.5
    assert torch.equal(parts, (half.long() * torch.tensor([4, 2, 1])).sum(1))
    several = folds(glasses, ["a", "a", "b", "c"], [rows] * 4)
    assert several.tolist() == [0] * 2 * ATOMS + [1] * ATOMS + [2] * ATOMS


def test_labels_that_are_all_noise_teach_no_feature(glasses: list[Graph]) -> None:
    means, labelled, features = planted(glasses, 0.0)
    found = Calibration.fit(means, [torch.zeros(ATOMS)] * 4, labelled, 1.0, features)
    assert found.features == ()


def test_files_give_features_back_and_old_ones_have_none() -> None:
    feature = ErrorFeature("first", 3.0, 2.0, -2.5, 2.5, 0.5, 0.02, 0.003)
    known = Calibration(1.5, 0.1, 0.14, 0.5, 3.0, 0.1, 100, features=(feature,))
    assert Calibration.from_dict(known.as_dict()) == known
    old = {k: v for k, v in known.as_dict().items() if k != "features"}
    assert Calibration.from_dict(old) == replace(known, features=())
    with pytest.raises(ValueError, match="gain of first is nan"):
        Calibration.from_dict({**old, "features": [{**vars(feature), "gain": math.nan}]})
    with pytest.raises(ValueError, match="scale of first is 0\\.0, expected above 0"):
        replace(feature, scale=0.0)


def test_values_beyond_those_seen_count_as_the_edge() -> None:
    feature = ErrorFeature("first", 3.0, 2.0, -2.0, 2.0, 1.0)
    fit = Calibration(0.0, 0.1, features=(feature,))
    told = torch.tensor([7.0, 70.0, math.inf, -1.0, -99.0, math.nan])
    found = fit.std(torch.zeros(6), {"first": told})
    expected = 0.1 * torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, 0.0]).exp()
    torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match="needs the feature 'first' of every atom"):
        fit.std(torch.zeros(6))


def test_features_of_atoms(glasses: list[Graph]) -> None:
    one = glasses[0]
    mean = torch.randn(ATOMS, generator=torch.Generator().manual_seed(5))
    found = error_features(one, mean, None)
    assert list(found) == [PREDICTED, ROUGHNESS, "Zr"]
    assert torch.equal(found["Zr"], one.types.double())
    for atom in (0, 17, 1234):
        near = mean[one.source[one.offsets[atom] : one.offsets[atom + 1]]].double()
        expected = float(near.std(correction=0)) if len(near) else 0.0
        assert float(found[ROUGHNESS][atom]) == pytest.approx(expected, abs=1e-9)
    training = TrainingSet.of([graph(9, 8)])
    assert training.surroundings is not None
    told = error_features(one, mean, training)[DISTANCE]
    torch.testing.assert_close(told.float(), training.surroundings.distance(one))


def test_an_ensemble_says_which_feature_is_missing(tiny: str, glasses: list[Graph]) -> None:
    model = create_model(tiny, ("Cu", "Zr"), 3.0, {}).eval()
    fit = Calibration(0.0, 0.1, features=(ErrorFeature(DISTANCE, 1.0, 1.0, -2.0, 2.0, 1.0),))
    ensemble = Ensemble((Member(model),), fit)
    found = Prediction(torch.ones(ATOMS), torch.zeros(ATOMS))
    with pytest.raises(InputError, match="'training distance' of every atom, which is not known"):
        barrier_std(found, glasses[0], ensemble)
    assert torch.equal(
        barrier_std(found, glasses[0], replace(ensemble, calibration=None)), found.std
    )
