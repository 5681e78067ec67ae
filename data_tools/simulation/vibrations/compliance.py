"""What the potential knows of each atom at rest: energy, stress, and how stiffly it is held.

The compliance of an atom is the trace of its block of the inverse Hessian of the cluster around
it, with everything outside frozen: k_B T times it is the atom's mean-square vibration (equation
2.58 of Dove, Introduction to Lattice Dynamics, summed over directions), the "flexibility" that
goes with low barriers (Ding et al., Nat. Commun. 7, 13733 (2016)). With the atom ordered last, the
block follows from the last 3×3 corner of the Cholesky factor alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from mgsym.data_tools.simulation.optimizers.relax import check_at_rest, not_at_rest
from mgsym.data_tools.simulation.potentials.bonds import eam_bonds
from mgsym.data_tools.simulation.potentials.eam import EAM
from mgsym.data_tools.simulation.vibrations.cage import cage_inputs
from mgsym.data_tools.simulation.vibrations.hessian import BlockRows, Mapping, eam_hessian
from mgsym.structure import Column, Structure
from mgsym.structure.cell import fractional, heights, wrap_fraction
from mgsym.structure.neighbors import neighbor_pairs
from mgsym.utils.devices import one_thread
from mgsym.utils.progress import Progress

RADII = (6.0, 9.0)  # Å, of the clusters
_NARROW, _WIDE = 6.5, 13.0  # Å, of the groups of atoms that are worked on at once


def physical_inputs(
    potential: EAM,
    structure: Structure,
    *,
    radii: Sequence[float] = RADII,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> dict[str, Column]:
    """Numbers per atom [n] float64 that follow from the potential, by name, with their units.

    - ``energy``, eV;
    - ``pressure``, eV/Å³: −⅓ trace of the atom's stress, which is its virial (½ Σ V′ r r̂ r̂ᵀ)
      over the mean volume of an atom, so that the mean over atoms is the structure's pressure;
    - ``von_mises``, eV/Å³: √(3/2 s:s), s the deviatoric part of that stress;
    - ``compliance_6``, ``compliance_9`` …, Å²/eV: trace of the atom's block of the inverse Hessian
      of all atoms within that radius, the others frozen; times k_B T it is ⟨|u|²⟩;
    - ``stiffness_1`` ≤ ``stiffness_2`` ≤ ``stiffness_3``, eV/Å²: eigenvalues of the atom's 3×3
      block of the Hessian;
    - ``cage_…``, what it costs the atom to move alone (vibrations.cage).

    Args:
        potential: with the structure's elements.
        structure: at an energy minimum.
        radii: Å, of the clusters.
        device: where to compute.
        progress: called with the number of clusters and cages done and in all.

    Raises:
        InputError: the structure is not at a minimum (a force above 0.01 eV/Å or an unstable
            cluster), or the potential lacks an element.
    """
    bonds = eam_bonds(potential, structure, device)
    check_at_rest(structure, bonds.forces())
    stress = bonds.virials() / (structure.volume / len(structure))
    eigenvalues, frames = torch.linalg.eigh(eam_hessian(bonds).diagonal_blocks())
    columns = {
        "energy": Column(bonds.energy.cpu(), "eV"),
        "pressure": Column(-stress.diagonal(dim1=1, dim2=2).mean(1).cpu(), "eV/Å³"),
        "von_mises": Column(_von_mises(stress).cpu(), "eV/Å³"),
    }
    done, total = 0, (len(radii) + 1) * len(structure)

    def step(clusters: int) -> None:
        nonlocal done
        done += clusters
        if progress is not None:
            progress(done, total)

    values = compliance(potential, structure, radii, device=device, progress=step)
    for radius, column in zip(radii, values.T, strict=True):
        columns[f"compliance_{radius:g}"] = Column(column.contiguous(), "Å²/eV")
    for axis in range(3):
        columns[f"stiffness_{axis + 1}"] = Column(eigenvalues[:, axis].cpu(), "eV/Å²")
    return columns | cage_inputs(potential, structure, frames.cpu(), device=device, progress=step)


def compliance(
    potential: EAM,
    structure: Structure,
    radii: Sequence[float] = RADII,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """The compliance of every atom, [n, radii] Å²/eV, in clusters of each radius.

    A cluster is all atoms and images no further than the radius (Å) from the atom; they move
    independently, as in an endless piece of the material, and the rest stays put. So a periodic
    cell and a repetition of it give the same.

    Args:
        potential: with the structure's elements.
        structure: at an energy minimum.
        radii: Å.
        device: where to compute.
        dtype: of the Cholesky factors. Clusters of a glass have condition numbers near 100, and
            float32 changes their compliance by 1e-6 of itself.
        progress: called with the number of clusters that were just done.

    Raises:
        InputError: a cluster is unstable; the message names its atom.
    """
    wide = _repeated(structure, 2 * (max(radii) + potential.cutoff))
    hessian = eam_hessian(eam_bonds(potential, wide, device))
    needed = _within(wide, len(structure), max(radii))
    groups = [group[needed[group]].to(device) for group in _groups(wide, _NARROW)]
    on_cpu = torch.device(device).type == "cpu"
    centred = list(_groups(structure, _NARROW if on_cpu else _WIDE))
    result = torch.empty(len(structure), len(radii), dtype=torch.float64)
    with _workers(on_cpu) as mapping:
        rows = hessian.block_rows([g for g in groups if len(g)], mapping).to(dtype)
        for column, radius in enumerate(radii):
            clusters = list(_clusters(wide, centred, radius, device))
            group_traces = mapping(partial(_traces, rows), (members for _, members in clusters))
            for (centres, _), traces in zip(clusters, group_traces, strict=True):
                unstable = traces.isnan().nonzero()
                if len(unstable):
                    _refuse_unstable(structure, int(centres[int(unstable[0])]), radius)
                result[centres, column] = traces
                if progress is not None:
                    progress(len(centres))
    return result


@contextmanager
def _workers(on_cpu: bool) -> Iterator[Mapping]:
    """A `map` over as many threads as torch uses, each of which computes alone.

    The matrices are too small for several threads to share one.
    """
    threads = torch.get_num_threads()
    if threads == 1 or not on_cpu:
        yield map
        return
    # those of the pool start later, and so take the one over
    with one_thread(), ThreadPoolExecutor(threads) as pool:
        yield pool.map


def _traces(rows: BlockRows, members: Tensor) -> Tensor:
    """[c] float64 Å²/eV, the compliance of the last atom of each cluster [c, m]; NaN: unstable."""
    factor, failed = torch.linalg.cholesky_ex(_dense(rows, members))
    corner = factor[:, -3:, -3:]
    eye = torch.eye(3).to(corner)
    inverse = torch.linalg.solve_triangular(corner, eye.expand_as(corner), upper=False)
    traces = inverse.double().square().sum((1, 2))
    return traces.masked_fill(failed != 0, torch.nan).cpu()


def _dense(rows: BlockRows, members: Tensor) -> Tensor:
    """Hessians of clusters that lie together.

    Each row of blocks is searched once for all clusters: first the Hessian of the union of the
    clusters is filled in, then every cluster is cut out of it.

    Args:
        rows: the Hessian of the whole system.
        members: [c, m] int64, the atoms of each cluster; −1 stands for none.

    Returns:
        [c, 3m, 3m] eV/Å², with the identity where there is no atom.
    """
    real = members >= 0
    union = members[real].unique()
    place = members.new_full((len(rows.begin),), -1, dtype=torch.int32)
    place[union] = torch.arange(len(union), dtype=torch.int32, device=place.device)
    owner, block = rows.of_rows(union)
    across = place[rows.column[block]]
    inside = (across >= 0).nonzero().squeeze(1)
    # the last row and column, of zeros, belong to no atom
    size = len(union) + 1
    together = rows.value.new_zeros(size, 3, size, 3)
    together[owner[inside], :, across[inside].long(), :] = rows.value[block[inside]]
    slot = torch.where(real, place[members].long(), size - 1)
    index = (3 * slot[:, :, None] + torch.arange(3, device=slot.device)).flatten(1)
    matrix = together.view(3 * size, 3 * size)[index[:, :, None], index[:, None, :]]
    matrix.diagonal(dim1=1, dim2=2).add_(~real.repeat_interleave(3, dim=1))
    return matrix


def _clusters(
    structure: Structure, groups: Iterable[Tensor], radius: float, device: str | torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Some centres [c] at a time and the atoms [c, m] around each: the centre last, −1 is none."""
    pairs = neighbor_pairs(
        structure.positions, structure.cell, structure.periodic, radius, device=device
    )
    around, centre = pairs.edge_index
    length = torch.bincount(centre, minlength=len(structure))
    begin = length.cumsum(0) - length
    around = torch.cat([around, around.new_full((1,), -1)])
    for centres in groups:
        slot = torch.arange(int(length[centres].max()))
        edge = torch.where(
            slot < length[centres][:, None], begin[centres][:, None] + slot, len(around) - 1
        )
        yield centres, torch.cat([around[edge], centres[:, None]], dim=1).to(device)


