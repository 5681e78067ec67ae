"""The force field of any potential: the built-in kernel's for an EAM, else a calculator's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch

from mgsym.data_tools.simulation.potentials import eam
from mgsym.data_tools.simulation.potentials.ase_calculator import ASEForces, ASEPotential
from mgsym.data_tools.simulation.potentials.eam import EAM
from mgsym.data_tools.simulation.potentials.eam_forces import EAMForces
from mgsym.structure import Structure

Potential: TypeAlias = EAM | ASEPotential


def force_field(
    potential: Potential,
    structures: Sequence[Structure],
    *,
    skin: float = 0.6,
    device: str | torch.device = "cpu",
    compile: bool = True,
) -> EAMForces | ASEForces:
    """Make the force field of a batch of structures.

    Args:
        potential: with all their elements.
        structures: whose types, masses and periodicity count.
        skin: Å, of neighbour lists, where the potential keeps them.
        device: where to compute, or to give what a calculator computed.
        compile: whether a compiler may be used.

    Raises:
        InputError: an EAM lacks an element.
    """
    if isinstance(potential, ASEPotential):
        return ASEForces(potential, structures, device)
    return EAMForces(potential, structures, skin=skin, device=device, compile=compile)


def potential_hash(potential: Potential) -> str:
    """Hash a potential: the tables of an EAM, or what can be known of a calculator."""
    if isinstance(potential, ASEPotential):
        return potential.fingerprint
    return eam.potential_hash(potential)
