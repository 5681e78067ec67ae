"""What every simulation asks of a potential: energies, forces and stresses of a batch of systems.

A batch is flat: the atoms of all systems stand in one list, those of one system together, and
`system` says which is whose. Systems may differ in size.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from mgsym.data_tools.simulation.units import BAR


class Forces(NamedTuple):
    """Energies and their derivatives.

    Attributes:
        energy: [b] eV.
        forces: [n, 3] eV/Å.
        stress: [b, 3, 3] eV/Å³, ∂E/∂strain over the volume: positive under tension, so the
            pressure is −trace/3.
        atom_energy: [n] eV.
    """

    energy: Tensor
    forces: Tensor
    stress: Tensor
    atom_energy: Tensor

    @property
    def pressure(self) -> Tensor:
        """[b, 3, 3] bar, of the forces alone (atoms at rest): −stress; its mean diagonal is p."""
        return -BAR * self.stress


class ForceField(Protocol):
    """Forces as a function of positions and cells; it remembers types and neighbours."""

    system: Tensor  # [n] int64, ascending: the system of each atom

    def __call__(self, positions: Tensor, cell: Tensor) -> Forces:
        """Evaluate.

        Args:
            positions: [n, 3] Å, need not be wrapped.
            cell: [b, 3, 3] Å, rows are the cell vectors.
        """
        ...
