"""Both directions of a bond are one thing with one place."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from mgsym.explanation import Explanation, evaluate_explanation, explain
from mgsym.explanation.computation_graph import model_computation_graph
from mgsym.explanation.methods.attribution import path_slopes
from mgsym.graph import Graph
from mgsym.models.base import BarrierModel


def test_every_edge_is_a_direction_of_one_bond(
    lattice: Graph, planted: BarrierModel, node: int
) -> None:
    part = model_computation_graph(lattice, planted, node)
    found = explain(lattice, planted, node, "gradient")
    assert found.counted == "bonds"
    assert found.reverse is not None
    both = torch.cat([found.edges, found.reverse[found.reverse >= 0]])
    assert torch.equal(both.sort().values, part.edges)
    known = {int(edge): i for i, edge in enumerate(part.edges)}
    vectors, hops = lattice.edge_vector, part.hop.tolist()
    for edge, back in zip(found.edges.tolist(), found.reverse.tolist(), strict=True):
        if back >= 0:
            assert torch.equal(lattice.edge_index[:, back], lattice.edge_index[:, edge].flip(0))
            assert torch.equal(vectors[back], -vectors[edge])
            assert hops[known[edge]] <= hops[known[back]]
    assert Counter(part.bond.tolist()).most_common(1)[0][1] == 2


def test_a_bonds_value_is_the_sum_of_both_directions(
    lattice: Graph, planted: BarrierModel, node: int
) -> None:
    planted.eval()
    bonds, edges = (
        model_computation_graph(lattice, planted, node, directed=directed)
        for directed in (False, True)
    )
    each = path_slopes(planted, edges, (0.5, 1.0))
    torch.testing.assert_close(path_slopes(planted, bonds, (0.5, 1.0)), bonds.summed(each))
    told = explain(lattice, planted, node, "gradient", directed=True)
    assert told.reverse is None
    assert len(told) == len(edges.edges) > bonds.bonds


def test_k_counts_bonds_in_every_curve(lattice: Graph, planted: BarrierModel, node: int) -> None:
    """Without the first bond is without both of its edges, and as many others are drawn."""
    found = explain(lattice, planted, node, "gradient", topk=1)
    worth = evaluate_explanation(lattice, planted, found, sizes=(1,), draws=1)
    part = model_computation_graph(lattice, planted, node, directed=True)
    weight = torch.ones(len(part.edges))
    assert found.reverse is not None
    weight[torch.isin(part.edges, torch.cat([found.edges, found.reverse]))] = 0.0
    planted.eval()
    with torch.no_grad():
        lost = abs(float(part.predict(planted, weight)) - found.prediction)
    assert worth.rows[0].necessity == pytest.approx(lost, rel=1e-5)


def test_explanations_of_earlier_versions_are_of_directed_edges(
    lattice: Graph, planted: BarrierModel, node: int, tmp_path: Path
) -> None:
    path = tmp_path / "old.json"
    explain(lattice, planted, node, "gradient", topk=20, directed=True).save(path)
    data = json.loads(path.read_text())
    del data["counted"]
    data["edges"] = [{n: v for n, v in row.items() if n != "reverse_edge"} for row in data["edges"]]
    path.write_text(json.dumps(data))
    old = Explanation.load(path)
    assert (old.counted, len(old)) == ("edges", 20)
    assert evaluate_explanation(lattice, planted, old, sizes=(20,), draws=1).rows[0].k == 20
    new = explain(lattice, planted, node, "gradient", topk=20)
    new.save(tmp_path / "new.json")
    again = Explanation.load(tmp_path / "new.json").reverse
    assert again is not None
    assert again.equal(new.topk(20).reverse)
