"""What a potential says of its elements: crystals, cutoffs and a picture of its functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mgsym.data_tools.simulation.optimizers.relax import relax
from mgsym.data_tools.simulation.potentials.eam import EAM, knots
from mgsym.data_tools.simulation.potentials.eam_forces import evaluate_structures
from mgsym.errors import MgsymError
from mgsym.rendering.figures import COLOURS, new_figure
from mgsym.structure import Structure
from mgsym.utils.progress import Progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NEAREST = (1.8, 4.2)  # Å, between which nearest neighbours of metals lie
TRIED = 49  # distances, before the best is relaxed
FMAX, STRESS = 1e-6, 1e-7  # eV/Å, eV/Å³


@dataclass(frozen=True)
class Crystal:
    """A crystal of one element at its minimum without pressure.

    Attributes:
        element: its symbol.
        lattice: fcc, bcc or hcp.
        a, c: Å, lattice constants; c of hcp only.
        cohesive_energy: eV per atom, of separate atoms over the crystal's.
        lowest: whether the element's other lattices are higher.
    """

    element: str
    lattice: str
    a: float
    c: float | None
    cohesive_energy: float
    lowest: bool


@dataclass(frozen=True)
class PotentialFacts:
    """A potential for tables.

    Attributes:
        name: of the file, or what the analytic one is called.
        elements, masses: symbols, amu.
        cutoff: Å.
        reach: Å, of each pair of elements such as ``Cu-Zr``: from there on they do not interact.
        crystals: fcc, bcc and hcp of each element; without those that have no minimum.
    """

    name: str
    elements: tuple[str, ...]
    masses: tuple[float, ...]
    cutoff: float
    reach: dict[str, float]
    crystals: list[Crystal]


def describe_potential(potential: EAM, progress: Progress | None = None) -> PotentialFacts:
    """Look at a potential and find the crystals of its elements.

    Args:
        potential: what to describe.
        progress: called with the number of crystals found and in all.
    """
    crystals: list[Crystal] = []
    total = len(potential.species) * len(LATTICES)
    for number, element in enumerate(potential.species):
        own = []
        for k, lattice in enumerate(LATTICES):
            crystal = _crystal(potential, element, lattice)
            own += [crystal] if crystal is not None else []
            if progress is not None:
                progress(number * len(LATTICES) + k + 1, total)
        highest = max((c[-1] for c in own), default=0.0)
        crystals += [Crystal(element, *c, lowest=c[-1] == highest) for c in own]
    pairs = [(a, b) for a in range(len(potential.species)) for b in range(a + 1)]
    reach = {
        f"{potential.species[b]}-{potential.species[a]}": float(potential.reach[a, b])
        for a, b in pairs
    }
    return PotentialFacts(
        potential.name, potential.species, potential.masses, potential.cutoff, reach, crystals
    )


def potential_figure(potential: EAM) -> Figure:
    """Draw φ(r), the densities and the embedding energies of all elements."""
    figure = new_figure((11.0, 3.6))
    axes = [figure.add_subplot(1, 3, k + 1) for k in range(3)]
    species = potential.species
    r = potential.spacing * torch.arange(potential.pair.shape[-2] + 1).double()
    shown = (r > 1.5) & (r <= potential.cutoff)
    lines = 0
    for a, symbol in enumerate(species):
        for b, partner in enumerate(species[: a + 1]):
            phi = knots(potential.pair[a, b])[shown] / r[shown]
            _line(axes[0], r[shown], phi, f"{partner}-{symbol}", lines)
            lines += 1
        _line(axes[1], r[shown], knots(potential.density[a, a])[shown], symbol, a)
        energy = knots(potential.embedding[a])
        rho = potential.density_spacing * torch.arange(len(energy)).double()
        _line(axes[2], rho, energy, symbol, a)
    axes[0].set_ylim(-1.0, 2.0)
    names = (("r (Å)", "φ (eV)"), ("r (Å)", "density"), ("density ρ", "F (eV)"))
    for panel, (x, y) in zip(axes, names, strict=True):
        panel.set_xlabel(x)
        panel.set_ylabel(y)
        panel.legend(frameon=False, fontsize="small")
    return figure


def _line(axes: Any, x: Tensor, y: Tensor, label: str, number: int) -> None:
    axes.plot(x, y, label=label, color=COLOURS[number % len(COLOURS)], linewidth=1.0)


def _crystal(
    potential: EAM, element: str, lattice: str
) -> tuple[str, float, float | None, float] | None:
    """Lattice, constants and cohesive energy; None where there is no minimum."""
    distances = torch.linspace(*NEAREST, TRIED, dtype=torch.float64).tolist()
    tried = [LATTICES[lattice](d, element) for d in distances]
    energies = evaluate_structures(potential, tried).energy / len(tried[0])
    best = int(energies.argmin())
    if best in (0, TRIED - 1) or not bool(energies[best].isfinite()):
        return None
    try:
        (relaxation,) = relax(
            [tried[best]], potential, method="cg", cell="full" if lattice == "hcp" else "isotropic",
            fmax=FMAX, stress_tolerance=STRESS, max_steps=2000, compile=False,
        )  # fmt: skip
    except MgsymError:
        return None
    rows = relaxation.structure.cell
    a = float(rows[0].norm()) * {"fcc": math.sqrt(2), "bcc": 2 / math.sqrt(3), "hcp": 1}[lattice]
    c = float(rows[2].norm()) if lattice == "hcp" else None
    alone = float(potential.embedding[potential.species.index(element), 0, 0])
    return lattice, a, c, alone - relaxation.energy_after / len(relaxation.structure)


def _fcc(nearest: float, element: str) -> Structure:
    cell = nearest / math.sqrt(2) * torch.tensor([[0, 1, 1], [1, 0, 1], [1, 1, 0]]).double()
    return Structure(torch.zeros(1, 3), cell, torch.zeros(1), (element,), name="fcc")


def _bcc(nearest: float, element: str) -> Structure:
    edges = torch.tensor([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]).double()
    cell = nearest / math.sqrt(3) * edges
    return Structure(torch.zeros(1, 3), cell, torch.zeros(1), (element,), name="bcc")


def _hcp(nearest: float, element: str) -> Structure:
    """With the ideal ratio of c to a, from which it relaxes."""
    rows = [[1, 0, 0], [-0.5, math.sqrt(3) / 2, 0], [0, 0, math.sqrt(8 / 3)]]
    cell = nearest * torch.tensor(rows, dtype=torch.float64)
    at = torch.tensor([[0, 0, 0], [1 / 3, 2 / 3, 0.5]], dtype=torch.float64) @ cell
    return Structure(at, cell, torch.zeros(2), (element,), name="hcp")


LATTICES: dict[str, Callable[[float, str], Structure]] = {"fcc": _fcc, "bcc": _bcc, "hcp": _hcp}
