"""Athermal quasistatic strain: an affine step, then a minimisation, again and again."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from mgsym.data_tools.simulation.deformation.batch import Batch, Row, Watch, stress_rows
from mgsym.data_tools.simulation.deformation.strain import transverse_lengths
from mgsym.data_tools.simulation.optimizers.minimize import (
    FMAX,
    STRESS_TOLERANCE,
    Minimum,
    minimize,
)
from mgsym.data_tools.simulation.units import GPA

NAN = float("nan")
STRESS_PER_FORCE = STRESS_TOLERANCE / FMAX  # 1/Å²: asking less of one asks less of the other


class QuasistaticBatch(Batch):
    """Glasses that rest at every strain; see `Batch`.

    Raises (from `advance`):
        Diverged: a glass has no finite energy, or its cell exploded.
    """

    def advance(self, watch: Watch) -> None:
        """Strain by one step and come to rest; abandoned, everything is as it was before."""
        before = self.positions, self.cell
        if self.step >= 0:
            self.follow(self.step, self.step + 1)
        try:
            minimum = self._rest(watch)
        except BaseException:
            self.positions, self.cell = before
            raise
        self.step += 1
        self.keep(self._rows(minimum), minimum.forces.atom_energy)

    def _rest(self, watch: Watch) -> Minimum:
        plan, cells = self.plan, self.reduced_cells()
        pressed = plan.transverse is not None
        minimum = minimize(
            self.field(),
            self.positions,
            cells,
            method=plan.method,
            free_cell=transverse_lengths(self.directions).to(self.device) if pressed else None,
            fmax=plan.fmax,
            stress_tolerance=STRESS_PER_FORCE * plan.fmax,
            pressure=(plan.transverse or 0.0) / GPA,
            max_steps=plan.max_steps,
            progress=partial(_note_relaxation, watch),
        )
        if pressed:
            # cells are products with the gradient on the right, whichever vectors span them
            self.cell = self.cell @ torch.linalg.solve(cells, minimum.cell)
        self.positions = minimum.positions
        return minimum

    def _rows(self, minimum: Minimum) -> list[Row]:
        strain = self.plan.strain_at(self.step)
        volume = torch.linalg.det(self.cell).tolist()
        return [
            Row(
                direction.sign * strain + 0.0,
                float(minimum.forces.energy[i]),
                stress,
                volume[i],
                NAN,
                float(minimum.largest_force[i]),
                int(minimum.steps[i]),
                bool(minimum.converged[i]),
            )
            for i, (direction, stress) in enumerate(
                zip(self.directions, stress_rows(minimum.forces.stress), strict=True)
            )
        ]

    def more(self) -> dict[str, Any]:
        """Nothing: a glass at rest is its positions and its cell."""
        return {}

    def restore_more(self, content: Mapping[str, Any]) -> None:
        """Nothing."""


def _note_relaxation(watch: Watch, done: int, total: int, **info: object) -> None:
    """Note the progress of a minimisation on the step."""
    watch(relaxing=info["step"], force=info["force"])
