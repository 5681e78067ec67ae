"""Neighbour lists of active regions: which sites are near which rows, in strips (`eam_layout`)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from mgsym.data_tools.simulation.potentials.eam_layout import STRIP, strips_for
from mgsym.data_tools.simulation.saddle_search.region_arrays import Around, Lists
from mgsym.data_tools.simulation.saddle_search.region_pairs import CompiledPairs, library_for
from mgsym.structure.neighbors import true_in_rows


class Needed(NamedTuple):
    """Room that a slot needs at least: strips with an empty one, strips of a row, and pairs."""

    strips: int
    of_row: int
    pairs: int


def pairs_of(around: Around, slots: Tensor, x: Tensor, compile: bool) -> Pairs | CompiledPairs:
    """Find who is near whom in some slots.

    Args:
        around: the regions of all slots.
        slots: [c] int64.
        x: [c, 3, a] float64, where their rows are, Å.
        compile: whether a compiler may be used.
    """
    library = library_for(x.device) if compile else None
    if library is None:
        return Pairs(around, slots, x)
    return CompiledPairs(library, around, slots, x)


def room_for(pairs: Pairs | CompiledPairs) -> Needed:
    """The room that `lay_out` fills in its fullest slot."""
    number = strips_for(pairs.degree)
    most = torch.stack((number.sum(1).amax() + 1, number.amax(), pairs.of_slot.amax()))
    return Needed(*most.tolist())


class Pairs:
    """Rows and the sites near them.

    Attributes:
        degree: [c, a] neighbours of each row.
        row, site: [e] of each pair, by slot and row, rows counted through these slots.
        boundary: [q] which pairs are of a row and a boundary atom that feels it.
        of_slot: [c] how many of these each slot has.
    """

    def __init__(self, around: Around, slots: Tensor, x: Tensor) -> None:
        self._around, self._slots = around, slots
        rows, sites = x.shape[2], around.owner.shape[1]
        excess = _excess(around, slots, x)
        degree, flat = true_in_rows(excess.flatten(0, 1) < 0.0)
        self.degree = degree.view(len(slots), rows)
        self.row = torch.repeat_interleave(degree, output_size=len(flat))
        self.site = flat - self.row * sites
        if not around.frozen:
            self.boundary, self.of_slot = flat[:0], torch.zeros_like(slots)
            return
        of = self.row // rows
        slot, row = slots[of], self.row % rows
        limit = around.limit[around.site_types[slot, self.site], around.row_types[slot, row]]
        square = excess.view(-1)[flat] + limit
        feels = around.boundary_of_site[slot, self.site] >= 0
        feels &= square < around.boundary_limit
        self.boundary = feels.nonzero().squeeze(1)
        self.of_slot = torch.zeros_like(slots).index_add_(0, of, feels.long())

    def lay_out(self, lists: Lists) -> None:
        """Fill the part of these slots."""
        slots, device, around = self._slots, self._slots.device, self._around
        _, every, strips = lists.neighbor.shape
        rows, sites, most = self.degree.shape[1], around.owner.shape[1], lists.row_strips.shape[2]
        number = strips_for(self.degree)
        end = number.cumsum(1)
        first = end - number
        step = torch.arange(most, device=device)
        own = step < number[:, :, None]
        lists.row_strips[slots] = torch.where(own, first[:, :, None] + step, -1)
        place = torch.arange(strips, device=device).expand(len(slots), -1).contiguous()
        row = torch.searchsorted(end, place, right=True)
        lists.row[slots] = torch.where(row < rows, row, 0)

        degree, of = self.degree.view(-1), self.row // rows
        rank = torch.arange(len(of), device=device) - (degree.cumsum(0) - degree)[self.row]
        slot, strip = slots[of], first.view(-1)[self.row] + rank // STRIP
        filler = (slots * sites + sites - 1).int()
        lists.neighbor[:, slots] = filler[:, None].expand(-1, strips)
        lists.neighbor[rank % STRIP, slot, strip] = (self.site + slot * sites).int()
        if not around.frozen:
            return
        empty = (slots + 1) * strips - 1
        lists.pair_place[slots] = empty[:, None].expand(-1, lists.pair_place.shape[1])
        lists.pair_boundary[slots] = 0
        which = self.boundary
        before = self.of_slot.cumsum(0) - self.of_slot
        order = torch.arange(len(which), device=device) - before[of[which]]
        slot = slot[which]
        at = (rank[which] % STRIP * every + slot) * strips + strip[which]
        lists.pair_place[slot, order] = at
        lists.pair_boundary[slot, order] = around.boundary_of_site[slot, self.site[which]]


def place_sites(base: Tensor, owner: Tensor, x: Tensor) -> Tensor:
    """Where the sites of slots are, [c, 3, s]; frozen ones do not move.

    Args:
        base: [c, s, 3] Å, of `Region`.
        owner: [c, s].
        x: [c, 3, a] Å.
    """
    at = pad(x, (1, 0)).gather(2, (owner + 1)[:, None, :].expand(-1, 3, -1))
    return at + base.transpose(1, 2)


def _excess(around: Around, slots: Tensor, x: Tensor) -> Tensor:
    """Squared distances of rows and sites less their species' squared reach, [c, a, s].

    One matrix product gives them all; that of a row and itself is positive too.
    """
    base, owner = around.base[slots], around.owner[slots]
    sites = place_sites(base, owner, x)
    kind = torch.arange(len(around.limit), device=x.device)[:, None]
    is_row = (around.row_types[slots][:, None] == kind).double()
    is_site = (around.site_types[slots][:, None] == kind).double()
    row_square = x.square().sum(1, keepdim=True)
    site_square = sites.square().sum(1, keepdim=True)
    ones = torch.ones_like
    left = torch.cat((-2.0 * x, row_square, ones(row_square), -around.limit @ is_row), dim=1)
    right = torch.cat((sites, ones(site_square), site_square, is_site), dim=1)
    excess = left.transpose(1, 2) @ right
    # a site that its owner is not away from is the owner itself
    itself = (owner >= 0) & (base == 0.0).all(2)
    row = owner.clamp(min=0)[:, None]
    kept = torch.where(itself[:, None], 1.0, excess.gather(1, row))
    return excess.scatter_(1, row, kept)
