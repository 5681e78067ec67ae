"""MLP: a perceptron on each atom by itself.

The weakest baseline of arXiv 2401.08627: what the type says of a barrier, which is a mean per
element, and with `physical_inputs` or descriptors what those say. The published code gives its
MLP the atom's absolute position beside the type; that changes with the choice of origin, so it is
no input here.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from mgsym.graph import Graph
from mgsym.models.node_inputs import InputModel, InputOptions, check_range
from mgsym.nn.layers import Dropout


@dataclass(frozen=True)
class MLPOptions(InputOptions):
    """Options of the MLP beside InputOptions.

    Attributes:
        layers: hidden layers.
        dropout: after each.
    """

    layers: int = 3
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "layers", 1)
        check_range(self, "dropout", 0, 1)


class MLP(InputModel):
    """Hidden layers on an atom's inputs; no messages."""

    source = "Li et al. 2024 (arXiv 2401.08627)"
    options: MLPOptions

    def __init__(self, species: tuple[str, ...], cutoff: float, options: MLPOptions) -> None:
        super().__init__(species, cutoff, options, layers=0)
        modules: list[nn.Module] = [self.first_layer()]
        for i in range(options.layers):
            if i > 0:
                modules.append(nn.Linear(options.width, options.width))
            modules += [nn.ReLU(), Dropout(options.dropout)]
        self.network = nn.Sequential(*modules, nn.Linear(options.width, 1))

    @property
    def uses_edges(self) -> bool:  # type: ignore[override]
        """Where the inputs of an atom depend on its neighbours."""
        return self.hops > 0

    def standardised(self, graph: Graph, edge_weight: Tensor | None) -> Tensor:
        return self.network(self.node_input(graph, edge_weight)).squeeze(-1)
