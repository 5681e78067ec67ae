"""Graph: built from a structure, put together, taken apart, written and read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from mgsym.errors import InputError
from mgsym.graph import Graph, build_graph, collate, match_species
from mgsym.graph.operations import random_block
from mgsym.structure import Structure


def chain(atoms: int = 6, name: str = "chain") -> Structure:
    """Atoms 2 Å apart on a ring along x, far from their images in y and z."""
    positions = torch.zeros(atoms, 3, dtype=torch.float64)
    positions[:, 0] = 2.0 * torch.arange(atoms)
    cell = torch.diag(torch.tensor([2.0 * atoms, 30, 30]))
    types = torch.arange(atoms) % 2
    return Structure(
        positions, cell, types, ("Cu", "Zr"), name=name, glass="ring", split="train"
    ).with_column("barrier", torch.arange(atoms) / 10, "eV")


@pytest.fixture
def graph() -> Graph:
    return build_graph(chain(), cutoff=2.5)


def test_edges_of_a_ring(graph: Graph) -> None:
    assert graph.num_edges == 12
    assert graph.destination.tolist() == sorted(graph.destination.tolist())
    expected = (
        graph.positions[graph.source]
        + graph.edge_shift.double() @ graph.cell[0]
        - graph.positions[graph.destination]
    )
    torch.testing.assert_close(graph.edge_vector.double(), expected)
    torch.testing.assert_close(graph.edge_length, torch.full((12,), 2.0))
    assert graph.offsets.tolist() == [0, 2, 4, 6, 8, 10, 12]
    assert (graph.names, graph.glasses, graph.splits) == (("chain",), ("ring",), ("train",))
    assert repr(graph) == "Graph(chain: 6 atoms, 12 edges, cutoff 2.5 Å)"


def test_targets_and_missing_ones(graph: Graph) -> None:
    torch.testing.assert_close(graph.target, torch.arange(6) / 10)
    assert graph.labelled.all()
    assert torch.isnan(graph.target_stderr).all()
    assert not build_graph(chain(), 2.5, target="other").labelled.any()


def test_overlapping_atoms_are_refused() -> None:
    positions = chain().positions.clone()
    positions[3, 0] = 2.1
    with pytest.raises(InputError, match=r"atoms [24] and [24] are 0\.100 Å apart, expected at le"):
        build_graph(chain().replace(positions=positions), 2.5)


def test_collate_keeps_structures_apart(graph: Graph) -> None:
    batch = collate([graph, build_graph(chain(4, "short"), 2.5)])
    assert (batch.num_nodes, batch.num_edges, batch.num_structures) == (10, 20, 2)
    owner = batch.structure_index[batch.edge_index]
    assert torch.equal(owner[0], owner[1])
    assert batch.names == ("chain", "short")
    assert batch.cell.shape == (2, 3, 3)
    twice = collate([batch, graph])
    assert twice.structure_index.unique().tolist() == [0, 1, 2]
    with pytest.raises(InputError, match=r"cutoff differ between graphs: chain has 2\.5, chain"):
        collate([graph, build_graph(chain(), 4.5)])
    with pytest.raises(InputError, match="no graphs"):
        collate([])


def test_hops_count_edges(graph: Graph) -> None:
    assert graph.hops_to(0, 2).tolist() == [0, 1, 2, -1, 2, 1]
    assert graph.hops_to(0, 9).tolist() == [0, 1, 2, 3, 2, 1]


def test_subgraph_renumbers_and_says_which_edges(graph: Graph) -> None:
    nodes = torch.tensor([2, 0, 1])
    part, edges = graph.subgraph(nodes)
    assert part.num_edges == 4  # 0–1 and 1–2, both ways; the ring is cut
    assert torch.equal(nodes[part.edge_index], graph.edge_index[:, edges])
    assert torch.equal(part.types, graph.types[nodes])
    assert part.destination.tolist() == sorted(part.destination.tolist())


def test_with_edges_takes_a_mask_or_indices(graph: Graph) -> None:
    keep = graph.source > 2
    some = graph.with_edges(keep)
    assert some.num_edges == int(keep.sum())
    again = graph.with_edges(torch.nonzero(keep).squeeze(1).flip(0))
    assert torch.equal(some.edge_index, again.edge_index)
    assert some.offsets[-1] == some.num_edges


def test_written_and_read_it_is_the_same(graph: Graph, tmp_path: Path) -> None:
    graph = graph.replace(node_features={"energy": torch.arange(6.0)})
    graph.save(tmp_path / "g.npz")
    again = Graph.load(tmp_path / "g.npz")
    for name in ("types", "edge_index", "edge_shift", "edge_vector", "positions", "target"):
        found, expected = getattr(again, name), getattr(graph, name)
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)
    assert torch.equal(again.node_features["energy"], torch.arange(6.0))
    assert (again.species, again.names, again.splits) == (("Cu", "Zr"), ("chain",), ("train",))
    assert again.cutoff == 2.5


def test_every_tensor_of_a_graph_moves_with_it(graph: Graph) -> None:
    """Whatever fields there are, those of tomorrow too: one left behind breaks the first GPU."""
    moved = graph.replace(node_features={"energy": torch.arange(6.0)}).to("meta")
    for field in fields(Graph):
        value = getattr(moved, field.name)
        tensors = value.values() if isinstance(value, Mapping) else [value]
        assert all(t.device.type == "meta" for t in tensors if isinstance(t, torch.Tensor)), field
    assert moved.edge_length.device.type == "meta"
    assert (moved.names, moved.cutoff, moved.species) == (graph.names, 2.5, graph.species)


def test_species_match_by_symbol(graph: Graph) -> None:
    wider = match_species(graph, ("Zr", "Al", "Cu"))
    assert [wider.species[t] for t in wider.types] == ["Cu", "Zr"] * 3
    with pytest.raises(InputError, match="chain has Zr, but the model knows only Cu"):
        match_species(graph, ("Cu",))


def test_a_random_block_keeps_what_is_near_and_says_who_lost_no_neighbour(
    make_graph: Callable[..., Graph],
) -> None:
    graph, side = make_graph("big", side=7), 12.0  # in a box of 18.2 Å
    graph = graph.replace(positions=graph.positions + 5.0)  # some atoms lie outside the box
    degree = torch.bincount(graph.destination, minlength=graph.num_nodes)
    places = []
    for seed in range(4):
        block, complete = random_block(graph, side, torch.Generator().manual_seed(seed))
        index = torch.searchsorted(graph.ids, block.ids)
        assert torch.equal(block.target, graph.target[index])
        kept = torch.bincount(block.destination, minlength=block.num_nodes)
        assert torch.equal(kept[complete], degree[index][complete])
        assert (kept[~complete] < degree[index][~complete]).any()
        # (12 Å − 2 cutoffs)³ of 18.2³ Å³, and 12³ of it
        assert 0.3 < block.num_nodes / graph.num_nodes / (side / 18.2) ** 3 < 3
        assert 0 < int(complete.sum()) < 60
        places.append(tuple(block.ids.tolist()))
    assert len(set(places)) == 4


def test_a_block_is_whole_along_what_does_not_repeat_or_is_shorter(
    make_graph: Callable[..., Graph],
) -> None:
    graph = make_graph("small", side=4)  # 10.4 Å
    slab = graph.replace(periodic=torch.tensor([[True, True, False]]))
    block, _ = random_block(slab, 6.0, torch.Generator().manual_seed(0))
    assert block.num_nodes < 0.7 * slab.num_nodes
    height = slab.positions[:, 2].max() - slab.positions[:, 2].min()
    assert block.positions[:, 2].max() - block.positions[:, 2].min() > 0.9 * height
    whole, all_of_it = random_block(graph, 10.4, torch.Generator().manual_seed(0))
    assert torch.equal(whole.edge_vector, graph.edge_vector)
    assert bool(all_of_it.all())
