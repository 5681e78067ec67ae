"""Calibration: planted variances and correlations are found again."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mgsym.errors import InputError
from mgsym.graph import Graph, build_graph
from mgsym.structure import Structure
from mgsym.uncertainty.calibration import Calibration
from mgsym.uncertainty.reliability import reliability

SIDE, SPACING = 12, 2.5


@pytest.fixture(scope="module")
def bare() -> Graph:
    """1728 atoms near the sites of a cubic lattice, periodic, 30 Å wide."""
    generator = torch.Generator().manual_seed(0)
    steps = torch.arange(SIDE, dtype=torch.float64) * SPACING
    sites = torch.cartesian_prod(steps, steps, steps)
    positions = sites + 0.8 * torch.rand(len(sites), 3, generator=generator, dtype=torch.float64)
    cell = SIDE * SPACING * torch.eye(3, dtype=torch.float64)
    types = torch.zeros(len(sites), dtype=torch.int64)
    return build_graph(Structure(positions, cell, types, ("Cu",), name="planted"), 3.0)


def distances(graph: Graph) -> Tensor:
    """[n, n] Å, to the nearest images."""
    apart = graph.positions[:, None] - graph.positions
    box = graph.cell[0].diagonal()
    return (apart - box * (apart / box).round()).norm(dim=2)


def planted(graph: Graph, known: Calibration, seed: int) -> tuple[Tensor, Tensor, Graph]:
    """Predictions, spreads and a labelled graph whose errors are as a calibration says."""
    generator = torch.Generator().manual_seed(seed)
    count = graph.num_nodes
    correlation = known.correlation(distances(graph)).fill_diagonal_(1.0)
    factor = torch.linalg.cholesky(correlation)
    spread = 0.03 + 0.12 * torch.rand(count, generator=generator, dtype=torch.float64)
    errors = factor @ torch.randn(count, generator=generator, dtype=torch.float64)
    noise = known.noise * torch.randn(count, generator=generator, dtype=torch.float64)
    target = 1.5 + known.std(spread) * errors + noise
    return torch.full((count,), 1.5), spread, graph.replace(target=target.float())


def test_planted_values_are_found(bare: Graph) -> None:
    truth = Calibration(scale=1.6, floor=0.1, noise=0.14, fraction=0.6, length=2.8)
    cases = [planted(bare, truth, seed) for seed in range(3)]
    means, spreads, graphs = (list(part) for part in zip(*cases, strict=True))
    found = Calibration.fit(means, spreads, graphs, noise=0.14)
    assert found.atoms == 3 * 1728
    assert found.scale == pytest.approx(1.6, rel=0.1)
    assert found.floor == pytest.approx(0.1, rel=0.25)
    assert found.fraction == pytest.approx(0.6, abs=0.1)
    assert found.length == pytest.approx(2.8, rel=0.15)
    assert found.common < 0.05
    assert found.kernel == "gaussian"
    honest = reliability(means, spreads, graphs, found)
    assert honest is not None
    assert honest.z_sd == pytest.approx(1, abs=0.03)
    assert honest.coverage_68 == pytest.approx(0.683, abs=0.03)
    assert honest.coverage_95 == pytest.approx(0.950, abs=0.015)
    assert len(honest.bins) == 10
    for part in honest.bins:
        assert part.found == pytest.approx(part.predicted, rel=0.15)


def test_a_planted_matern_kernel_is_told_from_a_gaussian(bare: Graph) -> None:
    truth = Calibration(scale=0.0, floor=0.2, fraction=0.95, length=2.0, kernel="matern")
    cases = [planted(bare, truth, seed) for seed in range(3)]
    means, spreads, graphs = (list(part) for part in zip(*cases, strict=True))
    found = Calibration.fit(means, spreads, graphs, noise=0.0)
    assert found.kernel == "matern"
    assert found.fraction == pytest.approx(0.95, abs=0.1)
    assert found.length == pytest.approx(2.0, rel=0.15)
    one = torch.tensor([0.0, 2.0 / 3**0.5])
    expected = torch.tensor([0.95, 0.95 * 2 / math.e])
    torch.testing.assert_close(truth.correlation(one), expected)
    assert "(1 + √3 r/2.00 Å) exp(−√3 r/2.00 Å)" in truth.formula


def test_label_noise_is_not_the_models_error(bare: Graph) -> None:
    truth = Calibration(scale=1.0, floor=0.1, noise=0.2, fraction=0.0, length=2.0)
    mean, spread, graph = planted(bare, truth, 0)
    apart = Calibration.fit([mean], [spread], [graph], noise=0.2)
    together = Calibration.fit([mean], [spread], [graph])
    total = together.std(spread).square().mean()
    assert float(apart.std(spread).square().mean() + 0.2**2) == pytest.approx(
        float(total), rel=0.01
    )
    # a label's own standard error does as well as one for all
    own = graph.replace(target_stderr=torch.full((graph.num_nodes,), 0.2))
    from_own = Calibration.fit([mean], [spread], [own])
    assert from_own.noise == pytest.approx(0.2)
    assert from_own.floor == pytest.approx(apart.floor, rel=1e-4)


def test_a_common_offset_is_told_apart(bare: Graph) -> None:
    truth = Calibration(scale=0.0, floor=0.2, fraction=0.3, length=2.5, common=0.0)
    mean, spread, graph = planted(bare, truth, 4)
    moved = [graph.replace(target=graph.target + offset) for offset in (0.2, -0.2)]
    found = Calibration.fit([mean] * 2, [spread * 0] * 2, moved)
    # variances 0.04 of atoms and 0.04 of structures
    assert found.common == pytest.approx(0.5, abs=0.06)
    assert found.fraction == pytest.approx(0.15, abs=0.05)
    assert found.floor == pytest.approx(math.sqrt(0.08), rel=0.05)


def test_more_noise_than_error_leaves_nearly_none(bare: Graph) -> None:
    truth = Calibration(floor=0.05, scale=0.0)
    mean, spread, graph = planted(bare, truth, 1)
    found = Calibration.fit([mean], [spread], [graph], noise=0.5)
    assert 0 < float(found.std(spread * 0).max()) < 1e-3


def test_it_is_the_maximum_of_the_likelihood(bare: Graph) -> None:
    mean, spread, graph = planted(bare, Calibration(scale=1.2, floor=0.08, noise=0.1), 2)
    found = Calibration.fit([mean], [spread], [graph], noise=0.1)
    error2 = (graph.target.double() - 1.5).square()

    def surprise(one: Calibration) -> float:
        variance = one.label_std(spread).square()
        return float((variance.log() + error2 / variance).mean())

    best = surprise(found)
    for factor in (0.97, 1.03):
        assert surprise(replace(found, scale=found.scale * factor)) > best
        assert surprise(replace(found, floor=found.floor * factor)) > best


def test_files_give_back_what_they_were_given() -> None:
    known = Calibration(1.5, 0.1, 0.14, 0.5, 3.0, 0.1, 100)
    assert Calibration.from_dict(known.as_dict()) == known
    old = {name: value for name, value in known.as_dict().items() if name != "kernel"}
    assert Calibration.from_dict(old) == known
    other = replace(known, kernel="matern")
    assert Calibration.from_dict(other.as_dict()) == other
    with pytest.raises(ValueError, match="expected"):
        Calibration.from_dict({"scale": 1.0})
    for wrong in ({"scale": -1.0}, {"floor": math.nan}, {"length": 0.0}, {"kernel": "x"}):
        with pytest.raises(ValueError, match="calibration"):
            Calibration.from_dict({**known.as_dict(), **wrong})


def test_without_labels_there_is_nothing_to_learn_from(bare: Graph) -> None:
    nothing = torch.zeros(bare.num_nodes)
    with pytest.raises(InputError, match="no atom has a label"):
        Calibration.fit([nothing], [nothing], [bare])


def test_one_model_without_calibration_predicts_no_error(bare: Graph) -> None:
    mean, spread, graph = planted(bare, Calibration(floor=0.1), 0)
    assert reliability([mean], [spread * 0], [graph]) is None
    spread_alone = reliability([mean], [spread], [graph], noise=0.0)
    assert spread_alone is not None
    assert not spread_alone.calibrated
    assert spread_alone.noise == 0
