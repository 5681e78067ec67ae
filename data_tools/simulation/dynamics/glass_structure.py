"""How atoms of a glass are arranged: pair distribution functions, coordination, density."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mgsym.data_tools.simulation.units import GRAMS_PER_CM3
from mgsym.structure import Structure
from mgsym.structure.elements import MASS
from mgsym.structure.neighbors import neighbor_pairs

SHELL = 3.8  # Å, about the first minimum of g(r) in Cu-Zr glasses
TOTAL = "all"


class Distribution(NamedTuple):
    """Pair distribution functions.

    Attributes:
        r: [k] Å, middles of the bins.
        g: [k] each, under ``all`` and pairs such as ``Cu-Zr``; 1 where atoms ignore one another.
    """

    r: Tensor
    g: dict[str, Tensor]


def pair_distribution(
    structure: Structure, reach: float = 8.0, width: float = 0.02
) -> Distribution:
    """g(r) of all pairs of atoms, and of the pairs of each two elements.

    Args:
        structure: periodic.
        reach: Å.
        width: Å, of a bin.
    """
    bins = round(reach / width)
    edges = torch.arange(bins + 1, dtype=torch.float64) * width
    shells = 4.0 / 3.0 * torch.pi * edges.pow(3).diff()
    source, target, length = _pairs(structure, reach)
    index = (length / width).long().clamp(max=bins - 1)
    first, second = structure.types[source], structure.types[target]
    n = torch.bincount(structure.types, minlength=len(structure.species)).double()

    def g(chosen: Tensor, centres: float, others: float) -> Tensor:
        count = torch.bincount(index[chosen], minlength=bins).double()
        return count / (centres * others / structure.volume * shells)

    curves = {TOTAL: g(torch.ones_like(first, dtype=torch.bool), len(structure), len(structure))}
    for a, symbol in enumerate(structure.species):
        for b, partner in enumerate(structure.species[a:], start=a):
            if n[a] > 0 and n[b] > 0:
                mine = (first == a) & (second == b)
                curves[f"{symbol}-{partner}"] = g(mine, float(n[a]), float(n[b]))
    return Distribution((edges[1:] + edges[:-1]) / 2, curves)


def first_peak(distribution: Distribution, pair: str = TOTAL, smoothing: float = 0.04) -> float:
    """Å: where a g(r), smoothed by a Gaussian of this width (Å), is highest."""
    width = float(distribution.r[1] - distribution.r[0])
    reach = int(4 * smoothing / width)
    x = torch.arange(-reach, reach + 1, dtype=torch.float64) * width / smoothing
    kernel = torch.exp(-0.5 * x * x)
    curve = distribution.g[pair][None, None]
    smooth = torch.nn.functional.conv1d(curve, kernel[None, None] / kernel.sum(), padding=reach)
    return float(distribution.r[smooth.flatten().argmax()])


def coordination(structure: Structure, cutoff: float = SHELL) -> Tensor:
    """[n] int64: how many atoms are nearer than a cutoff (Å) to each."""
    _, target, _ = _pairs(structure, cutoff)
    return torch.bincount(target, minlength=len(structure))


def mean_by_species(structure: Structure, values: Tensor) -> dict[str, float]:
    """The mean of a value per atom [n], for each element that there is."""
    chosen = {s: structure.types == k for k, s in enumerate(structure.species)}
    return {s: float(values[mine].double().mean()) for s, mine in chosen.items() if mine.any()}


def density(structure: Structure) -> float:
    """g/cm³, with standard atomic masses."""
    mass = sum(MASS[symbol] * count for symbol, count in structure.composition.items())
    return mass / structure.volume * GRAMS_PER_CM3


def _pairs(structure: Structure, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    pairs = neighbor_pairs(structure.positions, structure.cell, structure.periodic, cutoff)
    return pairs.edge_index[0], pairs.edge_index[1], pairs.vector.double().norm(dim=1)
