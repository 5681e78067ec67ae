"""The numbers of a barrier search; defaults are those that reproduce the published labels."""

from __future__ import annotations

from dataclasses import dataclass, fields

from mgsym.errors import UsageError


@dataclass(frozen=True)
class ArtnSettings:
    """How saddle points are searched (Mousseau & Barkema, Phys. Rev. E 57, 2419 (1998)).

    Norms of forces and displacements run over all coordinates that are free.

    Attributes:
        radius: Å; atoms this near to the centre are free, the others are frozen. 0 takes 10 Å,
            or a little less than half of a small box.
        refine_radii: Å; a saddle is converged again with the atoms within this radius free, one
            radius after the other; a radius that exceeds half of the box frees all atoms.
        relaxation_exponent: what freezing atoms beyond R adds to a barrier falls as R to this
            negative power; it takes barriers from the last two radii to an infinite one. 0 leaves
            them as they are.
        push_radius: Å; atoms this near to the centre are pushed.
        push: Å, length of the first push.
        leave_step: Å, length of each further push.
        leave_steps: how often the basin's edge is looked for.
        leave_curvature: eV/Å²; below it the basin is left.
        climb_step: Å, the longest step along the mode.
        climb_steps: how many at most.
        stiffest: eV/Å²; the smallest curvature that a step is computed with.
        lost_steps: this many steps of positive curvature in a row are borne.
        force: eV/Å; a saddle's force is smaller.
        call_limit: force calls of a search before refinement.
        refine_call_limit: force calls of each refinement.
        energy_limit: eV above the minimum.
        connect: whether to relax to both sides of each saddle, to see if it leads back.
        difference: Å, of the finite differences in the Lanczos recursion.
        skin: Å, of the neighbour lists.
        precision: ``float32`` or ``float64``; float32 takes two thirds of the time, and the same
            saddle's barrier is within 1e-4 eV.
        start_force: eV/Å; the largest force on an atom that a minimum may have.
    """

    radius: float = 0.0
    refine_radii: tuple[float, ...] = (14.0,)
    relaxation_exponent: float = 3.0
    push_radius: float = 3.6
    push: float = 0.5
    leave_step: float = 0.3
    leave_steps: int = 20
    leave_curvature: float = -1.0
    climb_step: float = 0.3
    climb_steps: int = 150
    stiffest: float = 0.5
    lost_steps: int = 6
    force: float = 0.05
    call_limit: int = 3000
    refine_call_limit: int = 1000
    energy_limit: float = 20.0
    connect: bool = False
    difference: float = 0.005
    skin: float = 0.6
    precision: str = "float32"
    start_force: float = 0.01

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "float64"):
            raise UsageError(f"artn.precision is {self.precision!r}, expected float32 or float64")
        for field in fields(self):
            value = getattr(self, field.name)
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, float) and number != number:
                    raise UsageError(f"artn.{field.name} is nan, expected a number")
            if isinstance(value, (int, float)) and value <= 0 and field.name not in MAY_BE_ZERO:
                raise UsageError(f"artn.{field.name} is {value:g}, expected a positive number")


MAY_BE_ZERO = ("radius", "connect", "relaxation_exponent", "leave_curvature")
