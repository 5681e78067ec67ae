"""`torch.compile` on GPUs, where it can work."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from mgsym.utils.compilation import SWITCH

MOST_VERSIONS = 64
_FAILING: set[str] = set()  # types of devices for which a compiler was there and failed


@cache
def compiled(function: Callable[..., Any], device_type: str) -> Callable[..., Any] | None:
    """A compiled version of a function of tensors; None where nothing can compile it.

    Every set of sizes gets a version of its own, a third quicker than one that serves them all.
    Making it takes some seconds; PyTorch keeps it on disk.

    Args:
        function: of tensors.
        device_type: cuda, or another of torch's.
    """
    if not can_compile(device_type):
        return None
    from torch._dynamo import config as dynamo_config

    allow_versions(dynamo_config)
    return torch.compile(function, dynamic=False)


def run_compiled(function: Callable[..., Any], device_type: str, *arguments: Any) -> Any | None:
    """What a function gives, computed by its compiled version; None where there can be none.

    That a compiler is there does not prove that it works (no Python.h, no room in its cache):
    where it fails, one warning says so, and nothing is compiled for that device any more.
    """
    try:
        fast = compiled(function, device_type)
        return None if fast is None else fast(*arguments)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        # whoever called computes the same uncompiled, and meets what was no compiler's fault
        _FAILING.add(device_type)
        compiled.cache_clear()
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        warnings.warn(
            f"torch.compile failed on {device_type} ({first}); going on without it, slower: mend "
            f"the compiler (it needs gcc and Python.h), or set {SWITCH}=0 to silence this",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


def allow_versions(config: Any, most: int = MOST_VERSIONS) -> None:
    """Raise the limit of compiled versions of one function to `most`.

    One is needed per size of the regions of each stage of each run in this process.

    Args:
        config: torch's ``torch._dynamo.config``, where the limit is called ``recompile_limit``
            since torch 2.7 and ``cache_size_limit`` before.
        most: versions.
    """
    name = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    setattr(config, name, max(getattr(config, name), most))


def can_compile(device_type: str) -> bool:
    """Whether Triton is there, has not failed, and is wanted."""
    if os.environ.get(SWITCH) == "0" or device_type in _FAILING:
        return False
    from torch.utils._triton import has_triton

    return bool(has_triton())
