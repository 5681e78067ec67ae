"""The analytic EAM of Zhou, Johnson & Wadley for Cu and Zr: a potential that needs no file.

Phys. Rev. B 69, 144113 (2004), eqs. (1)–(9) and table III. With x = r/r_e an element has::

    φ(r) = A e^(−α(x−1)) / (1 + (x − κ)²⁰) − B e^(−β(x−1)) / (1 + (x − λ)²⁰)
    f(r) = f_e e^(−β(x−1)) / (1 + (x − λ)²⁰)
    F(ρ) = Σ F_ni (ρ/ρ_n − 1)ⁱ, i = 0 … 3       ρ < ρ_n = 0.85 ρ_e
           Σ F_i (ρ/ρ_e − 1)ⁱ, i = 0 … 3        ρ_n ≤ ρ < ρ_o = 1.15 ρ_e
           F_e (1 − η ln(ρ/ρ_s)) (ρ/ρ_s)^η      ρ_o ≤ ρ

and unlike atoms φ_ab = ½ (f_b/f_a φ_aa + f_a/f_b φ_bb). The density of an atom is the same at
atoms of every element. The parameters were fitted to the pure metals only: the alloy comes from
the mixing rule, so for Cu-Zr glasses a potential fitted to them is the better choice.

The paper gives no cutoff. Here φ and f of an element are multiplied by 1 − 10y³ + 15y⁴ − 6y⁵,
which falls from 1 to 0 with two continuous derivatives as x goes from 2.05 to 2.35; the unlike
pair by that of the larger atom. It begins where a pair's energy is below 2 meV and ends where that
would be below 1e-5 eV; the energies of the two crystals change by 1e-5 (Cu) and 2e-4 eV (Zr).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mgsym.data_tools.simulation.eam import EAM, tabulated
from mgsym.elements import MASS

NAME = "Zhou-Johnson-Wadley 2004 (analytic)"
FADE, END = 2.05, 2.35  # in units of r_e: where functions begin to be brought to zero, and are
BINS = 5000  # of each table
DENSEST = 250.0  # about the density that one atom gives another at no distance, twice over


@dataclass(frozen=True)
class Element:
    """The parameters of one element, named as in the paper's table III.

    Attributes:
        r_e: Å.
        a, b: eV; and so are all `f_n`, `f_` and `f_at_e`.
        f_n: F_n0 … F_n3.
        f_: F_0 … F_3.
        f_at_e: F_e.
    """

    r_e: float
    f_e: float
    rho_e: float
    rho_s: float
    alpha: float
    beta: float
    a: float
    b: float
    kappa: float
    lambda_: float
    f_n: tuple[float, float, float, float]
    f_: tuple[float, float, float, float]
    eta: float
    f_at_e: float


# fmt: off
ELEMENTS = {
    "Cu": Element(
        2.556162, 1.554485, 21.175871, 21.175395, 8.127620, 4.334731, 0.396620, 0.548085,
        0.308782, 0.756515, (-2.170269, -0.263788, 1.088878, -0.817603),
        (-2.19, 0.0, 0.561830, -2.100595), 0.310490, -2.186568,
    ),
    "Zr": Element(
        3.199978, 2.230909, 30.879991, 30.879991, 8.559190, 4.564902, 0.424667, 0.640054,
        0.5, 1.0, (-4.485793, -0.293129, 0.990148, -3.202516),
        (-4.51, 0.0, 0.928602, -0.981870), 0.597133, -4.509025,
    ),
}
# fmt: on


def zhou_cu_zr() -> EAM:
    """The potential of Cu and Zr, tabulated finely enough to be that of the equations."""
    species = tuple(ELEMENTS)
    cutoff = END * max(element.r_e for element in ELEMENTS.values())
    r = torch.linspace(0.0, cutoff, BINS + 1, dtype=torch.float64)
    rho = torch.linspace(0.0, DENSEST, BINS + 1, dtype=torch.float64)
    pair = torch.stack([torch.stack([r * phi(r, a, b) for b in species]) for a in species])
    density = torch.stack([f(r, a) for a in species])[:, None].expand(-1, len(species), -1)
    embedding = torch.stack([embedded(rho, a) for a in species])
    masses = tuple(MASS[symbol] for symbol in species)
    spacings = cutoff / BINS, DENSEST / BINS
    return tabulated(species, masses, cutoff, *spacings, pair, density, embedding, NAME)


def phi(r: Tensor, a: str, b: str) -> Tensor:
    """The pair energy of elements a and b at distances r in Å, eV."""
    if a == b:
        return _pair(r, ELEMENTS[a]) * fade(r, a)
    a, b = sorted((a, b))  # so that rounding is the same for both orders
    # the ratio of the densities as they are before they fade
    ratio = _density(r, ELEMENTS[b]) / _density(r, ELEMENTS[a])
    mixed = 0.5 * (ratio * _pair(r, ELEMENTS[a]) + _pair(r, ELEMENTS[b]) / ratio)
    return mixed * fade(r, max(a, b, key=lambda symbol: ELEMENTS[symbol].r_e))


def f(r: Tensor, a: str) -> Tensor:
    """The density that an atom of element a gives at distances r in Å."""
    return _density(r, ELEMENTS[a]) * fade(r, a)


def embedded(rho: Tensor, a: str) -> Tensor:
    """The energy of an atom of element a in densities ρ, eV."""
    element = ELEMENTS[a]
    low = _cubic(rho / (0.85 * element.rho_e) - 1.0, element.f_n)
    middle = _cubic(rho / element.rho_e - 1.0, element.f_)
    power = (rho / element.rho_s).clamp(min=1e-3) ** element.eta
    high = element.f_at_e * (1.0 - power.log()) * power
    dense = torch.where(rho < 1.15 * element.rho_e, middle, high)
    return torch.where(rho < 0.85 * element.rho_e, low, dense)


def fade(r: Tensor, a: str) -> Tensor:
    """What brings the functions of element a to zero: 1 up to 2.05 r_e, 0 from 2.35 r_e on."""
    y = ((r / ELEMENTS[a].r_e - FADE) / (END - FADE)).clamp(0.0, 1.0)
    return 1.0 - y**3 * (10.0 - y * (15.0 - 6.0 * y))


def _pair(r: Tensor, element: Element) -> Tensor:
    x = r / element.r_e
    repulsion = (
        element.a * torch.exp(-element.alpha * (x - 1.0)) / (1.0 + (x - element.kappa) ** 20)
    )
    attraction = element.b * torch.exp(-element.beta * (x - 1.0)) / _soft(x, element)
    return repulsion - attraction


def _density(r: Tensor, element: Element) -> Tensor:
    x = r / element.r_e
    return element.f_e * torch.exp(-element.beta * (x - 1.0)) / _soft(x, element)


def _soft(x: Tensor, element: Element) -> Tensor:
    return 1.0 + (x - element.lambda_) ** 20


def _cubic(x: Tensor, coefficients: tuple[float, float, float, float]) -> Tensor:
    c0, c1, c2, c3 = coefficients
    return c0 + x * (c1 + x * (c2 + x * c3))
