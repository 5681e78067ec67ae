"""Atoms displaced and the structure relaxed again: does it fall back, or find another minimum?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mgsym.data_tools.simulation.optimizers.relax import Relaxation, relax
from mgsym.data_tools.simulation.potentials.eam import EAM
from mgsym.explanation.neighbors import atom_sets
from mgsym.structure import Structure
from mgsym.utils.progress import Progress

KINDS = ("selected", "matched")
ESCAPED, RETURNED, MOVING = "new minimum", "fell back", "not relaxed"
SAME = 0.1  # Å; an atom that ends further from its place tells of another minimum
STEP = 0.25  # Å, by which displacements grow
GROWTH = 2.0  # the longest displacement, in units of the first
FORCE = 1e-3  # eV/Å, largest force on an atom of a relaxed structure


@dataclass(frozen=True)
class Displacement:
    """One set of atoms displaced once, and what came of it.

    Attributes:
        node: the atom whose barrier is asked for, a row.
        kind: ``selected`` or ``matched``.
        draw: 0, 1, … of the node.
        rows: the atoms displaced.
        length: Å, how far each of them was displaced.
        outcome: ``new minimum``, ``fell back`` into the old one, or ``not relaxed``.
        moved: Å, how far the atom went at most that went furthest, after relaxation.
        node_moved: Å, how far the node itself went.
        atoms_moved: how many went more than 0.1 Å.
        energy: eV, of the new minimum above the old one.
        predicted: eV, the barrier that the model predicts there; None unless it is a new minimum.
        file: of the structure, in the folder; empty unless it is a new minimum.
    """

    node: int
    kind: str
    draw: int
    rows: tuple[int, ...]
    length: float
    outcome: str
    moved: float
    node_moved: float
    atoms_moved: int
    energy: float
    predicted: float | None = None
    file: str = ""


@dataclass(frozen=True)
class Attempt:
    """How many displacements of one length led to a new minimum, by kind."""

    length: float
    selected: int
    matched: int


@dataclass(frozen=True, eq=False)
class Draw:
    """One draw of matched atoms and of the displacements, which both sets share.

    Attributes:
        selected, matched: [k] int64, rows.
        direction: [k, 3] unit vectors.
        passed_over: important atoms not selected, as too few others are as far away.
    """

    selected: Tensor
    matched: Tensor
    direction: Tensor
    passed_over: int


def draws_of(
    distance: Tensor, ranked: Tensor, count: int, repeats: int, node: int, seed: int
) -> list[Draw]:
    """What to displace; it depends on the seed and the node, not on other nodes.

    Args:
        distance: [n] Å, from the node.
        ranked: [k] int64, the atoms that the explanation points at, most important first.
        count: how many of them to displace.
        repeats: how many draws.

    Returns:
        one for each repeat; none where no other atom is as far away as any of `ranked`.
    """
    state = int(np.random.SeedSequence([seed, node]).generate_state(1)[0])
    generator = torch.Generator().manual_seed(state)
    draws = []
    for _ in range(repeats):
        sets = atom_sets(distance, ranked, count, generator)
        arrows = torch.randn(len(sets.selected), 3, generator=generator, dtype=torch.float64)
        direction = torch.nn.functional.normalize(arrows, dim=1)
        draws.append(Draw(sets.selected, sets.matched, direction, sets.passed_over))
    return [draw for draw in draws if len(draw.selected)]


def disturb(
    start: Structure,
    energy: float,
    node: int,
    draws: Sequence[Draw],
    first: float,
    potential: EAM,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> tuple[list[tuple[Displacement, Structure]], list[Attempt]]:
    """Displace both sets of every draw, further and further, until some find another minimum.

    All atoms relax, the displaced ones too. Lengths begin at `first` and grow by 0.25 Å to twice
    that; the first one is kept at which at least one of each set's draws leaves the old minimum.

    Args:
        start: at a minimum of the potential.
        energy: eV, of it.
        node: the atom asked about.
        draws: of that node.
        first: Å.
        potential, device: to relax with, and where.
        progress: called with lengths tried and in all.

    Returns:
        the displacements at the length kept with the relaxed structures, and how many of each set
        left at each length tried.
    """
    displaced: list[tuple[Displacement, Structure]] = []
    attempts: list[Attempt] = []
    if not draws:
        return displaced, attempts
    every = list(lengths(first))
    for length in every:
        plans = [(kind, i) for i in range(len(draws)) for kind in KINDS]
        moved = [_displaced(start, getattr(draws[i], k), draws[i].direction, length)
                 for k, i in plans]  # fmt: skip
        relaxed = relax(moved, potential, fmax=FORCE, device=device, compile=False)
        displaced = []
        for (kind, i), result in zip(plans, relaxed, strict=True):
            rows = tuple(getattr(draws[i], kind).tolist())
            facts = _outcome(start, node, result)
            risen = result.energy_after - energy
            displacement = Displacement(node, kind, i, rows, length, *facts, energy=risen)
            displaced.append((displacement, result.structure))
        left = [
            sum(d.kind == kind and d.outcome == ESCAPED for d, _ in displaced) for kind in KINDS
        ]
        attempts.append(Attempt(length, *left))
        if all(left):
            break
        if progress is not None:
            progress(len(attempts), len(every))
    return displaced, attempts


def lengths(first: float) -> Iterator[float]:
    """The displacements to try, Å."""
    for i in range(int(first * (GROWTH - 1) / STEP + 1e-9) + 1):
        yield round(first + i * STEP, 6)


def _displaced(start: Structure, rows: Tensor, direction: Tensor, length: float) -> Structure:
    positions = start.positions.clone()
    positions[rows] += length * direction
    return start.replace(positions=positions)


def _outcome(start: Structure, node: int, relaxation: Relaxation) -> tuple[str, float, float, int]:
    """Outcome, largest way, the node's way (Å) and atoms that moved."""
    way = relaxation.structure.positions - start.positions
    way = (way - way.mean(0)).norm(dim=1)  # a shift of all atoms is no change
    largest = float(way.max())
    outcome = MOVING if not relaxation.converged else ESCAPED if largest > SAME else RETURNED
    return outcome, largest, float(way[node]), int((way > SAME).sum())
