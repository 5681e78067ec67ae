"""Where a melt begins: atoms at random in a cube, none too near another."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mgsym.data_tools.simulation.potentials.evaluation import Potential, force_field
from mgsym.data_tools.simulation.potentials.force_field import ForceField
from mgsym.data_tools.simulation.units import GRAMS_PER_CM3
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


def starting_edge(counts: Mapping[str, int], potential: Potential, density: float = 0.0) -> float:
    """Å: the edge of a cube for these atoms.

    Args:
        counts: how many of each element.
        potential: with all of them.
        density: g/cm³; 0 takes the volumes of the elements' fcc crystals in this potential, and
            a tenth more for the liquid.

    Raises:
        InputError: the potential lacks an element.
    """
    if density > 0:
        masses = dict(zip(potential.species, potential.masses, strict=True))
        mass = sum(masses[symbol] * count for symbol, count in counts.items())
        return (mass * GRAMS_PER_CM3 / density) ** (1.0 / 3.0)
    total = sum(fcc_volume(symbol, potential) * count for symbol, count in counts.items())
    return (1.1 * total) ** (1.0 / 3.0)


def fcc_volume(symbol: str, potential: Potential) -> float:
    """Å³ per atom of an element's fcc crystal at its lowest energy, to two percent."""
    volumes = 5.0 * 1.03 ** torch.arange(95, dtype=torch.float64)  # up to 80 Å³
    lowest = 4 * int(_fcc_energies(symbol, potential, volumes[::4]).argmin())
    near = volumes[max(0, lowest - 3) : lowest + 4]
    return float(near[_fcc_energies(symbol, potential, near).argmin()])


def _fcc_energies(symbol: str, potential: Potential, volumes: Tensor) -> Tensor:
    """[v] eV of four atoms of an element's fcc crystal, at each volume of an atom (Å³)."""
    corners = torch.tensor([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=torch.float64) / 2
    types = torch.zeros(4, dtype=torch.int64)
    cells = torch.eye(3, dtype=torch.float64) * (4 * volumes[:, None, None]) ** (1.0 / 3.0)
    crystals = [Structure(corners @ cell, cell, types, (symbol,)) for cell in cells]
    field = force_field(potential, crystals, skin=0.0, compile=False)
    places = torch.cat([crystal.positions for crystal in crystals])
    return field(places, cells).energy
