"""The analytic EAM of Zhou, Johnson & Wadley for sixteen metals: a potential that needs no file.

Phys. Rev. B 69, 144113 (2004), eqs. (1)–(9) and table III. With x = r/r_e an element has::

    φ(r) = A e^(−α(x−1)) / (1 + (x − κ)²⁰) − B e^(−β(x−1)) / (1 + (x − λ)²⁰)
    f(r) = f_e e^(−β(x−1)) / (1 + (x − λ)²⁰)
    F(ρ) = Σ F_ni (ρ/ρ_n − 1)ⁱ, i = 0 … 3       ρ < ρ_n = 0.85 ρ_e
           Σ F_i (ρ/ρ_e − 1)ⁱ, i = 0 … 3        ρ_n ≤ ρ < ρ_o = 1.15 ρ_e
           F_e (1 − η ln(ρ/ρ_s)) (ρ/ρ_s)^η      ρ_o ≤ ρ

and unlike atoms φ_ab = ½ (f_b/f_a φ_aa + f_a/f_b φ_bb). The density of an atom is the same at
atoms of every element. The parameters were fitted to the pure metals only: the alloy comes from
the mixing rule, so for a glass a potential fitted to its alloy is the better choice. They are the
numbers that LAMMPS (tools/eam_database) and the NIST Interatomic Potentials Repository distribute;
for Pt these have ρ_n = 0.25 ρ_e, without which its pieces do not meet.

The paper gives no cutoff. Here φ and f of an element are multiplied by 1 − 10y³ + 15y⁴ − 6y⁵,
which falls from 1 to 0 with two continuous derivatives as x goes from 2.05 to 2.35; the unlike
pair by that of the larger atom. It begins where a pair's energy is below 2 meV and ends where that
would be below 1e-5 eV; the energies of the two crystals change by 1e-5 (Cu) and 2e-4 eV (Zr).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mgsym.data_tools.simulation.potentials.eam import (
    EAM,
    WHERE_POTENTIALS_ARE,
    check_species,
    tabulated,
)
from mgsym.errors import InputError
from mgsym.structure.elements import MASS

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
    low: float = 0.85  # ρ_n / ρ_e


# fmt: off
ELEMENTS = {
    "Cu": Element(
        2.556162, 1.554485, 21.175871, 21.175395, 8.12762, 4.334731, 0.39662, 0.548085,
        0.308782, 0.756515, (-2.170269, -0.263788, 1.088878, -0.817603),
        (-2.19, 0.0, 0.56183, -2.100595), 0.31049, -2.186568,
    ),
    "Ag": Element(
        2.891814, 1.106232, 14.6041, 14.604144, 9.13201, 4.870405, 0.277758, 0.419611,
        0.33971, 0.750758, (-1.729364, -0.255882, 0.91205, -0.561432),
        (-1.75, 0.0, 0.744561, -1.15065), 0.783924, -1.748423,
    ),
    "Au": Element(
        2.885034, 1.529021, 19.991632, 19.991509, 9.516052, 5.075228, 0.229762, 0.356666,
        0.35657, 0.748798, (-2.937772, -0.500288, 1.601954, -0.83553),
        (-2.98, 0.0, 1.706587, -1.134778), 1.021095, -2.978815,
    ),
    "Ni": Element(
        2.488746, 2.007018, 27.562015, 27.562031, 8.383453, 4.471175, 0.429046, 0.633531,
        0.443599, 0.820658, (-2.693513, -0.076445, 0.241442, -2.375626),
        (-2.7, 0.0, 0.26539, -0.152856), 0.44547, -2.7,
    ),
    "Pd": Element(
        2.750897, 1.595417, 21.335246, 21.940073, 8.697397, 4.638612, 0.406763, 0.59888,
        0.397263, 0.754799, (-2.321006, -0.473983, 1.615343, -0.231681),
        (-2.36, 0.0, 1.481742, -1.675615), 1.13, -2.352753,
    ),
    "Pt": Element(
        2.771916, 2.336509, 33.367564, 35.205357, 7.105782, 3.78975, 0.556398, 0.696037,
        0.385255, 0.77051, (-1.455568, -2.149952, 0.528491, 1.222875),
        (-4.17, 0.0, 3.010561, -2.420128), 1.45, -4.145597, 0.25,
    ),
    "Al": Element(
        2.863924, 1.403115, 20.418205, 23.19574, 6.613165, 3.527021, 0.314873, 0.365551,
        0.379846, 0.759692, (-2.807602, -0.301435, 1.258562, -1.247604),
        (-2.83, 0.0, 0.622245, -2.488244), 0.785902, -2.824528,
    ),
    "Pb": Element(
        3.499723, 0.647872, 8.450154, 8.450063, 9.121799, 5.212457, 0.161219, 0.236884,
        0.250805, 0.764955, (-1.42237, -0.210107, 0.682886, -0.529378),
        (-1.44, 0.0, 0.702726, -0.538766), 0.93538, -1.439436,
    ),
    "Fe": Element(
        2.481987, 1.885957, 20.041463, 20.041463, 9.81827, 5.236411, 0.392811, 0.646243,
        0.170306, 0.340613, (-2.534992, -0.059605, 0.193065, -2.282322),
        (-2.54, 0.0, 0.200269, -0.14877), 0.39175, -2.539945,
    ),
    "Mo": Element(
        2.7281, 2.72371, 29.354065, 29.354065, 8.393531, 4.47655, 0.708787, 1.120373,
        0.13764, 0.27528, (-3.692913, -0.178812, 0.38045, -3.13365),
        (-3.71, 0.0, 0.875874, 0.776222), 0.790879, -3.712093,
    ),
    "Ta": Element(
        2.860082, 3.086341, 33.787168, 33.787168, 8.489528, 4.527748, 0.611679, 1.032101,
        0.176977, 0.353954, (-5.103845, -0.405524, 1.112997, -3.585325),
        (-5.14, 0.0, 1.640098, 0.221375), 0.848843, -5.141526,
    ),
    "W": Element(
        2.74084, 3.48734, 37.234847, 37.234847, 8.900114, 4.746728, 0.882435, 1.394592,
        0.139209, 0.278417, (-4.946281, -0.148818, 0.365057, -4.432406),
        (-4.96, 0.0, 0.661935, 0.348147), 0.582714, -4.961306,
    ),
    "Mg": Element(
        3.196291, 0.544323, 7.1326, 7.1326, 10.228708, 5.455311, 0.137518, 0.22593,
        0.5, 1.0, (-0.896473, -0.044291, 0.162232, -0.68995),
        (-0.9, 0.0, 0.122838, -0.22601), 0.431425, -0.899702,
    ),
    "Co": Element(
        2.505979, 1.975299, 27.206789, 27.206789, 8.679625, 4.629134, 0.421378, 0.640107,
        0.5, 1.0, (-2.541799, -0.219415, 0.733381, -1.589003),
        (-2.56, 0.0, 0.705845, -0.68714), 0.694608, -2.559307,
    ),
    "Ti": Element(
        2.933872, 1.8632, 25.565138, 25.565138, 8.775431, 4.68023, 0.373601, 0.570968,
        0.5, 1.0, (-3.203773, -0.198262, 0.683779, -2.321732),
        (-3.22, 0.0, 0.608587, -0.75071), 0.558572, -3.219176,
    ),
    "Zr": Element(
        3.199978, 2.230909, 30.879991, 30.879991, 8.55919, 4.564902, 0.424667, 0.640054,
        0.5, 1.0, (-4.485793, -0.293129, 0.990148, -3.202516),
        (-4.51, 0.0, 0.928602, -0.98187), 0.597133, -4.509025,
    ),
}
# fmt: on


def zhou_cu_zr() -> EAM:
    """The potential of Cu and Zr, tabulated finely enough to be that of the equations."""
    return zhou(("Cu", "Zr"))


def zhou(species: Sequence[str]) -> EAM:
    """The potential of some of the sixteen metals, tabulated as that of Cu and Zr is.

    Raises:
        InputError: an element is not among them, or there is none, or one comes twice.
    """
    check_species(species)
    lacking = [symbol for symbol in species if symbol not in ELEMENTS]
    if lacking:
        raise InputError(
            f"the analytic potential has no {', '.join(lacking)} (it has {', '.join(ELEMENTS)}): "
            f"{WHERE_POTENTIALS_ARE}"
        )
    cutoff = END * max(ELEMENTS[symbol].r_e for symbol in species)
    densest = max(DENSEST, *(2.0 * float(f(torch.zeros(1).double(), a)) for a in species))
    points = round(BINS * densest / DENSEST)
    r = torch.linspace(0.0, cutoff, BINS + 1, dtype=torch.float64)
    rho = torch.linspace(0.0, densest, points + 1, dtype=torch.float64)
    pair = torch.stack([torch.stack([r * phi(r, a, b) for b in species]) for a in species])
    density = torch.stack([f(r, a) for a in species])[:, None].expand(-1, len(species), -1)
    embedding = torch.stack([embedded(rho, a) for a in species])
    masses = tuple(MASS[symbol] for symbol in species)
    spacings = cutoff / BINS, densest / points
    name = NAME if set(species) == {"Cu", "Zr"} else f"{NAME} of {', '.join(species)}"
    return tabulated(tuple(species), masses, cutoff, *spacings, pair, density, embedding, name)


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
    low = _cubic(rho / (element.low * element.rho_e) - 1.0, element.f_n)
    middle = _cubic(rho / element.rho_e - 1.0, element.f_)
    power = (rho / element.rho_s).clamp(min=1e-3) ** element.eta
    high = element.f_at_e * (1.0 - power.log()) * power
    dense = torch.where(rho < 1.15 * element.rho_e, middle, high)
    return torch.where(rho < element.low * element.rho_e, low, dense)


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
