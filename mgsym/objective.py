"""What training minimises: the loss on labels."""

from __future__ import annotations

import torch
from torch import Tensor

from mgsym.config import TrainingConfig
from mgsym.graph import Graph
from mgsym.models import BarrierModel
from mgsym.optimization import regression_loss


def training_loss(config: TrainingConfig, model: BarrierModel, batch: Graph) -> Tensor:
    """Compute the loss of a batch: the mean over labelled atoms, in the label's deviations.

    Args:
        config: which loss, at which precision.
        model: on its device.
        batch: likewise, matched to its species; labels count as much as it says.

    Returns:
        A number, with the gradient of all parameters that learn.
    """
    mixed = torch.autocast(
        batch.target.device.type,
        getattr(torch, config.precision),
        enabled=config.precision != "float32",
    )
    with mixed:
        prediction = model.standardised(batch, None)
    target = (batch.target - model.label_mean) / model.label_scale
    return regression_loss(config.loss, prediction.float(), target, batch.label_weight)
