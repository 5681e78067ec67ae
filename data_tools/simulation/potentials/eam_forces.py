"""EAM forces of whole systems, neighbour lists included."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from mgsym.data_tools.simulation.potentials.eam import EAM
from mgsym.data_tools.simulation.potentials.eam_kernel import row_forces
from mgsym.data_tools.simulation.potentials.eam_layout import (
    FAR,
    STRIP,
    Neighborhood,
    in_strips,
    lay_out_tables,
    with_room,
)
from mgsym.data_tools.simulation.potentials.force_field import Forces
from mgsym.errors import UsageError
from mgsym.nn.scatter import run_sums
from mgsym.structure import Structure
from mgsym.structure.neighbors import neighbor_pairs

XX_YY_ZZ_YZ_XZ_XY = ((0, 5, 4), (5, 1, 3), (4, 3, 2))


class EAMForces:
    """The force field of a batch of periodic systems with an EAM potential.

    Neighbours within the cutoff plus a skin are remembered until an atom has moved by half the
    skin (corrected for a changed cell), as Verlet did (Phys. Rev. 159, 98 (1967)).

    Args:
        potential: with all the elements of the structures.
        structures: whose types, masses and periodicity count; positions come with each call.
        skin: Å.
        device: where to compute.
        dtype: of the computation; float64 unless you know better.
        compile: whether a compiler may be used.

    Attributes:
        system: [n] int64, the system of each atom.
        masses: [n] amu.

    Raises:
        InputError: the potential lacks an element.
    """

    def __init__(
        self,
        potential: EAM,
        structures: Sequence[Structure],
        *,
        skin: float = 0.6,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float64,
        compile: bool = True,
    ) -> None:
        self.potential, self.skin, self.compile = potential, skin, compile
        types = torch.cat([potential.types_of(structure) for structure in structures])
        sizes = torch.tensor([len(structure) for structure in structures])
        self.system = torch.repeat_interleave(sizes).to(device)
        self.masses = torch.tensor(potential.masses, dtype=torch.float64)[types].to(device)
        self._types = types.to(device)
        self._sizes, self._lengths = sizes.tolist(), sizes.to(device)
        self._periodic = [structure.periodic for structure in structures]
        self._tables = lay_out_tables(potential, device, dtype)
        self._reach = potential.reach.to(device)
        self._lists: _Lists | None = None
        self._room = _Room(0, 0, 0)

    def __call__(self, positions: Tensor, cell: Tensor) -> Forces:
        """Energies, forces and stresses at positions [n, 3] in cells [b, 3, 3], Å."""
        lists = self._lists
        reach = self.potential.cutoff
        if lists is None or not lists.serve(positions, cell, self.system, reach):
            lists = self._lists = self._search(positions.detach(), cell.detach())
        rows = positions.T.to(self._tables.embedding.dtype).contiguous()
        result = row_forces(
            self._tables,
            lists.where,
            lists.sites(positions, cell, self.system).to(rows.dtype),
            rows,
            stress=True,
            compile=self.compile,
        )
        energy = run_sums(result.energy, self._lengths)
        virial = run_sums(cast(Tensor, result.virial), self._lengths).T
        volume = torch.linalg.det(cell).abs()
        stress = virial[:, XX_YY_ZZ_YZ_XZ_XY] / volume[:, None, None]
        return Forces(energy, result.forces.T, stress, result.energy)

    def _search(self, positions: Tensor, cell: Tensor) -> _Lists:
        """Neighbour lists of all systems, joined."""
        pairs, start = [], 0
        for size, box, periodic in zip(self._sizes, cell, self._periodic, strict=True):
            part = slice(start, start + size)
            pairs.append(self._pairs(positions[part], box, periodic, self._types[part], start))
            start += size
        source, target, shift = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        owner, steps, site = _sites(source, shift, len(positions))
        types = self._types
        degree = torch.bincount(target, minlength=len(positions))
        strips = in_strips(degree)
        used = len(strips.row)
        room = self._room = self._room.for_lists(
            max(1, used), strips.of_row.shape[1], len(owner) + 1
        )

        def fill(values: Tensor, filler: int) -> Tensor:
            array = values.new_full((STRIP, room.strips), filler)
            array[strips.rank, strips.strip] = values
            return array

        of_row = torch.where(strips.of_row < used, strips.of_row, room.strips)
        where = Neighborhood(
            types,
            pad(of_row, (0, room.of_row - of_row.shape[1]), value=room.strips),
            pad(strips.row, (0, room.strips - used)),
            fill(site, len(owner)),
            pad(types[owner], (0, room.sites - len(owner))),
            pad(owner, (0, room.sites - len(owner)), value=len(positions)),
        )
        return _Lists(where, owner, steps, positions.clone(), cell.clone(), self.skin)

    def _pairs(
        self,
        positions: Tensor,
        cell: Tensor,
        periodic: tuple[bool, bool, bool],
        types: Tensor,
        start: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Source, target and shift of pairs that may soon be within their species' own reach."""
        longest = self.potential.cutoff + self.skin
        pairs = neighbor_pairs(positions, cell, periodic, longest, device=positions.device)
        source, target = pairs.edge_index.to(positions.device)
        length = pairs.vector.norm(dim=1).to(positions.device)
        # vectors are float32: leave some room
        near = length < (self._reach + (self.skin + 1e-4))[types[source], types[target]]
        shift = pairs.shift.to(positions.device)
        return source[near] + start, target[near] + start, shift[near]