def _within(structure: Structure, first: int, radius: float) -> Tensor:
    """[n] bool, which atoms are within a radius (Å) of the `first` atoms, themselves included."""
    pairs = neighbor_pairs(structure.positions, structure.cell, structure.periodic, radius)
    near = torch.arange(len(structure)) < first
    near[pairs.edge_index[0, pairs.edge_index[1] < first]] = True
    return near


def _groups(structure: Structure, width: float) -> Iterator[Tensor]:
    """The atoms of a structure by cubes of about some width (Å)."""
    fraction = fractional(structure.positions - structure.origin, structure.cell)
    low, high = fraction.amin(0), fraction.amax(0)
    periodic = torch.tensor(structure.periodic)
    fraction = torch.where(
        periodic, wrap_fraction(fraction, periodic), (fraction - low) / (high - low + 1e-9)
    )
    span = heights(structure.cell) * torch.where(periodic, 1, high - low)
    bins = (span / width).round().clamp(min=1)
    x, y, z = (fraction * bins).floor().clamp(min=0).minimum(bins - 1).long().unbind(1)
    key = (x * int(bins[1]) + y) * int(bins[2]) + z
    order = key.argsort(stable=True)
    yield from order.split(torch.unique_consecutive(key[order], return_counts=True)[1].tolist())


