"""What every registered model must do, in evaluation mode (the model's own declarations)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mgsym.errors import InputError, UsageError
from mgsym.graph import Graph, build_graph, collate, match_species
from mgsym.graph.operations import graph_hash
from mgsym.models import MODELS, create_model, model_options
from mgsym.models.base import BarrierModel, hidden_features
from mgsym.models.regression.base import DirectModel
from mgsym.nn.rotations import random_orthogonal
from mgsym.prediction import predict_graph
from mgsym.structure import Structure

CUTOFF = 3.6
SMALL = {"width": 8, "heads": (2, 1), "decoder_layers": 1}
FAST = {**SMALL, "edge_input": "length", "node_input": "descriptors", "radial": 5, "l_max": 3}
PHYSICAL = {"physical_inputs": ("energy", "stiffness"), "physical_smoothing": (1.5, 2.5)}
NEAR = {"descriptor_cutoff": 4.0, "radial": 3, "l_max": 2, "wide_cutoff": 4.5, "wide_radial": 4}
NEAR_TREES = NEAR | {"smoothing": (1.2,), "columns": 0.5}
NEAR |= {"smoothing": (1.2,), "strength": 3.0}
LOCAL_PHYSICAL = {"physical_inputs": ("energy", "stiffness"), "physical_smoothing": (1.5,)}
DESCRIPTORS = {"node_input": "descriptors", "radial": 5, "l_max": 3}

# Every registered model, and the options that make it another model. Regressions see less far
# than by default: what they must do does not depend on it, and their time does.
CASES: dict[str, tuple[str, dict[str, object]]] = {
    **{name: (name, {}) for name in MODELS},
    "ridge": ("ridge", NEAR),
    "boosting": ("boosting", {**NEAR_TREES, "trees": 20, "regularisation": 2.0}),
    "symgnn output": ("symgnn", {**SMALL, "symmetrisation": "output"}),
    "symgnn softplus": ("symgnn", {**SMALL, "attention": "softplus"}),
    "symgnn haar": ("symgnn", {**SMALL, "transforms": "haar", "samples": 64}),
    "symgnn octahedral": ("symgnn", {**SMALL, "transforms": "octahedral"}),
    "symgnn quadrature": ("symgnn", {**SMALL, "transforms": "quadrature"}),
    "symgnn augment": ("symgnn", {**SMALL, "transforms": "augment"}),
    "symgnn none": ("symgnn", {**SMALL, "transforms": "none"}),
    "symgnn length": ("symgnn", {**SMALL, "edge_input": "length"}),
    "symgnn descriptors": ("symgnn", FAST),
    "symgnn physical": ("symgnn", {**FAST, **PHYSICAL}),
    "ridge physical": ("ridge", {**NEAR, **LOCAL_PHYSICAL}),
    "gcn descriptors": ("gcn", {"node_input": "descriptors", "radial": 5, "l_max": 3}),
    "gcn-edges length physical": ("gcn-edges", {**PHYSICAL, "edge_input": "length"}),
    "egnn physical": ("egnn", PHYSICAL),
    "egnn at rest": ("egnn", {"move": False, "gate": False}),
    "mlp physical": ("mlp", {"physical_inputs": ("energy", "stiffness")}),
    "mlp smoothed": ("mlp", PHYSICAL),
    "mlp descriptors": ("mlp", {"node_input": "descriptors", "radial": 5, "l_max": 3}),
    "schnet descriptors": ("schnet", {**DESCRIPTORS, "width": 8}),
    "mgcn physical": ("mgcn", {**PHYSICAL, "width": 8}),
    "faenet descriptors": ("faenet", {**DESCRIPTORS, "width": 8}),
    "faenet full": ("faenet", {"width": 8, "frames": "full"}),
    "faenet one frame": ("faenet", {"width": 8, "evaluation_frames": "stochastic"}),
    "faenet batch norm": ("faenet", {"width": 8, "norm": "batch"}),
    "bapst length": ("bapst", {**PHYSICAL, "width": 16, "steps": 2, "edge_input": "length"}),
    "bapst as published": ("bapst", {"width": 16, "steps": 2, "residual": False}),
    "bapst haar": ("bapst", {"width": 16, "augment": "haar"}),
    "symgnn ridge share": ("symgnn", {**FAST, **PHYSICAL, "ridge_share": 0.4}),
    "ace ridge share": ("ace", {"width": 16, "l_max": 2, "ridge_share": 0.4}),
    "ace types vectors": ("ace", {"node_input": "types", "width": 16, "vectors": 3}),
    "ace physical": ("ace", {"width": 16, **PHYSICAL}),
}


def graph_of(structure: Structure, cutoff: float) -> Graph:
    """The graph with two node features that stand for physical ones."""
    graph = build_graph(structure, cutoff)
    count = torch.bincount(graph.destination, minlength=graph.num_nodes).float()
    total = torch.zeros(graph.num_nodes).index_add(0, graph.destination, graph.edge_length)
    return graph.replace(node_features={"energy": total / count, "stiffness": count - graph.types})


def glass(seed: int, boxes: int = 4) -> Structure:
    """A disordered crystal in a box `boxes` × 2.6 Å wide, with a barrier on most atoms."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.arange(boxes, dtype=torch.float64) * 2.6
    lattice = torch.cartesian_prod(steps, steps, steps)
    positions = lattice + 0.9 * torch.rand(boxes**3, 3, generator=generator, dtype=torch.float64)
    types = torch.randint(2, (boxes**3,), generator=generator)
    cell = boxes * 2.6 * torch.eye(3, dtype=torch.float64)
    structure = Structure(positions, cell, types, ("Cu", "Zr"), name=f"glass{seed}")
    barrier = 1.5 + 0.3 * torch.randn(boxes**3, generator=generator)
    barrier[0] = float("nan")
    return structure.with_column("barrier", barrier, "eV")


