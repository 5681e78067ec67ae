"""Distance from the training set: usual for more of the same, far for what is different."""

from __future__ import annotations

import pytest
import torch

from mgsym.graph import Graph, build_graph
from mgsym.structure import Structure
from mgsym.uncertainty.out_of_distribution import MahalanobisReference, TrainingSet, ood_report


def glass(seed: int, jitter: float = 0.5, spacing: float = 2.6) -> Structure:
    """512 atoms of two species near the sites of a cubic lattice."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.arange(8, dtype=torch.float64) * spacing
    sites = torch.cartesian_prod(steps, steps, steps)
    positions = sites + jitter * torch.rand(512, 3, generator=generator, dtype=torch.float64)
    types = (torch.rand(512, generator=generator) < 0.36).long()
    cell = 8 * spacing * torch.eye(3, dtype=torch.float64)
    return Structure(positions, cell, types, ("Cu", "Zr"), name=f"glass{seed}", glass=f"g{seed}")


@pytest.fixture(scope="module")
def graphs() -> list[Graph]:
    return [build_graph(glass(seed), 4.5) for seed in range(4)]


@pytest.fixture(scope="module")
def known(graphs: list[Graph]) -> MahalanobisReference:
    found = MahalanobisReference.of(graphs[:3])
    assert found is not None
    return found


def test_training_atoms_have_distance_one(known: MahalanobisReference, graphs: list[Graph]) -> None:
    own = torch.cat([known.distance(graph) for graph in graphs[:3]])
    # below, as the correlations of so few atoms are shrunk towards none
    assert 0.6 < float(own.square().mean().sqrt()) < 1.0


def test_another_structure_of_the_kind_is_usual(
    known: MahalanobisReference, graphs: list[Graph]
) -> None:
    distance = known.distance(graphs[3])
    middle, upper, _ = known.quantiles.tolist()
    assert float(distance.median()) == pytest.approx(middle, rel=0.05)
    assert float((distance > upper).float().mean()) == pytest.approx(0.05, abs=0.04)


@pytest.mark.parametrize("change", [{"jitter": 1.0}, {"spacing": 2.85}])
def test_what_is_different_is_far(known: MahalanobisReference, change: dict[str, float]) -> None:
    strange = build_graph(glass(9, **change), 4.5)
    assert float((known.distance(strange) > known.quantiles[1]).float().mean()) > 0.5


def test_distances_are_invariant_and_local(known: MahalanobisReference) -> None:
    structure = glass(5)
    before = known.distance(build_graph(structure, 4.5))
    turn = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]).double()
    turned = structure.replace(positions=structure.positions @ turn.T)
    torch.testing.assert_close(
        known.distance(build_graph(turned, 4.5)), before, atol=1e-4, rtol=1e-4
    )
    positions = structure.positions.clone()
    positions[0] += 0.7
    graph = build_graph(structure.replace(positions=positions), 4.5)
    after = known.distance(graph)
    far = (structure.positions - structure.positions[0]).norm(dim=1)
    box = structure.cell[0, 0]
    apart = structure.positions - structure.positions[0]
    far = (apart - box * (apart / box).round()).norm(dim=1)
    torch.testing.assert_close(after[far > 6.5], before[far > 6.5], atol=1e-5, rtol=1e-5)
    assert float(after[0]) > float(before[0])


def test_an_element_that_was_never_seen_is_infinitely_far(known: MahalanobisReference) -> None:
    structure = glass(6)
    types = structure.types.clone()
    types[3] = 2
    alloy = structure.replace(types=types, species=("Cu", "Zr", "Al"))
    distance = known.distance(build_graph(alloy, 4.5))
    assert distance.isinf().nonzero().flatten().tolist() == [3]


def test_species_are_matched_by_symbol(known: MahalanobisReference) -> None:
    structure = glass(7)
    swapped = structure.replace(types=1 - structure.types, species=("Zr", "Cu"))
    torch.testing.assert_close(
        known.distance(build_graph(swapped, 4.5)), known.distance(build_graph(structure, 4.5))
    )


def test_files_give_back_what_they_were_given(
    known: MahalanobisReference, graphs: list[Graph]
) -> None:
    again = MahalanobisReference.from_dict(known.as_dict())
    assert torch.equal(again.distance(graphs[3]), known.distance(graphs[3]))


def test_one_structure_and_few_atoms_do() -> None:
    one = build_graph(glass(1), 4.5)
    found = MahalanobisReference.of([one])
    assert found is not None
    assert bool(found.distance(one).isfinite().all())
    assert MahalanobisReference.of([build_graph(glass(1), 1.9)]) is None


def test_a_structure_is_compared_with_the_training_set(graphs: list[Graph]) -> None:
    facts = TrainingSet.of(graphs[:3])
    usual = ood_report(graphs[3], facts)
    assert usual.warnings == ()
    assert usual.distance is not None
    assert usual.ood_fraction == pytest.approx(0.05, abs=0.04)
    assert usual.median is not None
    assert usual.upper is not None
    assert usual.median < usual.upper
    # with a larger cutoff, only what the model sees counts
    wide = ood_report(build_graph(glass(3), 5.5), facts)
    assert wide.distance is not None
    torch.testing.assert_close(wide.distance, usual.distance)
    *_, warning = ood_report(build_graph(glass(9, jitter=0.8), 4.5), facts).warnings
    assert "of its atoms in surroundings farther from the training set" in warning
    assert ood_report(graphs[3], None).distance is None
