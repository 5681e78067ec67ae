"""What takes a training step: optimiser, learning rate, averaged weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mgsym.graph import Graph
from mgsym.models.base import BarrierModel
from mgsym.nn.rotations import learned_transforms
from mgsym.training.config import TrainingConfig


def make_optimizer(config: TrainingConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Make Adam or AdamW; weight decay acts on matrices only, not on biases, norms or numbers.

    Each group of parameters has a ``rate``, its learning rate in units of the common one:
    distributions of transforms, which would be drawn to no angle by decay, have their own.
    """
    transforms = learned_transforms(model)
    own = [] if transforms is None else list(transforms.parameters())
    apart = {id(parameter) for parameter in own}
    trained = [p for p in model.parameters() if p.requires_grad and id(p) not in apart]
    matrices, others = ([p for p in trained if (p.dim() >= 2) is two] for two in (True, False))
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay, "rate": 1.0},
        {"params": others, "weight_decay": 0.0, "rate": 1.0},
        {"params": own, "weight_decay": 0.0, "rate": config.transforms_rate},
    ]
    # an optimiser needs one group, if only an empty one
    groups = [group for group in groups if group["params"]] or groups[:1]
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=config.learning_rate, amsgrad=config.amsgrad)


def set_rates(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the common learning rate of all groups of parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate"]


def restore_optimizer(
    optimizer: torch.optim.Optimizer, saved: Mapping[str, Any], model: nn.Module
) -> None:
    """Load the state of an optimiser that this version or an older one saved.

    Older ones had the distributions of transforms among the matrices, in the order of the model.
    """
    saved = {**saved, "param_groups": [dict(group) for group in saved["param_groups"]]}
    if any("rate" not in group for group in saved["param_groups"]):
        numbers = {id(p): i for i, p in enumerate(_as_older_versions_had_them(model))}
        states, fresh = saved["state"], optimizer.state_dict()["param_groups"]
        kept = {}
        for group, new in zip(optimizer.param_groups, fresh, strict=True):
            for parameter, place in zip(group["params"], new["params"], strict=True):
                if numbers[id(parameter)] in states:
                    kept[place] = states[numbers[id(parameter)]]
        saved = {"state": kept, "param_groups": fresh}
    optimizer.load_state_dict(dict(saved))


def _as_older_versions_had_them(model: nn.Module) -> list[nn.Parameter]:
    trained = [p for p in model.parameters() if p.requires_grad]
    return sorted(trained, key=lambda p: p.dim() < 2)


def rate_factor(config: TrainingConfig, step: int, total: int) -> float:
    """Compute the factor of the learning rate at a step counted from 0, out of `total`."""
    rising = round(config.warmup * total)
    if step < rising:
        return (step + 1) / (rising + 1)
    if config.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(total - rising, 1)))


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move averaged weights and buffers towards the model's.

    Early on the decay is smaller, (1 + step) / (10 + step), so that the random start is soon
    forgotten.
    """
    decay = min(decay, (1 + step) / (10 + step))
    pairs = list(zip(average.state_dict().values(), model.state_dict().values(), strict=True))
    real = [(ours, theirs) for ours, theirs in pairs if ours.is_floating_point()]
    if real:  # all at once: on a GPU, a launch for each takes longer than the numbers do
        torch._foreach_lerp_([ours for ours, _ in real], [new for _, new in real], 1 - decay)
    counts = [(ours, theirs) for ours, theirs in pairs if not ours.is_floating_point()]
    if counts:
        torch._foreach_copy_([ours for ours, _ in counts], [new for _, new in counts])


def diverged(config: TrainingConfig, value: float, epoch: int, step: int) -> str:
    """Say what to try when the loss of a step counted from 0 is no longer a number."""
    return (
        f"the loss became {value} at epoch {epoch + 1}, step {step + 1}: try a lower learning "
        f"rate than {config.learning_rate:g}, a gradient clip, precision float32, and look for "
        "wrong labels or overlapping atoms"
    )


def copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy a state dict, so that training no longer changes it."""
    return {name: values.detach().clone() for name, values in state.items()}


def centre_predictions(model: BarrierModel, graphs: Sequence[Graph]) -> None:
    """Move the model's label mean so that its mean error over some structures is zero.

    Batch norm takes its statistics from one batch in training and from running averages
    afterwards, which shifts all predictions alike; correlations do not notice, errors do.
    """
    model.eval()
    with torch.no_grad():
        errors = [(g.target - model(g))[g.labelled] for g in graphs]
    model.label_mean += torch.cat(errors).mean()
