"""`torch.compile` where it can work."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

SWITCH = "MGSYM_COMPILE"  # 0 turns compiling off


@cache
def compiled(function: Callable[..., Any], device_type: str) -> Callable[..., Any] | None:
    """A compiled version of a function of tensors; None where nothing can compile it.

    The first call takes some seconds; PyTorch keeps what it compiled on disk. One version serves
    all sizes.
    """
    if not can_compile(device_type):
        return None
    return torch.compile(function, dynamic=True)


def can_compile(device_type: str) -> bool:
    """Whether a C++ compiler (CPU) or Triton (CUDA) is there and compiling is not turned off."""
    if os.environ.get(SWITCH) == "0":
        return False
    if device_type == "cpu":
        return any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++"))
    from torch.utils._triton import has_triton

    return bool(has_triton())
