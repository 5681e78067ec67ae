"""Labels of one glass averaged by inverse variance."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

import mgsym
from mgsym.cli.main import main
from mgsym.data_tools.workflows.label_averages import average_labels
from mgsym.errors import InputError, UsageError
from mgsym.evaluation.label_noise import SearchNoise
from mgsym.structure import Structure

NAN = math.nan
COUNT = 343


def glass(name: str = "a", shift: float = 0.0) -> Structure:
    generator = torch.Generator().manual_seed(0)
    sites = 20 / 7 * torch.cartesian_prod(*[torch.arange(7.0, dtype=torch.float64)] * 3)
    places = sites + torch.rand(COUNT, 3, generator=generator) + shift
    return Structure(
        places, 20 * torch.eye(3), torch.arange(COUNT) % 2, ("Cu", "Zr"), name=name, glass="g"
    )


def labelled(name: str, barrier: torch.Tensor, **columns: torch.Tensor) -> Structure:
    structure = glass(name, shift=0.01 * len(name)).with_column("barrier", barrier, "eV")
    for key, values in columns.items():
        structure = structure.with_column(key, values)
    return structure


def test_known_standard_errors_weigh_by_inverse_variance() -> None:
    first = torch.full((COUNT,), 1.0)
    first[1], first[3] = NAN, NAN
    second = torch.full((COUNT,), 2.0)
    second[2], second[3] = NAN, NAN
    low, high = torch.full((COUNT,), 0.1), torch.full((COUNT,), 0.2)
    found = average_labels(
        [labelled("a", first, barrier_stderr=low), labelled("b", second, barrier_stderr=high)]
    )
    barrier = found.structure.columns["barrier"].values
    stderr = found.structure.columns["barrier_stderr"].values
    assert barrier[[0, 1, 2]].tolist() == pytest.approx([1.2, 2.0, 1.0])
    assert stderr[[0, 1, 2]].tolist() == pytest.approx([0.2 / math.sqrt(5), 0.2, 0.1])
    assert bool(barrier[3].isnan())
    assert bool(stderr[3].isnan())
    assert (found.labelled, found.repeated) == (COUNT - 1, COUNT - 3)
    assert found.differences == pytest.approx((0.0, 1.0))
    assert "events" not in found.structure.columns


def test_labels_without_standard_errors_get_them_from_their_differences() -> None:
    generator = torch.Generator().manual_seed(1)
    truth = 1.7 + 0.3 * torch.randn(COUNT, generator=generator)
    noises = [0.1 * torch.randn(COUNT, generator=generator) for _ in range(2)]
    found = average_labels([labelled(n, truth + e) for n, e in zip("ab", noises, strict=True)])
    half = float((noises[1] - noises[0]).var()) / 2
    assert found.noise == pytest.approx([math.sqrt(half)] * 2, rel=1e-5)
    assert found.stderr == pytest.approx(math.sqrt(half / 2), rel=1e-5)
    expected = truth + (noises[0] + noises[1]) / 2
    torch.testing.assert_close(found.structure.columns["barrier"].values, expected.double())
    known = torch.full((COUNT,), 0.1)
    mixed = average_labels(
        [labelled("a", truth + noises[0], barrier_stderr=known), labelled("b", truth + noises[1])]
    )
    assert mixed.noise == pytest.approx([0.1, math.sqrt(2 * half - 0.01)], rel=1e-5)


def test_events_are_pooled_and_added() -> None:
    ones = torch.ones(COUNT)
    few, many = torch.full((COUNT,), 2), torch.full((COUNT,), 18)
    spread = torch.full((COUNT,), 0.6)
    cases = [
        labelled("a", ones, events=few, barrier_stderr=spread / 2**0.5),
        labelled("b", 2 * ones, events=many, barrier_stderr=spread / 18**0.5),
    ]
    found = average_labels(cases)
    assert found.structure.columns["events"].values.tolist() == [20] * COUNT
    variances = [
        SearchNoise.fit(s.columns["barrier_stderr"].values, s.columns["events"].values).of_means(
            s.columns["barrier_stderr"].values, s.columns["events"].values
        )[0]
        for s in cases
    ]
    weight = variances[0] / sum(variances)
    assert float(found.structure.columns["barrier"].values[0]) == pytest.approx(1 + float(weight))
    assert float(weight) == pytest.approx(0.9, abs=0.01)


def test_another_glass_is_refused() -> None:
    ones = torch.ones(COUNT)
    other = labelled("b", ones)
    moved = other.replace(positions=other.positions.flip(0))
    with pytest.raises(InputError, match="b: is another glass than a: expected the same atoms"):
        average_labels([labelled("a", ones), moved])
    with pytest.raises(InputError, match="b: has no column barrier"):
        average_labels([labelled("a", ones), glass("b")])
    with pytest.raises(UsageError, match="takes two labelled structures or more"):
        average_labels([labelled("a", ones)])


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(2)
    for name in "ab":
        mgsym.write(labelled(name, 1 + torch.rand(COUNT, generator=generator)), f"{name}.xyz")
    assert main(["merge", "a.xyz", "b.xyz", "--labels", "-o", "both.xyz"]) == 0
    told = capsys.readouterr()
    assert "343 of 343" in told.out
    assert "Wrote both.xyz" in told.err
    mean = sum(mgsym.read(f"{name}.xyz").columns["barrier"].values for name in "ab") / 2
    torch.testing.assert_close(mgsym.read("both.xyz").columns["barrier"].values, mean)
    again = ["merge", "a.xyz", "b.xyz", "--labels", "-o", "both.xyz"]
    assert main(again) == 2
    assert "both.xyz exists already" in capsys.readouterr().err
    assert main([*again, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["repeated"] == COUNT
    assert main([*again, "--overwrite", "--searches", "3"]) == 2


def test_the_glass_that_was_published_twice(public_data: Path) -> None:
    first, second = (mgsym.read(public_data / f"train{i}.pickle") for i in (0, 1))
    found = average_labels([first, second])
    assert found.repeated > 7900
    assert found.pearson == pytest.approx(0.775, abs=0.005)
    assert found.noise == pytest.approx((0.14, 0.14), abs=0.005)
    assert found.stderr == pytest.approx(0.099, abs=0.004)
