"""Further targets in training: what else an atom's hidden representation must tell.

A model that must also predict the energy and the stress of an atom learns a representation of its
surroundings from quantities that carry no noise (multitask learning, Caruana, Machine Learning 28,
41, 1997). The heads are one linear layer; they are dropped when training ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgsym.errors import UsageError
from mgsym.graph import Graph
from mgsym.models import BarrierModel
from mgsym.physical import PhysicalInputs


class Auxiliary(nn.Module):
    """Linear heads from a model's hidden representation to standardised node features.

    Args:
        names: of node features [n], such as ``energy`` and ``pressure``; each is taken relative
            to the atoms of its element in the training structures.
        model: one with a `readout`.
        graphs: the training structures, matched to the model's species.

    Raises:
        UsageError: the model has no hidden representation.
        InputError: a graph lacks a feature.
    """

    def __init__(self, names: Sequence[str], model: BarrierModel, graphs: Sequence[Graph]) -> None:
        super().__init__()
        readout = model.readout
        if readout is None:
            raise UsageError(
                f"training.auxiliary: {type(model).__name__} has no hidden representation to "
                "predict node features from; choose another model, or leave it empty"
            )
        self.targets = PhysicalInputs(names, (), len(model.species), "training.auxiliary asks for")
        self.targets.fit(graphs)
        self.heads = nn.Linear(readout.in_features, len(self.targets.names))

    def loss(self, hidden: Sequence[Tensor], batch: Graph) -> Tensor:
        """Mean squared error over atoms (labelled or not) and features, in standard deviations.

        Args:
            hidden: [n, width] each, what `hidden_features` saw; several passes are averaged.
            batch: the graph that they belong to.
        """
        predicted: Tensor = self.heads(torch.stack(list(hidden)).float().mean(0))
        return F.mse_loss(predicted, self.targets(batch))


@contextmanager
def hidden_features(model: BarrierModel) -> Iterator[list[Tensor]]:
    """While it lasts, the list gathers what enters the model's readout, [n, width] a pass."""
    seen: list[Tensor] = []
    assert model.readout is not None
    handle = model.readout.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()
