"""Which device to compute on."""

from __future__ import annotations

import torch

from mgsym.errors import UsageError


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """The device that a name means.

    Args:
        name: ``auto`` (a GPU when there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Returns:
        With its number, so that it equals the device of the tensors put there.

    Raises:
        UsageError: the name is not of these, or the device is not there.
    """
    text = str(name)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if gpus else torch.device("cpu")
    try:
        device = torch.device(text)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UsageError(f"device {text!r} is not known: give auto, cpu, cuda or cuda:N")
    if device.type == "cpu":
        return device
    if gpus == 0:
        raise UsageError(f"device {text}: PyTorch sees no GPU here: give --device cpu or auto")
    index = device.index if device.index is not None else torch.cuda.current_device()
    if index >= gpus:
        raise UsageError(f"device {text} is not there: PyTorch sees {gpus}, cuda:0 first")
    return torch.device("cuda", index)
