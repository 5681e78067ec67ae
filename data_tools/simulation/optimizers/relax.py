"""Structures brought to the minimum of their energy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mgsym.data_tools.simulation.optimizers.enthalpy import FreeCell
from mgsym.data_tools.simulation.optimizers.minimize import (
    FMAX,
    MAX_STEPS,
    STRESS_TOLERANCE,
    Diverged,
    Method,
    Minimum,
    minimize,
)
from mgsym.data_tools.simulation.potentials.ase_calculator import require_stress
from mgsym.data_tools.simulation.potentials.evaluation import Potential, force_field
from mgsym.errors import InputError, MgsymError, UsageError
from mgsym.structure import Column, Structure
from mgsym.structure.cell import fractional
from mgsym.structure.neighbors import neighbor_pairs
from mgsym.utils.devices import resolve_device
from mgsym.utils.progress import Progress, part

# together on a CPU only as long as it saves overhead: the batch runs until its last system rests
ATOMS_AT_ONCE = {"cpu": 4_000, "cuda": 400_000}


@dataclass(frozen=True)
class Relaxation:
    """A relaxed structure and how it came about.

    Attributes:
        structure: at the minimum; positions near the given ones, never wrapped. Of the columns
            only ``energy`` (eV, of each atom) is there: the others belonged to the old positions.
        energy_before, energy_after: eV, of all atoms.
        largest_force: eV/Å, on an atom.
        largest_stress: eV/Å³, what is left of stress + pressure; 0 with a fixed cell.
        pressure: eV/Å³, there.
        moved: Å, how far an atom went at most, beyond what it followed the cell.
        steps: evaluations of the forces after the first.
        converged: False when the steps did not suffice.
    """

    structure: Structure
    energy_before: float
    energy_after: float
    largest_force: float
    largest_stress: float
    pressure: float
    moved: float
    steps: int
    converged: bool


def relax(
    structures: Sequence[Structure],
    potential: Potential,
    *,
    method: Method = "fire",
    cell: FreeCell | None = None,
    fmax: float = FMAX,
    stress_tolerance: float = STRESS_TOLERANCE,
    pressure: float = 0.0,
    max_steps: int = MAX_STEPS,
    device: str | torch.device = "cpu",
    compile: bool = True,
    progress: Progress | None = None,
) -> list[Relaxation]:
    """Move the atoms of each structure to a minimum of the energy.

    Args:
        structures: of any sizes.
        potential: knows all their elements.
        method: ``fire`` (see `fire`) or ``cg`` (see `conjugate_gradients`).
        cell: whether cells keep still (None), keep their shape (``isotropic``) or not (``full``).
        fmax: eV/Å; a structure is relaxed when no atom feels a larger force.
        stress_tolerance: eV/Å³; and, with a free cell, no component of stress + pressure (its
            mean, where isotropic) is larger.
        pressure: eV/Å³, on free cells.
        max_steps: evaluations of the forces, at most.
        device: ``auto``, ``cpu`` or ``cuda``.
        compile: whether a compiler may be used: on a CPU it takes some seconds, the first time.
        progress: called with the number of structures at rest and in all.

    Returns:
        One for each structure; see ``converged`` before using it.

    Raises:
        InputError: atoms lie on one another, or the potential lacks an element.
        UsageError: a setting makes no sense, or a cell is free that is not periodic.
        MgsymError: the energy became infinite, or a cell exploded.
    """
    place = resolve_device(device)
    if cell is not None:
        _check_periodic(structures)
        require_stress(potential, "a free cell")
    relaxations: list[Relaxation] = []
    for group in _groups(structures, ATOMS_AT_ONCE[place.type]):
        step = part(progress, len(relaxations), len(structures), size=len(group))
        positions = torch.cat([s.positions - s.origin for s in group]).to(place)
        cells = torch.stack([s.cell for s in group]).to(place)
        try:
            minimum = minimize(
                force_field(potential, group, device=place, compile=compile),
                positions,
                cells,
                method=method,
                free_cell=cell,
                fmax=fmax,
                stress_tolerance=stress_tolerance,
                pressure=pressure,
                max_steps=max_steps,
                progress=step,
            )
        except Diverged as error:
            raise _explained(error, group) from error
        relaxations += _results(group, minimum)
    return relaxations


def _check_periodic(structures: Sequence[Structure]) -> None:
    for structure in structures:
        if not all(structure.periodic):
            raise UsageError(
                f"{structure.name or 'a structure'} is not periodic along all its cell vectors: "
                "relax it with a fixed cell"
            )


def _groups(structures: Sequence[Structure], atoms: int) -> Iterator[Sequence[Structure]]:
    """Neighbours in the list, as many as have no more than `atoms` atoms; one at least."""
    group: list[Structure] = []
    for structure in structures:
        if group and sum(map(len, group)) + len(structure) > atoms:
            yield group
            group = []
        group.append(structure)
    if group:
        yield group


def _results(group: Sequence[Structure], minimum: Minimum) -> list[Relaxation]:
    sizes = [len(structure) for structure in group]
    positions = minimum.positions.cpu().split(sizes)
    energies = minimum.forces.atom_energy.cpu().split(sizes)
    pressures = (-minimum.forces.stress.diagonal(dim1=1, dim2=2).mean(1)).tolist()
    after, before = minimum.forces.energy.tolist(), minimum.energy_before.tolist()
    cells = minimum.cell.cpu()
    results = []
    for i, structure in enumerate(group):
        relaxed = structure.replace(
            positions=positions[i] + structure.origin,
            cell=cells[i],
            columns={"energy": Column(energies[i], "eV")},
        )
        results.append(
            Relaxation(
                structure=relaxed,
                energy_before=before[i],
                energy_after=after[i],
                largest_force=float(minimum.largest_force[i]),
                largest_stress=float(minimum.largest_stress[i]),
                pressure=pressures[i],
                moved=_moved(structure, relaxed),
                steps=int(minimum.steps[i]),
                converged=bool(minimum.converged[i]),
            )
        )
    return results


def _moved(before: Structure, after: Structure) -> float:
    """The longest way of an atom, Å, without what the cell's change carried it along."""
    scaled = fractional(after.positions - after.origin, after.cell)
    moved = scaled @ before.cell - (before.positions - before.origin)
    return float(moved.norm(dim=1).max())


