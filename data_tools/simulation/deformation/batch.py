"""A batch of glasses on their way to the last strain, and what is kept of the way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mgsym.data_tools.simulation.deformation.plan import Plan
from mgsym.data_tools.simulation.deformation.strain import (
    Direction,
    increments,
    reduced,
    strained,
)
from mgsym.data_tools.simulation.potentials.ase_calculator import ASEForces
from mgsym.data_tools.simulation.potentials.eam_forces import EAMForces
from mgsym.data_tools.simulation.potentials.evaluation import Potential, force_field
from mgsym.structure import Structure

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
# told of a step that goes on, by name; it may raise to abandon the step
Watch = Callable[..., None]


class Row(NamedTuple):
    """A point of a stress–strain curve.

    Attributes:
        strain: of the start.
        energy: eV, of all atoms; under dynamics the mean potential energy since the row before.
        stress: eV/Å³, (xx, yy, zz, yz, xz, xy), positive under tension; under dynamics the mean.
        volume: Å³.
        temperature: K, the mean; NaN at rest.
        largest_force: eV/Å, what is left on an atom; NaN under dynamics.
        calls: evaluations of the forces.
        converged: False where a minimisation ran out of steps.
    """

    strain: float
    energy: float
    stress: tuple[float, ...]
    volume: float
    temperature: float
    largest_force: float
    calls: int
    converged: bool


class Frame(NamedTuple):
    """A glass at a strain.

    Attributes:
        step: of the plan.
        positions: [n, 3] Å, followed across the cell's faces.
        cell: [3, 3] Å, the start's cell vectors, deformed: not reduced.
        energy: [n] eV.
    """

    step: int
    positions: Tensor
    cell: Tensor
    energy: Tensor


@dataclass
class Deformed:
    """A glass and what straining it along one direction did.

    Attributes:
        start: as it was given.
        direction: of the strain.
        rows: one for each step, the unstrained glass first.
        frames: some steps, the unstrained glass first.
    """

    start: Structure
    direction: Direction
    rows: list[Row] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of the glass and the direction."""
        return f"{self.start.name}_{self.direction.name}"

    def content(self) -> dict[str, Any]:
        """For checkpoints."""
        return {"rows": [tuple(r) for r in self.rows], "frames": [tuple(f) for f in self.frames]}

    def restore(self, content: Mapping[str, Any]) -> None:
        """Go back to where `content` was called."""
        self.rows = [Row(*row) for row in content["rows"]]
        self.frames = [Frame(*frame) for frame in content["frames"]]


class Batch(ABC):
    """Glasses that are strained together, each along its own direction.

    Args:
        glasses: what to strain; rows and frames are added to them.
        potential: knows all their elements.
        plan: how.
        device: where to compute.

    Attributes:
        step: steps of the plan that are done; −1 before the unstrained glass is.
        positions: [n, 3] Å.
        cell: [b, 3, 3] Å, the start's cell vectors, deformed.
    """

    def __init__(
        self, glasses: Sequence[Deformed], potential: Potential, plan: Plan, device: torch.device
    ) -> None:
        self.glasses, self.potential, self.plan, self.device = glasses, potential, plan, device
        starts = [glass.start for glass in glasses]
        self.sizes = [len(start) for start in starts]
        self.system = torch.repeat_interleave(torch.tensor(self.sizes)).to(device)
        self.positions = torch.cat([s.positions - s.origin for s in starts]).to(device)
        self.cell = torch.stack([s.cell for s in starts]).to(device)
        self.directions = [glass.direction for glass in glasses]
        self.step = -1

    @property
    def finished(self) -> bool:
        """Whether the last strain is reached."""
        return self.step >= self.plan.steps

    @abstractmethod
    def advance(self, watch: Watch) -> None:
        """Go on by one step of the strain, or by a part that can be saved."""

    @abstractmethod
    def more(self) -> dict[str, Any]:
        """What else a checkpoint holds of the way."""

    @abstractmethod
    def restore_more(self, content: Mapping[str, Any]) -> None:
        """Take what `more` gave."""

    @property
    def share(self) -> float:
        """Steps done, parts of one included."""
        return max(self.step, 0)

    def content(self) -> dict[str, Any]:
        """For checkpoints."""
        return {
            "step": self.step,
            "positions": self.positions.cpu(),
            "cell": self.cell.cpu(),
            "glasses": [glass.content() for glass in self.glasses],
            **self.more(),
        }

    def restore(self, content: Mapping[str, Any]) -> None:
        """Go back to where `content` was called."""
        self.step = content["step"]
        self.positions = content["positions"].to(self.device)
        self.cell = content["cell"].to(self.device)
        for glass, saved in zip(self.glasses, content["glasses"], strict=True):
            glass.restore(saved)
        self.restore_more(content)

    # ---- for those who advance ----

    def field(self, skin: float = 0.6) -> EAMForces | ASEForces:
        """Return forces with neighbour lists of their own: so a resumed run repeats every sum."""
        starts = [glass.start for glass in self.glasses]
        return force_field(self.potential, starts, skin=skin, device=self.device)

    def reduced_cells(self) -> Tensor:
        """The cells [b, 3, 3] as the forces see them."""
        return torch.stack([reduced(cell) for cell in self.cell.cpu()]).to(self.device)

    def gradient(self, before: float, after: float) -> Tensor:
        """F [b, 3, 3] between two numbers of steps."""
        strains = self.plan.strain_at(before), self.plan.strain_at(after)
        return increments(self.directions, *strains).to(self.device)

    def follow(self, before: float, after: float) -> None:
        """Strain atoms and cells affinely between two numbers of steps."""
        gradient = self.gradient(before, after)
        self.positions, self.cell = strained(self.positions, self.cell, gradient, self.system)

    def keep(self, rows: Sequence[Row], energy: Tensor) -> None:
        """Add a row to each curve, and a frame where the plan wants one."""
        positions = self.positions.cpu().split(self.sizes)
        energies = energy.cpu().split(self.sizes)
        cells = self.cell.cpu()
        for i, (glass, row) in enumerate(zip(self.glasses, rows, strict=True)):
            glass.rows.append(row)
            if self.plan.keeps_frame(self.step):
                frame = Frame(
                    self.step, positions[i].clone(), cells[i].clone(), energies[i].clone()
                )
                glass.frames.append(frame)


def stress_rows(stress: Tensor) -> list[tuple[float, ...]]:
    """The six components of stresses [b, 3, 3], in the order of `Row.stress`."""
    return [tuple(float(each[place]) for place in VOIGT) for each in stress.cpu()]
