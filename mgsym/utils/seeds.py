"""Seeds: of devices, of parts of a run, and orders drawn from them."""

from __future__ import annotations

import hashlib

import torch


def derived_seed(*parts: int | str) -> int:
    """A seed for one place in a run, such as (seed, "step", epoch, step): 63 well-mixed bits."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def seed_device(device: torch.device, seed: int) -> None:
    """Seed the generators that a model on `device` draws from; others stay as they are."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def shuffled(count: int, *parts: int | str) -> list[int]:
    """0 … count − 1 in the order that `parts` seed."""
    generator = torch.Generator().manual_seed(derived_seed(*parts))
    return torch.randperm(count, generator=generator).tolist()
