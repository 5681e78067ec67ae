"""Encode, process, decode: the graph network that predicts mobility in glasses.

Bapst, Keck, Grabska-Barwińska, Donner, Cubuk, Schoenholz, Obika, Nelson, Back, Hassabis & Kohli,
"Unveiling the predictive power of static structure in glassy systems", Nature Physics 16, 448
(2020), Methods; blocks as in Battaglia et al., arXiv 1806.01261. φ are MLPs with two layers of 64
and ReLU after each, the same φ at every step:

    encode   v⁰_i = φ_v(type),   e⁰_ij = φ_e(displacement)
    process  e_ij ← φ_E(e_ij ⊕ e⁰_ij,  v_j ⊕ v⁰_j,  v_i ⊕ v⁰_i)
             v_i  ← φ_V(Σ_j e_ij,  v_i ⊕ v⁰_i)                       seven times
    decode   barrier = linear(φ_D(v_i))

The encoded graph takes part in every step; its share of φ_E's first layer does not change between
steps, so it is computed once.

In training each structure is turned by a random element of O(3) at every step (``augment``); a
prediction is of the structure as it stands, so that the model is only as invariant as it has
learned to be. ``edge_input="length"`` sees distances instead and is exactly invariant.

What differs from the published code: every step adds to edges and atoms instead of replacing
them, and sums are normalised over atoms (batch norm, one for each step), without which a few dozen
steps teach it nothing: ``residual=False`` is the process as published. Displacements are divided
by the cutoff (it works in Lennard-Jones units), sums by the training structures' mean number of
neighbours; an atom has no edge to itself; types are embedded, not given as a number. Its turns are
the 48 symmetries of the cube (``octahedral``); ``haar`` are uniform on O(3).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgsym.graph import Graph
from mgsym.models.base import Invariance
from mgsym.models.node_inputs import InputOptions, NeighborSumModel, check_choices, check_range
from mgsym.nn.layers import radial_basis
from mgsym.nn.messages import AtomNorm, EdgeLinear, mlp, transformed_edges, xavier
from mgsym.nn.rotations import octahedral_group, random_orthogonal


@dataclass(frozen=True)
class BapstOptions(InputOptions):
    """Options of the encode-process-decode network beside InputOptions; sizes are the paper's.

    Attributes:
        steps: of the process; each reaches one edge farther.
        edge_input: ``vector`` or ``length``.
        augment: random turns in training: ``octahedral``, ``haar`` or ``none``; lengths need none.
        residual: steps add to edges and atoms, and normalise sums.
    """

    width: int = 64
    steps: int = 7
    edge_input: str = "vector"
    augment: str = "octahedral"
    radial: int = 25
    residual: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "steps", 1)
        check_range(self, "radial", 1)
        choices = {"edge_input": ("vector", "length"), "augment": ("octahedral", "haar", "none")}
        check_choices(self, choices)


class Bapst(NeighborSumModel):
    """The graph network of Bapst et al."""

    source = "Bapst et al. 2020 (Nature Physics 16, 448)"
    options: BapstOptions

    def __init__(self, species: tuple[str, ...], cutoff: float, options: BapstOptions) -> None:
        super().__init__(species, cutoff, options, layers=options.steps)
        width = options.width
        inputs = 3 if options.edge_input == "vector" else options.radial
        self.node_encoder = nn.Sequential(self.first_layer(), _mlp(width, width))
        self.edge_encoder = _mlp(inputs, width)
        # φ_E's first layer, its part for the encoded graph apart from that for the current one
        self.edge_encoded = EdgeLinear(width, width, width)
        self.edge_current = EdgeLinear(width, width, width, bias=False)
        self.edge_second = nn.Linear(width, width)
        self.node_update = _mlp(3 * width, width)
        self.decoder = nn.Sequential(_mlp(width, width), nn.Linear(width, 1))
        self.norms = nn.ModuleList(
            AtomNorm(width) if options.residual else nn.Identity() for _ in range(options.steps)
        )
        xavier(self, last=self.decoder[-1])

    @property
    def invariant(self) -> Invariance:  # type: ignore[override]
        """Lengths are invariant; displacements are not, whatever training has shown."""
        return "yes" if self.options.edge_input == "length" else "no"

    def standardised(self, graph: Graph, edge_weight: Tensor | None) -> Tensor:
        encoded: Tensor = self.node_encoder(self.node_input(graph, edge_weight))
        nodes, edges = encoded, self.edge_encoder(self._edge_input(graph))
        constant = self.edge_encoded(edges, encoded, graph)
        kept = 1.0 if self.options.residual else 0.0
        for norm in self.norms:
            hidden = F.relu(self.edge_current(edges, nodes, graph) + constant)
            edges = F.relu(self.edge_second(hidden)) + kept * edges
            arrived = norm(self.sum(edges, graph, edge_weight))
            update = self.node_update(torch.cat([arrived, nodes, encoded], dim=1))
            nodes = update + kept * nodes
        decoded: Tensor = self.decoder(nodes)
        return decoded.squeeze(-1)

    def _edge_input(self, graph: Graph) -> Tensor:
        if self.options.edge_input == "length":
            return radial_basis(graph.edge_length, self.cutoff, self.options.radial)
        if self.training and self.options.augment != "none":
            return transformed_edges(graph, self._turns(graph)) / self.cutoff
        return graph.edge_vector / self.cutoff

    def _turns(self, graph: Graph) -> Tensor:
        """A random element of O(3) for each structure, [structures, 3, 3], from torch's state."""
        if self.options.augment == "haar":
            turns = random_orthogonal(graph.num_structures)
        else:
            turns = octahedral_group()[torch.randint(48, (graph.num_structures,))]
        return turns.to(graph.edge_vector)


def _mlp(inputs: int, width: int) -> nn.Sequential:
    return mlp(inputs, width, width, activate_last=True)
