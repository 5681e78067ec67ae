"""From important edges to important atoms, and to others as far away."""

from __future__ import annotations

import pytest
import torch

from mgsym.explanation import Explanation
from mgsym.explanation.computation_graph import distance_between_atoms
from mgsym.explanation.controls import BIN
from mgsym.explanation.neighbors import atom_importance, atom_sets, ranked_atoms
from mgsym.graph import build_graph
from mgsym.structure import Structure


def explanation(endpoints: list[list[int]], importance: list[float]) -> Explanation:
    count = len(importance)
    ends = torch.tensor(endpoints)
    return Explanation(
        structure="s", node=0, node_id=1, element="Cu", method="gradient", prediction=1.0,
        masked_prediction=None, label=None, edges=torch.arange(count),
        importance=torch.tensor(importance), spread=None, endpoints=ends, endpoint_ids=ends + 1,
        endpoint_types=torch.zeros_like(ends), species=("Cu",), distance=torch.ones(count),
        hop=torch.ones(count, dtype=torch.int64),
    )  # fmt: skip


def test_an_atom_is_as_important_as_the_edges_that_end_there() -> None:
    found = atom_importance(explanation([[1, 2, 1], [0, 1, 3]], [0.5, 0.25, 1.0]), 5)
    assert found.tolist() == [0.0, 1.75, 0.25, 1.0, 0.0]
    assert ranked_atoms(found).tolist() == [1, 3, 2]  # no atom without importance


def test_both_sets_are_equal_in_number_and_distance() -> None:
    distance = 10 * torch.rand(400, generator=torch.Generator().manual_seed(1))
    selected = torch.randperm(400, generator=torch.Generator().manual_seed(2))[:30]
    sets = atom_sets(distance, selected, 30, torch.Generator().manual_seed(0))
    assert sets.passed_over == 0
    assert sets.selected.tolist() == selected.tolist()
    assert not set(sets.matched.tolist()) & set(selected.tolist())
    first, second = ((distance[rows] / BIN).long().sort().values for rows in sets[:2])
    assert torch.equal(first, second)


def test_at_most_half_of_a_bin_is_selected_and_the_next_take_the_place() -> None:
    distance = torch.tensor([0.0, 2.51, 2.52, 2.60, 4.0, 4.1, 9.0])
    generator = torch.Generator().manual_seed(0)
    sets = atom_sets(distance, torch.tensor([3, 1, 6, 4, 5]), 2, generator)
    assert sets.selected.tolist() == [3, 4]
    assert int(sets.matched[0]) in (1, 2)
    assert int(sets.matched[1]) == 5
    assert sets.passed_over == 1
    few = atom_sets(distance, torch.tensor([6, 3]), 2, generator)
    assert few.selected.tolist() == [3]
    assert few.passed_over == 1


def test_atoms_are_as_far_as_their_nearest_image() -> None:
    positions = torch.tensor([[0.5, 0, 0], [9.5, 0, 0], [0.5, 4.0, 3.0]])
    structure = Structure(positions, 10 * torch.eye(3), torch.zeros(3), ("Cu",))
    found = distance_between_atoms(build_graph(structure, 3.0), 0)
    assert found.tolist() == pytest.approx([0, 1, 5])
