"""What training minimises: the loss on labels, and on what a teacher predicts."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mgsym.graph import Graph
from mgsym.models.base import BarrierModel
from mgsym.training.config import TrainingConfig
from mgsym.training.teacher import TAUGHT
from mgsym.utils.processes import batch_sum, is_shared


def training_loss(
    config: TrainingConfig, model: BarrierModel, batch: Graph, teacher: float = 0.0
) -> Tensor:
    """Compute the loss of a batch: the mean over labelled atoms, in the label's deviations.

    Args:
        config: which loss, at which precision.
        model: on its device.
        batch: likewise, matched to its species; labels count as much as it says.
        teacher: share of the mean over all atoms with the teacher's predictions for labels, which
            the batch then holds (mgsym.training.teacher).

    Returns:
        A number, with the gradient of all parameters that learn. Where processes share the batch
        (mgsym.utils.processes), their numbers add up to the loss.
    """
    mixed = torch.autocast(
        batch.target.device.type,
        getattr(torch, config.precision),
        enabled=config.precision != "float32",
    )
    with mixed:
        prediction = model.standardised(batch, None)
    prediction = prediction.float()
    target = (batch.target - model.label_mean) / model.label_scale
    loss = _own_part(regression_loss(config.loss, prediction, target, batch.label_weight), target)
    if not teacher:
        return loss
    taught = (batch.node_features[TAUGHT] - model.label_mean) / model.label_scale
    followed = _own_part(regression_loss(config.loss, prediction, taught), taught)
    return teacher * followed + (1 - teacher) * loss


def _own_part(loss: Tensor, target: Tensor) -> Tensor:
    """The share of this process in the mean over all labels of a batch."""
    if not is_shared():
        return loss
    labels = (~target.isnan()).sum()
    return loss * (labels / batch_sum(labels.double()).clamp(min=1)).to(loss.dtype)


def regression_loss(
    kind: str, prediction: Tensor, target: Tensor, weight: Tensor | None = None
) -> Tensor:
    """Mean loss over labelled atoms.

    Args:
        kind: ``mse`` or ``huber`` (threshold 1).
        prediction: [n], in units of the label's standard deviation.
        target: [n], likewise; NaN where there is no label.
        weight: [n], of each label, with mean 1 over the training set; None for ones.

    Returns:
        A number; 0 when nothing is labelled.
    """
    labelled = ~torch.isnan(target)
    if not bool(labelled.any()):
        return prediction.sum() * 0.0
    prediction, target = prediction[labelled], target[labelled]
    loss = F.huber_loss if kind == "huber" else F.mse_loss
    if weight is None:
        return loss(prediction, target)
    return (weight[labelled] * loss(prediction, target, reduction="none")).mean()
