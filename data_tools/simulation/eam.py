"""The embedded-atom method: E = Σᵢ F(ρᵢ) + ½ Σᵢⱼ φ(rᵢⱼ), ρᵢ = Σⱼ f(rᵢⱼ).

Daw & Baskes, Phys. Rev. B 29, 6443 (1984); Finnis & Sinclair, Philos. Mag. A 50, 45 (1984).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mgsym.data_tools.simulation.spline import spline_coefficients
from mgsym.errors import InputError
from mgsym.structure import Structure


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

    @property
    def reach(self) -> Tensor:
        """[s, s] Å: beyond it a pair of species does not interact at all."""
        used = (self.pair != 0).any(-1) | (self.density != 0).any(-1)
        used = used | used.transpose(0, 1)
        bins = used.shape[-1] - used.flip(-1).int().argmax(-1)
        return (torch.where(used.any(-1), bins, 0) * self.spacing).double()

    def types_of(self, structure: Structure) -> Tensor:
        """[n] the potential's own number of each atom's species.

        Raises:
            InputError: the potential lacks an element.
        """
        missing = [symbol for symbol in structure.species if symbol not in self.species]
        if missing:
            raise InputError(
                f"the potential {self.name} has {', '.join(self.species)}, but the structure "
                f"{structure.name} also has {', '.join(missing)}: choose another with --potential"
            )
        return torch.tensor([self.species.index(s) for s in structure.species])[structure.types]


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
