"""Non-linear conjugate gradients of Polak and Ribière, never with a negative β (PR+).

Nocedal & Wright, Numerical Optimization (2006), sec. 5.2 and 3.5. All systems of a batch are
evaluated together, but each is at its own place in its own line search: after every evaluation
it either accepts the point and turns, or tries another step on its line.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mgsym.data_tools.simulation.optimizers.enthalpy import FlatBatch, Point

LARGEST_STEP = 0.1  # Å, of an atom in one line search
STIFFNESS = 10.0  # eV/Å², a guess for the very first step
DECREASE = 1e-4  # of the energy, as a part of what the slope promises (Armijo)
FLATNESS = 0.2  # slope at an accepted point over that at the start of its line (strong Wolfe)
ROUNDING = 1e-12  # of the energy, below which it cannot tell up from down
STRICT_TRIES = 4  # points on a line before any that is low enough will do: a kink is never flat
TRIES = 12  # before the line is left


class ConjugateGradients:
    """The state of a minimisation; `propose` says where to evaluate next.

    The descent is force · direction: how fast the energy falls along the line, positive at its
    start. `low` and `high` bracket the step where it vanishes.

    Args:
        batch: how coordinates lie.
        start: [k], Å.
    """

    def __init__(self, batch: FlatBatch, start: Tensor) -> None:
        self.batch = batch
        self.base = start
        self.begun = False

    def propose(self, x: Tensor, point: Point, moving: Tensor) -> Tensor:
        """The next coordinates [k], after `point` was found at x [k].

        Args:
            moving: [b] bool; the others stay where they are.
        """
        if self.begun:
            self._judge(x, point, moving)
        else:
            self._begin(point)
        step = torch.where(moving, self.step, 0.0)
        return torch.addcmul(self.base, self.direction, self.batch.spread(step))

    def best(self, x: Tensor) -> Tensor:
        """Where a minimisation that ends early is: the point accepted last."""
        return self.base

    def _begin(self, point: Point) -> None:
        self.begun = True
        self.value, self.force = point.value, point.force
        self.square = self.batch.dot(point.force, point.force)
        self.direction, self.descent = point.force, self.square
        self.length2 = self.square  # direction · direction
        self.cap = self._longest_step()
        self.step = self.cap.clamp(max=1.0 / STIFFNESS)
        self.tries = torch.zeros_like(self.step)
        self.low, self.low_descent = torch.zeros_like(self.step), self.descent
        self.high = torch.full_like(self.step, torch.inf)
        self.high_descent = torch.zeros_like(self.step)

    def _judge(self, x: Tensor, point: Point, moving: Tensor) -> None:
        """Turn where the point is good enough, try another step where it is not."""
        descent = self.batch.dot(point.force, self.direction)
        allowed = self.value - DECREASE * self.step * self.descent
        lower = point.value <= allowed + ROUNDING * self.value.abs()
        flat = descent.abs() <= FLATNESS * self.descent
        far = (self.step >= self.cap) & (descent > 0)
        enough = flat | far | (self.tries >= STRICT_TRIES)
        accepted = (lower & enough) | ~moving
        self._narrow(descent, lower)
        if bool(accepted.any()):
            self._turn(x, point, descent, accepted)
        self.tries = torch.where(accepted, 0.0, self.tries + 1)
        lost = self.tries >= TRIES
        if bool(lost.any()):
            self._start_afresh(lost)

    def _narrow(self, descent: Tensor, lower: Tensor) -> None:
        """Move one end of the bracket to the point; the next step is where the slope vanishes."""
        self.tried = self.step
        beyond = ~lower | (descent < 0)
        self.low = torch.where(beyond, self.low, self.step)
        self.low_descent = torch.where(beyond, self.low_descent, descent)
        self.high = torch.where(beyond, self.step, self.high)
        self.high_descent = torch.where(beyond, descent, self.high_descent)
        width = self.high - self.low
        # an energy that rose although it still falls here tells nothing: halve
        fraction = self.low_descent / (self.low_descent - self.high_descent)
        fraction = torch.where(self.high_descent < 0, fraction.clamp(0.1, 0.9), 0.5)
        bent = self.descent - self.low_descent
        ahead = torch.where(bent > 0, self.descent / bent, torch.inf).clamp(1.2, 5.0) * self.low
        inside = self.low + fraction * width
        self.step = torch.where(self.high.isfinite(), inside, torch.minimum(ahead, self.cap))

    def _turn(self, x: Tensor, point: Point, descent: Tensor, accepted: Tensor) -> None:
        """Make the point the start of a new line."""
        spread = self.batch.spread
        curvature = (self.descent - descent) / (self.tried * self.length2)
        square = self.batch.dot(point.force, point.force)
        overlap = self.batch.dot(point.force, self.force)
        # a system that rests at zero force must not spread NaN
        beta = ((square - overlap) / self.square.clamp(min=1e-300)).clamp(min=0.0)
        new_descent = square + beta * descent
        beta = torch.where(new_descent > 0.01 * square, beta, 0.0)  # else it leads nowhere
        new_descent = square + beta * descent
        length2 = square + 2 * beta * descent + beta * beta * self.length2

        self.direction = torch.addcmul(
            self.direction * spread(torch.where(accepted, beta, 1.0)),
            point.force,
            spread(accepted.to(x.dtype)),
        )
        at = spread(accepted)
        self.base = torch.where(at, x, self.base)
        self.force = torch.where(at, point.force, self.force)
        self.value = torch.where(accepted, point.value, self.value)
        self.square = torch.where(accepted, square, self.square)
        self.descent = torch.where(accepted, new_descent, self.descent)
        self.length2 = torch.where(accepted, length2, self.length2)
        self.cap = self._longest_step()
        # the same curvature again is the best guess
        guess = torch.where(curvature > 0, self.descent / (curvature * self.length2), torch.inf)
        self._open(accepted, torch.minimum(guess, self.cap))

    def _open(self, where: Tensor, step: Tensor) -> None:
        """Begin a line with a first step."""
        self.step = torch.where(where, step, self.step)
        self.low = torch.where(where, 0.0, self.low)
        self.low_descent = torch.where(where, self.descent, self.low_descent)
        self.high = torch.where(where, torch.inf, self.high)

    def _start_afresh(self, lost: Tensor) -> None:
        """Go straight downhill from the point accepted last."""
        self.direction = torch.where(self.batch.spread(lost), self.force, self.direction)
        self.descent = torch.where(lost, self.square, self.descent)
        self.length2 = torch.where(lost, self.square, self.length2)
        self.cap = self._longest_step()
        self.tries = torch.where(lost, 0.0, self.tries)
        self._open(lost, self.cap.clamp(max=0.1 / STIFFNESS))

    def _longest_step(self) -> Tensor:
        return LARGEST_STEP / self.batch.largest(self.direction).clamp(min=1e-300)
