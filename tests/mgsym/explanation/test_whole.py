"""Attribution of whole predictions: complete, exact where that can be checked, and invariant."""

from __future__ import annotations

from itertools import combinations
from math import comb

import pytest
import torch

from mgsym.data_tools.sample import sample_structures
from mgsym.errors import UsageError
from mgsym.explanation.computation_graph import frozen_eval
from mgsym.explanation.controls import shuffled_weights
from mgsym.explanation.neighbour_statistics import neighbour_statistics
from mgsym.explanation.ridge_pairs import RidgePairs
from mgsym.explanation.whole import (
    Reference,
    WholePrediction,
    attribute,
    attributions,
    edge_values,
    mean_attribution,
    reference_of,
)
from mgsym.graph import Graph, build_graph
from mgsym.graph.operations import transformed
from mgsym.models import create_model
from mgsym.models.base import BarrierModel
from mgsym.models.regression.ridge import Ridge, RidgeOptions
from mgsym.nn.rotations import random_orthogonal
from mgsym.structure import Structure

SMALL = {
    "width": 8, "heads": (2, 1), "node_input": "descriptors", "radial": 4, "l_max": 2,
    "symmetrisation": "edge", "edge_input": "length", "decoder_layers": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def glass() -> Graph:
    return build_graph(next(s for s in sample_structures() if s.split == "test"), 5.0)


@pytest.fixture(scope="module")
def model(glass: Graph) -> BarrierModel:
    """A network that was never trained, and a regression fitted to a glass."""
    torch.manual_seed(0)
    made = create_model("symgnn", ("Cu", "Zr"), 5.0, {"ridge_share": 0.6, **SMALL})
    made.fit_statistics([glass])
    return made.eval()


@pytest.fixture(scope="module")
def reference(model: BarrierModel, glass: Graph) -> Reference:
    with frozen_eval(model):
        return reference_of(model, [glass], environments=3)


def cluster() -> tuple[Ridge, Graph]:
    """Three atoms of two elements without a cell, and a regression with weights at random."""
    positions = torch.tensor([[0, 0, 0], [2.6, 0, 0], [0.4, 2.9, 0.3]])
    structure = Structure(
        positions=positions.double(), types=torch.tensor([0, 1, 0]), species=("Cu", "Zr"),
        cell=torch.eye(3).double() * 50, periodic=(False, False, False),
    )  # fmt: skip
    options = RidgeOptions(
        descriptor_cutoff=4.0, radial=3, l_max=2, wide_cutoff=4.5, wide_radial=3, smoothing=(1.5,),
        physical_inputs=(),
    )  # fmt: skip
    ridge = Ridge(("Cu", "Zr"), 5.0, options)
    generator = torch.Generator().manual_seed(1)
    ridge.weight.copy_(torch.randn(ridge.weight.shape, generator=generator))
    ridge.inputs.mean.copy_(torch.randn(ridge.inputs.mean.shape, generator=generator))
    ridge.inputs.scale.uniform_(0.5, 2, generator=generator)
    return ridge, build_graph(structure, 5.0)


def test_pairs_have_their_shapley_values() -> None:
    """By brute force over all sets of pairs (Shapley 1953)."""
    ridge, graph = cluster()
    pairs = RidgePairs(ridge, graph)
    values = pairs.values(0)
    count = len(values.value)
    assert count == 6
    worth = {}
    for size in range(count + 1):
        for chosen in combinations(range(count), size):
            weight = torch.zeros(count)
            weight[list(chosen)] = 1
            worth[chosen] = pairs.predict(values, weight)
    for pair in range(count):
        expected = sum(
            (worth[tuple(sorted((*chosen, pair)))] - before)
            / (count * comb(count - 1, len(chosen)))
            for chosen, before in worth.items()
            if pair not in chosen
        )
        assert float(values.value[pair]) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_pairs_sum_to_the_regressions_prediction() -> None:
    ridge, graph = cluster()
    pairs = RidgePairs(ridge, graph)
    predicted = ridge.standardised(graph, None)
    for node in range(graph.num_nodes):
        values = pairs.values(node)
        assert values.prediction == pytest.approx(float(predicted[node]), abs=1e-5)
        assert pairs.predict(values, torch.ones(len(values.value))) == pytest.approx(
            values.prediction, abs=1e-9
        )


@pytest.mark.parametrize("node", [0, 42, 301])
def test_values_lead_from_the_reference_to_the_prediction(
    model: BarrierModel, glass: Graph, reference: Reference, node: int
) -> None:
    with frozen_eval(model):
        found = attribute(WholePrediction(model, glass), node, reference)
        predicted = float(model(glass)[node])
    assert found.prediction == pytest.approx(predicted, abs=1e-5)
    total = found.reference + found.own + float(found.network.sum() + found.regression.sum())
    assert total == pytest.approx(predicted, abs=1e-4)
    assert found.missing == pytest.approx(0, abs=1e-4)
    assert node not in found.atoms.tolist()
    assert (found.value.abs().diff() <= 0).all()
    assert found.network.abs().sum() > 0.01
    assert found.regression.abs().sum() > 0.01


def test_the_mean_over_models_leads_to_their_mean_prediction(
    model: BarrierModel, glass: Graph, reference: Reference
) -> None:
    other = shuffled_weights(model, torch.Generator().manual_seed(0))
    with frozen_eval(model), frozen_eval(other):
        one = attribute(WholePrediction(model, glass), 7, reference)
        two = attribute(
            WholePrediction(other, glass), 7, reference_of(other, [glass], environments=2)
        )
    found = mean_attribution([one, two], [3, 1])
    assert found.prediction == pytest.approx(0.75 * one.prediction + 0.25 * two.prediction)
    assert found.missing == pytest.approx(0, abs=1e-4)
    assert found.models == 2
    mine, theirs = (dict(zip(a.atoms.tolist(), a.value, strict=True)) for a in (one, two))
    atom = int(found.atoms[0])
    a, b = float(mine.get(atom, 0)), float(theirs.get(atom, 0))
    assert float(found.value[0]) == pytest.approx(0.75 * a + 0.25 * b)
    assert found.spread is not None
    assert float(found.spread[0]) == pytest.approx(abs(a - b) * (0.75 * 0.25) ** 0.5)
    assert mean_attribution([one], [1]) is one


def test_typical_atoms_add_nothing_on_average(
    model: BarrierModel, glass: Graph, reference: Reference
) -> None:
    """Over the environments behind a reference, values and own sum to zero."""
    with frozen_eval(model):
        kind = glass.types == 1
        rows = kind.nonzero().squeeze(1)
        rows = rows[model(model.prepare(glass))[rows].argsort(stable=True)]
        chosen = rows[((torch.arange(3) + 0.5) * len(rows) / 3).long()].tolist()
        found = list(attributions(model, glass, chosen, reference))
    mean = sum(a.prediction for a in found) / 3
    assert found[0].reference == pytest.approx(mean, abs=1e-6)
    assert sum(a.own + float(a.value.sum()) for a in found) == pytest.approx(0, abs=1e-5)


def test_values_stay_under_rotation_and_reflection(
    model: BarrierModel, glass: Graph, reference: Reference
) -> None:
    (turn,) = random_orthogonal(1, torch.Generator().manual_seed(3))
    with frozen_eval(model):
        one, other = (
            attribute(WholePrediction(model, graph), 7, reference)
            for graph in (glass, transformed(glass, turn))
        )
    assert torch.equal(one.atoms.sort().values, other.atoms.sort().values)
    first, second = (a.value[a.atoms.argsort()] for a in (one, other))
    assert torch.allclose(first, second, atol=2e-4)


def test_only_ends_of_planted_edges_add_anything(
    planted: BarrierModel, lattice: Graph, truth: set[int], node: int
) -> None:
    with frozen_eval(planted):
        parts = WholePrediction(planted, lattice).parts(node)
    ends = set(lattice.edge_index[:, sorted(truth)].flatten().tolist()) - {node}
    assert set(parts.network.nonzero().squeeze(1).tolist()) == ends
    assert parts.own + float(parts.network.sum()) == pytest.approx(parts.prediction, abs=1e-5)
    assert parts.shared_out == pytest.approx(0, abs=1e-5)  # a polynomial of third degree: exact


def test_a_chain_of_two_edges_shares_its_product(lattice: Graph, node: int) -> None:
    """f = a w₁ (1 + a w₂) has the values a + a²/2 and a²/2."""
    from .conftest import Planted

    first = int((lattice.destination == node).nonzero()[0])
    through = int(lattice.source[first])
    second = int(((lattice.destination == through) & (lattice.source != node)).nonzero()[0])
    chain = lattice.ids[lattice.edge_index[:, [first, second]]].T
    model = Planted(chain, torch.zeros(0, 2))
    model.fit_statistics([lattice])
    with frozen_eval(model):
        part = WholePrediction(model, lattice).part(node)
        assert part is not None
        values = edge_values(model, part) / float(model.label_scale)
    place = {int(edge): float(v) for edge, v in zip(part.edges, values, strict=True)}
    assert place[first] == pytest.approx(0.6 + 0.18, abs=1e-5)
    assert place[second] == pytest.approx(0.18, abs=1e-5)


def test_a_regression_alone_is_attributed(glass: Graph) -> None:
    ridge = create_model("ridge", ("Cu", "Zr"), 5.0, {"radial": 3, "l_max": 1, "wide_radial": 4})
    ridge.fit([glass])
    with frozen_eval(ridge):
        found = attribute(
            WholePrediction(ridge, glass), 3, reference_of(ridge, [glass], environments=2)
        )
    assert found.missing == pytest.approx(0, abs=1e-4)
    assert found.network.abs().sum() == 0
    assert found.prediction == pytest.approx(float(ridge(glass)[3]), abs=1e-6)


def test_models_without_pairs_are_refused(glass: Graph) -> None:
    trees = create_model("boosting", ("Cu", "Zr"), 5.0)
    with pytest.raises(UsageError, match="neither edges nor pairs"):
        WholePrediction(trees, glass)


def test_a_reference_survives_a_round_trip(reference: Reference) -> None:
    again = Reference.from_dict(reference.as_dict())
    assert again.species == reference.species
    assert torch.equal(again.network, reference.network)
    with pytest.raises(ValueError, match="expected sums of"):
        Reference.from_dict({**reference.as_dict(), "network": [1.0]})


def test_statistics_of_neighbours(
    model: BarrierModel, glass: Graph, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mgsym.explanation.neighbour_statistics.ENVIRONMENTS", 1)
    groups = {"high": (1, 5), "low": (7, 42)}
    found = neighbour_statistics(model, glass, groups, reference, strongest=8, draws=1)
    effects = {(e.property, e.group, e.null): e for e in found.effects}
    assert found.missing == ()
    shares = [e for (_, group, null), e in effects.items() if group == "all" and null == "alike"]
    assert sum(e.selected for e in shares) == pytest.approx(1)
    assert sum(e.control for e in shares) == pytest.approx(1)
    assert {"shuffled", "flanks", "matched", "lowering"} <= {null for _, _, null in effects}
    both = (effects["share of Cu", "all", "matched"], effects["share of Zr", "all", "matched"])
    assert sum(e.selected for e in both) == pytest.approx(1)
    assert effects["faces", "low", "matched"].nodes == 2
    assert effects["predicted barrier", "all", "matched"].unit == "eV"
    acts = found.profile.size["whole"][0] * found.profile.neighbours
    assert float(acts.nansum()) == pytest.approx(100, abs=5)  # %, but for what lies beyond 14 Å
