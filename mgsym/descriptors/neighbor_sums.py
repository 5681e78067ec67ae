"""Sums over the neighbours of very many atoms, compiled (neighbor_sums.cpp) if there is a compiler.

What PyTorch computes in `mgsym.descriptors.power_spectrum` and `gaussian_sums` comes out here to
rounding: nothing of a pair is kept, and an atom is done before the next is begun. For float32 on a
CPU without gradients or weights; the rest is PyTorch's.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mgsym.descriptors.neighborhoods import Neighborhoods
from mgsym.utils.compilation import compiled_library, structure_fields

_SOURCE = Path(__file__).with_name("neighbor_sums.cpp")
_MANY = 300_000  # pairs whose sums gain more than compiling takes
MOST_RADIAL = 32  # functions of a power spectrum that is compiled
_MOST_THREADS = 64


class _Neighbors(ctypes.Structure):
    _fields_ = structure_fields("atoms species threads", "offsets source vector types")


class CompiledSums:
    """Sums over the neighbours `near`, of `types` [n] int64 out of `species` kinds."""

    def __init__(
        self, library: ctypes.CDLL, near: Neighborhoods, types: Tensor, species: int
    ) -> None:
        self.library, self.atoms, self.species = library, len(near.nodes), species
        offsets = torch.zeros(self.atoms + 1, dtype=torch.int64)
        torch.cumsum(near.number, 0, out=offsets[1:])
        # kept here, since the structure holds addresses only
        self._held = (
            offsets, near.source.contiguous(), near.vector.contiguous(), types.contiguous()
        )  # fmt: skip
        threads = max(1, min(torch.get_num_threads(), _MOST_THREADS, self.atoms))
        self._near = ctypes.byref(
            _Neighbors(self.atoms, species, threads, *(t.data_ptr() for t in self._held))
        )

    @classmethod
    def of(cls, near: Neighborhoods, types: Tensor, species: int) -> CompiledSums | None:
        """Of float32 pairs on a CPU, if they are many; None means PyTorch."""
        vector = near.vector
        few = len(vector) < _MANY or (torch.is_grad_enabled() and vector.requires_grad)
        if few or near.weight is not None:
            return None
        if vector.device.type != "cpu" or vector.dtype != torch.float32:
            return None
        library = compiled_library(_SOURCE)
        return None if library is None else cls(library, near, types, species)

    def radial_densities(self, cutoff: float, radial: int, out: Tensor) -> None:
        """Fill out [atoms, species · radial], columns of a wider matrix or not."""
        self.library.radial_densities(
            self._near, ctypes.c_float(cutoff), *_integers(radial, out.stride(0)), _at(out)
        )

    def power_spectra(
        self, cutoff: float, radial: int, l_max: int, out: Tensor, rooted: bool
    ) -> None:
        """Fill out [atoms, …]: `power_spectrum`, or the rooted invariants of `local_descriptors`.

        Args:
            radial: at most 32.
        """
        assert radial <= MOST_RADIAL
        self.library.power_spectra(
            self._near,
            ctypes.c_float(cutoff),
            *_integers(radial, l_max, rooted, out.stride(0)),
            _at(out),
        )

    def gaussian_sums(
        self,
        length: float,
        cutoff: float,
        square: Tensor,
        values: Tensor,
        sums: Tensor,
        weights: Tensor,
    ) -> None:
        """Add w values [atoms, q] to sums [n, q] and w to weights [n] of each atom's neighbours.

        w = exp(−square / 2 length²) for those nearer than `cutoff`; square [pairs] is float64.
        """
        values = values.contiguous()
        self.library.gaussian_sums(
            self._near,
            ctypes.c_float(length),
            ctypes.c_double(cutoff),
            *_integers(values.shape[1]),
            *map(_at, (square, values, sums, weights)),
        )


def _integers(*numbers: int) -> Any:
    return map(ctypes.c_int64, numbers)


def _at(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())
