"""The embedded-atom method: E = Σᵢ F(ρᵢ) + ½ Σᵢⱼ φ(rᵢⱼ), ρᵢ = Σⱼ f(rᵢⱼ).

Daw & Baskes, Phys. Rev. B 29, 6443 (1984); Finnis & Sinclair, Philos. Mag. A 50, 45 (1984).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mgsym.data_tools.simulation.spline import spline_coefficients


@dataclass(frozen=True, eq=False)
class EAM:
    """A tabulated potential of one or more elements, as cubic splines (see `spline`).

    Attributes:
        species: element symbols; the first axes of the tables follow them.
        masses: amu, one per species.
        cutoff: Å, the largest distance at which atoms interact.
        spacing: Å, of the radial tables.
        density_spacing: of the embedding tables.
        pair: [s, s, bins, 4], cubics of r·φ(r), eV Å, symmetric in the species.
        density: [s, s, bins, 4], cubics of the density that an atom of the first species gives
            at an atom of the second.
        embedding: [s, bins, 4], cubics of F(ρ), eV.
        name: for messages and records.
    """

    species: tuple[str, ...]
    masses: tuple[float, ...]
    cutoff: float
    spacing: float
    density_spacing: float
    pair: Tensor
    density: Tensor
    embedding: Tensor
    name: str = ""


def tabulated(
    species: tuple[str, ...],
    masses: tuple[float, ...],
    cutoff: float,
    spacing: float,
    density_spacing: float,
    pair: Tensor,
    density: Tensor,
    embedding: Tensor,
    name: str = "",
) -> EAM:
    """A potential from its tables.

    Args:
        pair: [s, s, nr] float64, r·φ(r) in eV Å at r = 0, spacing, ...
        density: [s, s, nr], what the first species gives at the second.
        embedding: [s, nrho], eV.
    """
    radial_bins = min(pair.shape[-1] - 1, int(torch.tensor(cutoff / spacing).ceil()))
    return EAM(
        species,
        masses,
        cutoff,
        spacing,
        density_spacing,
        spline_coefficients(pair)[..., :radial_bins, :].contiguous(),
        spline_coefficients(density)[..., :radial_bins, :].contiguous(),
        spline_coefficients(embedding),
        name,
    )