def _repeated(structure: Structure, width: float) -> Structure:
    """The structure repeated until no periodic direction is narrower than `width` (Å).

    The atoms of the structure come first.
    """
    times = (width / heights(structure.cell)).ceil().clamp(min=1)
    times = torch.where(torch.tensor(structure.periodic), times, 1).long()
    if bool((times == 1).all()):
        return structure
    steps = torch.cartesian_prod(*(torch.arange(int(t)) for t in times)).double()
    positions = structure.positions + (steps @ structure.cell)[:, None]
    return Structure(
        positions.reshape(-1, 3),
        structure.cell * times[:, None],
        structure.types.repeat(len(steps)),
        structure.species,
        structure.periodic,
    )


def _von_mises(stress: Tensor) -> Tensor:
    mean = stress.diagonal(dim1=1, dim2=2).mean(1)
    deviator = stress - mean[:, None, None] * torch.eye(3).to(stress)
    return (1.5 * deviator.square().sum((1, 2))).sqrt()


def _refuse_unstable(structure: Structure, atom: int, radius: float) -> None:
    raise not_at_rest(
        structure,
        f"the atoms within {radius:g} Å of atom id {int(structure.ids[atom])} are not at a "
        "minimum of the energy (their Hessian has an eigenvalue that is not positive)",
    )