def _explained(error: Diverged, group: Sequence[Structure]) -> MgsymError:
    """The error in terms of the structure: its name, and the two atoms that are closest."""
    structure = group[error.system]
    sizes = [len(member) for member in group]
    positions = error.positions.cpu().split(sizes)[error.system]
    name = structure.name or f"structure {error.system}"
    when = "as given" if error.step == 0 else f"at step {error.step}"
    closest = _closest(structure, positions, error.cell[error.system].cpu())
    message = f"{error.reason} {when}{closest}"
    if error.step == 0:
        return InputError(f"{message}: move them apart or delete one of them", path=name)
    return MgsymError(
        f"{name}: {message}: look whether elements, units and cell of the structure and the "
        "pressure are right"
    )


def _closest(structure: Structure, positions: Tensor, cell: Tensor) -> str:
    if not bool(positions.isfinite().all()):
        return ""
    pairs = neighbor_pairs(positions, cell, structure.periodic, 3.0)
    if pairs.vector.shape[0] == 0:
        return ""
    distance = pairs.vector.norm(dim=1)
    nearest = int(distance.argmin())
    first, second = sorted(structure.ids[pairs.edge_index[:, nearest]].tolist())
    return f"; atoms {first} and {second} are closest, {float(distance[nearest]):.2f} Å apart"


AT_REST = 0.01  # eV/Å; with larger forces a structure is not at a minimum


def check_at_rest(structure: Structure, forces: Tensor, largest: float = AT_REST) -> None:
    """Refuse a structure that has a larger force than `largest` (eV/Å) on any atom.

    Args:
        structure: for the message.
        forces: [n, 3] eV/Å.
        largest: eV/Å.

    Raises:
        InputError: it has, or a force is not finite; the message names the atom and what to do.
    """
    size = forces.norm(dim=1)
    worst = int(size.argmax())
    if not float(size[worst]) <= largest:
        raise not_at_rest(
            structure,
            f"not at a minimum: the force on atom id {int(structure.ids[worst])} is "
            f"{float(size[worst]):.3g} eV/Å, expected at most {largest:g}",
        )


def not_at_rest(structure: Structure, problem: str) -> InputError:
    """The error for a structure that has to be relaxed."""
    return InputError(
        f"{problem}: relax it first with this potential, mgsym relax FILE",
        path=structure.name or None,
    )
