"""Every bond of a structure with the derivatives of its EAM terms, and what follows per atom."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mgsym.data_tools.simulation.potentials.eam import EAM
from mgsym.data_tools.simulation.potentials.splines import curvature, evaluate, locate
from mgsym.structure import Structure
from mgsym.structure.neighbors import neighbor_pairs


@dataclass(frozen=True, eq=False)
class EAMBonds:
    """Directed bonds i ← j within the cutoff, images one by one, sorted by i, then j.

    Lengths are in Å, energies in eV; the density has the potential's own unit.

    Attributes:
        atom, neighbor: [e] int64, i and j.
        direction: [e, 3], r̂ from i to j.
        length: [e], r.
        density_slope: [e], f′ of the density that j gives at i.
        effective_slope: [e], V′ = φ′ + F′ᵢ f′_ij + F′ⱼ f′_ji, eV/Å.
        effective_curvature: [e], V″ = φ″ + F′ᵢ f″_ij + F′ⱼ f″_ji, eV/Å².
        energy: [n], F(ρᵢ) + ½ Σⱼ φ, eV.
        embedding_curvature: [n], F″(ρᵢ).
    """

    atom: Tensor
    neighbor: Tensor
    direction: Tensor
    length: Tensor
    density_slope: Tensor
    effective_slope: Tensor
    effective_curvature: Tensor
    energy: Tensor
    embedding_curvature: Tensor

    @property
    def num_atoms(self) -> int:
        return len(self.energy)

    def forces(self) -> Tensor:
        """[n, 3] eV/Å."""
        pulls = self.effective_slope[:, None] * self.direction
        return pulls.new_zeros(self.num_atoms, 3).index_add_(0, self.atom, pulls)

    def virials(self) -> Tensor:
        """[n, 3, 3] eV: ½ Σⱼ V′ r r̂ r̂ᵀ.

        Half of every bond belongs to either end. The sum over atoms is the derivative of the
        energy with respect to strain (LAMMPS, ``compute stress/atom``, with the other sign).
        """
        outer = self.direction[:, :, None] * self.direction[:, None, :]
        outer *= (0.5 * self.effective_slope * self.length)[:, None, None]
        return outer.new_zeros(self.num_atoms, 3, 3).index_add_(0, self.atom, outer)


def eam_bonds(potential: EAM, structure: Structure, device: str | torch.device = "cpu") -> EAMBonds:
    """Find the bonds of a structure and differentiate the potential along each.

    Raises:
        InputError: the structure has an element that the potential lacks.
    """
    kinds = potential.types_of(structure).to(device)
    atom, neighbor, vector = _pairs(structure, potential.cutoff, device)
    length = vector.norm(dim=1)
    here, there = kinds[atom], kinds[neighbor]
    bins, t = locate(length, potential.spacing, potential.pair.shape[-2])
    contribution, slope, bend = _derivatives(
        potential.density, (there, here, bins), t, potential.spacing
    )
    _, back_slope, back_bend = _derivatives(
        potential.density, (here, there, bins), t, potential.spacing
    )
    scaled, rise, curve = _derivatives(potential.pair, (here, there, bins), t, potential.spacing)
    # the table holds z = r φ
    phi = scaled / length
    phi_slope = (rise - phi) / length
    phi_bend = (curve - 2 * phi_slope) / length

    density = contribution.new_zeros(len(kinds)).index_add_(0, atom, contribution)
    spacing, tables = potential.density_spacing, potential.embedding.to(device)
    bins, t = locate(density, spacing, tables.shape[-2])
    cubic = tables[kinds, bins]
    embedding, embedding_slope = evaluate(cubic, t, spacing)
    beyond = (density - spacing * tables.shape[-2]).clamp(min=0)
    # past its table F goes on as a straight line
    embedding = embedding + beyond * embedding_slope
    bend_of_embedding = curvature(cubic, t, spacing) * (beyond == 0)
    own_slope, neighbor_slope = embedding_slope[atom], embedding_slope[neighbor]
    return EAMBonds(
        atom,
        neighbor,
        vector / length[:, None],
        length,
        slope,
        phi_slope + own_slope * slope + neighbor_slope * back_slope,
        phi_bend + own_slope * bend + neighbor_slope * back_bend,
        embedding.index_add(0, atom, 0.5 * phi),
        bend_of_embedding,
    )


def _pairs(
    structure: Structure, cutoff: float, device: str | torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Atoms i and j and the vectors between them, in float64."""
    pairs = neighbor_pairs(
        structure.positions, structure.cell, structure.periodic, cutoff, device=device
    )
    neighbor, atom = pairs.edge_index
    position = structure.positions
    vector = position[neighbor] - position[atom] + pairs.shift.double() @ structure.cell
    return atom.to(device), neighbor.to(device), vector.to(device)


def _derivatives(
    table: Tensor, index: tuple[Tensor, Tensor, Tensor], t: Tensor, spacing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Value, first and second derivative of the cubics of a table at some places."""
    cubic = table.to(t.device)[index]
    value, slope = evaluate(cubic, t, spacing)
    return value, slope, curvature(cubic, t, spacing)