@pytest.fixture(scope="module")
def graphs() -> list[Graph]:
    return [graph_of(glass(seed), CUTOFF) for seed in range(3)]


@pytest.fixture(scope="module", params=CASES, ids=lambda name: name.replace(" ", "-"))
def model(request: pytest.FixtureRequest, graphs: list[Graph]) -> BarrierModel:
    """The model after a few steps of training, so that nothing sits at its initial value."""
    name, options = CASES[request.param]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_model(name, ("Cu", "Zr"), CUTOFF, options)
        model.fit_statistics(graphs)
        if isinstance(model, DirectModel):
            model.fit([g.replace(glasses=("one",)) for g in graphs])  # so that all trees grow
            return model.eval()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        batch = collate(graphs)
        for _ in range(12):  # batch norm's running statistics settle too
            optimizer.zero_grad()
            error = ((model(batch) - batch.target) / model.label_scale)[batch.labelled]
            error.square().mean().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    return model.eval()


def close(a: Tensor, b: Tensor, tolerance: float = 2e-5) -> None:
    """Equal to float32 rounding on barriers of a few eV."""
    torch.testing.assert_close(a, b, atol=tolerance, rtol=0)


def test_predictions_are_barriers_in_ev_and_repeat(
    model: BarrierModel, graphs: list[Graph]
) -> None:
    found = model(graphs[0])
    assert found.shape == (64,)
    assert torch.isfinite(found).all()
    assert found.std() > 1e-4
    assert 1.0 < found.mean() < 2.0
    assert torch.equal(model(graphs[0]), found)
    assert model.source, "a model names the paper that it follows"


def test_what_enters_the_last_layer_is_a_representation_of_each_atom(
    model: BarrierModel, graphs: list[Graph]
) -> None:
    if model.readout is None:
        pytest.skip("the model has no hidden representation")
    with hidden_features(model) as hidden:
        model(graphs[0])
    assert {tuple(h.shape) for h in hidden} == {(64, model.readout.in_features)}
    again = len(hidden)
    model(graphs[0])
    assert len(hidden) == again, "nothing is kept afterwards"


def test_relabelling_atoms_permutes_the_output(model: BarrierModel) -> None:
    structure = glass(5)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    relabelled = structure.replace(
        positions=structure.positions[order], types=structure.types[order], columns={}
    )
    close(model(graph_of(relabelled, CUTOFF)), model(graph_of(structure, CUTOFF))[order])


def test_translating_changes_nothing(model: BarrierModel) -> None:
    structure = glass(6)
    moved = structure.replace(positions=structure.positions + torch.tensor([3.3, -20.0, 0.7]))
    close(model(graph_of(moved, CUTOFF)), model(graph_of(structure, CUTOFF)))


def test_naming_species_in_another_order_changes_nothing(
    model: BarrierModel, graphs: list[Graph]
) -> None:
    swapped = graphs[0].replace(types=1 - graphs[0].types, species=("Zr", "Cu"))
    close(model(swapped), model(graphs[0]))


