"""What training minimises: the loss on labels, and on auxiliary targets where there are any."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from mgsym.auxiliary import Auxiliary, hidden_features
from mgsym.config import TrainingConfig
from mgsym.graph import Graph, match_species
from mgsym.models import BarrierModel
from mgsym.optimization import regression_loss


class Objective(nn.Module):
    """The loss of a batch; its parameters are those that learn.

    Args:
        config: which loss, at which precision, with which auxiliary targets.
        model: on its device.
        graphs: the training structures.

    Raises:
        UsageError: the model has no hidden representation for auxiliary targets.
        InputError: a graph lacks one of them.
    """

    def __init__(
        self, config: TrainingConfig, model: BarrierModel, graphs: Sequence[Graph]
    ) -> None:
        super().__init__()
        self.config, self.model = config, model
        self.auxiliary: Auxiliary | None = None
        if config.auxiliary:
            matched = [match_species(g, model.species) for g in graphs]
            self.auxiliary = Auxiliary(config.auxiliary, model, matched).to(model.label_mean)

    def forward(self, batch: Graph) -> Tensor:
        """A number: the mean over labelled atoms, in standard deviations of the label."""
        precision, model = self.config.precision, self.model
        kind = batch.target.device.type
        mixed = torch.autocast(kind, getattr(torch, precision), enabled=precision != "float32")
        nothing: list[Tensor] = []
        watched: AbstractContextManager[list[Tensor]] = nullcontext(nothing)
        if self.auxiliary is not None:
            watched = hidden_features(model)
        with mixed, watched as hidden:
            prediction = model.standardised(batch, None, None)
        target = (batch.target - model.label_mean) / model.label_scale
        loss = regression_loss(self.config.loss, prediction.float(), target, batch.label_weight)
        if self.auxiliary is not None:
            loss = loss + self.config.auxiliary_weight * self.auxiliary.loss(hidden, batch)
        return loss

    @property
    def heads(self) -> dict[str, Tensor]:
        """The state of what is dropped when training ends."""
        return {} if self.auxiliary is None else self.auxiliary.state_dict()

    def load_heads(self, state: dict[str, Tensor]) -> None:
        """Go back to a state."""
        if self.auxiliary is not None:
            self.auxiliary.load_state_dict(state)
