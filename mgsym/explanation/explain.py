"""Explain a prediction: which bonds does the barrier of an atom rest on?

    structure → graph → model → explanation

`explain` cuts out what the prediction can depend on (computation_graph.py), lets a method weigh
the bonds, and returns an Explanation; faithfulness.py measures what it is worth. Add a method by
writing one function that returns an Explanation, and one line in METHODS.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from mgsym.errors import UsageError
from mgsym.explanation.agreement import mean_agreement, method_agreement, rank_agreement
from mgsym.explanation.computation_graph import frozen_eval, model_computation_graph, node_of_id
from mgsym.explanation.explanation import Explanation
from mgsym.explanation.methods.attribution import (
    attention,
    gradient,
    integrated_gradients,
    leave_one_out,
    random,
)
from mgsym.explanation.methods.edge_mask import edge_mask
from mgsym.explanation.methods.parameterised_mask import ParameterisedExplainer, parameterised_mask
from mgsym.explanation.methods.sampled_mask import sampled_mask
from mgsym.explanation.methods.soft_mask import soft_mask
from mgsym.explanation.methods.weakening import weakening
from mgsym.graph import Graph
from mgsym.prediction import OneModel
from mgsym.prediction.predict import one_model
from mgsym.utils.progress import Progress

__all__ = [
    "METHODS",
    "Explanation",
    "ParameterisedExplainer",
    "explain",
    "explain_nodes",
    "mean_agreement",
    "method_agreement",
    "method_settings",
    "node_of_id",
    "parse_settings",
    "rank_agreement",
]

DEFAULT = "weakening"

# name: method(model, computation graph, generator, progress, *, its settings) → Explanation
METHODS: dict[str, Callable[..., Explanation]] = {
    "weakening": weakening,
    "edge-mask": edge_mask,
    "sampled-mask": sampled_mask,
    "soft-mask": soft_mask,
    "parameterised-mask": parameterised_mask,
    "gradient": gradient,
    "integrated-gradients": integrated_gradients,
    "attention": attention,
    "leave-one-out": leave_one_out,
    "random": random,
}


def explain(
    graph: Graph,
    model: OneModel,
    node: int,
    method: str = DEFAULT,
    *,
    topk: int | None = None,
    directed: bool = False,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: Progress | None = None,
    **settings: Any,
) -> Explanation:
    """Find the bonds on which the predicted barrier of one atom rests.

    Args:
        graph: one structure or a batch.
        model: a model, which is given back as it was, or a run directory or checkpoint.
        node: the atom, as its zero-based row (`node_of_id` finds it by its id).
        method: one of METHODS.
        topk: keep only so many bonds, most important first; None keeps all that can matter.
        directed: weigh each direction of a bond by itself: importances, and k, are of edges.
        device: ``auto`` (where the model is), ``cpu``, ``cuda`` or ``cuda:N``.
        seed: of everything random.
        progress: called as progress(done, total) on the way.
        settings: options of the method (`method_settings`).

    Raises:
        UsageError: no such node, method or setting; the model uses no edges; the atom has none.
        InputError: graph and model do not fit together, or the checkpoint cannot be read.
    """
    (found,) = explain_nodes(
        graph, model, [node], method, topk=topk, directed=directed, device=device, seed=seed,
        progress=progress, **settings,
    )  # fmt: skip
    return found


def explain_nodes(
    graph: Graph,
    model: OneModel,
    nodes: Sequence[int],
    method: str = DEFAULT,
    *,
    topk: int | None = None,
    directed: bool = False,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: Progress | None = None,
    **settings: Any,
) -> Iterator[Explanation]:
    """Explain many atoms, one after the other, with the model loaded once; as `explain`.

    The model is frozen between one explanation and the next: take them all, or close the iterator.
    Each atom's random numbers depend on the seed alone, so that it is explained as it would be
    on its own. Progress is told per node when there are several.
    """
    if topk is not None and topk < 1:
        raise UsageError(f"asked for the {topk} most important bonds, expected at least 1")
    if topk is not None and "budget" in method_settings(method):
        settings.setdefault("budget", topk)  # look for as many edges as are asked for
    complete = method_settings(method, settings)
    frozen = one_model(model, device)
    with frozen_eval(frozen) as where:
        here = frozen.prepare_whole(graph.to(where))
        for done, node in enumerate(nodes, start=1):
            part = model_computation_graph(here, frozen, node, directed=directed)
            generator = torch.Generator().manual_seed(seed)
            inner = progress if len(nodes) == 1 else None
            found = METHODS[method](frozen, part, generator, inner, **complete)
            found = found.with_settings(seed=seed, **complete)
            if progress is not None and inner is None:
                progress(done, len(nodes))
            yield found if topk is None else found.topk(topk)


def parse_settings(method: str, texts: Sequence[str]) -> dict[str, Any]:
    """``["steps=200", "size=0.2"]`` as settings of a method, each of its default's type.

    Raises:
        UsageError: not of the form NAME=VALUE, no such method or setting, or not its type.
    """
    defaults, settings = method_settings(method), {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"{text!r} is no setting: expected NAME=VALUE")
        method_settings(method, {name: value})  # refuses names that it does not know
        kind = type(defaults[name])
        try:
            settings[name] = kind(value)
        except ValueError:
            raise UsageError(f"{name} is {value!r}, expected {kind.__name__}") from None
    return settings


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
