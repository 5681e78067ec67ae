"""Explanation: which edges a prediction rests on, and how much each of them matters."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mgsym.errors import InputError, UsageError
from mgsym.utils.files import atomic_path

FORMAT = "mgsym-explanation"
FORMAT_VERSION = 1

_SCALARS = ("structure", "node", "node_id", "element", "method")
_ENERGIES = ("prediction", "masked_prediction", "label")
_PER_EDGE = ("edges", "importance", "spread", "distance", "hop", "value", "reverse")


@dataclass(frozen=True, eq=False)
class Explanation:
    """The bonds, or directed edges, behind the predicted barrier of one atom.

    An edge carries a message from its source to its target, so source and target say on which
    atom's environment it bears. Both directions of a pair of atoms are one bond with one importance
    and one place in the ranking, told by the edge that arrives nearer the atom explained; of an
    explanation by directed edges each direction has its own. Explanations hold what they need to be
    read without the graph.

    Attributes:
        structure: name of the structure.
        node: the atom explained, its zero-based row.
        node_id: its id in the structure's file.
        element: its element symbol.
        method: which explainer made this.
        prediction: eV, with every edge.
        masked_prediction: eV, with edges weighted by their importance; None where the method
            has no soft mask.
        label: eV, the known barrier; None where there is none.
        edges: [m] int64, the edges in the graph that was explained; of a bond the edge that
            arrives nearer the atom, in hops.
        importance: [m] float32; the larger, the more the prediction rests on the bond or edge. For
            edge masks in 0 … 1, for gradients in eV.
        spread: [m] float32, standard deviation of the importance over initialisations; or None.
        endpoints: [2, m] int64, rows of the source (0) and the target (1).
        endpoint_ids: [2, m] int64, their atom ids.
        endpoint_types: [2, m] int64, their elements as indices into `species`.
        species: element symbols.
        distance: [m] float32, Å.
        hop: [m] int64; 1 for edges that arrive at the atom itself, 2 for those that arrive at
            its neighbours, and so on.
        settings: the seed and the options of the method.
        agreement: between initialisations, where there are several: the mean rank correlation
            over the union of their most important edges (`rank_agreement`).
        value: [m] float32, eV, what each bond adds to the prediction, above 0 where it raises the
            barrier; None where the method has no sign.
        reverse: [m] int64, the other edge of each bond, −1 where it cannot matter; None where
            edges are directed.
    """

    structure: str
    node: int
    node_id: int
    element: str
    method: str
    prediction: float
    masked_prediction: float | None
    label: float | None
    edges: Tensor
    importance: Tensor
    spread: Tensor | None
    endpoints: Tensor
    endpoint_ids: Tensor
    endpoint_types: Tensor
    species: tuple[str, ...]
    distance: Tensor
    hop: Tensor
    settings: Mapping[str, Any] = field(default_factory=dict)
    agreement: float | None = None
    value: Tensor | None = None
    reverse: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", MappingProxyType(dict(self.settings)))

    def __len__(self) -> int:
        return len(self.edges)

    def __repr__(self) -> str:
        return (
            f"Explanation(atom {self.node} of {self.structure or 'unnamed'}, "
            f"{self.prediction:.3f} eV, {len(self)} {self.counted} by {self.method})"
        )

    @property
    def counted(self) -> str:
        """What has a place in the ranking: ``bonds``, or directed ``edges``."""
        return "edges" if self.reverse is None else "bonds"

    @property
    def ranking(self) -> Tensor:
        """[m] int64: positions by falling importance; of equals, the lower edge first."""
        keys = (self.edges.numpy(), -self.importance.numpy())
        return torch.from_numpy(np.lexsort(keys))

    def topk(self, k: int) -> Explanation:
        """The k most important bonds (all of them if there are fewer), most important first."""
        if k < 1:
            raise UsageError(
                f"asked for the {k} most important {self.counted}, expected at least 1"
            )
        chosen = self.ranking[:k]
        per_edge = {n: v[chosen] for n in _PER_EDGE if (v := getattr(self, n)) is not None}
        ends = {n: getattr(self, n)[:, chosen] for n in _ENDPOINTS}
        return replace(self, **per_edge, **ends)

    def renumbered(self, rows: Tensor) -> Explanation:
        """A copy for a structure in which atom i of the explained graph has the row rows[i]."""
        return replace(self, node=int(rows[self.node]), endpoints=rows[self.endpoints])

    def with_settings(self, **settings: Any) -> Explanation:
        """A copy with these settings added."""
        return replace(self, settings={**self.settings, **settings})

    def table(self) -> list[dict[str, Any]]:
        """One row per bond, most important first, with plain numbers and element symbols."""
        order = self.ranking.tolist()
        columns: dict[str, list[Any]] = {"edge": self.edges.tolist()}
        columns["reverse_edge"] = (
            [None] * len(self) if self.reverse is None else self.reverse.tolist()
        )
        for side, name in enumerate(_ENDS):
            columns[name] = self.endpoints[side].tolist()
            columns[f"{name}_id"] = self.endpoint_ids[side].tolist()
            columns[f"{name}_element"] = [self.species[t] for t in self.endpoint_types[side]]
        columns["distance_angstrom"] = _rounded(self.distance)
        columns["hop"] = self.hop.tolist()
        columns["importance"] = _rounded(self.importance)
        columns["spread"] = [None] * len(self) if self.spread is None else _rounded(self.spread)
        columns["adds_eV"] = [None] * len(self) if self.value is None else _rounded(self.value)
        return [
            {"rank": rank, **{name: column[i] for name, column in columns.items()}}
            for rank, i in enumerate(order, start=1)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain Python values, ready for JSON."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            **{name: getattr(self, name) for name in _SCALARS},
            **{f"{name}_eV": _short(getattr(self, name)) for name in _ENERGIES},
            "species": list(self.species),
            "settings": dict(self.settings),
            "agreement": _short(self.agreement),
            "counted": self.counted,
            "edges": self.table(),
        }

    def to_json(self, **more: Any) -> str:
        """The explanation as JSON text; `more` adds keys, such as fidelity."""
        return json.dumps({**self.to_dict(), **more}, indent=1)

    def save(self, path: str | Path, overwrite: bool = True, **more: Any) -> None:
        """Write .json (everything, which `load` reads) or .csv (the table of bonds).

        Raises:
            UsageError: another suffix, or the file exists and `overwrite` is not set.
        """
        path = Path(path)
        if path.suffix not in (".json", ".csv"):
            raise UsageError(f"cannot write an explanation as {path.name}: use .json or .csv")
        with atomic_path(path, overwrite) as temporary:
            if path.suffix == ".json":
                temporary.write_text(self.to_json(**more) + "\n", encoding="utf-8")
            else:
                self._write_csv(temporary)

    def _write_csv(self, path: Path) -> None:
        rows = self.table()
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=_COLUMNS)
            writer.writeheader()
            writer.writerows(rows)

    @classmethod
    def load(cls, path: str | Path) -> Explanation:
        """Read the .json that `save` wrote.

        Raises:
            InputError: the file is missing, or not an explanation of this version.
        """
        path = Path(path)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError("no such file", path=path) from None
        except (ValueError, RecursionError) as error:  # bad UTF-8, bad JSON, nested too deeply
            raise InputError(
                f"expected an explanation in JSON, found: {error}", path=path
            ) from None
        found = (data.get("format"), data.get("format_version")) if isinstance(data, dict) else ()
        if found != (FORMAT, FORMAT_VERSION):
            raise InputError(
                f"expected {FORMAT} version {FORMAT_VERSION}, made by mgsym explain", path=path
            )
        try:
            return cls._from_dict(data)
        except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
            # torch raises the last two over numbers that its integers cannot hold
            raise InputError(f"a damaged explanation: {repr(error)[:200]}", path=path) from None

    @classmethod
    def _from_dict(cls, data: Mapping[str, Any]) -> Explanation:
        rows, species = data["edges"], tuple(data["species"])

        def column(name: str, dtype: torch.dtype) -> Tensor:
            return torch.tensor([row[name] for row in rows], dtype=dtype)

        def both(suffix: str) -> Tensor:
            return torch.stack([column(f"{n}{suffix}", torch.int64) for n in _ENDS])

        elements = [[species.index(row[f"{n}_element"]) for row in rows] for n in _ENDS]
        with_spread = all(row["spread"] is not None for row in rows)
        with_value = all(row.get("adds_eV") is not None for row in rows)
        as_bonds = data.get("counted") == "bonds"  # explanations of old are of directed edges
        return cls(
            **{name: data[name] for name in _SCALARS},
            **{name: data[f"{name}_eV"] for name in _ENERGIES},
            edges=column("edge", torch.int64),
            importance=column("importance", torch.float32),
            spread=column("spread", torch.float32) if with_spread else None,
            endpoints=both(""),
            endpoint_ids=both("_id"),
            endpoint_types=torch.tensor(elements, dtype=torch.int64),
            species=species,
            distance=column("distance_angstrom", torch.float32),
            hop=column("hop", torch.int64),
            settings=data["settings"],
            agreement=data.get("agreement"),
            value=column("adds_eV", torch.float32) if with_value else None,
            reverse=column("reverse_edge", torch.int64) if as_bonds else None,
        )


_ENDS = ("source", "target")
_ENDPOINTS = ("endpoints", "endpoint_ids", "endpoint_types")
_COLUMNS = (
    "rank",
    "edge",
    "reverse_edge",
    *(f"{end}{what}" for end in _ENDS for what in ("", "_id", "_element")),
    "distance_angstrom",
    "hop",
    "importance",
    "spread",
    "adds_eV",
)


def _rounded(values: Tensor) -> list[float]:
    """As Python floats with the eight digits that float32 can carry."""
    return [float(f"{value:.8g}") for value in values.tolist()]


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.8g}")
