"""Structure: atoms in a periodic cell, checked once where they enter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mgsym.errors import InputError, missing_extra
from mgsym.structure.elements import ATOMIC_NUMBER

if TYPE_CHECKING:
    from ase import Atoms

SPLITS = ("", "train", "validation", "test")


class Column(NamedTuple):
    """One named value per atom.

    Attributes:
        values: [n] or [n, k].
        unit: such as ``"eV"``; empty when the values have none or it is not known.
    """

    values: Tensor
    unit: str = ""


@dataclass(frozen=True, eq=False)
class Structure:
    """Atoms in a cell that may repeat along any of its three vectors.

    Attributes:
        positions: [n, 3] float64, Å, as given: never wrapped or shifted.
        cell: [3, 3] float64, Å; rows are the cell vectors, right-handed.
        types: [n] int64, indices into `species`.
        species: element symbols, such as ``("Cu", "Zr")``.
        periodic: whether the cell repeats along each of its vectors.
        origin: [3] float64, Å: where the cell's corner lies.
        ids: [n] int64, the file's atom ids (default: 1 … n); rows keep the file's order.
        columns: named values per atom, such as ``barrier`` and ``barrier_stderr`` in eV.
        name: what the structure is called in tables and file names.
        glass: the independent glass it belongs to; a glass never straddles a split.
        split: ``train``, ``validation``, ``test`` or empty.
        source: the file it was read from, for messages; empty where it comes from no file.

    Raises:
        InputError: when a shape, a count or a value is wrong; the message says which.
    """

    positions: Tensor
    cell: Tensor
    types: Tensor
    species: tuple[str, ...]
    periodic: tuple[bool, bool, bool] = (True, True, True)
    origin: Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))
    ids: Tensor = None  # type: ignore[assignment]  # 1 … n unless given
    columns: Mapping[str, Column] = field(default_factory=dict)
    name: str = ""
    glass: str = ""
    split: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        self._normalise()
        self._check_cell()
        self._check_atoms()
        self._check_columns()
        if self.split not in SPLITS:
            raise InputError(f"split is {self.split[:40]!r}, expected train, validation or test")
        for name, text in (("name", self.name), ("glass", self.glass)):
            if not _is_text(text):
                raise InputError(f"the {name} {text[:40]!r} is not text (UTF-8)")

    def _normalise(self) -> None:
        """Bring every field to its type; the only place that writes to a frozen field."""

        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        put("positions", _tensor(self.positions, torch.float64, "positions"))
        put("cell", _tensor(self.cell, torch.float64, "cell"))
        put("types", _tensor(self.types, torch.int64, "types"))
        put("origin", _tensor(self.origin, torch.float64, "origin"))
        count = self.positions.shape[0] if self.positions.dim() else 0
        ids = getattr(self, "ids", None)
        ids = torch.arange(1, count + 1) if ids is None else ids
        put("ids", _tensor(ids, torch.int64, "ids"))
        put("species", tuple(self.species))
        put("periodic", tuple(bool(p) for p in self.periodic))
        columns = {k: Column(torch.as_tensor(v.values), v.unit) for k, v in self.columns.items()}
        put("columns", MappingProxyType(columns))

    def _check_cell(self) -> None:
        if self.cell.shape != (3, 3) or self.origin.shape != (3,) or len(self.periodic) != 3:
            raise InputError(
                f"expected a [3, 3] cell, a [3] origin and 3 periodic flags, found "
                f"{list(self.cell.shape)}, {list(self.origin.shape)} and {len(self.periodic)}"
            )
        if not (torch.isfinite(self.cell).all() and torch.isfinite(self.origin).all()):
            raise InputError("the cell has NaN or infinite numbers: write the box again")
        lengths = self.cell.norm(dim=1)
        volume = float(torch.linalg.det(self.cell))
        # a volume below 1e-6 of the box's is rounding, not a cell
        if abs(volume) <= 1e-6 * float(lengths.prod()) or not bool((lengths > 0).all()):
            raise InputError(
                f"the cell has no volume (vectors of {_numbers(lengths)} Å lie in one plane "
                "or are zero): give three independent cell vectors"
            )
        if volume < 0:
            raise InputError(
                "the cell is left-handed (its determinant is negative): swap two cell vectors"
            )

    def _check_atoms(self) -> None:
        if self.positions.dim() != 2 or self.positions.shape[1] != 3:
            raise InputError(f"positions are {list(self.positions.shape)}, expected [atoms, 3]")
        n = self.positions.shape[0]
        if n == 0:
            raise InputError("there are no atoms")
        for name in ("types", "ids"):
            shape = getattr(self, name).shape
            if shape != (n,):
                raise InputError(f"{name} are {list(shape)}, expected [{n}] as there are {n} atoms")
        if not torch.isfinite(self.positions).all():
            row = int(torch.nonzero(~torch.isfinite(self.positions).all(dim=1))[0])
            raise InputError(
                f"atom id {int(self.ids[row])} has a NaN or infinite coordinate: "
                f"{_numbers(self.positions[row])}"
            )
        ids, counts = torch.unique(self.ids, return_counts=True)
        if len(ids) < n:
            repeated = int(ids[counts > 1][0])
            raise InputError(f"atom id {repeated} occurs more than once: ids must be unique")
        self._check_species()

    def _check_species(self) -> None:
        for symbol in self.species:
            if symbol not in ATOMIC_NUMBER:
                raise InputError(f"{symbol!r} is not an element symbol such as Cu or Zr")
        if len(set(self.species)) < len(self.species):
            raise InputError(f"species {', '.join(self.species)} name an element twice")
        low, high = int(self.types.min()), int(self.types.max())
        if low < 0 or high >= len(self.species):
            raise InputError(
                f"types run from {low} to {high}, but index {len(self.species)} species "
                f"({', '.join(self.species)}) from 0"
            )

    def _check_columns(self) -> None:
        for name, column in self.columns.items():
            if column.values.dim() == 0 or column.values.shape[0] != len(self):
                raise InputError(
                    f"column {name!r} is {list(column.values.shape)}, "
                    f"expected {len(self)} rows as there are {len(self)} atoms"
                )

    def __len__(self) -> int:
        return int(self.positions.shape[0])

    def __repr__(self) -> str:
        composition = "".join(f"{s}{c}" for s, c in self.composition.items())
        return f"Structure({self.name or 'unnamed'}: {len(self)} atoms, {composition})"

    @property
    def symbols(self) -> list[str]:
        """The element symbol of each atom."""
        return [self.species[t] for t in self.types.tolist()]

    @property
    def composition(self) -> dict[str, int]:
        """Number of atoms of each species."""
        counts = torch.bincount(self.types, minlength=len(self.species)).tolist()
        return dict(zip(self.species, counts, strict=True))

    @property
    def volume(self) -> float:
        """Å³."""
        return float(torch.linalg.det(self.cell))

    @property
    def number_density(self) -> float:
        """Atoms per Å³."""
        return len(self) / self.volume

    def replace(self, **changes: Any) -> Structure:
        """A copy with some fields changed, checked again."""
        return replace(self, **changes)

    def with_column(self, name: str, values: Tensor, unit: str = "") -> Structure:
        """A copy with one more column, or with that column replaced."""
        return self.replace(columns={**self.columns, name: Column(values, unit)})

    @classmethod
    def from_ase(cls, atoms: Atoms, **labels: str) -> Structure:
        """Make a Structure of an ``ase.Atoms``.

        Per-atom arrays become columns. `labels` sets name, glass or split; ``atoms.info`` gives
        those that it holds.
        """
        symbols = atoms.get_chemical_symbols()
        species, types = index_species(symbols)
        arrays = {k: np.asarray(v) for k, v in atoms.arrays.items()}
        settable = {f.name for f in fields(cls)} & {"name", "glass", "split"}
        info = {k: str(v) for k, v in atoms.info.items() if k in settable}
        ids = arrays.pop("id", None)
        columns = {
            name: Column(torch.as_tensor(values))
            for name, values in arrays.items()
            if name not in ("numbers", "positions") and values.dtype.kind in "iufb"
        }
        return cls(
            positions=torch.as_tensor(np.array(atoms.get_positions())),
            cell=torch.as_tensor(np.array(atoms.cell)),
            types=types,
            species=species,
            periodic=(bool(atoms.pbc[0]), bool(atoms.pbc[1]), bool(atoms.pbc[2])),
            ids=torch.arange(1, len(atoms) + 1) if ids is None else torch.as_tensor(ids),
            columns=columns,
        ).replace(**{**info, **labels})

    def to_ase(self) -> Atoms:
        """This structure as ``ase.Atoms``: columns as arrays, name, glass and split as info.

        The cell's corner moves to the origin, since ``ase.Atoms`` keeps none.

        Raises:
            UsageError: ASE is not installed.
        """
        try:
            from ase import Atoms
        except ImportError as error:
            raise missing_extra("ASE", "ase", "Structure.to_ase") from error
        atoms = Atoms(
            symbols=self.symbols,
            positions=(self.positions - self.origin).numpy(),
            cell=self.cell.numpy(),
            pbc=self.periodic,
        )
        atoms.set_array("id", self.ids.numpy())
        for name, column in self.columns.items():
            atoms.set_array(name, column.values.numpy())
        labels = {"name": self.name, "glass": self.glass, "split": self.split}
        atoms.info.update({k: v for k, v in labels.items() if v})
        return atoms


def index_species(symbols: Sequence[str]) -> tuple[tuple[str, ...], Tensor]:
    """Species in order of atomic number, and each atom's index into them.

    Raises:
        InputError: a symbol is not an element.
    """
    unknown = next((s for s in symbols if s not in ATOMIC_NUMBER), None)
    if unknown is not None:
        raise InputError(f"{unknown[:40]!r} is not an element symbol such as Cu or Zr")
    species = tuple(sorted(set(symbols), key=ATOMIC_NUMBER.__getitem__))
    index = {symbol: i for i, symbol in enumerate(species)}
    return species, torch.tensor([index[s] for s in symbols], dtype=torch.int64)


def _tensor(value: object, dtype: torch.dtype, name: str) -> Tensor:
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} are not an array of numbers: {error}") from error
    if dtype == torch.int64 and tensor.is_floating_point() and bool((tensor % 1 != 0).any()):
        raise InputError(f"{name} must be whole numbers")
    return tensor.detach().to("cpu", dtype)


def _is_text(text: str) -> bool:
    """Whether text can be written; halves of characters cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _numbers(values: Tensor) -> str:
    return " ".join(f"{v:g}" for v in values.tolist())