def test_a_batch_equals_its_singles(model: BarrierModel, graphs: list[Graph]) -> None:
    close(model(collate(graphs)), torch.cat([model(g) for g in graphs]))


def test_preparing_changes_nothing(model: BarrierModel, graphs: list[Graph]) -> None:
    close(model(model.prepare(graphs[0])), model(graphs[0]), 1e-6)


@pytest.fixture(scope="module")
def strangers(graphs: list[Graph]) -> list[BarrierModel]:
    """Models of several kinds that prepare a graph, each in its own way."""
    found = []
    for case in ("symgnn ridge share", "gcn descriptors", "ridge", "ace"):
        name, options = CASES[case]
        # a ridge beside a network is slow to fit, the more so for three species
        species = ("Zr", "Cu") if "ridge_share" in options else ("Zr", "Al", "Cu")
        with torch.random.fork_rng():
            torch.manual_seed(5)
            model = create_model(name, species, CUTOFF, options)
        model.fit_statistics(graphs[1:])
        found.append(model.eval())
    return found


@pytest.fixture(scope="module")
def theirs(strangers: list[BarrierModel], graphs: list[Graph]) -> list[Graph]:
    """What each of them prepared of the first graph."""
    return [way(graphs[0]) for one in strangers for way in (one.prepare, one.prepare_whole)]


def test_what_another_model_prepared_is_not_used(
    model: BarrierModel, theirs: list[Graph], graphs: list[Graph]
) -> None:
    other = copy.deepcopy(model)  # the same kind, other weights and statistics
    with torch.no_grad():
        for values in (*other.parameters(), *other.buffers()):
            if values.is_floating_point():
                values.mul_(1.3).add_(0.1)
    plain = model(graphs[0])
    for prepared in (other.prepare(graphs[0]), other.prepare_whole(graphs[0]), *theirs):
        close(model(prepared), plain, 1e-6)
        close(model(model.prepare(prepared)), plain, 1e-6)
    for prepared in (other.prepare_whole(graphs[0]), theirs[-1]):
        close(predict_graph(model, prepared), plain, 1e-6)


def test_a_batch_that_two_models_prepared_is_prepared_by_neither(
    model: BarrierModel, strangers: list[BarrierModel], graphs: list[Graph]
) -> None:
    theirs = match_species(strangers[0].prepare(graphs[1]), model.species)
    for other in (theirs, graphs[1]):
        batch = collate([model.prepare(graphs[0]), other])
        close(model(batch), torch.cat([model(graphs[0]), model(graphs[1])]))


def test_what_was_prepared_follows_the_graph(model: BarrierModel, graphs: list[Graph]) -> None:
    prepared = model.prepare(graphs[0])
    again = model.prepare(prepared)
    assert again.prepared is prepared.prepared
    close(model(collate([prepared] * 2)), model(graphs[0]).repeat(2))
    keep = torch.rand(prepared.num_edges, generator=torch.Generator().manual_seed(1)) > 0.3
    close(model(prepared.with_edges(keep)), model(graphs[0].with_edges(keep)))
    weight = keep.float()
    close(model(prepared, edge_weight=weight), model(graphs[0], edge_weight=weight))
    moved = graphs[0].positions * 1.01
    close(model(prepared.replace(positions=moved)), model(graphs[0].replace(positions=moved)))


def test_what_was_prepared_is_neither_hashed_nor_saved(
    model: BarrierModel, graphs: list[Graph], tmp_path: Path
) -> None:
    prepared = model.prepare(graphs[0])
    assert dict(prepared.node_features).keys() == graphs[0].node_features.keys()
    assert graph_hash(prepared) == graph_hash(graphs[0])
    prepared.save(tmp_path / "one.npz")
    assert Graph.load(tmp_path / "one.npz").prepared is None


def test_statistics_changed_afterwards_prepare_anew(
    model: BarrierModel, graphs: list[Graph]
) -> None:
    changed = copy.deepcopy(model)
    prepared = changed.prepare(graphs[0])
    with torch.no_grad():
        for values in changed.buffers():
            if values.is_floating_point():
                values.mul_(1.1)
    close(changed(prepared), changed(graphs[0]), 1e-6)


