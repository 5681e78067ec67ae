"""Nosé–Hoover chains: Martyna, Klein & Tuckerman, J. Chem. Phys. 97, 2635 (1992).

The equations and their integrator by Suzuki–Yoshida factors are those of Martyna, Tuckerman,
Tobias & Klein, Mol. Phys. 87, 1117 (1996). Everything is written without units: a chain's rates
are multiplied by its damping time τ, and its masses are Q₁ = f kT τ² and Qⱼ = kT τ² for f
degrees of freedom, so that only the ratio of the kinetic energy to its target enters, and the
chain keeps its pace when the target changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

LENGTH = 3  # thermostats in a chain
# weights of the fourth-order scheme (Yoshida 1990; Suzuki 1991)
_OUTER = 1.0 / (2.0 - 2.0 ** (1.0 / 3.0))
FOURTH_ORDER = (_OUTER, 1.0 - 2.0 * _OUTER, _OUTER)
SECOND_ORDER = (1.0,)


class Chains(NamedTuple):
    """Chains of thermostats: c kinds (particles, barostat) for each of b systems.

    Attributes:
        rate: [length, c, b], τ dη/dt, no unit.
        place: [length, c, b], η, no unit.
    """

    rate: Tensor
    place: Tensor


def chains_at_rest(kinds: int, systems: int, like: Tensor) -> Chains:
    """Chains that have not moved yet, with the dtype and device of `like`."""
    return Chains(*(like.new_zeros(LENGTH, kinds, systems) for _ in range(2)))


def advance_chains(
    chains: Chains,
    ratio: Tensor,
    freedom: Tensor,
    step: Tensor,
    weights: tuple[float, ...] = FOURTH_ORDER,
) -> tuple[Chains, Tensor]:
    """Move chains, and what they are coupled to, for a time.

    Args:
        chains: see Chains.
        ratio: [c, b], twice the kinetic energy over f kT.
        freedom: [c, b], degrees of freedom f that each chain is coupled to.
        step: [c, 1], the time over τ.
        weights: parts of the step that are taken in turn.

    Returns:
        The chains, and [c, b] what the velocities coupled to them are multiplied by.
    """
    rate = list(chains.rate.unbind(0))
    travelled = torch.zeros_like(chains.place)
    for weight in weights:
        half, quarter = (0.5 * weight) * step, (-0.25 * weight) * step
        _sweep(rate, range(len(rate) - 1, -1, -1), ratio, freedom, half, quarter)
        moved = weight * step * torch.stack(rate)
        travelled = travelled + moved
        ratio = ratio * torch.exp(-2.0 * moved[0])
        _sweep(rate, range(len(rate)), ratio, freedom, half, quarter)
    scale = torch.exp(-travelled[0])
    return Chains(torch.stack(rate), chains.place + travelled), scale


def _sweep(
    rate: list[Tensor],
    order: Iterable[int],
    ratio: Tensor,
    freedom: Tensor,
    half: Tensor,
    quarter: Tensor,
) -> None:
    """Half a step of the rates, one thermostat after another; the next one in the chain drags."""
    for j in order:
        push = half * _push(rate, j, ratio, freedom)
        if j == len(rate) - 1:
            rate[j] = rate[j] + push
        else:
            drag = torch.exp(quarter * rate[j + 1])
            rate[j] = (rate[j] * drag + push) * drag


def _push(rate: list[Tensor], j: int, ratio: Tensor, freedom: Tensor) -> Tensor:
    """The force on a thermostat over its mass, times τ²."""
    if j == 0:
        return ratio - 1.0
    below = rate[j - 1] * rate[j - 1]
    return (freedom * below if j == 1 else below) - 1.0


def chain_energy(chains: Chains, freedom: Tensor) -> Tensor:
    """[b]: the energy of all chains of each system over kT, their share in what is conserved."""
    rate, place = chains
    weight = torch.ones_like(rate)
    weight[:1] = freedom
    return (weight * (0.5 * rate * rate + place)).sum(dim=(0, 1))
