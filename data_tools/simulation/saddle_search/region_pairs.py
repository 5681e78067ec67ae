"""Neighbour lists of active regions on a CPU, compiled (region_pairs.cpp) if there is a compiler.

They are those that PyTorch makes in `region_lists`, in a tenth of the time.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from mgsym.data_tools.simulation.potentials.eam_layout import STRIP
from mgsym.data_tools.simulation.saddle_search.region_arrays import Around, Lists
from mgsym.utils.compilation import compiled_library

_SOURCE = Path(__file__).with_name("region_pairs.cpp")


def library_for(device: torch.device) -> ctypes.CDLL | None:
    """What makes lists on a device; None means PyTorch."""
    return compiled_library(_SOURCE, STRIP=STRIP) if device.type == "cpu" else None


class _Regions(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in ("count", "slots", "rows", "sites", "kinds", "frozen")
        ),
        *(
            (name, ctypes.c_void_p)
            for name in (
                "slot", "x", "base", "owner", "site_types", "boundary_of_site", "row_types", "limit"
            )
        ),
        ("boundary_limit", ctypes.c_double),
    ]  # fmt: skip


class _Lists(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("strips", "of_row", "pairs")),
        *(
            (name, ctypes.c_void_p)
            for name in ("neighbor", "row", "row_strips", "pair_place", "pair_boundary")
        ),
    ]


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
                *map(_address, self._held), around.boundary_limit,
            )
        )  # fmt: skip
        self.degree = torch.empty(len(slots), rows, dtype=torch.int64)
        self.of_slot = torch.empty_like(slots)
        # what is not written to takes no memory
        self._found = torch.empty(len(slots) * rows * sites, dtype=torch.int32)
        library.find_neighbors(
            self._regions, *map(_pointer, (self.degree, self._found, self.of_slot))
        )

    def lay_out(self, lists: Lists) -> None:
        """Fill the part of these slots."""
        sizes = lists.row.shape[1], lists.row_strips.shape[2], lists.pair_place.shape[1]
        filled = _Lists(*sizes, *map(_address, lists))
        self._library.lay_out_neighbors(
            self._regions, ctypes.byref(filled), _pointer(self.degree), _pointer(self._found)
        )


def _address(tensor: Tensor) -> int:
    assert tensor.is_contiguous()
    return tensor.data_ptr()


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(_address(tensor))