def test_no_gradient_crosses_structures(model: BarrierModel, graphs: list[Graph]) -> None:
    if not model.uses_edges:
        pytest.skip("the model uses no edges")
    batch = collate(graphs[:2])
    weight = torch.ones(batch.num_edges, requires_grad=True)
    of_first = model(batch, edge_weight=weight)[:64].square().sum()
    (grad,) = torch.autograd.grad(of_first, weight)
    assert (grad[: graphs[0].num_edges] != 0).any()
    assert (grad[graphs[0].num_edges :] == 0).all()


def test_nothing_beyond_the_receptive_field_matters(model: BarrierModel) -> None:
    graph = graph_of(glass(7, boxes=8), CUTOFF)
    if not math.isfinite(model.receptive_field):
        pytest.skip("the model sees the whole structure")
    node = 8**3 // 2
    if model.receptive_field > model.hops * CUTOFF + 1e-6:  # positions tell it more than edges
        check_distance(model, graph, node)
        return
    hops = graph.hops_to(node, model.hops)
    inside = (hops[graph.destination] >= 0) & (hops[graph.destination] < model.hops)
    assert int(inside.sum()) < graph.num_edges
    assert bool(inside.any()) == model.uses_edges
    close(model(graph.with_edges(inside))[node], model(graph)[node])
    far = hops < 0
    changed = graph.replace(types=torch.where(far, 1 - graph.types, graph.types))
    close(model(changed)[node], model(graph)[node])
    assert model.receptive_field == pytest.approx(model.hops * CUTOFF)


def check_distance(model: BarrierModel, graph: Graph, node: int) -> None:
    """Atoms farther than the receptive field may change; those nearer count."""
    box = graph.cell[0].diagonal()
    vector = graph.positions - graph.positions[node]
    distance = (vector - (vector / box).round() * box).norm(dim=1)
    far = distance > model.receptive_field
    if not bool(far.any()):
        pytest.skip(f"the model sees {model.receptive_field:g} Å, more than half the box")
    others = graph.replace(types=torch.where(far, 1 - graph.types, graph.types))
    close(model(others)[node], model(graph)[node])
    near = distance < 0.7 * model.receptive_field
    others = graph.replace(types=torch.where(near, graph.types, 1 - graph.types))
    assert abs(float(model(others)[node] - model(graph)[node])) > 1e-5


def turn(graph: Graph, matrix: Tensor) -> Graph:
    return graph.replace(
        edge_vector=graph.edge_vector @ matrix.T.float(),
        positions=graph.positions @ matrix.T,
        cell=graph.cell @ matrix.T,
    )


def spread_under_rotation(model: BarrierModel, graph: Graph) -> float:
    """Root mean square over atoms and rotations of the change, in units of the label's scale."""
    matrices = random_orthogonal(4, torch.Generator().manual_seed(0))
    changes = torch.stack([model(turn(graph, m)) - model(graph) for m in matrices])
    return float((changes / model.label_scale).square().mean().sqrt())


def test_invariance_is_what_the_model_declares(model: BarrierModel, graphs: list[Graph]) -> None:
    spread = spread_under_rotation(model, graphs[0])
    if model.invariant == "yes":
        assert spread < 2e-4
    elif model.invariant == "no":
        assert spread > 1e-4
    else:
        assert 1e-7 < spread < 0.05


def test_weight_one_changes_nothing_and_zero_deletes(
    model: BarrierModel, graphs: list[Graph]
) -> None:
    graph = graphs[0]
    close(model(graph, edge_weight=torch.ones(graph.num_edges)), model(graph))
    keep = torch.rand(graph.num_edges, generator=torch.Generator().manual_seed(0)) > 0.3
    keep[graph.destination == 3] = False  # an atom that loses every edge
    masked = model(graph, edge_weight=keep.float())
    close(masked, model(graph.with_edges(keep)))
    if model.uses_edges:
        assert (masked - model(graph)).abs().max() > 1e-4
    else:
        assert torch.equal(masked, model(graph))


