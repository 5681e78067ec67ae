"""Features of atoms: what they are, and projections of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mgsym.descriptors.local import LocalInputs, LocalOptions
from mgsym.descriptors.neighborhoods import gaussian_mean
from mgsym.errors import InputError, UsageError
from mgsym.graph import Graph, build_graph, collate
from mgsym.graph.prepared import Prepared
from mgsym.structure import Structure

SMALL: dict[str, Any] = {"descriptor_cutoff": 4.0, "radial": 2, "l_max": 2, "wide_radial": 3}
SMALL |= {"wide_cutoff": 5.0, "smoothing": (1.0, 2.0), "physical_smoothing": (1.5,)}


@pytest.fixture
def graph(disordered: Structure) -> Graph:
    """With the node feature `energy`."""
    graph = build_graph(disordered, 3.0)
    energy = torch.randn(64, generator=torch.Generator().manual_seed(3)) - 4 - graph.types
    return graph.replace(node_features={"energy": energy})


def fitted(graph: Graph, **options: Any) -> LocalInputs:
    inputs = LocalInputs(LocalOptions(**{**SMALL, **options}), 2)
    inputs.fit([graph])
    return inputs


def test_features_are_inputs_and_their_means(graph: Graph) -> None:
    inputs = fitted(graph, physical_inputs=("energy",))
    found = inputs.features(graph)
    own = found[:, : inputs.count]
    torch.testing.assert_close(own.mean(0), torch.zeros(inputs.count), atol=1e-4, rtol=0)
    varying = own.std(0, correction=0) > 1e-3
    torch.testing.assert_close(
        own.std(0, correction=0)[varying], torch.ones(int(varying.sum())), atol=1e-3, rtol=0
    )
    energy, types = graph.node_features["energy"], graph.types
    relative = energy - torch.stack([energy[types == k].mean() for k in (0, 1)])[types]
    assert torch.corrcoef(torch.stack([own[:, 2], relative]))[0, 1] > 0.98
    # lengths in ascending order: all but the energy at 1 and 2 Å, the energy at 1.5 Å
    rest = torch.cat([own[:, :2], own[:, 3:]], dim=1)
    parts = [own, gaussian_mean(graph, rest, 1.0), gaussian_mean(graph, own[:, 2:3], 1.5)]
    torch.testing.assert_close(found, torch.cat([*parts, gaussian_mean(graph, rest, 2.0)], 1))
    assert inputs.num_features == found.shape[1]


def test_a_projection_is_a_product_with_the_features(graph: Graph) -> None:
    inputs = fitted(graph, physical_inputs=("energy",))
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(inputs.num_features, 4, generator=generator, dtype=torch.float64)
    expected = inputs.features(graph).double() @ weight
    torch.testing.assert_close(inputs.project(graph, weight), expected, atol=1e-4, rtol=1e-4)
    prepared = graph.replace(prepared=Prepared(inputs.owner, inputs.described(graph)))
    nowhere = torch.zeros_like(graph.positions)
    bare = prepared.replace(positions=nowhere, prepared=prepared.prepared)
    some = next(inputs.inputs(bare))[1]  # descriptors are not computed again
    torch.testing.assert_close(some, inputs.features(graph)[:, : inputs.count])


def test_a_batch_and_other_options(graph: Graph) -> None:
    inputs = fitted(graph, wide_radial=0, smoothing=())
    assert inputs.num_features == inputs.count == 2 + 10 * 3
    found = inputs.features(collate([graph, graph]))
    torch.testing.assert_close(found, inputs.features(graph).repeat(2, 1))
    assert LocalOptions(**SMALL).reach == 5.0 + 3 * 2.0
    assert LocalOptions(**{**SMALL, "smoothing": ()}).reach == 5.0


def test_a_missing_physical_input_is_told(graph: Graph) -> None:
    with pytest.raises(InputError, match=r"no node feature pressure"):
        fitted(graph, physical_inputs=("energy", "pressure"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"smoothing": (0.0,)}, r"model.smoothing is \(0.0,\), expected distinct lengths above"),
        ({"physical_smoothing": (2.0, 2.0)}, "expected distinct lengths"),
        ({"radial": 1}, "model.radial is 1, expected at least 2"),
        ({"wide_radial": 1}, "model.wide_radial is 1, expected 0 or at least 2"),
        ({"l_max": -1}, "model.l_max is -1, expected at least 0"),
        ({"descriptor_cutoff": 1.0}, r"model.descriptor_cutoff is 1.0, expected above 1.5 Å"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LocalOptions(**{**SMALL, **options})
