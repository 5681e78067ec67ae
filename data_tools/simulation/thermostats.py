"""Nosé–Hoover chains: Martyna, Klein & Tuckerman, J. Chem. Phys. 97, 2635 (1992).

The equations and their integrator by Suzuki–Yoshida factors are those of Martyna, Tuckerman,
Tobias & Klein, Mol. Phys. 87, 1117 (1996). Everything is written without units: a chain's rates
are multiplied by its damping time τ, and its masses are Q₁ = f kT τ² and Qⱼ = kT τ² for f
degrees of freedom, so that only the ratio of the kinetic energy to its target enters, and the
chain keeps its pace when the target changes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LENGTH = 3  # thermostats in a chain
# weights of the fourth-order scheme (Yoshida 1990; Suzuki 1991)
_OUTER = 1.0 / (2.0 - 2.0 ** (1.0 / 3.0))
WEIGHTS = (_OUTER, 1.0 - 2.0 * _OUTER, _OUTER)


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
    chains: Chains, ratio: Tensor, freedom: Tensor, step: Tensor
) -> tuple[Chains, Tensor]:
    """Move chains, and what they are coupled to, for a time.

    Args:
        chains: see Chains.
        ratio: [c, b], twice the kinetic energy over f kT.
        freedom: [c, b], degrees of freedom f that each chain is coupled to.
        step: [c, 1], the time over τ.

    Returns:
        The chains, and [c, b] what the velocities coupled to them are multiplied by.
    """
    rate, place = list(chains.rate.unbind(0)), chains.place
    scale = torch.ones_like(ratio)
    for weight in WEIGHTS:
        part = weight * step
        _sweep_down(rate, ratio, freedom, part)
        factor = torch.exp(-part * rate[0])
        scale = scale * factor
        ratio = ratio * (factor * factor)
        place = place + part * torch.stack(rate)
        _sweep_up(rate, ratio, freedom, part)
    return Chains(torch.stack(rate), place), scale


def _sweep_down(rate: list[Tensor], ratio: Tensor, freedom: Tensor, part: Tensor) -> None:
    """Half a step of the rates, from the last thermostat to the first."""
    rate[-1] = rate[-1] + 0.5 * part * _push(rate, len(rate) - 1, ratio, freedom)
    for j in range(len(rate) - 2, -1, -1):
        drag = torch.exp(-0.25 * part * rate[j + 1])
        rate[j] = (rate[j] * drag + 0.5 * part * _push(rate, j, ratio, freedom)) * drag


def _sweep_up(rate: list[Tensor], ratio: Tensor, freedom: Tensor, part: Tensor) -> None:
    """The other half, from the first thermostat to the last."""
    for j in range(len(rate) - 1):
        drag = torch.exp(-0.25 * part * rate[j + 1])
        rate[j] = (rate[j] * drag + 0.5 * part * _push(rate, j, ratio, freedom)) * drag
    rate[-1] = rate[-1] + 0.5 * part * _push(rate, len(rate) - 1, ratio, freedom)


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
