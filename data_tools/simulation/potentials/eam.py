"""The embedded-atom method: E = Σᵢ F(ρᵢ) + ½ Σᵢⱼ φ(rᵢⱼ), ρᵢ = Σⱼ f(rᵢⱼ).

Daw & Baskes, Phys. Rev. B 29, 6443 (1984); Finnis & Sinclair, Philos. Mag. A 50, 45 (1984).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import torch
from torch import Tensor

from mgsym.data_tools.simulation.potentials.splines import spline_coefficients
from mgsym.errors import InputError
from mgsym.structure import Structure
from mgsym.structure.elements import ATOMIC_NUMBER

FEWEST_POINTS = 5  # that a spline's slopes need
WHERE_POTENTIALS_ARE = (
    "give a potential of all its elements with --potential FILE (LAMMPS' eam/alloy or eam/fs), as "
    "published by the NIST Interatomic Potentials Repository (ctcms.nist.gov/potentials) and "
    "OpenKIM (openkim.org)"
)


@dataclass(frozen=True, eq=False)
class EAM:
    """A tabulated potential of one or more elements, as cubic splines (see `spline`).

    Energies, forces and stresses of structures: `eam_forces.evaluate_structures`.

    Attributes:
        species: element symbols; the first axes of the tables follow them.
        masses: amu, one per species.
        cutoff: Å, the largest distance at which atoms interact.
        spacing: Å, of the radial tables.
        density_spacing: of the embedding tables.
        pair: [s, s, bins, 4], cubics of r·φ(r), eV Å, symmetric in the species.
        density: [s, s, bins, 4], cubics of the density that an atom of the first species gives
            at an atom of the second.
        embedding: [s, bins, 4], cubics of F(ρ), eV.
        name: for messages and records.

    As in LAMMPS, a radial table that ends before the cutoff keeps its last value up to there, one
    that goes beyond is cut off, and F goes on as a straight line beyond its table.

    Raises:
        InputError: species, masses, sizes or shapes are wrong; the message says which.
    """

    species: tuple[str, ...]
    masses: tuple[float, ...]
    cutoff: float
    spacing: float
    density_spacing: float
    pair: Tensor
    density: Tensor
    embedding: Tensor
    name: str = ""

    def __post_init__(self) -> None:
        check_species(self.species)
        for size in ("cutoff", "spacing", "density_spacing"):
            check_positive(getattr(self, size), size)
        if len(self.masses) != len(self.species):
            raise InputError(f"{len(self.masses)} masses for {len(self.species)} species")
        for symbol, mass in zip(self.species, self.masses, strict=True):
            check_positive(mass, f"mass of {symbol}")
        s, bins = len(self.species), self.pair.shape[-2]
        for name, shape in (("pair", (s, s, bins, 4)), ("density", (s, s, bins, 4))):
            if getattr(self, name).shape != shape:
                actual = list(getattr(self, name).shape)
                raise InputError(f"{name} is {actual}, expected {list(shape)} for {s} species")
        if self.embedding.shape != (s, self.embedding.shape[-2], 4):
            raise InputError(f"embedding is {list(self.embedding.shape)}, expected [{s}, bins, 4]")

    def types_of(self, structure: Structure) -> Tensor:
        """The index of each atom's element among `species`, [n] int64.

        Raises:
            InputError: the structure has an element that the potential lacks.
        """
        index = {symbol: i for i, symbol in enumerate(self.species)}
        lacking = [s for s, n in structure.composition.items() if n and s not in index]
        if lacking:
            raise InputError(
                f"{structure.name or 'the structure'} has {', '.join(lacking)}, for which the "
                f"potential {self.name} has no tables (it has {', '.join(self.species)}): "
                f"{WHERE_POTENTIALS_ARE}"
            )
        return torch.tensor([index.get(s, 0) for s in structure.species])[structure.types]

    @cached_property
    def reach(self) -> Tensor:
        """[s, s] float64, Å: from here on a pair's φ and both densities are exactly zero."""
        density = self.density_reach
        return torch.maximum(self._end(self.pair), torch.maximum(density, density.T))

    @cached_property
    def density_reach(self) -> Tensor:
        """[s, s] float64, Å: from here on the first species gives the second no density."""
        return self._end(self.density)

    def _end(self, cubics: Tensor) -> Tensor:
        order = torch.arange(1, cubics.shape[-2] + 1, device=cubics.device)
        filled = ((cubics != 0).any(dim=-1) * order).amax(dim=-1)
        end = (filled * self.spacing).to(torch.float64).clamp(max=self.cutoff)
        # beyond the table its last value holds
        return torch.where(knots(cubics)[..., -1] != 0, self.cutoff, end)


def tabulated(
    species: tuple[str, ...],
    masses: tuple[float, ...],
    cutoff: float,
    spacing: float,
    density_spacing: float,
    pair: Tensor,
    density: Tensor,
    embedding: Tensor,
    name: str = "",
) -> EAM:
    """A potential from its tables.

    Args:
        pair: [s, s, nr] float64, r·φ(r) in eV Å at r = 0, spacing, ...
        density: [s, s, nr], what the first species gives at the second.
        embedding: [s, nrho], eV.

    Raises:
        InputError: a table has fewer than five points or a value that is not finite, the pair
            table is not symmetric, or `EAM` objects.
    """
    for kind, table in (("pair", pair), ("density", density), ("embedding", embedding)):
        if table.shape[-1] < FEWEST_POINTS:
            raise InputError(
                f"the {kind} table has {table.shape[-1]} points, expected at least {FEWEST_POINTS}"
            )
        if not torch.isfinite(table).all():
            raise InputError(f"the {kind} table has NaN or infinite values: write it again")
    if not torch.equal(pair, pair.transpose(0, 1)):
        raise InputError("the pair table differs between (a, b) and (b, a): make it symmetric")
    return EAM(
        species,
        masses,
        cutoff,
        spacing,
        density_spacing,
        spline_coefficients(pair).contiguous(),
        spline_coefficients(density).contiguous(),
        spline_coefficients(embedding).contiguous(),
        name,
    )


def knots(cubics: Tensor) -> Tensor:
    """The tables [..., n] that cubics [..., n − 1, 4] were made of."""
    return torch.cat((cubics[..., 0], cubics[..., -1:, :].sum(dim=-1)), dim=-1)


def check_species(species: Sequence[str]) -> None:
    """Refuse an empty list, what is no element symbol, and an element named twice."""
    if not species:
        raise InputError("the potential has no elements, expected at least one")
    for symbol in species:
        if symbol not in ATOMIC_NUMBER:
            raise InputError(f"{symbol!r} is not an element symbol such as Cu or Zr")
        if list(species).count(symbol) > 1:
            raise InputError(f"element {symbol} is named twice: name each element once")


def check_positive(value: float, name: str) -> None:
    """Refuse a size that is zero, negative or not finite."""
    if not 0 < value < float("inf"):
        raise InputError(f"the {name} is {value:g}, expected a number above 0")


def potential_hash(potential: EAM) -> str:
    """Hash a potential's tables to seven digits, by SHA-256.

    Exponentials differ in the last bits between processors, which would keep the shards of one
    run on different machines from being merged.
    """
    about = (potential.species, potential.masses, potential.cutoff)
    digest = sha256(repr(about).encode())
    digest.update(repr((potential.spacing, potential.density_spacing)).encode())
    for table in (potential.pair, potential.density, potential.embedding):
        values = table[..., 0].to("cpu", torch.float32).contiguous()  # at the knots
        digest.update(repr(tuple(values.shape)).encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()
