"""What training minimises: the loss on labels."""

from __future__ import annotations

import torch
from torch import Tensor

from mgsym.config import TrainingConfig
from mgsym.graph import Graph
from mgsym.models import BarrierModel
from mgsym.optimization import regression_loss
from mgsym.processes import batch_sum, is_shared


def training_loss(config: TrainingConfig, model: BarrierModel, batch: Graph) -> Tensor:
    """Compute the loss of a batch: the mean over labelled atoms, in the label's deviations.

    Args:
        config: which loss, at which precision.
        model: on its device.
        batch: likewise, matched to its species; labels count as much as it says.

    Returns:
        A number, with the gradient of all parameters that learn. Where processes share the batch
        (mgsym.processes), their numbers add up to the loss.
    """
    mixed = torch.autocast(
        batch.target.device.type,
        getattr(torch, config.precision),
        enabled=config.precision != "float32",
    )
    with mixed:
        prediction = model.standardised(batch, None)
    target = (batch.target - model.label_mean) / model.label_scale
    loss = regression_loss(config.loss, prediction.float(), target, batch.label_weight)
    if not is_shared():
        return loss
    labels = (~target.isnan()).sum()  # the share of this process in the mean over all labels
    return loss * (labels / batch_sum(labels.double()).clamp(min=1)).to(loss.dtype)
