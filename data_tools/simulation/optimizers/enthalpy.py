"""Energy plus pressure × volume of a batch, as a function of atoms and, if wished, the cells.

A free cell enters through a deformation gradient F [3, 3] per system, as in Tadmor, Smith,
Bernstein & Kaxiras, Phys. Rev. B 59, 235 (1999): positions are r = F s and cell vectors F c₀,
where s and c₀ are undeformed ones; the coordinates are s and F. With the stress σ (∂E/∂strain
over the volume, positive under tension) and the pressure p, −∂H/∂s = Fᵀ f and
−∂H/∂F = −V (σ + p) F⁻ᵀ. F is kept upper triangular: all shapes can be reached, the cell does not
turn, and a box as LAMMPS needs it (a along x, b in the xy plane) stays one.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from mgsym.data_tools.simulation.potentials.force_field import ForceField, Forces

FreeCell: TypeAlias = Literal["isotropic", "full"]


class Point(NamedTuple):
    """The enthalpy and its slope at some coordinates.

    Attributes:
        value: [b] eV.
        force: [k] eV/Å, minus the gradient.
        largest_force: [b] eV/Å, on an atom.
        largest_stress: [b] eV/Å³, what is left of stress + pressure; 0 where cells are fixed.
        forces: of the atoms, as the force field gave them.
    """

    value: Tensor
    force: Tensor
    largest_force: Tensor
    largest_stress: Tensor
    forces: Forces


class Enthalpy:
    """Evaluates a batch of systems at flat coordinates [k] (see `FlatBatch`), all in Å.

    F enters times √n (V/n)^⅓ of the system, so that stretching the cell is about as stiff as
    moving one atom, whatever its size; otherwise a minimiser needs far more steps.

    Args:
        field: energies and forces.
        positions: [n, 3] Å, undeformed.
        cell: [b, 3, 3] Å, undeformed; rows are the cell vectors.
        free: which changes of the cells are allowed: ``isotropic``, ``full``, or which components
            of F ([b, 3, 3] bool, in the upper triangle); None fixes them.
        pressure: eV/Å³.
    """

    def __init__(
        self,
        field: ForceField,
        positions: Tensor,
        cell: Tensor,
        free: FreeCell | Tensor | None = None,
        pressure: float = 0.0,
    ) -> None:
        self.field, self.cell, self.free, self.pressure = field, cell, free, pressure
        self.batch = FlatBatch(field.system, len(cell), 0 if free is None else 9)
        self.volume = torch.linalg.det(cell).abs()
        atoms = self.batch.sizes.to(cell.dtype)
        self.scale = (atoms.sqrt() * (self.volume / atoms) ** (1 / 3)).view(-1, 1, 1)
        undeformed = torch.eye(3, dtype=cell.dtype, device=cell.device) * self.scale
        parts = [positions.flatten(), undeformed.flatten()]
        self.start = parts[0].clone() if free is None else torch.cat(parts)

    def deformation(self, x: Tensor) -> Tensor:
        """F [b, 3, 3] of coordinates [k] with free cells."""
        return x[3 * self.batch.atoms :].view(-1, 3, 3) / self.scale

    def geometry(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Positions [n, 3] and cells [b, 3, 3] at coordinates [k]."""
        undeformed = x[: 3 * self.batch.atoms].view(-1, 3)
        if self.free is None:
            return undeformed, self.cell
        gradient = self.deformation(x)
        return self._apply(gradient, undeformed), self.cell @ gradient.mT

    def __call__(self, x: Tensor) -> Point:
        """Evaluate at coordinates [k]."""
        forces = self.field(*self.geometry(x))
        largest = self.batch.largest_of_atoms(forces.forces)
        if self.free is None:
            flat = forces.forces.reshape(-1)
            return Point(forces.energy, flat, largest, torch.zeros_like(forces.energy), forces)
        gradient = self.deformation(x)
        volume = self.volume * torch.linalg.det(gradient)
        excess = self._allowed(forces.stress + self.pressure * torch.eye(3).to(gradient))
        # V (σ + p) F⁻ᵀ, from a solve with F on the right
        slope = torch.linalg.solve(gradient.mT, excess, left=False) * volume.view(-1, 1, 1)
        on_cell = -self._project(slope) / self.scale
        on_atoms = self._apply(gradient.mT, forces.forces)
        flat = torch.cat([on_atoms.flatten(), on_cell.flatten()])
        value = forces.energy + self.pressure * volume
        return Point(value, flat, largest, excess.abs().amax((1, 2)), forces)

    def _allowed(self, stress: Tensor) -> Tensor:
        """The part of a stress that the cell may follow."""
        if isinstance(self.free, Tensor):
            return stress * self.free
        return _spherical(stress) if self.free == "isotropic" else stress

    def _project(self, slope: Tensor) -> Tensor:
        if isinstance(self.free, Tensor):
            return slope.triu() * self.free
        return _spherical(slope) if self.free == "isotropic" else slope.triu()

    def _apply(self, matrices: Tensor, vectors: Tensor) -> Tensor:
        """Each system's matrix [b, 3, 3] times its vectors [n, 3]."""
        if len(matrices) == 1:
            return vectors @ matrices[0].mT
        return torch.bmm(matrices.index_select(0, self.field.system), vectors[:, :, None])[..., 0]


