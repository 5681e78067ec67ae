"""Many active regions at once, in arrays of one shape, and the forces in all of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from mgsym.data_tools.simulation.eam import EAM
from mgsym.data_tools.simulation.eam_kernel import (
    FAR,
    STRIP,
    Neighborhood,
    Rim,
    in_strips,
    row_forces,
    table_start,
    tables,
)
from mgsym.data_tools.simulation.regions import Region
from mgsym.neighbors import true_in_rows


class RegionBatch:
    """Regions in slots, with neighbour lists that are made anew as atoms move.

    Arrays grow when a region or a list needs more room; slots without a region cost as much as
    others.

    Args:
        potential: of all regions.
        slots: how many regions, b.
        rows: moving atoms in the largest one, a; it decides how sums are rounded.
        skin: Å.
        frozen: whether there are frozen atoms at all.
        device: where to compute.
    """

    def __init__(
        self,
        potential: EAM,
        slots: int,
        rows: int,
        skin: float,
        *,
        frozen: bool,
        device: str | torch.device = "cpu",
    ) -> None:
        self.slots, self.rows, self.skin, self.frozen = slots, rows, skin, frozen
        self.device = torch.device(device)
        self._tables = tables(potential, device, torch.float64)
        species = len(potential.species)
        # one more species, for what fills up: it has no neighbours
        limit = (potential.reach + skin).square()
        self._limit = pad(limit, (0, 1, 0, 1), value=-1.0).to(device)
        self._nobody = species
        self._sites, self._rims, self._pairs, self._length, self._most = 1, 1, 1, 1, 1
        self._row_types = self._full((rows,), species, torch.int64)
        self._base = self._full((1, 3), FAR, torch.float64)
        self._owner = self._full((1,), -1, torch.int64)
        self._site_types = self._full((1,), species, torch.int64)
        self._rim_of_site = self._full((1,), -1, torch.int64)
        self._rim_types = self._full((1,), 0, torch.int64)
        self._rim_fixed = self._full((1,), 0.0, torch.float64)
        self._strips = self._full((rows, 1), -1, torch.int64)
        self._row = self._full((1,), 0, torch.int64)
        self._neighbor = self._full((1, STRIP), 0, torch.int32)
        self._table = self._full((1, STRIP), 0, torch.int32)
        self._back = self._full((1, STRIP), 0, torch.int32)
        self._pair_slot = self._full((1,), 0, torch.int64)
        self._pair_rim = self._full((1,), 0, torch.int64)
        self._listed = self._full((3, rows), 0.0, torch.float64)
        self._where: Neighborhood | None = None

    def _full(self, shape: tuple[int, ...], value: float, dtype: torch.dtype) -> Tensor:
        return torch.full((self.slots, *shape), value, dtype=dtype, device=self.device)

    # --- membership --------------------------------------------------------------------------

    def insert(self, slot: int, region: Region) -> None:
        """Put a region in a slot; lists are made when `refresh` is next called with it."""
        sites, rims, atoms = len(region.site_types), len(region.rim_types), len(region.atoms)
        self._make_room(sites + 1, rims + 1)
        row = self._row_types[slot].fill_(self._nobody)
        row[:atoms] = region.types
        for array, values, empty in (
            (self._base, region.site_base, FAR),
            (self._owner, region.site_owner, -1),
            (self._site_types, region.site_types, self._nobody),
            (self._rim_of_site, region.site_rim, -1),
        ):
            array[slot, :sites] = values.to(self.device)
            array[slot, sites:] = empty
        self._rim_types[slot, :rims] = region.rim_types
        self._rim_types[slot, rims:] = 0
        self._rim_fixed[slot, :rims] = region.rim_fixed
        self._rim_fixed[slot, rims:] = 0.0
        self._listed[slot] = float("nan")
        self._where = None

    def keep(self, slots: Tensor) -> None:
        """Drop all other slots."""
        self.slots = len(slots)
        for name, value in vars(self).items():
            if isinstance(value, Tensor) and name not in ("_limit",):
                setattr(self, name, value[slots].clone())
        self._where = None

    def _make_room(self, sites: int, rims: int) -> None:
        if sites > self._sites:
            more = (0, round(sites * 1.05) - self._sites)
            self._base = pad(self._base, (0, 0, *more), value=FAR)
            self._owner = pad(self._owner, more, value=-1)
            self._site_types = pad(self._site_types, more, value=self._nobody)
            self._rim_of_site = pad(self._rim_of_site, more, value=-1)
            # what fills up strips is the last site
            filler = self._neighbor == self._sites - 1
            self._sites += more[1]
            self._neighbor[filler] = self._sites - 1
        if rims > self._rims:
            more = (0, round(rims * 1.05) - self._rims)
            self._rim_types = pad(self._rim_types, more)
            self._rim_fixed = pad(self._rim_fixed, more)
            self._rims += more[1]

    # --- neighbour lists ---------------------------------------------------------------------

    def refresh(self, x: Tensor) -> Tensor:
        """Make the lists anew that positions [b, 3, a] call for; NaN lists always.

        Returns:
            [b] whether every atom is still where its region has all neighbours of it.
        """
        moved = (x - self._listed).square().sum(1)
        # two atoms near each other by what both of them moved
        two = moved.topk(min(2, self.rows), dim=1).values.sqrt().sum(1)
        stale = (~(two < self.skin - 0.02)).nonzero().squeeze(1)
        for slot in stale.tolist():
            self._list(slot, x[slot])
        if len(stale):
            self._where = None
        return torch.ones(self.slots, dtype=torch.bool, device=self.device)

    def _list(self, slot: int, x: Tensor) -> None:
        """Neighbours of all rows of one slot."""
        degree, flat = true_in_rows(self._near(slot, x))
        row = torch.repeat_interleave(degree)
        site = flat - row * self._sites
        most = -(-int(degree.max()) // STRIP)
        strips, row_of_strip, begin = in_strips(degree, most)
        length = len(row_of_strip)
        # one strip more, of which every place stays empty
        self._lengthen(length + 1, most)
        place = (begin - (degree.cumsum(0) - degree))[row]
        place += torch.arange(len(row), device=x.device)
        receiver, giver = self._row_types[slot][row], self._site_types[slot][site]
        for array, filler, values in (
            (self._neighbor, self._sites - 1, site.int()),
            (self._table, 0, table_start(self._tables, giver, receiver)),
            (self._back, 0, table_start(self._tables, receiver, giver)),
        ):
            if array is not self._back or not self._tables.symmetric:
                array[slot].fill_(filler).view(-1)[place] = values
        self._strips[slot] = -1
        self._strips[slot, :, :most] = torch.where(strips < length, strips, -1)
        self._row[slot] = 0
        self._row[slot, :length] = row_of_strip
        self._listed[slot] = x
        if self.frozen:
            rim = self._rim_of_site[slot][site]
            near = (rim >= 0).nonzero().squeeze(1)
            self._pair(slot, place[near], rim[near])

    def _near(self, slot: int, x: Tensor) -> Tensor:
        """Whether a row and a site are within their species' reach, [a, s].

        One matrix product gives the squared distances less the squared reaches.
        """
        sites = self._place_sites(x[None], slice(slot, slot + 1))[0]
        species = torch.arange(self._nobody + 1, device=x.device)[:, None]
        is_row = (self._row_types[slot] == species).double()
        is_site = (self._site_types[slot] == species).double()
        ones = torch.ones_like
        left = torch.cat((-2.0 * x, x.square().sum(0, True), ones(x[:1]), -self._limit @ is_row))
        right = torch.cat((sites, ones(sites[:1]), sites.square().sum(0, True), is_site))
        near = left.T @ right < 0.0
        owner = self._owner[slot]
        itself = ((owner >= 0) & (self._base[slot] == 0.0).all(1)).nonzero().squeeze(1)
        near[owner[itself], itself] = False
        return near

    def _pair(self, slot: int, place: Tensor, rim: Tensor) -> None:
        """Note where rim atoms are neighbours; the rest points to the last place, an empty one."""
        if len(place) > self._pairs:
            more = (0, round(len(place) * 1.05) - self._pairs)
            self._pair_slot, self._pair_rim = pad(self._pair_slot, more, value=-1), pad(self._pair_rim, more)
            self._pairs += more[1]
        self._pair_slot[slot] = -1
        self._pair_rim[slot] = 0
        self._pair_slot[slot, : len(place)] = place
        self._pair_rim[slot, : len(place)] = rim

    def _lengthen(self, length: int, most: int) -> None:
        if most > self._most:
            self._strips = pad(self._strips, (0, most - self._most), value=-1)
            self._most = most
        if length > self._length:
            more = round(length * 1.05) - self._length
            self._row = pad(self._row, (0, more))
            self._neighbor = pad(self._neighbor, (0, 0, 0, more), value=self._sites - 1)
            self._table = pad(self._table, (0, 0, 0, more))
            self._back = pad(self._back, (0, 0, 0, more))
            self._length += more

    # --- forces ------------------------------------------------------------------------------

    def forces(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Energies [b] (eV, up to a constant of each region) and forces [b, 3, a] at [b, 3, a]."""
        if self._where is None:
            self._where = self._flatten()
        sites = self._place_sites(x, slice(None)).transpose(0, 1).reshape(3, -1)
        rows = x.transpose(0, 1).reshape(3, -1)
        found = row_forces(self._tables, self._where, sites, rows)
        energy = found.energy.view(self.slots, -1).sum(1)
        if found.rim_energy is not None:
            energy = energy + found.rim_energy.view(self.slots, -1).sum(1)
        return energy, found.forces.view(3, self.slots, self.rows).transpose(0, 1)

    def _place_sites(self, x: Tensor, slots: slice) -> Tensor:
        """Where the sites are, [b, 3, s]; frozen ones do not move."""
        owner = self._owner[slots]
        moving = pad(x, (1, 0))
        at = moving.gather(2, (owner + 1)[:, None, :].expand(-1, 3, -1))
        return at + self._base[slots].transpose(1, 2)

    def _flatten(self) -> Neighborhood:
        """The arrays of all slots as the kernel reads them."""
        slot = torch.arange(self.slots, device=self.device)[:, None]
        types = self._row_types.clamp(max=self._nobody - 1).reshape(-1)
        first = (slot * self._sites).int()[..., None]
        neighbor = (self._neighbor + first).view(-1, STRIP)
        row = (slot * self.rows + self._row).view(-1)
        last = self.slots * self._length
        strips = torch.where(
            self._strips >= 0, slot[..., None] * self._length + self._strips, last
        ).view(-1, self._most)
        nobody = self.slots * (self.rows + (self._rims if self.frozen else 0))
        embedded = torch.where(self._owner >= 0, slot * self.rows + self._owner, nobody)
        rim = None
        if self.frozen:
            at = self.slots * self.rows + slot * self._rims + self._rim_of_site
            embedded = torch.where(self._rim_of_site >= 0, at, embedded)
            places = self._length * STRIP
            rim = Rim(
                self._rim_types.reshape(-1),
                self._rim_fixed.reshape(-1),
                ((slot + (self._pair_slot < 0)) * places + self._pair_slot).reshape(-1),
                (slot * self._rims + self._pair_rim).reshape(-1),
                torch.where(self._owner >= 0, 0.5, 1.0).to(torch.float64).reshape(-1),
            )
        back = None if self._tables.symmetric else self._back.view(-1, STRIP)
        table = self._table.view(-1, STRIP)
        return Neighborhood(types, strips, row, neighbor, table, back, embedded.reshape(-1), rim)
