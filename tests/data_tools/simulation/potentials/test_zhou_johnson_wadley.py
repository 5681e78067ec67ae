"""The analytic Cu-Zr potential: published crystals, equations, and its tables."""

from __future__ import annotations

import math

import pytest
import torch

from mgsym.data_tools.simulation.potentials.eam_forces import evaluate_structures
from mgsym.data_tools.simulation.potentials.splines import evaluate, locate
from mgsym.data_tools.simulation.potentials.zhou_johnson_wadley import (
    ELEMENTS,
    END,
    FADE,
    embedded,
    f,
    phi,
    zhou,
    zhou_cu_zr,
)
from mgsym.errors import InputError
from mgsym.structure import Structure


def fcc(a: float, species: str = "Cu") -> Structure:
    """The primitive cell of face-centred cubic."""
    cell = a / 2 * torch.tensor([[0, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=torch.float64)
    return Structure(torch.zeros(1, 3), cell, torch.zeros(1), (species,))


def hcp(a: float, c: float, species: str = "Zr") -> Structure:
    """Two atoms in the hexagonal cell."""
    cell = torch.tensor([[a, 0, 0], [-a / 2, a * 3**0.5 / 2, 0], [0, 0, c]], dtype=torch.float64)
    at = torch.tensor([[0, 0, 0], [1 / 3, 2 / 3, 0.5]], dtype=torch.float64) @ cell
    return Structure(at, cell, torch.zeros(2), (species,))


def test_copper_is_the_published_crystal() -> None:
    found = evaluate_structures(zhou_cu_zr(), fcc(3.615))
    assert float(found.energy) == pytest.approx(-3.54, abs=1e-4)
    # at its minimum, so without pressure: within 0.001 Å of the lattice constant
    assert float(found.stress.diagonal().sum()) / 3 == pytest.approx(0.0, abs=1e-4)
    pressures = [
        float(evaluate_structures(zhou_cu_zr(), fcc(a)).stress.trace()) for a in (3.614, 3.616)
    ]
    assert pressures[0] < 0 < pressures[1]


def test_zirconium_is_the_published_crystal() -> None:
    # the paper fits an ideal c/a
    found = evaluate_structures(zhou_cu_zr(), hcp(3.2, 3.2 * math.sqrt(8 / 3)))
    assert float(found.energy) / 2 == pytest.approx(-6.36, abs=1e-3)
    assert float(found.stress.trace()) / 3 == pytest.approx(0.0, abs=2e-4)
    assert float(found.stress.diagonal().abs().max()) < 4e-3
    assert torch.allclose(found.forces, torch.zeros_like(found.forces), atol=1e-12)


def test_equilibrium_densities_are_rho_e() -> None:
    a = ELEMENTS["Zr"].r_e
    crystals = {"Cu": fcc(math.sqrt(2) * ELEMENTS["Cu"].r_e), "Zr": hcp(a, a * math.sqrt(8 / 3))}
    for symbol, structure in crystals.items():
        density = f(distances(structure), symbol).sum()
        assert float(density) == pytest.approx(ELEMENTS[symbol].rho_e, rel=1e-4)


def distances(structure: Structure) -> torch.Tensor:
    """From the first atom to all others nearby, Å."""
    steps = torch.cartesian_prod(*[torch.arange(-6.0, 7.0, dtype=torch.float64)] * 3)
    images = structure.positions[:, None] - structure.positions[0] + steps @ structure.cell
    lengths = images.norm(dim=-1).flatten()
    return lengths[lengths > 0]


@pytest.mark.parametrize("symbol", ["Cu", "Zr"])
def test_the_pieces_of_the_embedding_energy_fit_together(symbol: str) -> None:
    element = ELEMENTS[symbol]
    for seam in (0.85 * element.rho_e, 1.15 * element.rho_e):
        rho = torch.tensor([seam * (1 - 1e-9), seam], dtype=torch.float64, requires_grad=True)
        energy = embedded(rho, symbol)
        (slope,) = torch.autograd.grad(energy.sum(), rho)
        # as well as six published digits allow
        assert float((energy[1] - energy[0]).detach().abs()) < 1e-6
        assert float((slope[1] - slope[0]).abs()) < 1e-5
    assert float(embedded(torch.zeros(1), symbol)) == pytest.approx(0.0, abs=1e-6)


def test_unlike_atoms_follow_the_mixing_rule() -> None:
    r = torch.linspace(2.0, 0.99 * FADE * ELEMENTS["Cu"].r_e, 50, dtype=torch.float64)
    copper, zirconium = f(r, "Cu"), f(r, "Zr")
    mixed = 0.5 * (
        zirconium / copper * phi(r, "Cu", "Cu") + copper / zirconium * phi(r, "Zr", "Zr")
    )
    assert torch.allclose(phi(r, "Cu", "Zr"), mixed, rtol=1e-13)
    assert torch.equal(phi(r, "Zr", "Cu"), phi(r, "Cu", "Zr"))


@pytest.mark.parametrize(("a", "b"), [("Cu", "Cu"), ("Cu", "Zr"), ("Zr", "Zr")])
def test_functions_end_smoothly(a: str, b: str) -> None:
    r_e = max(ELEMENTS[a].r_e, ELEMENTS[b].r_e)
    r = torch.tensor([FADE * r_e, END * r_e], dtype=torch.float64)
    assert torch.count_nonzero(phi(r[1:], a, b)) == torch.count_nonzero(f(r[1:], b)) == 0
    for place in r:
        sides = []
        for side in (-1e-7, 1e-7):
            x = (place + side).requires_grad_()
            (slope,) = torch.autograd.grad(phi(x, a, b), x, create_graph=True)
            (curvature,) = torch.autograd.grad(slope, x)
            sides.append((float(slope.detach()), float(curvature)))
        assert sides[0] == pytest.approx(sides[1], abs=1e-6)


def test_the_tables_are_the_equations() -> None:
    potential = zhou_cu_zr()
    r = torch.linspace(1.5, potential.cutoff, 20_001, dtype=torch.float64).requires_grad_()
    index, t = locate(r.detach(), potential.spacing, potential.pair.shape[-2])
    for i, a in enumerate(potential.species):
        for j, b in enumerate(potential.species):
            scaled = r * phi(r, a, b)
            (expected,) = torch.autograd.grad(scaled.sum(), r)
            value, slope = evaluate(potential.pair[i, j, index], t, potential.spacing)
            given, _ = evaluate(potential.density[i, j, index], t, potential.spacing)
            with torch.no_grad():
                assert float((value - scaled).abs().max()) < 1e-10
                assert float((slope - expected).abs().max()) < 1e-7
                assert float((given - f(r, a)).abs().max()) < 1e-10
    rho = torch.linspace(0.5, 240.0, 20_001, dtype=torch.float64)
    index, t = locate(rho, potential.density_spacing, potential.embedding.shape[-2])
    for i, a in enumerate(potential.species):
        value, _ = evaluate(potential.embedding[i, index], t, potential.density_spacing)
        assert float((value - embedded(rho, a)).abs().max()) < 1e-6  # at the seams


def test_copper_reaches_less_far() -> None:
    potential = zhou_cu_zr()
    copper, zirconium = (END * ELEMENTS[symbol].r_e for symbol in ("Cu", "Zr"))
    assert potential.cutoff == zirconium
    expected = torch.tensor([[copper, zirconium], [zirconium, zirconium]], dtype=torch.float64)
    assert torch.all((potential.reach - expected).abs() < 4 * potential.spacing)
    given = torch.tensor([[copper, copper], [zirconium, zirconium]], dtype=torch.float64)
    assert torch.all((potential.density_reach - given).abs() < 4 * potential.spacing)


@pytest.mark.parametrize("symbol", ELEMENTS)
def test_every_metal_is_whole(symbol: str) -> None:
    element = ELEMENTS[symbol]
    for seam in (element.low * element.rho_e, 1.15 * element.rho_e):
        rho = torch.tensor([seam * (1 - 1e-9), seam], dtype=torch.float64, requires_grad=True)
        energy = embedded(rho, symbol)
        (slope,) = torch.autograd.grad(energy.sum(), rho)
        # a digit wrong in any of the parameters opens a gap here
        assert float((energy[1] - energy[0]).detach().abs()) < 1e-6
        assert float((slope[1] - slope[0]).abs()) < 1e-5
    alone = float(embedded(torch.zeros(1, dtype=torch.float64), symbol))
    assert alone == pytest.approx(0.0, abs=1.1e-6)  # six published digits


def test_the_order_of_elements_changes_nothing() -> None:
    cell = 4.3 * torch.eye(3).double()
    sites = torch.tensor([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.1, 0.0]]).double() @ cell
    mixed = Structure(sites, cell, torch.tensor([0, 1, 2]), ("Al", "Cu", "Zr"))
    one, other = (
        evaluate_structures(zhou(order), mixed)
        for order in (("Zr", "Cu", "Al"), ("Al", "Zr", "Cu"))
    )
    assert torch.allclose(one.forces, other.forces, atol=1e-12)
    # Cu-Zr alone is tabulated on other knots only
    pure = Structure(sites[:2], cell, torch.tensor([0, 1]), ("Cu", "Zr"))
    wide = evaluate_structures(zhou(("Zr", "Cu", "Al", "Pb")), pure)
    plain = evaluate_structures(zhou_cu_zr(), pure)
    assert float(wide.energy) == pytest.approx(float(plain.energy), abs=1e-7)


@pytest.mark.parametrize(
    ("species", "told"),
    [(("Cu", "Sn"), "has no Sn"), ((), "no elements"), (("Cu", "Cu"), "named twice")],
)
def test_what_it_cannot_be_is_told(species: tuple[str, ...], told: str) -> None:
    with pytest.raises(InputError, match=told):
        zhou(species)