def _spherical(matrices: Tensor) -> Tensor:
    trace = matrices.diagonal(dim1=1, dim2=2).mean(1)
    return trace.view(-1, 1, 1) * torch.eye(3).to(matrices)


class FlatBatch:
    """How coordinates [k] lie: those of all atoms, then a few more of each system.

    Flat lists of numbers are summed and scaled several times faster than [n, 3] ones.

    Args:
        system: [n] int64, ascending: the system of each atom.
        systems: how many there are.
        extra: further coordinates of each system.
    """

    def __init__(self, system: Tensor, systems: int, extra: int = 0) -> None:
        self.systems, self.extra, self.atoms = systems, extra, len(system)
        self.sizes = torch.bincount(system, minlength=systems)
        rest = torch.arange(systems, device=system.device).repeat_interleave(extra)
        self.system = torch.cat([system.repeat_interleave(3), rest])  # [k]

    def sum(self, values: Tensor) -> Tensor:
        """Sums [b] of coordinates [k]; in a fixed order, so that a GPU repeats itself."""
        cut = 3 * self.atoms
        total = torch.segment_reduce(values[:cut], "sum", lengths=3 * self.sizes, unsafe=True)
        if self.extra:
            total = total + values[cut:].view(self.systems, self.extra).sum(1)
        return total

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """Scalar products [b] of lists [k]."""
        return torch.dot(a, b).view(1) if self.systems == 1 else self.sum(a * b)

    def largest(self, values: Tensor) -> Tensor:
        """The length [b] of the longest vector, three coordinates each, in each system."""
        cut = 3 * self.atoms
        length = self.largest_of_atoms(values[:cut].view(-1, 3))
        if self.extra:
            rest = _squared_length(values[cut:].view(-1, 3)).view(self.systems, -1)
            length = torch.maximum(length, rest.amax(1).sqrt())
        return length

    def largest_of_atoms(self, vectors: Tensor) -> Tensor:
        """The length [b] of the longest of each system's vectors [n, 3]."""
        squares = _squared_length(vectors)
        if self.systems == 1:
            return squares.amax().sqrt().view(1)
        return torch.segment_reduce(squares, "max", lengths=self.sizes, unsafe=True).sqrt()

    def spread(self, values: Tensor) -> Tensor:
        """What multiplies coordinates [k]: each system's value [b] at all of its coordinates."""
        return values if self.systems == 1 else values.index_select(0, self.system)


def _squared_length(vectors: Tensor) -> Tensor:
    squares = vectors * vectors
    return squares[:, 0] + squares[:, 1] + squares[:, 2]  # faster than sum(1) over three
