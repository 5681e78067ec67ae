"""SymGNN: the paper's size, its options, exact invariance where it is promised."""

from __future__ import annotations

import pytest
import torch

from mgsym.errors import UsageError
from mgsym.graph import Graph, build_graph
from mgsym.models import create_model
from mgsym.models.networks.symgnn import SymGNN
from mgsym.nn.rotations import random_orthogonal
from mgsym.structure import Structure


@pytest.fixture(scope="module")
def graph(disordered: Structure) -> Graph:
    return build_graph(disordered, cutoff=5.0)


def symgnn(**options: object) -> SymGNN:
    torch.manual_seed(0)
    model = create_model("symgnn", ("Cu", "Zr"), 5.0, options)
    assert isinstance(model, SymGNN)
    return model


def test_the_paper_model_has_the_papers_parameters() -> None:
    model = symgnn()
    assert model.num_parameters == 102_385
    parts = {
        "encoders": [*model.node_encoder.parameters(), *model.edge_encoder.parameters()],
        "decoder": list(model.decoder.parameters()),
        "von Mises": list(model.transforms.parameters()) if model.transforms else [],
    }
    sizes = {name: sum(p.numel() for p in part) for name, part in parts.items()}
    assert sizes == {"encoders": 2_560, "decoder": 4_517, "von Mises": 12}
    layers = [sum(p.numel() for p in layer.parameters()) for layer in model.layers]
    assert layers == [50_752, 25_408, 12_736, 6_400]


@pytest.mark.parametrize("edge_input", ["vector", "polar"])
@pytest.mark.parametrize("symmetrisation", ["edge", "output"])
def test_every_parameter_learns_but_the_last_edge_update(
    symmetrisation: str, edge_input: str, graph: Graph
) -> None:
    model = symgnn(symmetrisation=symmetrisation, edge_input=edge_input)
    model(graph).square().sum().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None]
    assert still == [
        f"layers.3.{part}.{kind}"
        for part in ("edge_norm", "edge_back")
        for kind in ("weight", "bias")
    ]
    assert model.transforms is not None
    assert (model.transforms.location.grad != 0).any()  # type: ignore[union-attr]
    assert (model.transforms.log_concentration.grad != 0).any()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("symmetrisation", "node", "symmetrisation is 'node', expected edge or output"),
        ("edge_input", "angle", "edge_input is 'angle', expected vector or polar or length"),
        ("node_input", "mass", "node_input is 'mass', expected types or descriptors"),
        ("transforms", "euler", "no transform source 'euler'"),
        ("ridge_share", 1.0, "ridge_share is 1.0, expected at least 0 and less than 1"),
    ],
)
def test_bad_options_are_named(option: str, value: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        symgnn(**{option: value})


def test_edge_averaging_over_the_whole_group_leaves_only_lengths(graph: Graph) -> None:
    """A fine quadrature of the edge reading is invariant: an encoding can depend only on |v|."""
    matrix = random_orthogonal(1, torch.Generator().manual_seed(1))[0].float()
    turned = graph.replace(edge_vector=graph.edge_vector @ matrix.T)
    spreads = []
    for degree in (2, 12):
        model = symgnn(transforms="quadrature", degree=degree, heads=(2,)).eval()
        spreads.append(float((model(turned) - model(graph)).detach().abs().max()))
    assert spreads[1] < 0.1 * spreads[0]


def test_polar_edges_see_lengths_through_any_transform_and_directions_through_it(
    graph: Graph,
) -> None:
    model = symgnn(edge_input="polar").eval()
    longer = graph.replace(edge_vector=graph.edge_vector * 1.3)
    matrix = random_orthogonal(1, torch.Generator().manual_seed(1))[0].float()
    turned = graph.replace(edge_vector=graph.edge_vector @ matrix.T)
    assert float((model(turned) - model(graph)).abs().max()) > 3e-5
    first = model.edge_encoder.first.weight.data
    first[:, -3:] = 0  # blind to directions
    torch.testing.assert_close(model(turned), model(graph), atol=1e-6, rtol=0)
    assert float((model(longer) - model(graph)).abs().max()) > 3e-5


def test_a_direction_is_transformed_as_the_vector_is(graph: Graph) -> None:
    """Turning the structure and seeing it under T is seeing it under T turned."""
    model = symgnn(edge_input="polar", transforms="none").eval()
    matrix = random_orthogonal(1, torch.Generator().manual_seed(1))[0].float()
    turned = model(graph.replace(edge_vector=graph.edge_vector @ matrix.T))
    assert model.transforms is not None
    model.transforms.fixed = matrix[None]
    torch.testing.assert_close(model(graph), turned, atol=1e-5, rtol=0)
