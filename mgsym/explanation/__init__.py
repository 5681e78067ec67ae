"""Explain a prediction: which edges does the barrier of an atom rest on?

    structure → graph → model → explanation

`explain` cuts out what the prediction can depend on (receptive.py), lets a method weigh the
edges, and returns an Explanation; `fidelity` measures what it is worth. Add a method by writing
one function that returns an Explanation, and one line in METHODS.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from mgsym.devices import resolve_device
from mgsym.errors import UsageError
from mgsym.explanation.edge_mask import edge_mask, soft_mask
from mgsym.explanation.explanation import Explanation
from mgsym.explanation.fidelity import Fidelity, FidelityRow, fidelity
from mgsym.explanation.receptive import borrowed, model_cone, node_of_id
from mgsym.explanation.simple import gradient, random
from mgsym.graph import Graph
from mgsym.models.base import BarrierModel

__all__ = [
    "METHODS",
    "Explanation",
    "Fidelity",
    "FidelityRow",
    "explain",
    "fidelity",
    "method_settings",
    "node_of_id",
]

# name: method(model, cone, generator, progress, *, its settings) → Explanation
METHODS: dict[str, Callable[..., Explanation]] = {
    "edge-mask": edge_mask,
    "gradient": gradient,
    "random": random,
    "soft-mask": soft_mask,
}


def explain(
    graph: Graph,
    model: BarrierModel | str | Path,
    node: int,
    method: str = "edge-mask",
    *,
    topk: int | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: Callable[..., None] | None = None,
    **settings: Any,
) -> Explanation:
    """Find the edges on which the predicted barrier of one atom rests.

    Args:
        graph: one structure or a batch.
        model: a model, or a run folder or checkpoint to load it from. It is given back as it was.
        node: the atom, as its zero-based row (`node_of_id` finds it by its id).
        method: one of METHODS.
        topk: keep only so many edges, most important first; None keeps all that can matter.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        seed: of everything random.
        progress: called as progress(done, total) on the way.
        settings: options of the method (`method_settings`).

    Raises:
        UsageError: no such node, method or setting; the model uses no edges; the atom has none.
        InputError: graph and model do not fit together, or the checkpoint cannot be read.
    """
    if topk is not None and "budget" in method_settings(method):
        settings.setdefault("budget", topk)  # look for as many edges as are asked for
    complete = method_settings(method, settings)
    if isinstance(model, str | Path):
        from mgsym.checkpoint import load_checkpoint
        from mgsym.runs import run_checkpoints

        model, _ = load_checkpoint(run_checkpoints(model)[0])
    where = resolve_device(device)
    with borrowed(model, where):
        cone = model_cone(graph.to(where), model, node)
        generator = torch.Generator().manual_seed(seed)
        found = METHODS[method](model, cone, generator, progress, **complete)
    found = found.with_settings(seed=seed, **complete)
    return found if topk is None else found.topk(topk)


def method_settings(method: str, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Every setting of a method, defaults filled in.

    Raises:
        UsageError: no such method, or no such setting; the message lists those there are.
    """
    if method not in METHODS:
        raise UsageError(f"no method is called {method!r}; there are {', '.join(METHODS)}")
    parameters = inspect.signature(METHODS[method]).parameters.values()
    known = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    for key in settings or {}:
        if key not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise UsageError(f"method {method} has no setting {key!r}; {has}")
    return {**known, **(settings or {})}
