"""ARTn: saddle points around chosen atoms, many searches at once.

A search pushes an atom and its neighbours, climbs to a saddle with everything further than some
10 Å frozen, and then refines the saddle with more and more atoms free.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from mgsym.data_tools.simulation.optimizers.relax import check_at_rest
from mgsym.data_tools.simulation.potentials.evaluation import Potential, force_field
from mgsym.data_tools.simulation.saddle_search.events import Event, SaddleEvent, Search
from mgsym.data_tools.simulation.saddle_search.pipeline import Pipeline
from mgsym.data_tools.simulation.saddle_search.settings import ArtnSettings
from mgsym.errors import InputError
from mgsym.structure import Structure
from mgsym.structure.cell import heights

DEFAULT_RADIUS = 10.0  # Å
SMALLEST_RADIUS = 6.0  # Å
ROOM = 0.95  # of half the box that a region may take


def run_searches(
    structure: Structure,
    potential: Potential,
    searches: Iterator[Search],
    settings: ArtnSettings | None = None,
    *,
    seed: int = 0,
    slots: int = 64,
    device: str | torch.device = "cpu",
    compile: bool = True,
    saddles: bool = False,
) -> Iterator[Event]:
    """Make searches and yield them as they end.

    Searches are taken from the iterator as slots get free. What a search finds depends on the
    structure, the potential, the settings, the seed, its atom's id and its attempt, not on the
    searches beside it.

    Args:
        structure: a minimum of the potential.
        potential: with all its elements.
        searches: what to do.
        settings: of the search.
        seed: of the pushes.
        slots: how many searches go on at once.
        device: where to compute.
        compile: whether a compiler may be used: on a CPU it takes some seconds, the first time.
        saddles: whether events that found one bring it: `SaddleEvent`.

    Raises:
        InputError: the structure is not at a minimum, or too small for the active region.
    """
    settings = settings or ArtnSettings()
    field = force_field(potential, [structure], skin=0.0, compile=False)
    forces = field(structure.positions, structure.cell[None]).forces
    check_at_rest(structure, forces, settings.start_force)
    line = Pipeline(
        structure, potential, settings, radii_of(structure, settings),
        seed=seed, slots=slots, device=device, compile=compile,
    )  # fmt: skip
    for record in line.run(searches):
        event = line.event(record)
        yield (
            SaddleEvent.of(event, line.saddle(record).numpy()) if saddles and event.found else event
        )


def barriers_by_radius(
    structure: Structure,
    potential: Potential,
    searches: Iterator[Search],
    settings: ArtnSettings,
    slots: int = 24,
) -> Iterator[list[float]]:
    """The barriers (eV) of each saddle at all radii, the active one and those of refinement.

    Searches that end before the last radius are left out. For what freezing costs; see
    `run_searches`.
    """
    line = Pipeline(
        structure, potential, settings, radii_of(structure, settings),
        seed=0, slots=slots, device="cpu", compile=True,
    )  # fmt: skip
    for record in line.run(searches):
        if record.found:
            yield [state.barrier for state in record.states]


def half_width(structure: Structure) -> float:
    """Compute half of the smallest distance between opposite faces of a periodic cell, Å."""
    apart = heights(structure.cell).tolist()
    widths = [h for h, repeats in zip(apart, structure.periodic, strict=True) if repeats]
    return 0.5 * min(widths, default=float("inf"))


def active_radius(structure: Structure, radius: float) -> float:
    """The radius of active regions, Å; 0 asks for 10 Å or what a small box has room for.

    Raises:
        InputError: the box is too small.
    """
    half = half_width(structure)
    if radius == 0.0:
        radius = min(DEFAULT_RADIUS, ROOM * half)
        if radius < SMALLEST_RADIUS:
            raise InputError(
                f"{structure.name or 'the box'} is {2 * half:.1f} Å wide, too small for an active "
                f"region: expected at least {2 * SMALLEST_RADIUS / ROOM:.1f} Å: take a larger "
                "structure"
            )
    elif radius > half:
        raise InputError(
            f"an active region of {radius:g} Å does not fit {structure.name or 'the box'}, which "
            f"is {2 * half:.1f} Å wide: expected at most {half:.2f} Å"
        )
    return radius


def radii_of(structure: Structure, settings: ArtnSettings) -> list[float | None]:
    """The radii of a search and of its refinements, Å; None frees all atoms.

    Raises:
        InputError: the box is too small for the active region.
    """
    half = half_width(structure)
    radii: list[float | None] = [active_radius(structure, settings.radius)]
    for wider in settings.refine_radii:
        if wider > ROOM * half:
            return [*radii, None]
        radii.append(wider)
    return radii
