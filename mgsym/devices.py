"""Where the work is done."""

from __future__ import annotations

import torch

from mgsym.errors import UsageError


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """The device called ``auto`` (CUDA where there is one, else the CPU), ``cpu`` or ``cuda[:n]``.

    Raises:
        UsageError: no such device here.
    """
    if str(name) == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if _cuda() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"{name!r} is no device, expected auto, cpu, cuda or cuda:1") from error
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise UsageError(f"{name!r} is not supported, expected auto, cpu, cuda or cuda:1")
    count = torch.cuda.device_count() if _cuda() else 0
    index = device.index or 0
    if index >= count:
        raise UsageError(f"there is no {name} here ({count} CUDA devices): use auto or cpu")
    return torch.device("cuda", index)


def _cuda() -> bool:
    return torch.cuda.is_available()
