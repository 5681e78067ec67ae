"""FIRE: minimisation by damped dynamics that is stopped whenever it runs uphill.

Bitzek, Koskinen, Gähler, Moseler & Gumbsch, Phys. Rev. Lett. 97, 170201 (2006), with its
parameters except the longest time step. Each system of the batch has its own time step, mixing
and count. Masses are 1, so that the time is in Å/√eV.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mgsym.data_tools.simulation.optimizers.enthalpy import FlatBatch, Point

LARGEST_STEP = 0.1  # Å, of an atom; overlapping atoms push each other much farther than is good
# Å/√eV; a metal's stiffest modes (about 30 eV/Å²) are unstable above 0.37, and a limit below that
# saves the steps lost on finding out
FIRST_TIME_STEP, LONGEST_TIME_STEP = 0.1, 0.3
GROW, SHRINK = 1.1, 0.5  # of the time step
MIXING, MIXING_DECAY = 0.1, 0.99
PATIENCE = 5  # steps downhill before the time step grows


class Fire:
    """The state of a minimisation; `propose` says where to evaluate next.

    Args:
        batch: how coordinates lie.
        start: [k], Å.
    """

    def __init__(self, batch: FlatBatch, start: Tensor) -> None:
        self.batch = batch
        self.velocity = torch.zeros_like(start)
        self.time_step = start.new_full((batch.systems,), FIRST_TIME_STEP)
        self.mixing = start.new_full((batch.systems,), MIXING)
        self.downhill = start.new_zeros(batch.systems)

    def propose(self, x: Tensor, point: Point, moving: Tensor) -> Tensor:
        """The next coordinates [k], after `point` was found at x [k].

        Args:
            moving: [b] bool; the others stay where they are.
        """
        spread, velocity, force = self.batch.spread, self.velocity, point.force
        uphill = self.batch.dot(force, velocity) < 0
        speed = self.batch.dot(velocity, velocity).sqrt()
        strength = self.batch.dot(force, force).sqrt()
        # v ← (1 − α) v + α |v| f/|f|, or 0 uphill; then v ← v + f Δt, in one sweep
        keep = torch.where(uphill, 0.0, 1.0 - self.mixing)
        turn = torch.where(uphill, 0.0, self.mixing * speed / strength.clamp(min=1e-300))
        self._adapt(uphill)
        velocity.mul_(spread(keep)).addcmul_(force, spread(turn + self.time_step))
        length = self.time_step * self.batch.largest(velocity)
        velocity.mul_(spread((LARGEST_STEP / length.clamp(min=1e-300)).clamp(max=1.0)))
        return torch.addcmul(x, velocity, spread(self.time_step * moving))

    def best(self, x: Tensor) -> Tensor:
        """Where a minimisation that ends early is: the point evaluated last."""
        return x

    def _adapt(self, uphill: Tensor) -> None:
        """Longer steps and less steering after some steps downhill, the opposite after one up."""
        self.downhill = torch.where(uphill, 0.0, self.downhill + 1)
        steady = self.downhill > PATIENCE
        factor = torch.where(uphill, SHRINK, torch.where(steady, GROW, 1.0))
        self.time_step = (self.time_step * factor).clamp(max=LONGEST_TIME_STEP)
        decayed = torch.where(steady, self.mixing * MIXING_DECAY, self.mixing)
        self.mixing = torch.where(uphill, MIXING, decayed)
