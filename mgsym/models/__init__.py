"""The registry of models: add one by writing its file and one line here.

A name may also stand for a model of another line with options of its own: `MODELS` then gives the
defaults in which it differs.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from typing import Any

import torch

from mgsym.errors import UsageError
from mgsym.models.base import BarrierModel, Invariance

__all__ = [
    "MODELS",
    "BarrierModel",
    "Invariance",
    "ModelSummary",
    "create_model",
    "fitted_in_one_go",
    "model_options",
    "summarize_models",
    "with_current_names",
]

Entry = tuple[str, str, str] | tuple[str, str, str, Mapping[str, Any]]

# name: (module, model class, dataclass of its options, and defaults where they are others)
MODELS: dict[str, Entry] = {
    "symgnn": ("mgsym.models.networks.symgnn", "SymGNN", "SymGNNOptions"),
    "egat": ("mgsym.models.networks.symgnn", "SymGNN", "SymGNNOptions", {"transforms": "none"}),
    "egat-augmented": (
        "mgsym.models.networks.symgnn",
        "SymGNN",
        "SymGNNOptions",
        {"transforms": "augment"},
    ),
    "egat-length": (
        "mgsym.models.networks.symgnn",
        "SymGNN",
        "SymGNNOptions",
        {"edge_input": "length"},
    ),
    "egnn": ("mgsym.models.networks.egnn", "EGNN", "EGNNOptions"),
    "gcn": ("mgsym.models.networks.gcn", "GCN", "GCNOptions"),
    "gcn-edges": ("mgsym.models.networks.gcn", "EdgeGCN", "EdgeGCNOptions"),
    "mlp": ("mgsym.models.networks.mlp", "MLP", "MLPOptions"),
    "ridge": ("mgsym.models.regression.ridge", "Ridge", "RidgeOptions"),
    "boosting": ("mgsym.models.regression.boosting", "Boosting", "BoostingOptions"),
    "schnet": ("mgsym.models.networks.schnet", "SchNet", "SchNetOptions"),
    "mgcn": ("mgsym.models.networks.mgcn", "MGCN", "MGCNOptions"),
    "faenet": ("mgsym.models.networks.faenet", "FAENet", "FAENetOptions"),
    "bapst": ("mgsym.models.networks.bapst", "Bapst", "BapstOptions"),
    "ace": ("mgsym.models.networks.ace", "Ace", "AceOptions"),
}

REMOVED = ("kernel",)  # models that mgsym 0.1.0 had
# options of networks by their names in mgsym 0.1.0, which are understood for one more release
RENAMED = {"companion": "ridge_share", "smoothing": "physical_smoothing"}


@dataclass(frozen=True)
class ModelSummary:
    """What a registered model is, with its default options.

    Attributes:
        name: in the registry.
        source: the paper that it follows.
        invariant: under rotation and reflection: ``yes``, ``no`` or ``in expectation``.
        uses_edges: whether neighbours matter.
        receptive_field: Å; infinite for the whole structure.
        parameters: how many numbers are trained.
        options: each with its default.
        changed: those whose default differs from the model's own.
    """

    name: str
    source: str
    invariant: Invariance
    uses_edges: bool
    receptive_field: float
    parameters: int
    options: Mapping[str, Any]
    changed: Mapping[str, Any]


def model_options(name: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Fill in every option of a model that is not given.

    Raises:
        UsageError: no such model, or no such option; the message lists those there are.
    """
    module, _, options_class, changed = _entry(name)
    kind = getattr(module, options_class)
    options = with_current_names(name, options or {})
    names = [f.name for f in fields(kind)]
    for key in options:
        if key not in names:
            raise UsageError(f"model {name} has no option {key!r}; it has {', '.join(names)}")
    return asdict(kind(**{**changed, **options}))


def with_current_names(
    name: str, options: Mapping[str, Any], *, warn: bool = True, source: str = ""
) -> dict[str, Any]:
    """Rename options of a model that are given by the name that they had in mgsym 0.1.0.

    Args:
        name: of the model; an option that it still has under such a name keeps it.
        options: values by name.
        warn: whether one line says which (as a FutureWarning). Files that mgsym wrote need none.
        source: where they come from, for that line.

    Raises:
        UsageError: no such model, or an option is given by both names.
    """
    module, _, options_class, _ = _entry(name)
    names = {f.name for f in fields(getattr(module, options_class))}
    old = {k: RENAMED[k] for k in options if k in RENAMED.keys() - names and RENAMED[k] in names}
    for before, now in old.items():
        if now in options:
            raise UsageError(f"model.{before} is the old name of model.{now}: give one of the two")
    if old and warn:
        renamings = ", ".join(
            f"model.{before} is now called model.{now}" for before, now in old.items()
        )
        place = f"{source}: " if source else ""
        text = f"{place}{renamings}; the old name is understood for one more release"
        warnings.warn(text, FutureWarning, stacklevel=2)
    return {old.get(key, key): value for key, value in options.items()}


def create_model(
    name: str,
    species: tuple[str, ...],
    cutoff: float,
    options: Mapping[str, Any] | None = None,
) -> BarrierModel:
    """Make a new model, its parameters drawn from torch's current random state."""
    complete = model_options(name, options)
    module, model_class, options_class, _ = _entry(name)
    chosen = getattr(module, options_class)(**complete)
    model = getattr(module, model_class)(species, cutoff, chosen)
    assert isinstance(model, BarrierModel)
    return model


def fitted_in_one_go() -> tuple[str, ...]:
    """Names of the models that are fitted in seconds, without gradients."""
    return tuple(name for name, entry in MODELS.items() if ".regression." in entry[0])


def summarize_models(
    species: tuple[str, ...] = ("Cu", "Zr"), cutoff: float = 5.0
) -> list[ModelSummary]:
    """Summarise what each registered model is.

    Args:
        species, cutoff: of which to make it, Å; both decide its size.
    """
    return [_summary(name, species, cutoff) for name in MODELS]


def _summary(name: str, species: tuple[str, ...], cutoff: float) -> ModelSummary:
    with torch.random.fork_rng(devices=[]):  # its weights are drawn for nothing
        model = create_model(name, species, cutoff)
    return ModelSummary(
        name=name,
        source=model.source,
        invariant=model.invariant,
        uses_edges=model.uses_edges,
        receptive_field=model.receptive_field,
        parameters=model.num_parameters,
        options=model_options(name),
        changed=_entry(name)[3],
    )


def _entry(name: str) -> tuple[Any, str, str, Mapping[str, Any]]:
    if name in REMOVED:
        raise UsageError(f"the model {name} is gone; mgsym 0.1.0 is the last version that has it")
    if name not in MODELS:
        raise UsageError(f"no model is called {name!r}; there are {', '.join(MODELS)}")
    module, model_class, options_class, *changed = MODELS[name]
    return import_module(module), model_class, options_class, changed[0] if changed else {}
