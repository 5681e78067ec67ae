"""Any potential that ASE knows, through a calculator that the user names.

``ase:package.module:factory`` is a calculator class, or a function without arguments that returns
a calculator. Loading it runs code that the user points at: only commands do so, never a file.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mgsym.data_tools.simulation.potentials.force_field import Forces
from mgsym.errors import InputError, UsageError
from mgsym.structure import Structure
from mgsym.structure.elements import MASS, SYMBOLS

PREFIX = "ase:"


class ASEPotential:
    """A calculator in the place of an `EAM`.

    Which elements it knows shows when it is asked, so it is taken to know all.

    Args:
        spec: ``package.module:factory``.

    Attributes:
        name: for messages and records.
        species, masses: of all elements, amu.
        cutoff: Å, over which the energy of an atom depends on other atoms: the calculator's number
            ``cutoff``. None where it declares none: forces then come from the whole structure.
        calculator: of ASE.

    Raises:
        UsageError: ASE is not installed, or the spec is none.
        InputError: there is no such module or factory, or it does not make a calculator.
    """

    species, masses = SYMBOLS, tuple(MASS[symbol] for symbol in SYMBOLS)

    def __init__(self, spec: str) -> None:
        self.spec = spec
        self.name = f"{PREFIX}{spec}"
        self.calculator = _make(spec)
        cutoff = getattr(self.calculator, "cutoff", None)
        declared = isinstance(cutoff, (int, float)) and not isinstance(cutoff, bool) and cutoff > 0
        self.cutoff = float(cutoff) if declared and cutoff is not None else None

    def __reduce__(self) -> tuple[type[ASEPotential], tuple[str]]:
        return ASEPotential, (self.spec,)  # processes each make their own

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what can be known of it: its spec, class and parameters."""
        kind = type(self.calculator)
        identity = (self.spec, kind.__module__, kind.__qualname__)
        parameters = sorted((k, repr(v)) for k, v in dict(self.calculator.parameters).items())
        return sha256(repr((identity, self.cutoff, parameters)).encode()).hexdigest()

    def computes(self, quantity: str) -> bool:
        """Whether it has a property of ASE's, such as ``stress``."""
        return quantity in self.calculator.implemented_properties

    def types_of(self, structure: Structure) -> Tensor:
        """The index of each atom's element among `species`, [n] int64."""
        return torch.tensor([SYMBOLS.index(s) for s in structure.species])[structure.types]

    def atoms(self, symbols: Sequence[str], cell: NDArray[np.float64], periodic: Any) -> Any:
        """ASE's atoms with this calculator; positions come later."""
        from ase import Atoms

        return Atoms(list(symbols), cell=cell, pbc=periodic, calculator=self.calculator)

    def evaluate(self, atoms: Any) -> tuple[float, NDArray[np.float64]]:
        """Energy (eV) and forces [n, 3] (eV/Å).

        Raises:
            InputError: the calculator fails, for instance at an element that it does not know.
        """
        try:
            energy = atoms.get_potential_energy(force_consistent=self.computes("free_energy"))
            return float(energy), np.asarray(atoms.get_forces(), dtype=np.float64)
        except Exception as error:
            raise InputError(
                f"{self.name} cannot compute {atoms.get_chemical_formula()}: "
                f"{type(error).__name__}: {error}"
            ) from error


class ASEForces:
    """The force field of a batch of systems with a calculator, one system after the other.

    Args:
        potential: what computes.
        structures: whose elements and periodicity count.
        device: of what is returned; the calculator has its own.

    Attributes:
        system, masses: as of `EAMForces`.
    """

    def __init__(
        self,
        potential: ASEPotential,
        structures: Sequence[Structure],
        device: str | torch.device = "cpu",
    ) -> None:
        self.potential, self.device = potential, torch.device(device)
        self._sizes = [len(structure) for structure in structures]
        self.system = torch.repeat_interleave(torch.tensor(self._sizes)).to(device)
        types = torch.cat([potential.types_of(structure) for structure in structures])
        self.masses = torch.tensor(potential.masses, dtype=torch.float64)[types].to(device)
        self._atoms = [potential.atoms(s.symbols, s.cell.numpy(), s.periodic) for s in structures]

    def __call__(self, positions: Tensor, cell: Tensor) -> Forces:
        """Energies, forces and stresses at positions [n, 3] in cells [b, 3, 3], Å.

        Stresses, or energies of atoms, that the calculator does not compute are NaN.
        """
        parts = positions.detach().cpu().double().split(self._sizes)
        results = [
            self._one(*each)
            for each in zip(self._atoms, parts, cell.detach().cpu().double(), strict=True)
        ]
        energy, forces, stress, each = zip(*results, strict=True)
        values = (
            torch.tensor(energy, dtype=torch.float64), torch.cat(forces),
            torch.stack(stress), torch.cat(each),
        )  # fmt: skip
        return Forces(*(value.to(self.device) for value in values))

    def _one(self, atoms: Any, at: Tensor, cell: Tensor) -> tuple[float, Tensor, Tensor, Tensor]:
        atoms.set_cell(cell.numpy())
        atoms.set_positions(at.numpy())
        energy, forces = self.potential.evaluate(atoms)
        stress, each = torch.full((3, 3), torch.nan), torch.full((len(at),), torch.nan)
        if self.potential.computes("stress") and all(atoms.pbc):
            stress = torch.from_numpy(np.array(atoms.get_stress(voigt=False)))
        if self.potential.computes("energies"):
            each = torch.from_numpy(np.array(atoms.get_potential_energies()))
        return energy, torch.from_numpy(forces.copy()), stress.double(), each.double()


def require_stress(potential: object, work: str) -> None:
    """Refuse a calculator without stresses for work that needs them.

    Raises:
        InputError: it computes none.
    """
    if isinstance(potential, ASEPotential) and not potential.computes("stress"):
        raise InputError(
            f"{potential.name} computes no stress, which {work} needs: take a calculator that does"
        )


def seconds_a_call(potential: ASEPotential, structure: Structure) -> float:
    """Measure how long a calculator takes for the forces of a structure, s."""
    field = ASEForces(potential, [structure])
    start = time.perf_counter()
    field(structure.positions, structure.cell[None])
    return time.perf_counter() - start


def _make(spec: str) -> Any:
    module, colon, factory = spec.partition(":")
    if not (module and colon and factory):
        raise UsageError(f"{PREFIX}{spec}: expected ase:package.module:factory")
    try:
        from ase.calculators.calculator import BaseCalculator
    except ImportError:
        raise UsageError('ase:… needs ASE: pip install "mgsym[ase]"') from None
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # a module of the user's own; installed ones come first
    try:
        maker: Any = import_module(module)
        for name in factory.split("."):
            maker = getattr(maker, name)
        calculator = maker()
    except ImportError as error:
        raise InputError(
            f"{PREFIX}{spec}: {error}: install it, or run in the folder where its file is"
        ) from error
    except AttributeError as error:
        raise InputError(f"{PREFIX}{spec}: {error}: name a class or function of it") from error
    except Exception as error:
        raise InputError(f"{PREFIX}{spec} failed: {type(error).__name__}: {error}") from error
    if not isinstance(calculator, BaseCalculator):
        kind = type(calculator).__name__
        raise InputError(f"{PREFIX}{spec} made a {kind}, expected a calculator of ASE")
    return calculator
