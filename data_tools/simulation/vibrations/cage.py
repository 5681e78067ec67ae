"""The cage around each atom: how the energy rises when it alone moves and its neighbours stay.

Every atom is displaced by several distances in 48 directions, and the energies E(u) − E(0) of
these places are summed up in numbers that do not change under rotation. The stiffness says how the
energy rises at first; the cage says how far that holds, in how many directions, and how evenly.

The directions belong to the atom: they are fixed in the frame of eigenvectors of its own 3×3 block
of the Hessian. An eigenvector has no sign, so the set is one that turning an axis round gives back.
Where two eigenvalues agree, as in a cubic crystal, the frame is one of many, and the numbers
depend a little on which.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from mgsym.data_tools.simulation.potentials.eam import EAM
from mgsym.data_tools.simulation.potentials.splines import evaluate, locate
from mgsym.descriptors.physical import CAGE_DEGREES, CAGE_DISTANCES, CAGE_RANKS, CAGE_SOFTNESS
from mgsym.nn.spherical_harmonics import spherical_harmonics
from mgsym.structure import Column, Structure
from mgsym.structure.neighbors import neighbor_pairs

_SPACING = 0.002  # Å, of the tables that are read linearly: errors stay below 1e-4 eV
_NEAREST = 0.4  # Å; closer atoms count as this close
_LOWEST = 1e-3  # eV; logarithms begin here
_PLACES = 2**19  # neighbours times directions at once: what a core's cache holds


def cage_inputs(
    potential: EAM,
    structure: Structure,
    frames: Tensor,
    *,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
) -> dict[str, Column]:
    """Numbers per atom [n] float32 from the energies E(u) of its displacements, by name.

    With l = ln(E/eV) at one distance, over the 48 directions:

    - ``cage_<Å>_rank_<k>``, ln eV: the k-th lowest l, from 0;
    - ``cage_<Å>_degree_<d>``, ln eV: √Σ_m c_dm², c_dm the coefficients of l in spherical harmonics;
    - ``cage_<Å>_soft_<ε>``, eV: −ε ln ⟨exp(−E/ε)⟩, between the mean and the minimum.

    Args:
        potential: with the structure's elements.
        structure: at an energy minimum.
        frames: [n, 3, 3]; column k is the axis k of the atom's frame, orthonormal.
        device: where to compute.
        progress: called with the number of atoms that were just done.
    """
    surroundings = _Surroundings.of(potential, structure, max(CAGE_DISTANCES), device)
    directions = cage_directions().to(device)
    statistics = []
    for atoms in surroundings.groups(len(directions)):
        own = frames[atoms.start : atoms.stop].to(directions) @ directions.T
        statistics.append(_statistics(surroundings.energies(atoms, own), directions).cpu())
        if progress is not None:
            progress(atoms.stop - atoms.start)
    values = torch.cat(statistics)
    columns = zip(_names_and_units(), values.T, strict=True)
    return {name: Column(column.contiguous(), unit) for (name, unit), column in columns}


def cage_directions() -> Tensor:
    """[48, 3] float32 unit vectors, spread evenly; turning round any axis gives the same set.

    Two orbits of the octahedral group, whose points repel each other least (energy Σ 1/d²).
    """
    signs = torch.cartesian_prod(*[torch.tensor([1.0, -1.0])] * 3)
    rows = [
        row
        for small, large in ((0.2486, 0.9362), (0.6810, 0.2693))
        for row in sorted(set(permutations((small, small, large))))
    ]
    points = (signs[:, None] * torch.tensor(rows)).reshape(-1, 3)
    return points / points.norm(dim=1, keepdim=True)


def _names_and_units() -> list[tuple[str, str]]:
    """In the order of `_statistics`."""
    return [
        (f"cage_{distance:g}_{statistic}_{value:g}", unit)
        for distance in CAGE_DISTANCES
        for statistic, values, unit in (
            ("rank", CAGE_RANKS, "ln eV"),
            ("degree", CAGE_DEGREES, "ln eV"),
            ("soft", CAGE_SOFTNESS, "eV"),
        )
        for value in values
    ]


def _statistics(energy: Tensor, directions: Tensor) -> Tensor:
    """[a, distances × (ranks + degrees + softnesses)] from energies [a, distances, 48] in eV."""
    log = energy.clamp(min=_LOWEST).log()
    ranks = log.sort(dim=2).values[:, :, list(CAGE_RANKS)]
    harmonics = spherical_harmonics(directions, max(CAGE_DEGREES))
    uneven = log - log.mean(2, keepdim=True)
    coefficients = uneven @ harmonics * (4 * math.pi / len(directions))
    degrees = [coefficients[..., d * d : (d + 1) ** 2].square().sum(2).sqrt() for d in CAGE_DEGREES]
    count = math.log(len(directions))
    soft = [e * (count - torch.logsumexp(-energy / e, dim=2)) for e in CAGE_SOFTNESS]
    return torch.cat([ranks, torch.stack(degrees + soft, dim=2)], dim=2).flatten(1)


class _Radial(NamedTuple):
    """Radial functions of pairs of species, read linearly.

    Attributes:
        rows: [s² bins, 6]: φ, the density at the atom and the density at its neighbour at the
            bin's beginning, and how much each rises over the bin.
        bins: of each pair; the last one is zero.
    """

    rows: Tensor
    bins: int

    @classmethod
    def of(cls, potential: EAM) -> _Radial:
        """On the CPU."""
        bins = math.ceil(potential.cutoff / _SPACING) + 1
        length = _SPACING * torch.arange(bins + 1, dtype=torch.float64)
        bin, place = locate(length, potential.spacing, potential.pair.shape[-2])
        inside = length < potential.cutoff

        def read(cubics: Tensor) -> Tensor:
            value = evaluate(cubics[..., bin, :], place, potential.spacing)[0]
            return torch.where(inside, value, 0.0)

        at_neighbor = read(potential.density)
        phi = read(potential.pair) / length.clamp(min=_SPACING)
        knots = torch.stack([phi, at_neighbor.transpose(0, 1), at_neighbor], dim=-1)
        rows = torch.cat([knots[:, :, :-1], knots.diff(dim=2)], dim=-1)
        return cls(rows.float().reshape(-1, 6), bins)

    def read(self, kind: Tensor, length: Tensor) -> Tensor:
        """φ and the densities at the atom and at its neighbour, [..., 3].

        Args:
            kind: [...], pair of species.
            length: [...] Å.
        """
        scaled = length.clamp(min=_NEAREST) / _SPACING
        bin = scaled.long().clamp(max=self.bins - 1)
        rows = self.rows.index_select(0, (kind * self.bins + bin).flatten())
        rise = (scaled - bin).clamp(max=1.0).flatten()[:, None] * rows[:, 3:]
        return (rows[:, :3] + rise).view(*length.shape, 3)


@dataclass(frozen=True, eq=False)
class _Surroundings:
    """What every atom sees, images one by one, sorted by atom.

    Attributes:
        begin: [n + 1]; the neighbours of atom i are begin[i] … begin[i + 1] − 1.
        vector: [e, 3] Å, to the neighbour.
        pair: [e], pair of species.
        near: [e] bool, whether the density may reach across once the atom is displaced.
        types: [n], species in the potential.
        density: [n].
        neighbor: [e].
        radial: of all pairs of species.
        potential: for the embedding energy.
        embedding: [s, bins, 4], its cubics.
    """

    begin: Tensor
    vector: Tensor
    pair: Tensor
    near: Tensor
    types: Tensor
    density: Tensor
    neighbor: Tensor
    radial: _Radial
    potential: EAM
    embedding: Tensor

    @classmethod
    def of(
        cls, potential: EAM, structure: Structure, farthest: float, device: str | torch.device
    ) -> _Surroundings:
        """For displacements up to `farthest` (Å)."""
        types = potential.types_of(structure)
        pairs = neighbor_pairs(
            structure.positions,
            structure.cell,
            structure.periodic,
            potential.cutoff + farthest,
            device=device,
        )
        neighbor, atom = pairs.edge_index
        radial = _Radial.of(potential)
        kind = types[atom] * len(potential.species) + types[neighbor]
        length = pairs.vector.norm(dim=1)
        reach = float(potential.density_reach.max())
        received = radial.read(kind, length)[:, 1]
        return cls(
            pad(torch.bincount(atom, minlength=len(structure)).cumsum(0), (1, 0)),
            pairs.vector.to(device),
            kind.to(device),
            (length < reach + farthest).to(device),
            types.to(device),
            torch.zeros(len(structure)).index_add_(0, atom, received).to(device),
            neighbor.to(device),
            radial._replace(rows=radial.rows.to(device)),
            potential,
            potential.embedding.float().to(device),
        )

    def groups(self, directions: int) -> list[slice]:
        """Atoms that are worked on at once."""
        most = max(1, _PLACES // directions)
        starts, begin = [0], self.begin.tolist()
        for atom in range(1, len(begin) - 1):
            if begin[atom + 1] - begin[starts[-1]] > most:
                starts.append(atom)
        return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(begin) - 1], strict=True)]

    def energies(self, atoms: slice, directions: Tensor) -> Tensor:
        """E(u) − E(0) in eV, [a, distances, k], for each atom's own directions [a, 3, k]."""
        pairs = slice(int(self.begin[atoms.start]), int(self.begin[atoms.stop]))
        counts = self.begin[atoms.start : atoms.stop + 1].diff().to(directions.device)
        owner = torch.repeat_interleave(counts)
        vector, pair, near = self.vector[pairs], self.pair[pairs], self.near[pairs]
        square = vector.square().sum(1, keepdim=True)
        along = torch.bmm(vector[:, None], directions[owner]).squeeze(1)
        before = self.radial.read(pair, square.squeeze(1).sqrt())
        neighbor = self.neighbor[pairs][near]
        kind, density = self.types[neighbor, None], self.density[neighbor, None]
        felt = self._embedded(kind, density)
        own_kind, own_density = self.types[atoms, None], self.density[atoms, None]
        own_before = self._embedded(own_kind, own_density)
        energies = []
        for distance in CAGE_DISTANCES:
            length = (square - 2 * distance * along + distance**2).clamp(min=0).sqrt()
            change = self.radial.read(pair[:, None], length) - before[:, None]
            energy = _sums(change[..., 0], owner, len(counts))
            change = change[near]
            at_neighbor = self._embedded(kind, density + change[..., 2]) - felt
            energy += _sums(at_neighbor, owner[near], len(counts))
            received = _sums(change[..., 1], owner[near], len(counts))
            energy += self._embedded(own_kind, own_density + received) - own_before
            energies.append(energy)
        return torch.stack(energies, dim=1)

    def _embedded(self, kind: Tensor, density: Tensor) -> Tensor:
        """F(ρ), eV; on beyond its table as a straight line."""
        spacing, bins = self.potential.density_spacing, self.embedding.shape[1]
        bin, place = locate(density, spacing, bins)
        energy, slope = evaluate(self.embedding.flatten(0, 1)[kind * bins + bin], place, spacing)
        return energy + (density - spacing * bins).clamp(min=0) * slope


def _sums(values: Tensor, owner: Tensor, atoms: int) -> Tensor:
    return values.new_zeros(atoms, values.shape[1]).index_add_(0, owner, values)
