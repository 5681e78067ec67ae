"""Active regions: the atoms around a centre that move while all others are frozen.

The energy is that of the whole system all the same: frozen atoms near enough to feel the density
of moving ones get their embedding energy anew. Regions of a batch have one shape; every region
has room to spare.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mgsym.data_tools.simulation.potentials.eam import EAM
from mgsym.data_tools.simulation.potentials.splines import evaluate, locate
from mgsym.structure import Structure
from mgsym.structure.cell import central_image, heights
from mgsym.structure.neighbors import neighbor_pairs

MARGIN = 1.0  # Å that atoms at the edge of a region may move outwards


class Region(NamedTuple):
    """The surroundings of one centre; positions are relative to it, Å.

    Attributes:
        atoms: [a] the atoms that move, ascending.
        start: [a, 3] where they are in the minimum.
        types: [a] their species in the potential.
        site_base: [s, 3] where a frozen site is, or how far a site is from the moving atom that
            it is an image of.
        site_owner: [s] the moving atom (row) that a site is an image of; −1 for frozen ones.
        site_types: [s].
        site_boundary: [s] which boundary atom a frozen site is; −1 where it is none.
        boundary_types: [q].
        boundary_fixed: [q] the density that frozen atoms give to each boundary atom.
    """

    atoms: Tensor
    start: Tensor
    types: Tensor
    site_base: Tensor
    site_owner: Tensor
    site_types: Tensor
    site_boundary: Tensor
    boundary_types: Tensor
    boundary_fixed: Tensor


class RegionMaker:
    """Cuts regions of one radius out of a structure.

    Args:
        structure: a minimum.
        potential: with all its elements.
        radius: Å; None frees all atoms.
        skin: Å, of neighbour lists.
    """

    def __init__(
        self, structure: Structure, potential: EAM, radius: float | None, skin: float
    ) -> None:
        self.structure, self.potential, self.radius, self.skin = structure, potential, radius, skin
        self.types = potential.types_of(structure)
        self.density = densities(potential, structure)
        self.density_reach = float(potential.density_reach.max())
        self.reach = float(potential.reach.max())

    def cut(self, centre: int) -> Region:
        """The region around an atom."""
        atom, place = self._images(centre)
        distance = place.norm(dim=1)
        home = nearest_images(atom, place, self.radius)
        atoms, start = atom[home], place[home]
        row = torch.full((len(self.structure),), -1)
        row[atoms] = torch.arange(len(atoms))

        span = float(start.norm(dim=1).max())
        near = distance < span + self.reach + self.skin + MARGIN
        atom, place, distance = atom[near], place[near], distance[near]
        owner = row[atom]
        base = torch.where((owner >= 0)[:, None], place - start[owner], place)
        is_boundary = (owner < 0) & (distance < span + self.density_reach + self.skin + MARGIN)
        boundary_atoms = atom[is_boundary].unique()
        number = torch.full((len(self.structure),), -1)
        number[boundary_atoms] = torch.arange(len(boundary_atoms))
        boundary = torch.where(owner < 0, number[atom], -1)
        fixed = self.density[boundary_atoms] - self._given(
            start, self.types[atoms], place, boundary, atom
        )
        return Region(
            atoms, start, self.types[atoms], base, owner, self.types[atom], boundary,
            self.types[boundary_atoms], fixed,
        )  # fmt: skip

    def rows(self) -> int:
        """Moving atoms of the largest region."""
        return most_rows(self.structure, self.radius)

    def _images(self, centre: int) -> tuple[Tensor, Tensor]:
        """Atoms and places, relative to the centre, of all images that a region may need."""
        further = self.reach + self.skin + MARGIN
        return images_around(self.structure, centre, self.radius, further)

    def _given(
        self, start: Tensor, types: Tensor, place: Tensor, boundary: Tensor, atom: Tensor
    ) -> Tensor:
        """The density [q] that moving atoms give to boundary atoms in the minimum."""
        sites = (boundary >= 0).nonzero().squeeze(1)
        count = int(boundary.max()) + 1 if len(boundary) else 0
        length = torch.cdist(place[sites], start, compute_mode="donot_use_mm_for_euclid_dist")
        site, row = (length < self.density_reach).nonzero(as_tuple=True)
        found = density_at(
            self.potential, types[row], self.types[atom[sites[site]]], length[site, row]
        )
        return torch.zeros(count, dtype=torch.float64).index_add(0, boundary[sites[site]], found)


def images_around(
    structure: Structure, centre: int, radius: float | None, further: float
) -> tuple[Tensor, Tensor]:
    """Atoms and places, relative to the centre, of all images within a region or `further` Å of it.

    Args:
        structure: the whole.
        centre: an atom.
        radius: Å, of the region; None takes one that holds all atoms.
        further: Å.
    """
    cell, periodic = structure.cell, structure.periodic
    positions = structure.positions - structure.positions[centre]
    positions = central_image(positions, cell, periodic)
    span = float(positions.norm(dim=1).max())
    span = min(span, radius) if radius is not None else span
    return _images_in_sphere(positions, cell, periodic, span + further)


def nearest_images(atom: Tensor, place: Tensor, radius: float | None) -> Tensor:
    """Which image of each atom is nearest to the centre, for atoms within a radius (None: all)."""
    distance = place.norm(dim=1)
    order = distance.argsort(stable=True)
    order = order[atom[order].argsort(stable=True)]
    first = torch.cat((torch.ones(1, dtype=torch.bool), atom[order].diff() != 0))
    home = order[first]
    return home if radius is None else home[distance[home] < radius]


def most_rows(structure: Structure, radius: float | None) -> int:
    """How many atoms the largest region of a radius has."""
    atoms = len(structure)
    if radius is None:
        return atoms
    pairs = neighbor_pairs(structure.positions, structure.cell, structure.periodic, radius)
    return int(torch.bincount(pairs.edge_index[1], minlength=atoms).max()) + 1


def densities(potential: EAM, structure: Structure) -> Tensor:
    """The density [n] at each atom of a structure."""
    positions, cell = structure.positions, structure.cell
    reach = float(potential.density_reach.max())
    pairs = neighbor_pairs(positions, cell, structure.periodic, reach)
    source, target = pairs.edge_index
    vector = positions[source] + pairs.shift.double() @ cell - positions[target]
    types = potential.types_of(structure)
    given = density_at(potential, types[source], types[target], vector.norm(dim=1))
    return torch.zeros(len(structure), dtype=torch.float64).index_add(0, target, given)


def density_at(potential: EAM, giver: Tensor, receiver: Tensor, length: Tensor) -> Tensor:
    """The density [e] that atoms of species `giver` give to others at distances [e], Å."""
    bin, place = locate(length, potential.spacing, potential.density.shape[2])
    return evaluate(potential.density[giver, receiver, bin], place, potential.spacing)[0]


def _images_in_sphere(
    positions: Tensor, cell: Tensor, periodic: tuple[bool, bool, bool], radius: float
) -> tuple[Tensor, Tensor]:
    """Atom and place of all images within a radius of the origin.

    Args:
        positions: [n, 3] Å, the central images (`mgsym.structure.cell`).
    """
    # an image n cells away lies at least (n − ½) cell heights off
    most = [
        max(0, math.ceil(radius / h - 0.5)) if p else 0
        for h, p in zip(heights(cell).tolist(), periodic, strict=True)
    ]
    steps = torch.cartesian_prod(*(torch.arange(-m, m + 1) for m in most)).double()
    atoms, places = [], []
    for translation in steps @ cell:
        place = positions + translation
        near = (place.square().sum(1) < radius * radius).nonzero().squeeze(1)
        atoms.append(near)
        places.append(place[near])
    return torch.cat(atoms), torch.cat(places)
