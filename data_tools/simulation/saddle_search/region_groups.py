"""Any number of active regions, in batches that a processor's cache holds or that fill a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mgsym.data_tools.simulation.potentials.eam import EAM
from mgsym.data_tools.simulation.potentials.eam_layout import Tables, lay_out_tables
from mgsym.data_tools.simulation.saddle_search.region_forces import RegionBatch, Sizes
from mgsym.data_tools.simulation.saddle_search.regions import Region
from mgsym.utils.devices import free_memory

CACHED_ROWS = 1200  # moving atoms whose neighbours a core's cache holds, more or less
CPU_SLOTS, FEWEST_SLOTS, MOST_SLOTS = 64, 64, 1024
SLOT_BYTES = 8 * 2**20  # of a GPU's memory, for one region and all that a force call makes of it


def slots_for(device: str | torch.device) -> int:
    """How many searches should advance together: more on a GPU with much free memory."""
    place = torch.device(device)
    if place.type == "cpu":
        return CPU_SLOTS
    room = max(1, free_memory(place) // 2 // SLOT_BYTES)
    return min(MOST_SLOTS, max(FEWEST_SLOTS, 2 ** (room.bit_length() - 1)))


class RegionGroups:
    """Regions in slots, a few of them in each batch; all batches have one shape.

    Args:
        potential: of all regions.
        slots: how many regions at least; there may be some more, to fill the last batch.
        rows: moving atoms in the largest one.
        skin: Å, of neighbour lists.
        frozen: whether there are frozen atoms at all.
        device: where to compute.
        dtype: of the arithmetic; energies are summed in float64.
        compile: whether a compiler may be used.
        tables: of the potential, on that device and of that dtype, where they are laid out already.

    Attributes:
        slots: how many regions there can be, b.
        rows: room for moving atoms in each, a.
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
        dtype: torch.dtype = torch.float64,
        compile: bool = True,
        tables: Tables | None = None,
    ) -> None:
        self.device, self.dtype = torch.device(device), dtype
        whole = slots if self.device.type != "cpu" else max(1, CACHED_ROWS // rows)
        self.together = min(slots, whole)
        tables = lay_out_tables(potential, device, dtype) if tables is None else tables
        self.batches = [
            RegionBatch(
                potential,
                tables,
                self.together,
                rows,
                skin,
                frozen=frozen,
                device=device,
                dtype=dtype,
                compile=compile,
            )
            for _ in range(-(-slots // self.together))
        ]
        self.slots, self.rows = self.together * len(self.batches), self.batches[0].rows

    def insert(self, slot: int, region: Region) -> None:
        """Put a region in a slot."""
        self.batches[slot // self.together].insert(slot % self.together, region)

    def refresh(self, x: Tensor) -> None:
        """Make the neighbour lists anew that positions [b, 3, a] call for."""
        for batch, part in zip(self.batches, x.split(self.together), strict=True):
            batch.refresh(part)
        sizes = Sizes(*map(max, *(batch.sizes for batch in self.batches), self.batches[0].sizes))
        for batch in self.batches:
            batch.grow(sizes)

    def forces(self, x: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Energies [b] (eV, up to a constant of each region) and forces [b, 3, a] at [b, 3, a].

        Batches of which no slot is wanted [b] give zeros.
        """
        energy, force = x.new_zeros(self.slots, dtype=torch.float64), torch.zeros_like(x)
        for index, batch in enumerate(self.batches):
            part = slice(index * self.together, (index + 1) * self.together)
            if bool(wanted[part].any()):
                energy[part], force[part] = batch.forces(x[part])
        return energy, force

    def keep_busy(self, busy: Sequence[bool]) -> list[int]:
        """Drop the batches without a busy slot; the slots that stay, in order."""
        size = self.together
        stay = [k for k in range(len(self.batches)) if any(busy[k * size : (k + 1) * size])]
        self.batches = [self.batches[k] for k in stay]
        self.slots = size * len(stay)
        return [slot for k in stay for slot in range(k * size, (k + 1) * size)]
