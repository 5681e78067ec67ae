"""EAM at its limits: lone atoms, cutoffs, atoms that touch, data that are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from mgsym.data_tools.simulation.potentials.eam import EAM, tabulated
from mgsym.data_tools.simulation.potentials.eam_forces import EAMForces, evaluate_structures
from mgsym.data_tools.simulation.potentials.files import read_potential
from mgsym.data_tools.simulation.potentials.splines import evaluate, locate
from mgsym.data_tools.simulation.potentials.zhou_johnson_wadley import zhou_cu_zr
from mgsym.errors import InputError, UsageError
from mgsym.structure import Structure

REFERENCE = Path(__file__).resolve().parents[3] / "reference"


def cluster(positions: Sequence[Sequence[float]], species: str = "Zr") -> Structure:
    """Atoms of one element in empty space."""
    at = torch.tensor(positions, dtype=torch.float64)
    types = torch.zeros(len(at), dtype=torch.int64)
    cell = 30.0 * torch.eye(3, dtype=torch.float64)
    return Structure(at, cell, types, (species,), periodic=(False, False, False))


def test_an_isolated_atom_has_the_energy_of_no_density() -> None:
    potential = zhou_cu_zr()
    found = evaluate_structures(potential, cluster([[1.0, 2.0, 3.0]]))
    assert float(found.energy) == float(potential.embedding[1, 0, 0])
    assert torch.count_nonzero(found.forces) == 0
    assert torch.count_nonzero(found.stress) == 0


def test_two_atoms_feel_each_other_up_to_the_cutoff() -> None:
    potential = zhou_cu_zr()
    alone = 2 * evaluate_structures(potential, cluster([[0, 0, 0]])).energy
    inside, beyond = (
        evaluate_structures(potential, cluster([[0, 0, 0], [r, 0, 0]]))
        for r in (0.97 * potential.cutoff, 7.53)
    )
    assert float((inside.energy - alone).abs()) > 1e-9
    assert float(beyond.energy) == float(alone)
    assert torch.count_nonzero(beyond.forces) == 0


def test_nothing_acts_beyond_the_cutoff_where_the_table_goes_on() -> None:
    potential = read_potential(REFERENCE / "asymmetric.eam.fs.gz")
    near, far = (cluster([[0, 0, 0], [r, 0, 0]]) for r in (5.2999, 5.3001))
    positions = torch.cat([near.positions, far.positions])
    cell = torch.stack([near.cell, far.cell])
    for skin in (0.0, 1.0):
        field = EAMForces(potential, [near, far], skin=skin, compile=False)
        forces = field(positions, cell).forces
        assert float(forces[0, 0].abs()) > 1e-7
        assert torch.count_nonzero(forces[2:]) == 0


def test_a_table_that_ends_before_the_cutoff_keeps_its_last_value() -> None:
    r = torch.arange(21, dtype=torch.float64) * 0.1
    pair, density = (r * (3.0 - r)).expand(1, 1, -1), (3.0 - r).expand(1, 1, -1)
    potential = tabulated(
        ("Cu",), (63.5,), 2.5, 0.1, 0.5, pair, density, torch.arange(9).double()[None]
    )
    assert float(potential.reach) == 2.5
    # F = 2ρ with ρ = 1 and r·φ = 2
    found = evaluate_structures(potential, cluster([[0, 0, 0], [2.2, 0, 0]], "Cu"))
    assert found.atom_energy.tolist() == pytest.approx([2.0 + 1.0 / 2.2] * 2)
    assert (
        float(evaluate_structures(potential, cluster([[0, 0, 0], [2.6, 0, 0]], "Cu")).energy) == 0.0
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("far", [1e4, 5e6, 1e9, 1e12])
def test_energies_do_not_depend_on_where_atoms_are(far: float, dtype: torch.dtype) -> None:
    """Not even where lists keep a site that fills them up, nor further than an int32 counts."""
    pair = torch.tensor([[1.0, 0, 0], [3.5, 0, 0]], dtype=torch.float64)
    here = cluster(pair.tolist())
    if dtype is torch.float64:
        there = cluster((pair + torch.tensor([far, far, far])).tolist())
    else:  # which holds no such coordinates: another atom is far away
        there = cluster([*pair.tolist(), [far, far, far]])
    found = [
        EAMForces(zhou_cu_zr(), [one], compile=False, dtype=dtype)(one.positions, one.cell[None])
        for one in (here, there)
    ]
    energies, forces = ([getattr(f, name)[:2] for f in found] for name in ("atom_energy", "forces"))
    assert torch.allclose(*energies, rtol=1e-4 if far > 1e9 else 1e-6)
    assert torch.allclose(*forces, rtol=1e-2 if far > 1e9 else 1e-6)
    assert float(forces[0].abs().max()) > 0.01


@pytest.mark.parametrize("distance", [1e-9, 1e-3, 0.1])
def test_atoms_that_nearly_touch_stay_finite(distance: float) -> None:
    found = evaluate_structures(zhou_cu_zr(), cluster([[0, 0, 0], [distance, 0, 0]]))
    assert all(bool(torch.isfinite(value).all()) for value in found)
    assert float(found.energy) > 100.0


def test_reach_says_where_the_tables_end(mendelev: Path) -> None:
    potential = read_potential(mendelev)
    expected = torch.tensor([[6.0, 7.6], [7.6, 7.6]], dtype=torch.float64)
    # a spline's slope feels two knots further than its values
    assert torch.all((potential.reach - expected).abs() < 3 * potential.spacing)
    densities = torch.tensor([[6.0, 6.0], [6.0, 5.6]], dtype=torch.float64)
    assert torch.all((potential.density_reach - densities).abs() < 4 * potential.spacing)
    r = torch.linspace(2.0, 7.6, 5000, dtype=torch.float64)
    index, t = locate(r, potential.spacing, potential.pair.shape[-2])
    for a, b in ((0, 0), (0, 1), (1, 1)):
        past = r > potential.density_reach[a, b]
        value, slope = evaluate(potential.density[a, b, index], t, potential.spacing)
        assert torch.count_nonzero(value[past]) == torch.count_nonzero(slope[past]) == 0


# --- requests and data that are wrong --------------------------------------------------------


def test_an_element_without_tables_is_named() -> None:
    structure = cluster([[0, 0, 0], [3, 0, 0]], "Cu").replace(
        types=torch.tensor([0, 1]), species=("Cu", "Ni"), name="alloy"
    )
    with pytest.raises(InputError, match=r"alloy has Ni, .*Zhou.* \(it has Cu, Zr\)"):
        evaluate_structures(zhou_cu_zr(), structure)
    # an element that the structure knows but has no atom of asks for nothing
    without = structure.replace(types=torch.zeros_like(structure.types))
    assert zhou_cu_zr().types_of(without).tolist() == [0, 0]


def test_nothing_to_evaluate_is_refused() -> None:
    with pytest.raises(UsageError, match="no structures"):
        evaluate_structures(zhou_cu_zr(), [])


def test_tables_are_checked() -> None:
    r = torch.linspace(0.0, 1.0, 9, dtype=torch.float64)
    pair = (1.0 - r).expand(2, 2, -1)
    good = (("Cu", "Zr"), (63.5, 91.2), 0.8, 0.1, 0.1, pair, pair, r.expand(2, -1))

    def with_(place: int, value: object) -> EAM:
        return tabulated(*good[:place], value, *good[place + 1 :])  # type: ignore[arg-type]

    assert with_(7, r.expand(2, -1)).cutoff == 0.8
    uneven = pair.clone()
    uneven[0, 1, 3] = 7.0
    for place, value, message in (
        (0, (), "no elements"),
        (0, ("Cu", "Cu"), "Cu is named twice"),
        (0, ("Cu", "Xx"), "'Xx' is not an element"),
        (1, (63.5,), "1 masses for 2 species"),
        (1, (63.5, 0.0), "mass of Zr is 0"),
        (2, 0.0, "cutoff is 0"),
        (3, -1.0, "spacing is -1"),
        (4, float("nan"), "density_spacing is nan"),
        (5, uneven, "pair table differs"),
        (5, pair[..., :4], "pair table has 4 points"),
        (6, pair * float("nan"), "density table has NaN"),
        (6, pair[:1], "density is "),
        (7, r.expand(3, -1), "embedding is "),
    ):
        with pytest.raises(InputError, match=message):
            with_(place, value)
