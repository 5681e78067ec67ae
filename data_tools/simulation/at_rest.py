"""Whether a structure is at a minimum of its energy."""

from __future__ import annotations

from torch import Tensor

from mgsym.errors import InputError
from mgsym.structure import Structure

AT_REST = 0.01  # eV/Å; with larger forces a structure is not at a minimum


def check_at_rest(structure: Structure, forces: Tensor, largest: float = AT_REST) -> None:
    """Refuse a structure that has a larger force than `largest` (eV/Å) on any atom.

    Args:
        structure: for the message.
        forces: [n, 3] eV/Å.
        largest: eV/Å.

    Raises:
        InputError: it has, or a force is not finite; the message names the atom and what to do.
    """
    size = forces.norm(dim=1)
    worst = int(size.argmax())
    if not float(size[worst]) <= largest:
        raise not_at_rest(
            structure,
            f"not at a minimum: the force on atom id {int(structure.ids[worst])} is "
            f"{float(size[worst]):.3g} eV/Å, expected at most {largest:g}",
        )


def not_at_rest(structure: Structure, what: str) -> InputError:
    """The error for a structure that has to be relaxed."""
    return InputError(
        f"{what}: relax it first with this potential, mgsym relax FILE",
        path=structure.name or None,
    )
