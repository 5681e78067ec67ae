"""Straining glasses along directions: in batches, with checkpoints between the steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from mgsym.data_tools.simulation.deformation.batch import Batch, Deformed
from mgsym.data_tools.simulation.deformation.finite_rate import DynamicsBatch
from mgsym.data_tools.simulation.deformation.nonaffine import NonAffine
from mgsym.data_tools.simulation.deformation.plan import Plan
from mgsym.data_tools.simulation.deformation.quasistatic import QuasistaticBatch
from mgsym.data_tools.simulation.deformation.strain import reduced
from mgsym.data_tools.simulation.optimizers.minimize import Diverged
from mgsym.data_tools.simulation.potentials.ase_calculator import require_stress
from mgsym.data_tools.simulation.potentials.evaluation import Potential, potential_hash
from mgsym.errors import InputError, Interrupted, MgsymError, UsageError
from mgsym.structure import Column, Structure
from mgsym.utils.devices import resolve_device
from mgsym.utils.files import load_safely, save_safely

FORMAT, FORMAT_VERSION = "mgsym-deform", 2
SAVE_SECONDS = 60.0
# a step of a batch takes as long as its last glass needs to rest, and events differ in when they
# come: on a CPU only glasses too small to fill it go together
ATOMS_AT_ONCE = {"cpu": 600, "cuda": 400_000}


class _Stop(Exception):
    """Abandons a step that is not finished."""


def deform(
    structures: Sequence[Structure],
    potential: Potential,
    plan: Plan,
    *,
    device: str | torch.device = "cpu",
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: Callable[..., None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[Deformed]:
    """Strain each structure along each direction of the plan.

    Args:
        structures: periodic along all cell vectors, near a minimum; of different names.
        potential: knows all their elements.
        plan: how they are strained.
        device: ``auto``, ``cpu`` or ``cuda``.
        checkpoint: where to save now and then; removed by nobody here.
        resume: go on from `checkpoint`.
        progress: called as ``progress(done, total, **info)``, in steps of all glasses.
        should_stop: asked often; when true, the run is saved and Interrupted raised.

    Returns:
        One for each structure and direction, those of one structure together.

    Raises:
        UsageError: a structure is not periodic, or the checkpoint belongs to another run.
        InputError: the potential lacks an element, or the checkpoint is damaged.
        MgsymError: a glass came to have no finite energy.
        Interrupted: `should_stop` said so.
    """
    run = _Run(structures, potential, plan, resolve_device(device), checkpoint)
    if resume:
        run.restore()

    def watch(**info: object) -> None:
        if progress is not None:
            progress(*run.done(), **info)
        if should_stop is not None and should_stop():
            raise _Stop

    saved = time.monotonic()
    while (batch := run.current) is not None:
        try:
            batch.advance(watch)
            watch()
        except _Stop:
            run.save()
            raise Interrupted(run.interrupted()) from None
        except Diverged as error:
            raise _explained(error, batch) from error
        if batch.finished:
            run.group += 1
        if time.monotonic() - saved > SAVE_SECONDS:
            run.save()
            saved = time.monotonic()
    run.save()
    return run.glasses


class _Run:
    """All glasses, group by group.

    Attributes:
        glasses: what is strained, and what was found of it.
        group: the one on its way; those before are finished.
    """

    def __init__(
        self,
        structures: Sequence[Structure],
        potential: Potential,
        plan: Plan,
        device: torch.device,
        checkpoint: Path | None,
    ) -> None:
        _check(structures, potential)
        self.potential, self.plan, self.device, self.checkpoint = (
            potential,
            plan,
            device,
            checkpoint,
        )
        self.glasses = [Deformed(s, d) for s in structures for d in plan.directions]
        self.groups = list(_groups(self.glasses, ATOMS_AT_ONCE[device.type]))
        self.group = 0
        self._batch: Batch | None = None

    @property
    def current(self) -> Batch | None:
        """The batch on its way; None when all is done."""
        if self.group >= len(self.groups):
            return None
        glasses = self.groups[self.group]
        if self._batch is None or self._batch.glasses is not glasses:
            kind = QuasistaticBatch if self.plan.rate is None else DynamicsBatch
            self._batch = kind(glasses, self.potential, self.plan, self.device)
        return self._batch

    def done(self) -> tuple[float, float]:
        """Steps done, and in all, over all glasses."""
        batch = self.current
        before = sum(map(len, self.groups[: self.group])) * self.plan.steps
        now = batch.share * len(batch.glasses) if batch is not None else 0
        return before + now, len(self.glasses) * self.plan.steps

    def interrupted(self) -> str:
        """What to tell who interrupted it."""
        done, total = self.done()
        message = f"the deformation was interrupted after {done:.4g} of {total:g} steps"
        if self.checkpoint is None:
            return f"{message}; nothing was saved, as no checkpoint was given"
        return f"{message}; go on with the same command and --resume"

    def save(self) -> None:
        """Write the checkpoint."""
        if self.checkpoint is None:
            return
        batch = self.current
        content = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "plan": self.plan.as_dict(),
            "potential": potential_hash(self.potential),
            "starts": [_start(glass.start) for glass in self.glasses],
            "at_once": ATOMS_AT_ONCE[self.device.type],
            "group": self.group,
            "finished": [g.content() for group in self.groups[: self.group] for g in group],
            "batch": batch.content() if batch is not None else None,
        }
        save_safely(self.checkpoint, content)

    def restore(self) -> None:
        """Go back to where `save` was called."""
        if self.checkpoint is None:
            raise UsageError("nothing to resume from: no checkpoint was given")
        wanted = "a checkpoint of mgsym deform"
        saved = load_safely(self.checkpoint, FORMAT, FORMAT_VERSION, wanted)
        changes = self.plan.changes(saved["plan"])
        if saved["potential"] != potential_hash(self.potential):
            changes.append("potential")
        if not _same_starts(saved["starts"], self.glasses):
            changes.append("structures")
        if saved["at_once"] != ATOMS_AT_ONCE[self.device.type]:
            changes.append("kind of device")
        if changes:
            raise UsageError(
                f"{self.checkpoint} was made with another {' and '.join(changes)}: resume with "
                "the same options, or start again with --overwrite"
            )
        finished = [glass for group in self.groups[: saved["group"]] for glass in group]
        for glass, content in zip(finished, saved["finished"], strict=True):
            glass.restore(content)
        self.group = saved["group"]
        batch = self.current
        if batch is not None and saved["batch"] is not None:
            batch.restore(saved["batch"])


def frame_structures(deformed: Deformed, plan: Plan) -> list[Structure]:
    """Return the frames of a glass, measured against the first one.

    Atoms are wrapped into cells that lean no further than half a vector or so. The columns are
    ``energy`` (eV), ``d2min`` (Å²) and ``shear_strain``.
    """
    first = deformed.frames[0]
    start = deformed.start.replace(
        positions=first.positions, cell=first.cell, origin=torch.zeros(3), columns={}
    )
    measure = NonAffine(start, plan.radius)
    structures = []
    for frame in deformed.frames:
        local = measure(frame.positions, frame.cell)
        cell = reduced(frame.cell)
        inside = torch.linalg.solve(cell, frame.positions, left=False) % 1.0
        columns = {
            "energy": Column(frame.energy, "eV"),
            "d2min": Column(local.d2min, "Å²"),
            "shear_strain": Column(local.shear_strain),
        }
        structures.append(
            start.replace(
                positions=inside @ cell + deformed.start.origin,
                cell=cell,
                origin=deformed.start.origin,
                columns=columns,
                name=f"{deformed.name}_{frame.step}",
                glass=deformed.start.glass or deformed.start.name,
            )
        )
    return structures


def _check(structures: Sequence[Structure], potential: Potential) -> None:
    if not structures:
        raise UsageError("there are no structures to deform")
    require_stress(potential, "mgsym deform")
    names = [structure.name for structure in structures]
    for structure in structures:
        if names.count(structure.name) > 1:
            raise UsageError(f"two structures are called {structure.name}: rename a file")
        if not all(structure.periodic):
            raise UsageError(
                f"{structure.name or 'a structure'} is not periodic along all its cell vectors: "
                "a strain of its cell would strain nothing"
            )
        potential.types_of(structure)


def _groups(glasses: Sequence[Deformed], atoms: int) -> Iterator[list[Deformed]]:
    """Neighbours in the list, as many as have no more than `atoms` atoms; one at least."""
    group: list[Deformed] = []
    for glass in glasses:
        if group and sum(len(g.start) for g in group) + len(glass.start) > atoms:
            yield group
            group = []
        group.append(glass)
    yield group


def _start(structure: Structure) -> dict[str, Any]:
    return {
        "name": structure.name,
        "symbols": structure.symbols,
        "positions": structure.positions,
        "cell": structure.cell,
    }


def _same_starts(saved: Sequence[dict[str, Any]], glasses: Sequence[Deformed]) -> bool:
    def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
        texts = a["name"] == b["name"] and a["symbols"] == b["symbols"]
        return texts and all(torch.equal(a[k], b[k]) for k in ("positions", "cell"))

    starts = [_start(glass.start) for glass in glasses]
    return len(saved) == len(starts) and all(map(same, saved, starts))


def _explained(error: Diverged, batch: Batch) -> MgsymError:
    glass = batch.glasses[error.system]
    if batch.step < 0:
        return InputError(
            f"{error.reason} before any strain: relax it first with this potential, mgsym relax",
            path=glass.start.name or None,
        )
    strain = batch.plan.strain_at(batch.step + 1)
    return MgsymError(
        f"{glass.name}: {error.reason} at strain {strain:g}: take a smaller --step, or look "
        "whether the potential suits such strains"
    )
