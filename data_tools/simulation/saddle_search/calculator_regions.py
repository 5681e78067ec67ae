"""Active regions whose forces an ASE calculator computes, one after the other.

Where the calculator declares a cutoff, a region is cut out with a rim of frozen atoms twice as wide
around it: the energies of atoms within the cutoff of a moving one change, and these depend on
atoms one cutoff further. Where it declares none, or the box has no room for the rim, energies and
forces are those of the whole structure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mgsym.data_tools.simulation.potentials.ase_calculator import ASEForces, ASEPotential
from mgsym.data_tools.simulation.saddle_search.regions import (
    MARGIN,
    images_around,
    most_rows,
    nearest_images,
)
from mgsym.errors import InputError
from mgsym.structure import Structure

AGREE = 1e-4  # eV/Å; forces in a region and in the whole structure


class CalculatorRegion(NamedTuple):
    """The surroundings of one centre; positions are relative to it, Å.

    Attributes:
        atoms: [a] the atoms that move, ascending.
        start: [a, 3] where they are in the minimum.
        place: [m, 3] all atoms that the calculator is given.
        moving: [a] which of these move.
        system: of ASE.
    """

    atoms: Tensor
    start: Tensor
    place: Tensor
    moving: Tensor
    system: Any


class CalculatorRegionMaker:
    """Cuts regions of one radius out of a structure.

    Args:
        structure: a minimum.
        potential: what computes.
        radius: Å; None frees all atoms.
    """

    def __init__(self, structure: Structure, potential: ASEPotential, radius: float | None) -> None:
        self.structure, self.potential, self.radius = structure, potential, radius
        self._forces: Tensor | None = None

    def rows(self) -> int:
        """Moving atoms of the largest region."""
        return most_rows(self.structure, self.radius)

    def cut(self, centre: int) -> CalculatorRegion:
        """The region around an atom.

        Raises:
            InputError: the forces in it are not those in the whole structure.
        """
        rim = 2.0 * (self.potential.cutoff or 0.0) + MARGIN
        atom, place = images_around(self.structure, centre, self.radius, rim)
        home = nearest_images(atom, place, self.radius)
        atoms, start = atom[home], place[home]
        near = place.norm(dim=1) < float(start.norm(dim=1).max()) + rim
        atom, place = atom[near], place[near]
        apart = len(atom.unique()) == len(atom) < len(self.structure)
        if self.radius is None or self.potential.cutoff is None or not apart:
            return self._whole(centre, atoms, start)
        row = torch.full((len(self.structure),), -1)
        row[atom] = torch.arange(len(atom))
        symbols = [self.structure.symbols[k] for k in atom.tolist()]
        system = self.potential.atoms(symbols, torch.zeros(3, 3).numpy(), False)
        region = CalculatorRegion(atoms, start, place, row[atoms], system)
        self._check(region)
        return region

    def _whole(self, centre: int, atoms: Tensor, start: Tensor) -> CalculatorRegion:
        structure = self.structure
        place = structure.positions - structure.positions[centre]
        system = self.potential.atoms(structure.symbols, structure.cell.numpy(), structure.periodic)
        return CalculatorRegion(atoms, start, place, atoms, system)

    def _check(self, region: CalculatorRegion) -> None:
        """A cutoff that is too small would go unseen."""
        if self._forces is None:
            field, structure = ASEForces(self.potential, [self.structure]), self.structure
            self._forces = field(structure.positions, structure.cell[None]).forces
        _, forces = evaluate_region(self.potential, region, region.start)
        off = float((forces - self._forces[region.atoms]).norm(dim=1).max())
        if not off < AGREE:
            raise InputError(
                f"{self.potential.name} declares a cutoff of {self.potential.cutoff:g} Å, but "
                f"forces change by {off:.2g} eV/Å where atoms beyond twice of it are left out: set "
                "the calculator's cutoff to the range over which an atom's energy depends on "
                "others (of message passing, all layers together), or to None"
            )


class CalculatorRegions:
    """Regions in slots, for `SearchBatch`.

    Args:
        potential: what computes.
        slots: how many regions at most.
        rows: moving atoms in the largest one.
        dtype: of the positions.
    """

    def __init__(self, potential: ASEPotential, slots: int, rows: int, dtype: torch.dtype) -> None:
        self.potential, self.slots, self.rows, self.dtype = potential, slots, rows, dtype
        self.device = torch.device("cpu")
        self._regions: list[CalculatorRegion | None] = [None] * slots

    def insert(self, slot: int, region: Any) -> None:
        """Put a region in a slot."""
        self._regions[slot] = region

    def refresh(self, x: Tensor) -> None:
        """Nothing: calculators look after their own neighbour lists."""

    def forces(self, x: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Energies [b] (eV, up to a constant of each region) and forces [b, 3, a] at [b, 3, a]."""
        energy, force = x.new_zeros(self.slots, dtype=torch.float64), torch.zeros_like(x)
        for slot in wanted.nonzero().squeeze(1).tolist():
            region = self._regions[slot]
            assert region is not None
            count = len(region.atoms)
            value, found = evaluate_region(self.potential, region, x[slot, :, :count].T.double())
            energy[slot] = value
            force[slot, :, :count] = found.T
        return energy, force

    def keep_busy(self, busy: Sequence[bool]) -> list[int]:
        """Drop the slots that are not busy; those that stay, in order."""
        stay = [slot for slot, used in enumerate(busy) if used]
        self._regions = [self._regions[slot] for slot in stay]
        self.slots = len(stay)
        return stay


def evaluate_region(
    potential: ASEPotential, region: CalculatorRegion, at: Tensor
) -> tuple[float, Tensor]:
    """Energy (eV) and forces [a, 3] (eV/Å) with the moving atoms at [a, 3]."""
    place = region.place.clone()
    place[region.moving] = at
    region.system.set_positions(place.numpy())
    if not bool(at.isfinite().all()):
        return float("nan"), torch.full_like(at, torch.nan)
    energy, forces = potential.evaluate(region.system)
    return energy, torch.from_numpy(forces.copy())[region.moving]
