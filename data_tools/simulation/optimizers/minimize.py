"""The way down: from where a batch of systems is to the minima of its enthalpy."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from mgsym.data_tools.simulation.optimizers.conjugate_gradients import ConjugateGradients
from mgsym.data_tools.simulation.optimizers.enthalpy import Enthalpy, FreeCell, Point
from mgsym.data_tools.simulation.optimizers.fire import Fire
from mgsym.data_tools.simulation.potentials.force_field import ForceField, Forces
from mgsym.errors import MgsymError, UsageError
from mgsym.utils.progress import Progress

Method: TypeAlias = Literal["fire", "cg"]

METHODS: dict[str, type[Fire] | type[ConjugateGradients]] = {"fire": Fire, "cg": ConjugateGradients}
FREE_CELLS = (None, "isotropic", "full")
FMAX = 1e-4  # eV/Å
STRESS_TOLERANCE = 1e-5  # eV/Å³, 1.6 MPa: about 1e-5 of a metal's volume
MAX_STEPS = 10_000
LARGEST_VOLUME_CHANGE = 10.0  # factor; beyond it a cell has exploded or collapsed


class Minimum(NamedTuple):
    """Where a batch came to rest.

    Attributes:
        positions: [n, 3] Å.
        cell: [b, 3, 3] Å.
        forces: there.
        energy_before: [b] eV.
        largest_force: [b] eV/Å, on an atom.
        largest_stress: [b] eV/Å³, what is left of stress + pressure; 0 where cells are fixed.
        steps: [b] int64, evaluations of the forces after the first.
        converged: [b] bool; the others ran out of steps.
    """

    positions: Tensor
    cell: Tensor
    forces: Forces
    energy_before: Tensor
    largest_force: Tensor
    largest_stress: Tensor
    steps: Tensor
    converged: Tensor


class Diverged(MgsymError):
    """A system has no finite energy, or its cell exploded.

    Args:
        system: its number in the batch.
        reason: what happened to it.
        step: when.
        positions: [n, 3] Å, of the whole batch.
        cell: [b, 3, 3] Å.
    """

    def __init__(
        self, system: int, reason: str, step: int, positions: Tensor, cell: Tensor
    ) -> None:
        super().__init__(f"system {system}: {reason} at step {step}")
        self.system, self.reason, self.step = system, reason, step
        self.positions, self.cell = positions, cell


@torch.no_grad()
def minimize(
    field: ForceField,
    positions: Tensor,
    cell: Tensor,
    *,
    method: Method = "fire",
    free_cell: FreeCell | Tensor | None = None,
    fmax: float = FMAX,
    stress_tolerance: float = STRESS_TOLERANCE,
    pressure: float = 0.0,
    max_steps: int = MAX_STEPS,
    progress: Progress | None = None,
) -> Minimum:
    """Minimise the enthalpy of each system of a batch.

    A system that has come to rest stays fixed while the others go on. Atoms move 0.1 Å at most
    from one step (of `cg`: line) to the next, so that overlapping atoms part gently.

    Args:
        field: energies and forces.
        positions: [n, 3] Å; those found stay near them, nothing is wrapped.
        cell: [b, 3, 3] Å, rows are the cell vectors.
        method: ``fire`` or ``cg``.
        free_cell: whether cells keep still (None), keep their shape (``isotropic``) or not
            (``full``), or which components of the deformation gradient may change ([b, 3, 3]
            bool, see `Enthalpy`).
        fmax: eV/Å; a system rests when no atom feels a larger force.
        stress_tolerance: eV/Å³; and, with a free cell, no component of stress + pressure (its
            mean, where isotropic) is larger.
        pressure: eV/Å³, on free cells.
        max_steps: evaluations of the forces, at most; what is not at rest then is marked so.
        progress: called after each step with systems at rest and in all.

    Raises:
        UsageError: a setting makes no sense.
        Diverged: a system has no finite energy, or its cell changed tenfold.
    """
    _check_settings(method, free_cell, fmax, stress_tolerance, max_steps)
    enthalpy = Enthalpy(field, positions, cell, free_cell, pressure)
    x = enthalpy.start
    state = METHODS[method](enthalpy.batch, x)
    point = _evaluate(enthalpy, x, 0)
    before = point.forces.energy
    moving = ~_at_rest(point, fmax, stress_tolerance)
    steps = torch.zeros_like(moving, dtype=torch.int64)
    for step in range(1, max_steps + 1):
        if not bool(moving.any()):
            break
        x = state.propose(x, point, moving)
        point = _evaluate(enthalpy, x, step)
        steps += moving
        moving = moving & ~_at_rest(point, fmax, stress_tolerance)
        if progress is not None:
            force = float(point.largest_force.max())
            done = len(moving) - int(moving.sum())
            progress(done, len(moving), step=step, force=f"{force:.1e} eV/Å")
    best = torch.where(enthalpy.batch.spread(moving), state.best(x), x)
    if not torch.equal(best, x):
        x, point = best, _evaluate(enthalpy, best, max_steps)
    return Minimum(
        *enthalpy.geometry(x),
        point.forces,
        before,
        point.largest_force,
        point.largest_stress,
        steps,
        ~moving,
    )


def _check_settings(
    method: str,
    free_cell: str | Tensor | None,
    fmax: float,
    stress_tolerance: float,
    max_steps: int,
) -> None:
    if method not in METHODS:
        raise UsageError(f"no method {method!r}: choose fire or cg")
    if not isinstance(free_cell, Tensor) and free_cell not in FREE_CELLS:
        raise UsageError(f"no free cell {free_cell!r}: choose None, isotropic or full")
    if not (fmax > 0 and stress_tolerance > 0):
        raise UsageError(
            f"fmax is {fmax:g} eV/Å and the stress tolerance {stress_tolerance:g} eV/Å³, expected "
            "positive numbers"
        )
    if max_steps < 0:
        raise UsageError(f"max_steps is {max_steps}, expected 0 or more")


def _at_rest(point: Point, fmax: float, stress_tolerance: float) -> Tensor:
    return (point.largest_force < fmax) & (point.largest_stress < stress_tolerance)


def _evaluate(enthalpy: Enthalpy, x: Tensor, step: int) -> Point:
    """The point at x, when it is one."""
    if enthalpy.free is not None:
        ratio = torch.linalg.det(enthalpy.deformation(x))
        bad = ~((ratio < LARGEST_VOLUME_CHANGE) & (ratio > 1 / LARGEST_VOLUME_CHANGE))
        if bool(bad.any()):
            system = int(bad.nonzero()[0])
            reason = f"the cell has come to {float(ratio[system]):.2g} times its volume"
            raise Diverged(system, reason, step, *enthalpy.geometry(x))
    point = enthalpy(x)
    # NaN and infinity survive a sum
    bad = ~(point.value + point.largest_force + point.largest_stress).isfinite()
    if bool(bad.any()):
        reason = "energy or forces are not finite"
        raise Diverged(int(bad.nonzero()[0]), reason, step, *enthalpy.geometry(x))
    return point
