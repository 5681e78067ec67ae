"""Prepared: what a model has computed of a graph beforehand, and whose it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

Owner = tuple[Any, ...]  # plain values and tensors


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a model has computed of a graph beforehand.

    Attributes:
        owner: all that it depends on beside the graph: the kind of model, its options and
            statistics. A model whose owner differs in a single bit computes its own.
        from_positions: [n, …] by name; right for some of the atoms or edges, too.
        from_edges: [n, …] by name, for all edges of the graph.
    """

    owner: Owner
    from_positions: Mapping[str, Tensor]
    from_edges: Mapping[str, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> Prepared:
        """The same with its tensors on `device`."""
        return self._each(lambda values: values.to(device))

    def at(self, nodes: Tensor) -> Prepared:
        """What it says of some nodes, of which other edges may arrive than before."""
        return self.without_edges()._each(lambda values: values[nodes])

    def without_edges(self) -> Prepared:
        """What stays right when edges change."""
        return replace(self, from_edges={})

    def _each(self, change: Callable[[Tensor], Tensor]) -> Prepared:
        return Prepared(
            self.owner,
            {name: change(values) for name, values in self.from_positions.items()},
            {name: change(values) for name, values in self.from_edges.items()},
        )

    @staticmethod
    def joined(several: Sequence[Prepared | None]) -> Prepared | None:
        """Of graphs side by side; None unless one owner has prepared them all alike."""
        present = [prepared for prepared in several if prepared is not None]
        first = present[0] if present else None
        if first is None or len(present) < len(several):
            return None
        joined: list[dict[str, Tensor]] = []
        for kind in ("from_positions", "from_edges"):
            parts = [getattr(prepared, kind) for prepared in present]
            names = parts[0].keys()
            if any(part.keys() != names for part in parts):
                return None
            joined.append({name: torch.cat([part[name] for part in parts]) for name in names})
        if not all(same_owner(first.owner, prepared.owner) for prepared in present[1:]):
            return None
        return Prepared(first.owner, *joined)


def same_owner(a: Owner, b: Owner) -> bool:
    """Whether both would prepare a graph to the same bits."""
    return len(a) == len(b) and all(map(_same, a, b))


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        alike = a.dtype == b.dtype and a.shape == b.shape
        return a is b or (alike and torch.equal(a, b.to(a.device)))
    return type(a) is type(b) and bool(a == b)
