"""Which device to compute on."""

from __future__ import annotations

import torch

from mgsym.errors import UsageError


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """The device that a name means.

    Args:
        name: ``auto`` (a GPU when there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UsageError: the name is not of these, or the device is not there.
    """
    text = str(name)
    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(text)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UsageError(f"device {text!r} is not known: give auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        _require_gpu(device, text)
    return device


def _require_gpu(device: torch.device, text: str) -> None:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise UsageError(f"device {text}: PyTorch sees no GPU here: give --device cpu or auto")
    if (device.index or 0) >= count:
        raise UsageError(f"device {text} is not there: PyTorch sees {count}, cuda:0 first")
