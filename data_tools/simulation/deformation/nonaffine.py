"""Local strain, and what of an atom's surroundings does not follow it.

Falk & Langer, Phys. Rev. E 57, 7192 (1998), eqs. (2.11)–(2.14): among all linear maps J of the
vectors r to an atom's neighbours (those within a radius at the start), the best one leaves

    D²min = min_J Σ |r′ − J r|²,    J = (Σ r′ ⊗ r) (Σ r ⊗ r)⁻¹.

It is the sum over neighbours, in Å², as in the paper and in OVITO. The strain is Green's,
η = ½ (JᵀJ − 1), and the shear strain its von Mises invariant (Shimizu, Ogata & Li, Mater. Trans.
48, 2923 (2007)): √(η_yz² + η_xz² + η_xy² + ((η_yy − η_zz)² + (η_xx − η_zz)² + (η_xx − η_yy)²)/6).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mgsym.nn.scatter import segment_sum
from mgsym.structure import Structure
from mgsym.structure.neighbors import neighbor_pairs

RADIUS = 4.0  # Å: the first shell of Cu-Zr glasses ends between 3.8 and 4
FLAT = 1e-10  # of Σ r ⊗ r: in directions with less than this no neighbour lies


class LocalStrain(NamedTuple):
    """What happened around each atom.

    Attributes:
        d2min: [n] float64, Å².
        shear_strain: [n] float64, no unit.
    """

    d2min: Tensor
    shear_strain: Tensor


class NonAffine:
    """Measures a deformed structure against its start.

    Args:
        start: the undeformed structure.
        radius: Å, within which atoms are neighbours at the start.
    """

    def __init__(self, start: Structure, radius: float = RADIUS) -> None:
        pairs = neighbor_pairs(start.positions, start.cell, start.periodic, radius)
        self.neighbor, self.atom = pairs.edge_index
        self.shift = pairs.shift.double()
        self.atoms = len(start)
        self.before = self._vectors(start.positions, start.cell)
        inertia = self._summed(self.before, self.before)
        # neighbours may lie in a plane or on a line: then J is the smallest of the best
        self.inverse = torch.linalg.pinv(inertia, rtol=FLAT, hermitian=True)

    def __call__(self, positions: Tensor, cell: Tensor) -> LocalStrain:
        """Measure.

        Args:
            positions: [n, 3] Å of the same atoms, in the same order, followed across the cell's
                faces (not wrapped).
            cell: [3, 3] Å, the same cell vectors as at the start, deformed (not reduced).
        """
        after = self._vectors(positions, cell)
        best = self._summed(after, self.before) @ self.inverse  # J
        left = after - (best[self.atom] @ self.before[:, :, None]).squeeze(2)
        d2min = segment_sum(left.square().sum(1), self.atom, self.atoms)
        return LocalStrain(d2min, _shear_invariant(best))

    def _vectors(self, positions: Tensor, cell: Tensor) -> Tensor:
        """[e, 3] Å, from each atom to its neighbours."""
        return positions[self.neighbor] + self.shift @ cell - positions[self.atom]

    def _summed(self, left: Tensor, right: Tensor) -> Tensor:
        """Σ left ⊗ right over the neighbours of each atom, [n, 3, 3]."""
        products = (left[:, :, None] * right[:, None, :]).flatten(1)
        return segment_sum(products, self.atom, self.atoms).view(-1, 3, 3)


def _shear_invariant(gradient: Tensor) -> Tensor:
    """[n], of Green's strain of gradients J [n, 3, 3]."""
    strain = 0.5 * (gradient.mT @ gradient - torch.eye(3).to(gradient))
    xx, yy, zz = strain.diagonal(dim1=1, dim2=2).unbind(1)
    angles = strain[:, (1, 0, 0), (2, 2, 1)].square().sum(1)
    lengths = (yy - zz) ** 2 + (xx - zz) ** 2 + (xx - yy) ** 2
    return (angles + lengths / 6.0).sqrt()
