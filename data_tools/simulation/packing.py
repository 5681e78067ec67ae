"""Where a melt begins: atoms at random in a cube, none too near another."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mgsym.data_tools.simulation.dynamics import volume
from mgsym.data_tools.simulation.forces import ForceField
from mgsym.errors import UsageError
from mgsym.structure import Structure

NEAREST = 2.0  # Å between atoms at random
TRIES = 2000  # places proposed at once for an atom
# the push-off: how far a force moves an atom, and how far at most
MOBILITY = 0.01  # Å per eV/Å
FARTHEST = 0.05  # Å


def random_packing(
    counts: Mapping[str, int], edge: float, generator: torch.Generator, nearest: float = NEAREST
) -> Structure:
    """Atoms put one after another at random places of a periodic cube.

    Args:
        counts: how many of each element.
        edge: Å, of the cube.
        generator: on the CPU.
        nearest: Å, the least distance between two atoms.

    Raises:
        UsageError: there is no room for all atoms.
    """
    total = sum(counts.values())
    placed = torch.empty(total, 3, dtype=torch.float64)
    for k in range(total):
        for _ in range(50):
            free = _free_place(placed[:k], edge, nearest, generator)
            if free is not None:
                break
        else:
            raise UsageError(
                f"no room for atom {k + 1} of {total} in a cube of {edge:.1f} Å: "
                "start at a lower density"
            )
        placed[k] = free
    types = torch.repeat_interleave(torch.tensor(list(counts.values())))
    cell = torch.eye(3, dtype=torch.float64) * edge
    return Structure(placed, cell, types, tuple(counts))


def _free_place(
    placed: Tensor, edge: float, nearest: float, generator: torch.Generator
) -> Tensor | None:
    """The first of some random places that is far enough from all atoms, if there is one."""
    tries = max(1, min(TRIES, 2**20 // (len(placed) + 1), 4 + len(placed) // 16))
    places = edge * torch.rand(tries, 3, dtype=torch.float64, generator=generator)
    if len(placed) == 0:
        return places[0]
    apart = places[:, None] - placed
    apart -= edge * (apart / edge).round()
    free = (apart.square().sum(dim=2).amin(dim=1) >= nearest**2).nonzero()
    return places[int(free[0])] if len(free) else None


def push_off(force_field: ForceField, positions: Tensor, cell: Tensor, steps: int = 100) -> Tensor:
    """Move atoms along their forces, a little at a time, until none overlap violently.

    Args:
        force_field: forces of a batch.
        positions: [n, 3] Å.
        cell: [b, 3, 3] Å.
        steps: how often.

    Returns:
        [n, 3] Å.
    """
    for _ in range(steps):
        move = MOBILITY * force_field(positions, cell).forces
        length = move.norm(dim=1, keepdim=True).clamp(min=1e-12)
        positions = positions + move * (FARTHEST / length).clamp(max=1.0)
    return positions


def mass_density(masses: Tensor, system: Tensor, cell: Tensor) -> Tensor:
    """[b] amu/Å³ of systems with atoms of these masses [n]."""
    total = masses.new_zeros(len(cell)).index_add(0, system, masses)
    return total / volume(cell)
