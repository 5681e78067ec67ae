"""The registry of models: add one by writing its file and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from importlib import import_module
from typing import Any

from mgsym.errors import UsageError
from mgsym.models.base import BarrierModel, Invariance

__all__ = ["MODELS", "BarrierModel", "Invariance", "create_model", "model_options"]

# name: (module, model class, dataclass of its options)
MODELS: dict[str, tuple[str, str, str]] = {
    "symgnn": ("mgsym.models.symgnn", "SymGNN", "SymGNNOptions"),
    "schnet": ("mgsym.models.schnet", "SchNet", "SchNetOptions"),
    "mgcn": ("mgsym.models.mgcn", "MGCN", "MGCNOptions"),
    "faenet": ("mgsym.models.faenet", "FAENet", "FAENetOptions"),
    "bapst": ("mgsym.models.bapst", "Bapst", "BapstOptions"),
}


def model_options(name: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Every option of a model, defaults filled in.

    Raises:
        UsageError: no such model, or no such option; the message lists those there are.
    """
    module, _, options_class = _entry(name)
    kind = getattr(module, options_class)
    known = [f.name for f in fields(kind)]
    for key in options or {}:
        if key not in known:
            raise UsageError(f"model {name} has no option {key!r}; it has {', '.join(known)}")
    return asdict(kind(**(options or {})))


def create_model(
    name: str,
    species: tuple[str, ...],
    cutoff: float,
    options: Mapping[str, Any] | None = None,
) -> BarrierModel:
    """A new model, its parameters drawn from torch's current random state."""
    complete = model_options(name, options)
    module, model_class, options_class = _entry(name)
    chosen = getattr(module, options_class)(**complete)
    model = getattr(module, model_class)(species, cutoff, chosen)
    assert isinstance(model, BarrierModel)
    return model


def _entry(name: str) -> tuple[Any, str, str]:
    if name not in MODELS:
        raise UsageError(f"no model is called {name!r}; there are {', '.join(MODELS)}")
    module, model_class, options_class = MODELS[name]
    return import_module(module), model_class, options_class
