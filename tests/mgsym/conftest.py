"""A small model in the registry, and small labelled graphs."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from mgsym.graph import Graph
from mgsym.models import MODELS
from mgsym.models.base import BarrierModel
from mgsym.nn.scatter import segment_sum
from mgsym.structure import Structure
from mgsym.structure.neighbors import neighbor_pairs
from mgsym.training.config import Config, ModelConfig, TrainingConfig

CUTOFF = 4.0


@dataclass(frozen=True)
class TinyOptions:
    """Options of the model that the tests train."""

    width: int = 8
    dropout: float = 0.2
    centers: tuple[float, ...] = (2.5, 3.0, 3.5)


class Tiny(BarrierModel):
    """Radial sums, then one message from the neighbours: two hops, invariant, with dropout."""

    def __init__(self, species: tuple[str, ...], cutoff: float, options: TinyOptions) -> None:
        super().__init__(species, cutoff, hops=2)
        self.options = options
        inputs = len(species) * len(options.centers)
        self.hidden = nn.Linear(inputs, options.width)
        self.drop = nn.Dropout(options.dropout)
        self.out = nn.Linear(2 * options.width, 1)

    @property
    def readout(self) -> nn.Linear:
        return self.out

    def standardised(self, graph: Graph, edge_weight: Tensor | None) -> Tensor:
        weight = torch.ones(graph.num_edges) if edge_weight is None else edge_weight
        weight = weight.to(graph.edge_vector)
        centers = torch.tensor(self.options.centers).to(graph.edge_vector)
        radial = torch.exp(-4 * (graph.edge_length[:, None] - centers) ** 2) * weight[:, None]
        kind = nn.functional.one_hot(graph.types[graph.source], len(self.species))
        pairs = (radial[:, :, None] * kind[:, None, :]).flatten(1)
        sums = segment_sum(pairs, graph.destination, graph.num_nodes)
        nodes = self.drop(torch.tanh(self.hidden(sums)))
        near = segment_sum(
            nodes[graph.source] * weight[:, None], graph.destination, graph.num_nodes
        )
        return self.out(torch.cat([nodes, near / 10], dim=1)).squeeze(1)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a model that the registry knows during the test."""
    module = types.ModuleType("tiny_model_of_the_tests")
    module.Tiny, module.TinyOptions = Tiny, TinyOptions  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(MODELS, "tiny", (module.__name__, "Tiny", "TinyOptions"))
    return "tiny"


@pytest.fixture
def tiny_config(tiny: str) -> Callable[..., Config]:
    """A config of the tiny model: ``tiny_config(seed=1, epochs=3)``."""

    def make(seed: int = 0, options: dict[str, object] | None = None, **training: object) -> Config:
        chosen = {"epochs": 4, "warmup": 0.1, **training}
        return Config("fast", ModelConfig(tiny, options or {}), TrainingConfig(**chosen), seed)

    return make


@pytest.fixture(scope="session")
def make_graph() -> Callable[..., Graph]:
    """``make_graph("a", glass="g", split="train", atoms=64, seed=0, labelled=True)``.

    A jittered lattice of Cu and Zr in a periodic cube. The label rises with the number of Zr
    neighbours, so that it can be learnt.
    """

    def make(
        name: str = "a",
        glass: str = "",
        split: str = "",
        side: int = 4,
        seed: int = 0,
        labelled: bool = True,
        spacing: float = 2.6,
    ) -> Graph:
        generator = torch.Generator().manual_seed(seed)
        grid = torch.cartesian_prod(*[torch.arange(side, dtype=torch.float64)] * 3) * spacing
        jitter = torch.rand(len(grid), 3, generator=generator, dtype=torch.float64) - 0.5
        positions, box = grid + 0.4 * jitter, side * spacing
        types_ = (torch.rand(len(grid), generator=generator) < 0.36).long()
        cell = torch.eye(3, dtype=torch.float64) * box
        edge_index, shift, vector = neighbor_pairs(positions, cell, (True, True, True), CUTOFF)
        zr = segment_sum((types_ == 1).float()[edge_index[0]], edge_index[1], len(grid))
        target = 1.5 + 0.1 * (zr - zr.mean()) + 0.02 * torch.randn(len(grid), generator=generator)
        nothing = torch.full((len(grid),), float("nan"))
        return Graph(
            types=types_,
            species=("Cu", "Zr"),
            edge_index=edge_index,
            edge_shift=shift,
            edge_vector=vector,
            cutoff=CUTOFF,
            positions=positions,
            ids=torch.arange(1, len(grid) + 1),
            target=target if labelled else nothing,
            target_stderr=torch.full((len(grid),), 0.02) if labelled else nothing,
            structure_index=torch.zeros(len(grid), dtype=torch.int64),
            names=(name,),
            glasses=(glass or name,),
            splits=(split,),
            cell=cell[None],
            periodic=torch.ones(1, 3, dtype=torch.bool),
        )

    return make


@pytest.fixture(scope="session")
def five_graphs(make_graph: Callable[..., Graph]) -> list[Graph]:
    """Three to train on, one to validate, one to test, each its own glass."""
    splits = ["train", "train", "train", "validation", "test"]
    return [make_graph(f"s{i}", split=split, seed=i) for i, split in enumerate(splits)]


@pytest.fixture(scope="session")
def disordered() -> Structure:
    """64 atoms of two species off the sites of a cubic lattice, in a box 10.4 Å wide."""
    generator = torch.Generator().manual_seed(0)
    steps = torch.arange(4, dtype=torch.float64) * 2.6
    lattice = torch.cartesian_prod(steps, steps, steps)
    positions = lattice + 0.9 * torch.rand(64, 3, generator=generator, dtype=torch.float64)
    types = torch.randint(2, (64,), generator=generator)
    cell = 10.4 * torch.eye(3, dtype=torch.float64)
    return Structure(positions, cell, types, ("Cu", "Zr"))
