"""Compositions and the recipes that hold them."""

from __future__ import annotations

import pytest

from mgsym.data_tools.simulation.dynamics.recipe import Recipe, atom_counts, parse_composition
from mgsym.errors import UsageError


@pytest.mark.parametrize("text", ["Cu64Zr36", "Zr36Cu64", "Cu0.64Zr0.36", "Cu16Zr9", "Zr.36Cu.64"])
def test_a_composition_is_shares_of_elements_by_atomic_number(text: str) -> None:
    shares = parse_composition(text)
    assert list(shares) == ["Cu", "Zr"]
    assert shares["Cu"] == pytest.approx(0.64, abs=1e-12)


def test_an_element_without_an_amount_counts_once() -> None:
    assert parse_composition("CuZr") == {"Cu": 0.5, "Zr": 0.5}
    assert parse_composition("Cu") == {"Cu": 1.0}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected elements"),
        ("64Cu", "expected elements"),
        ("Cu64-Zr36", "expected elements"),
        ("cu64zr36", "expected elements"),
        ("Cu64Qq36", "'Qq' is not an element"),
        ("Cu64Cu36", "Cu is given twice"),
        ("Cu64Zr0", "leave out Zr"),
    ],
)
def test_what_is_no_composition_is_refused(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        parse_composition(text)


def test_counts_add_up_and_are_nearest() -> None:
    cu_zr = parse_composition("Cu64Zr36")
    assert atom_counts(cu_zr, 500) == {"Cu": 320, "Zr": 180}
    assert atom_counts(cu_zr, 3000) == {"Cu": 1920, "Zr": 1080}
    assert atom_counts(cu_zr, 51) == {"Cu": 33, "Zr": 18}  # 32.64 and 18.36
    thirds = parse_composition("CuZrAl")
    for atoms in (100, 101, 102):
        counts = atom_counts(thirds, atoms)
        assert sum(counts.values()) == atoms
        assert max(counts.values()) - min(counts.values()) <= 1


def test_an_element_of_which_no_atom_would_be_left_is_told() -> None:
    with pytest.raises(UsageError, match="too few for one of Al"):
        atom_counts(parse_composition("Cu64Zr35.99Al0.01"), 100)


def test_a_recipe_counts_its_steps_and_names_its_glasses() -> None:
    recipe = Recipe(rates=(1e13, 1e12), seeds=(3, 4))
    assert recipe.melt_steps == 50_000
    assert recipe.quench_steps(1e13) == 199_900  # 199.9 ps
    assert recipe.quench_steps(1e12) == 1_999_000
    assert Recipe(timestep=2.0).quench_steps(1e13) == 99_950
    names = [glass.name for glass in recipe.glasses]
    assert names[0] == "Cu64Zr36_1e13_seed3"
    assert len(set(names)) == 4
    assert len({glass.generator_seed for glass in recipe.glasses}) == 4


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"atoms": 49}, "at least 50"),
        ({"final": 3000.0}, "below the melt's"),
        ({"final": 0.0}, "above zero"),
        ({"timestep": 0.0}, "timestep is 0"),
        ({"melt": -1.0}, "melt is -1"),
        ({"melt": float("nan")}, "melt is nan"),
        ({"rates": (-1e13,)}, "rate is -1e\\+13"),
        ({"rates": (float("inf"),)}, "rate is inf"),
        ({"rates": (1e18,)}, "lower the rate"),
        ({"rates": ()}, "at least one rate"),
        ({"seeds": (1, 1)}, "none of them twice"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(settings: dict, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Recipe(**settings)