def test_gradient_of_edge_weights_is_right(model: BarrierModel, graphs: list[Graph]) -> None:
    if not model.uses_edges:
        pytest.skip("the model uses no edges")
    graph = graphs[0]
    double = build_model_in_float64(model)
    weight = torch.full((graph.num_edges,), 0.7, dtype=torch.float64, requires_grad=True)
    exact = graph.replace(edge_vector=graph.edge_vector.double())
    (grad,) = torch.autograd.grad(double(exact, edge_weight=weight)[5], weight)
    edges = torch.nonzero(grad).squeeze(1)[:3].tolist()
    assert edges
    for edge in edges:
        step = torch.zeros(graph.num_edges, dtype=torch.float64)
        step[edge] = 1e-5
        with torch.no_grad():
            above = double(exact, edge_weight=weight + step)[5]
            below = double(exact, edge_weight=weight - step)[5]
        assert float(grad[edge]) == pytest.approx(float(above - below) / 2e-5, rel=1e-4, abs=1e-9)


def build_model_in_float64(model: BarrierModel) -> Callable[..., Tensor]:
    return copy.deepcopy(model).double()


def test_saved_and_loaded_it_predicts_the_same_bits(
    model: BarrierModel, graphs: list[Graph], request: pytest.FixtureRequest
) -> None:
    case = request.node.callspec.params["model"]
    name, options = CASES[case]
    again = create_model(name, ("Cu", "Zr"), CUTOFF, options)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(graphs[0]), model(graphs[0]))


def test_labels_that_are_the_same_or_infinite_are_refused(
    model: BarrierModel, graphs: list[Graph]
) -> None:
    learner = copy.deepcopy(model)
    fit = learner.fit if isinstance(learner, DirectModel) else learner.fit_statistics
    with pytest.raises(
        InputError, match=r"all 64 labels .* are 1\.5 eV: there is nothing to learn"
    ):
        fit([graphs[0].replace(target=torch.full((64,), 1.5))])
    target = graphs[0].target.clone()
    target[7] = -math.inf
    with pytest.raises(InputError, match="glass0: the label of atom id 8 is -inf"):
        fit([graphs[0].replace(target=target)])


def test_an_unknown_element_and_another_cutoff_are_refused(
    model: BarrierModel, graphs: list[Graph]
) -> None:
    with pytest.raises(InputError, match="glass0 has Al, but the model knows only Cu, Zr"):
        model(graphs[0].replace(species=("Cu", "Al")))
    with pytest.raises(InputError, match=r"cutoff is 4 Å, the model was made for 3\.6 Å"):
        model(graph_of(glass(0), 4.0))


def test_a_graph_without_the_physical_inputs_is_refused(graphs: list[Graph]) -> None:
    model = create_model("symgnn", ("Cu", "Zr"), CUTOFF, {**FAST, **PHYSICAL}).eval()
    bare = graphs[0].replace(node_features={"energy": graphs[0].node_features["energy"]})
    with pytest.raises(
        InputError, match=r"glass0: .* no node feature stiffness.*build-graph --phy"
    ):
        model(bare)
    with pytest.raises(InputError, match="no node feature stiffness"):
        model.fit_statistics([bare])
    double = {**bare.node_features, "stiffness": torch.zeros(64, 2)}
    with pytest.raises(InputError, match=r"stiffness is \[64, 2\], expected one number for each"):
        model(bare.replace(node_features=double))


def test_physical_inputs_join_descriptors() -> None:
    with pytest.raises(UsageError, match='physical_inputs needs node_input = "descriptors"'):
        create_model("symgnn", ("Cu",), CUTOFF, {"physical_inputs": ("energy",)})
    with pytest.raises(UsageError, match="expected lengths above 0 Å"):
        create_model("symgnn", ("Cu",), CUTOFF, {**FAST, "physical_smoothing": (0.0,)})


def test_statistics_need_labels(model: BarrierModel, graphs: list[Graph]) -> None:
    unlabelled = graphs[0].replace(target=torch.full((64,), float("nan")))
    with pytest.raises(InputError, match="no atom of the training structures has a label"):
        model.fit_statistics([unlabelled])


def test_the_registry_names_what_it_does_not_know() -> None:
    with pytest.raises(UsageError, match="no model is called 'sym'; there are symgnn"):
        create_model("sym", ("Cu",), 5.0)
    with pytest.raises(UsageError, match="model symgnn has no option 'depth'; it has width"):
        model_options("symgnn", {"depth": 3})
    assert model_options("symgnn")["heads"] == (8, 4, 2, 1)


def test_matching_species_keeps_the_elements(graphs: list[Graph]) -> None:
    wider = match_species(graphs[0], ("Al", "Cu", "Zr"))
    before = [graphs[0].species[t] for t in graphs[0].types]
    assert [wider.species[t] for t in wider.types] == before
