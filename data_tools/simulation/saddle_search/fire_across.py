"""FIRE (Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006)) across an axis, in many slots at once.

Forces and velocities are kept at right angles to each slot's axis; every slot has its own time
step. Mass is 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

FIRST_STEP, LONGEST_STEP, SHORTEST_STEP = 0.1, 0.25, 0.02
MIXING, MIXING_DECAY = 0.1, 0.99
PATIENCE = 5  # downhill steps before the time step grows
GROWTH, SHRINKAGE = 1.1, 0.5
LONGEST_MOVE = 0.1  # Å of any atom in a step


class PerpendicularFire:
    """Velocities, time steps and counters of `slots` regions of `atoms` atoms."""

    def __init__(
        self, slots: int, atoms: int, device: torch.device, dtype: torch.dtype = torch.float64
    ) -> None:
        self.velocity = torch.zeros(slots, 3, atoms, dtype=dtype, device=device)
        self.dt = torch.zeros(slots, dtype=dtype, device=device)
        self.mixing = torch.zeros(slots, dtype=dtype, device=device)
        self.downhill = torch.zeros(slots, dtype=torch.int64, device=device)

    def start(self, slots: Tensor) -> None:
        """Forget the past of some slots [c]."""
        self.velocity[slots] = 0.0
        self.dt[slots] = FIRST_STEP
        self.mixing[slots] = MIXING
        self.downhill[slots] = 0

    def move(self, slots: Tensor, force: Tensor) -> Tensor:
        """The next displacement [c, 3, a], Å, of some slots under forces [c, 3, a] across the axis.

        The axis of a slot must stay what it was at `start`.
        """
        velocity = self.velocity[slots]
        power = (force * velocity).sum((1, 2))
        up = power < 0
        downhill = torch.where(up, 0, self.downhill[slots] + 1)
        dt, mixing = self.dt[slots], self.mixing[slots]
        grown = downhill > PATIENCE
        dt = torch.where(grown, (dt * GROWTH).clamp(max=LONGEST_STEP), dt)
        dt = torch.where(up, (dt * SHRINKAGE).clamp(min=SHORTEST_STEP), dt)
        speed = velocity.square().sum((1, 2)).sqrt()
        size = force.square().sum((1, 2)).sqrt().clamp(min=torch.finfo(force.dtype).tiny)
        turned = velocity + (mixing * speed / size)[:, None, None] * force
        turned -= mixing[:, None, None] * velocity
        turned = torch.where(up[:, None, None], 0.0, turned)
        mixing = torch.where(grown, mixing * MIXING_DECAY, mixing)
        mixing = torch.where(up, MIXING, mixing)
        turned += dt[:, None, None] * force
        move = dt[:, None, None] * turned
        longest = move.square().sum(1).amax(1).sqrt()
        self.velocity[slots], self.dt[slots] = turned, dt
        self.mixing[slots], self.downhill[slots] = mixing, downhill
        return move * (LONGEST_MOVE / longest.clamp(min=LONGEST_MOVE))[:, None, None]

    def keep(self, slots: Tensor) -> None:
        """Drop all other slots."""
        for name in ("velocity", "dt", "mixing", "downhill"):
            setattr(self, name, getattr(self, name)[slots].clone())
