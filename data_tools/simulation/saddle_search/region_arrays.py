"""The arrays that neighbour lists of active regions are made from, and lie in."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Around(NamedTuple):
    """What lists are made from, of all slots; see `Region`.

    Attributes:
        base: [b, s, 3].
        owner, site_types, boundary_of_site: [b, s].
        row_types: [b, a].
        limit: [kinds, kinds] Å², how far a row sees a site of each kind; the last kind is nobody.
        boundary_limit: Å², how far boundary atoms feel rows.
        frozen: whether there are boundary atoms.
    """

    base: Tensor
    owner: Tensor
    site_types: Tensor
    boundary_of_site: Tensor
    row_types: Tensor
    limit: Tensor
    boundary_limit: float
    frozen: bool


class Lists(NamedTuple):
    """Neighbours in strips, of all slots.

    Attributes:
        neighbor: [STRIP, b, v] int32, sites, counted through all slots; the last one of a slot
            fills up strips.
        row: [b, v] the row of each strip.
        row_strips: [b, a, k] the strips of each row; −1 where it has fewer.
        pair_place: [b, p] places in [STRIP, b, v] where a boundary atom is the neighbour that
            feels the row; in the last strip of the slot, which is empty, where there are fewer.
        pair_boundary: [b, p] which boundary atom it is.
    """

    neighbor: Tensor
    row: Tensor
    row_strips: Tensor
    pair_place: Tensor
    pair_boundary: Tensor
