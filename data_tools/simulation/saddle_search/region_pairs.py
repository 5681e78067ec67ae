"""Neighbour lists of active regions on a CPU, compiled (region_pairs.cpp) if there is a compiler.

They are those that PyTorch makes in `region_lists`, in a third of the time.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from mgsym.data_tools.simulation.potentials.eam_layout import STRIP
from mgsym.data_tools.simulation.saddle_search.region_arrays import Around, Lists
from mgsym.utils.compilation import address, compiled_library, structure_fields

_SOURCE = Path(__file__).with_name("region_pairs.cpp")


def library_for(device: torch.device) -> ctypes.CDLL | None:
    """What makes lists on a device; None means PyTorch."""
    return compiled_library(_SOURCE, STRIP=STRIP) if device.type == "cpu" else None


class _Regions(ctypes.Structure):
    _fields_ = structure_fields(
        "count slots rows sites kinds frozen",
        "slot x base owner site_types boundary_of_site row_types limit",
        ("boundary_limit", ctypes.c_double),
    )


class _Lists(ctypes.Structure):
    _fields_ = structure_fields(
        "strips of_row pairs", "neighbor row row_strips pair_place pair_boundary"
    )


class CompiledPairs:
    """What `region_lists.pairs_of` gives, by `library_for(device)`."""

    def __init__(self, library: ctypes.CDLL, around: Around, slots: Tensor, x: Tensor) -> None:
        self._library = library
        every, sites = around.owner.shape
        rows = around.row_types.shape[1]
        # kept here, since the structure holds addresses only
        self._held = (slots, x.contiguous(), *around[:6])
        self._regions = ctypes.byref(
            _Regions(
                len(slots), every, rows, sites, len(around.limit), around.frozen,
                *map(address, self._held), around.boundary_limit,
            )
        )  # fmt: skip
        self.degree = torch.empty(len(slots), rows, dtype=torch.int64)
        self.of_slot = torch.empty_like(slots)
        # what is not written to takes no memory
        self._found = torch.empty(len(slots) * rows * sites, dtype=torch.int32)
        library.find_neighbors(
            self._regions, *map(address, (self.degree, self._found, self.of_slot))
        )

    def lay_out(self, lists: Lists) -> None:
        """Fill the part of these slots."""
        sizes = lists.row.shape[1], lists.row_strips.shape[2], lists.pair_place.shape[1]
        filled = _Lists(*sizes, *map(address, lists))
        self._library.lay_out_neighbors(
            self._regions, ctypes.byref(filled), address(self.degree), address(self._found)
        )