class _Room(NamedTuple):
    """The sizes of neighbour lists, with room to spare: compiled code serves one set of sizes.

    Attributes:
        strips: in all.
        of_row: that one atom can have.
        sites: images, and one far away.
    """

    strips: int
    of_row: int
    sites: int

    def for_lists(self, strips: int, of_row: int, sites: int) -> _Room:
        """The same where it suffices, else a larger one."""
        return _Room(
            self.strips if strips <= self.strips else with_room(strips),
            self.of_row if of_row <= self.of_row else of_row + 1,
            self.sites if sites <= self.sites else with_room(sites),
        )


@dataclass(frozen=True, eq=False)
class _Lists:
    """Neighbour lists, and when they were made.

    Attributes:
        where: what the kernel reads.
        owner: [s] the atom of each site.
        steps: [s, 3] the periodic image that it is.
        positions, cell: for which the lists were made.
        skin: Å.
    """

    where: Neighborhood
    owner: Tensor
    steps: Tensor
    positions: Tensor
    cell: Tensor
    skin: float

    def sites(self, positions: Tensor, cell: Tensor, system: Tensor) -> Tensor:
        """Where the sites are, [3, s]; those that fill up are far away."""
        at = positions.index_select(0, self.owner)
        if len(cell) == 1:
            at = at + self.steps.to(cell.dtype) @ cell[0]
        else:
            boxes = cell[system[self.owner]]
            at = at + (self.steps.to(cell.dtype)[:, None, :] @ boxes).squeeze(1)
        return pad(at.T, (0, len(self.where.embedded) - len(at)), value=FAR)

    def serve(self, positions: Tensor, cell: Tensor, system: Tensor, reach: float) -> bool:
        """Whether no pair can have come within reach unseen.

        Distances shrink at most by the smallest stretch of the cell, and by twice what an atom
        moved beside that.
        """
        shrink = 1.0
        before = self.positions
        if not torch.equal(cell, self.cell):
            stretch = torch.linalg.solve(self.cell, cell)
            shrink = float(torch.linalg.svdvals(stretch).min())
            before = (before[:, None, :] @ stretch[system]).squeeze(1)
        moved = float((positions.detach() - before).square().sum(1).max()) ** 0.5
        return reach + 2.0 * moved <= (reach + self.skin) * shrink  # False when it is NaN


def _sites(source: Tensor, shift: Tensor, atoms: int) -> tuple[Tensor, Tensor, Tensor]:
    """Number the periodic images that occur among pairs.

    Returns:
        The atom [s] and the steps [s, 3] of each image, and the image [e] int32 of each pair.
    """
    if len(source) == 0:
        return source, shift.long(), source.int()
    low, high = shift.amin(0).tolist(), shift.amax(0).tolist()
    numbers = [b - a + 1 for a, b in zip(low, high, strict=True)]
    key = source
    for axis, number in enumerate(numbers):
        key = key * number + (shift[:, axis].long() - low[axis])
    used = torch.zeros(atoms * math.prod(numbers), dtype=torch.bool, device=key.device)
    used[key] = True
    site = (used.cumsum(0).int() - 1)[key]
    rest, steps = used.nonzero().squeeze(1), []
    for axis in (2, 1, 0):
        steps.append(rest % numbers[axis] + low[axis])
        rest = rest // numbers[axis]
    return rest, torch.stack(steps[::-1], dim=1), site


def evaluate_structures(
    potential: EAM, structures: Structure | Sequence[Structure], device: str | torch.device = "cpu"
) -> Forces:
    """Compute energies, forces and stresses of one structure or of several of any sizes.

    For derivatives through the positions, or many evaluations of the same atoms, keep an
    `EAMForces`.

    Returns:
        For one structure `energy` is a number and `stress` [3, 3]; for several they are [b]
        and [b, 3, 3], and the atoms of all stand in one list, in order.

    Raises:
        InputError: a structure has an element that the potential lacks.
        UsageError: there are no structures.
    """
    batch = [structures] if isinstance(structures, Structure) else list(structures)
    if not batch:
        raise UsageError("there are no structures to evaluate")
    # compiling takes longer than evaluating once
    field = EAMForces(potential, batch, skin=0.0, device=device, compile=False)
    positions = torch.cat([structure.positions for structure in batch]).to(device)
    cell = torch.stack([structure.cell for structure in batch]).to(device)
    forces = field(positions, cell)
    if not isinstance(structures, Structure):
        return forces
    return forces._replace(energy=forces.energy[0], stress=forces.stress[0])
