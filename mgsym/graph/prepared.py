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
        known = [one for one in several if one is not None]
        first = known[0] if known else None
        if first is None or len(known) < len(several):
            return None
        parts: list[dict[str, Tensor]] = []
        for kind in ("from_positions", "from_edges"):
            names, each = getattr(first, kind).keys(), [getattr(one, kind) for one in known]
            if any(one.keys() != names for one in each):
                return None
            parts.append({name: torch.cat([one[name] for one in each]) for name in names})
        if not all(same_owner(first.owner, one.owner) for one in known[1:]):
            return None
        return Prepared(first.owner, *parts)


def same_owner(one: Owner, other: Owner) -> bool:
    """Whether both would prepare a graph to the same bits."""
    return len(one) == len(other) and all(map(_same, one, other))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        alike = one.dtype == other.dtype and one.shape == other.shape
        return one is other or (alike and torch.equal(one, other.to(one.device)))
    return type(one) is type(other) and bool(one == other)
