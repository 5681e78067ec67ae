"""Active regions in arrays of one shape, and the forces in all of them by one call."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from mgsym.data_tools.simulation.potentials.eam import EAM
from mgsym.data_tools.simulation.potentials.eam_kernel import row_forces
from mgsym.data_tools.simulation.potentials.eam_layout import (
    FAR,
    STRIP,
    VECTOR,
    Boundary,
    Neighborhood,
    Tables,
    with_room,
)
from mgsym.data_tools.simulation.saddle_search.region_arrays import Around, Lists
from mgsym.data_tools.simulation.saddle_search.region_lists import (
    pairs_of,
    place_sites,
    room_for,
)
from mgsym.data_tools.simulation.saddle_search.regions import Region
from mgsym.utils.devices import brought, sent


class Sizes(NamedTuple):
    """How much room each slot has.

    Attributes:
        sites: the last one fills up strips.
        boundary_atoms: boundary atoms.
        strips: the last one is empty.
        of_row: strips of one row.
        pairs: of a row and a boundary atom.
    """

    sites: int
    boundary_atoms: int
    strips: int
    of_row: int
    pairs: int

    def with_room(self, **needed: int) -> Sizes:
        """Sizes that suffice for what is needed; those that are too small get some more."""
        grown = {
            name: number if name == "of_row" else with_room(number)
            for name, number in needed.items()
            if number > getattr(self, name)
        }
        return self._replace(**grown)


class RegionBatch:
    """Regions in slots, with neighbour lists that are made anew as atoms move.

    Arrays grow when a region or a list needs more room; slots without a region cost as much as
    others.

    Args:
        potential: of all regions.
        tables: of it, for the kernel, on the device; batches share them.
        slots: how many regions, b.
        rows: moving atoms in the largest one, a; it decides how sums are rounded.
        skin: Å.
        frozen: whether there are frozen atoms at all.
        device: where to compute.
        dtype: of the arithmetic. Positions are relative to the centre, so that float32 suffices
            for searches: forces are within 1e-4 eV/Å, and it takes half the time.
        compile: whether a compiler may be used.
    """

    def __init__(
        self,
        potential: EAM,
        tables: Tables,
        slots: int,
        rows: int,
        skin: float,
        *,
        frozen: bool,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float64,
        compile: bool = True,
    ) -> None:
        self._compile, self.dtype = compile, dtype
        self.slots, self.skin, self.frozen = slots, skin, frozen
        self.rows = VECTOR * math.ceil(rows / VECTOR)
        self.device = torch.device(device)
        self._tables = tables
        species = len(potential.species)
        # one more species, for what fills up: it has no neighbours
        limit = (potential.reach + skin).square()
        self._limit = pad(limit, (0, 1, 0, 1), value=-1.0).to(device)
        self._boundary_limit = (float(potential.density_reach.max()) + skin) ** 2
        self._nobody = species
        self.sizes = Sizes(1, 1, 1, 1, 1)
        self._row_types = self._full((self.rows,), species, torch.int64)
        self._base = self._full((1, 3), FAR, torch.float64)
        self._owner = self._full((1,), -1, torch.int64)
        self._site_types = self._full((1,), species, torch.int64)
        self._boundary_of_site = self._full((1,), -1, torch.int64)
        self._boundary_types = self._full((1,), 0, torch.int64)
        self._boundary_fixed = self._full((1,), 0.0, torch.float64)
        self._strips = self._full((self.rows, 1), -1, torch.int64)
        self._row = self._full((1,), 0, torch.int64)
        self._listed = self._full((3, self.rows), 0.0, torch.float64)
        # as the kernel reads them: over the strips of all slots, sites counted through all slots
        slot = torch.arange(slots, device=self.device)
        self._neighbor = slot.int().expand(STRIP, slots)[..., None].clone()
        self._pair_place = slot[:, None].clone()
        self._pair_boundary = self._full((1,), 0, torch.int64)
        self._where: Neighborhood | None = None

    def _full(self, shape: tuple[int, ...], value: float, dtype: torch.dtype) -> Tensor:
        return torch.full((self.slots, *shape), value, dtype=dtype, device=self.device)

    # --- membership --------------------------------------------------------------------------

    def insert(self, slot: int, region: Region) -> None:
        """Put a region in a slot; lists are made when `refresh` is next called with it."""
        sites, boundary_atoms = len(region.site_types), len(region.boundary_types)
        self.grow(self.sizes.with_room(sites=sites + 1, boundary_atoms=boundary_atoms + 1))
        for array, values, empty in (
            (self._row_types, region.types, self._nobody),
            (self._base, region.site_base, FAR),
            (self._owner, region.site_owner, -1),
            (self._site_types, region.site_types, self._nobody),
            (self._boundary_of_site, region.site_boundary, -1),
            (self._boundary_types, region.boundary_types, 0),
            (self._boundary_fixed, region.boundary_fixed, 0.0),
        ):
            array[slot] = empty
            array[slot, : len(values)] = sent(values, self.device)
        self._listed[slot] = float("nan")
        self._where = None

    def grow(self, sizes: Sizes) -> None:
        """Make room; nothing is lost and nothing gets smaller."""
        old = self.sizes
        new = self.sizes = Sizes(*map(max, old, sizes))
        if new == old:
            return
        self._where = None
        sites, boundary_atoms = (
            (0, new.sites - old.sites),
            (0, new.boundary_atoms - old.boundary_atoms),
        )
        strips, pairs = (0, new.strips - old.strips), (0, new.pairs - old.pairs)
        self._base = pad(self._base, (0, 0, *sites), value=FAR)
        self._owner = pad(self._owner, sites, value=-1)
        self._site_types = pad(self._site_types, sites, value=self._nobody)
        self._boundary_of_site = pad(self._boundary_of_site, sites, value=-1)
        self._boundary_types, self._boundary_fixed = (
            pad(self._boundary_types, boundary_atoms),
            pad(self._boundary_fixed, boundary_atoms),
        )
        self._strips = pad(self._strips, (0, new.of_row - old.of_row), value=-1)
        self._row = pad(self._row, strips)
        slot = torch.arange(self.slots, device=self.device)[:, None]
        neighbor = self._neighbor - (slot * old.sites).int()
        neighbor[neighbor == old.sites - 1] = new.sites - 1  # the last site fills up strips
        self._neighbor = pad(neighbor, strips, value=new.sites - 1) + (slot * new.sites).int()
        every = self.slots * old.strips
        rank, strip = self._pair_place // every, self._pair_place % every - slot * old.strips
        strip[strip == old.strips - 1] = new.strips - 1  # the last strip is empty
        place = rank * self.slots * new.strips + slot * new.strips + strip
        self._pair_place = torch.cat((place, self._empty_place().expand(-1, pairs[1])), dim=1)
        self._pair_boundary = pad(self._pair_boundary, pairs)

    def _empty_place(self) -> Tensor:
        """[b, 1] a place in each slot's strips that is never filled: in the last strip."""
        slot = torch.arange(self.slots, device=self.device)[:, None]
        return slot * self.sizes.strips + self.sizes.strips - 1

    # --- neighbour lists ---------------------------------------------------------------------

    def refresh(self, x: Tensor) -> None:
        """Make the lists anew that positions [b, 3, a] call for."""
        moved = (x - self._listed).square().sum(1)
        # two atoms near each other by what both of them moved
        two = moved.topk(min(2, self.rows), dim=1).values.sqrt().sum(1)
        (fresh,) = brought(two < self.skin - 0.02)
        stale = (~fresh).nonzero().squeeze(1)
        if len(stale):
            for slots in sent(stale, self.device).split(self._listed_at_once()):
                self._list(slots, x[slots].double())
            self._where = None

    def _listed_at_once(self) -> int:
        most = 2**19 if self.device.type == "cpu" else 2**26
        return max(1, most // (self.rows * self.sizes.sites))

    def _list(self, slots: Tensor, x: Tensor) -> None:
        """Neighbours of all rows of some slots [c], which are at x [c, 3, a]."""
        pairs = pairs_of(self._around, slots, x, self._compile)
        self.grow(self.sizes.with_room(**room_for(pairs)._asdict()))
        self._listed[slots] = x
        pairs.lay_out(self._lists)

    @property
    def _around(self) -> Around:
        return Around(
            self._base, self._owner, self._site_types, self._boundary_of_site, self._row_types,
            self._limit, self._boundary_limit, self.frozen,
        )  # fmt: skip

    @property
    def _lists(self) -> Lists:
        return Lists(
            self._neighbor, self._row, self._strips, self._pair_place, self._pair_boundary
        )  # fmt: skip

    # --- forces ------------------------------------------------------------------------------

    def forces(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Energies [b] (eV, up to a constant of each region) and forces [b, 3, a] at [b, 3, a]."""
        if self._where is None:
            self._where = self._flatten()
        sites = place_sites(self._base, self._owner, x).transpose(0, 1).reshape(3, -1)
        rows = x.transpose(0, 1).reshape(3, -1)
        found = row_forces(
            self._tables,
            self._where,
            sites.to(self.dtype),
            rows.to(self.dtype),
            compile=self._compile,
        )
        energy = found.energy.double().view(self.slots, -1).sum(1)
        if found.boundary_energy is not None:
            energy = energy + found.boundary_energy.double().view(self.slots, -1).sum(1)
        return energy, found.forces.view(3, self.slots, self.rows).transpose(0, 1)

    def _flatten(self) -> Neighborhood:
        """The arrays of all slots as the kernel reads them."""
        slot = torch.arange(self.slots, device=self.device)[:, None]
        types = self._row_types.clamp(max=self._nobody - 1).reshape(-1)
        row = (slot * self.rows + self._row).view(-1)
        strips = torch.where(
            self._strips >= 0,
            slot[..., None] * self.sizes.strips + self._strips,
            self.slots * self.sizes.strips,
        ).view(-1, self.sizes.of_row)
        nobody = self.slots * (self.rows + (self.sizes.boundary_atoms if self.frozen else 0))
        embedded = torch.where(self._owner >= 0, slot * self.rows + self._owner, nobody)
        boundary = None
        if self.frozen:
            at = self.slots * self.rows + slot * self.sizes.boundary_atoms + self._boundary_of_site
            embedded = torch.where(self._boundary_of_site >= 0, at, embedded)
            place, atom, runs = self._boundary_pairs(slot)
            weight = torch.where(self._owner >= 0, 0.5, 1.0).to(self.dtype).reshape(-1)
            fixed = self._boundary_fixed.to(self.dtype).reshape(-1)
            boundary = Boundary(self._boundary_types.reshape(-1), fixed, place, atom, weight, runs)
        neighbor = self._neighbor.view(STRIP, -1)
        site_types = self._site_types.clamp(max=self._nobody - 1).reshape(-1)
        embedded = embedded.reshape(-1)
        return Neighborhood(types, strips, row, neighbor, site_types, embedded, boundary)

    def _boundary_pairs(self, slot: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Places, boundary atoms and, except on CPUs, how many pairs each has; see `Boundary`."""
        place = self._pair_place.reshape(-1)
        atom = (slot * self.sizes.boundary_atoms + self._pair_boundary).reshape(-1)
        if self.device.type == "cpu":
            return place, atom, None
        atom, order = atom.sort(stable=True)
        ends = torch.arange(self.slots * self.sizes.boundary_atoms + 1, device=self.device)
        return place[order], atom, torch.searchsorted(atom, ends).diff()
