"""Trained models on disk: weights, what builds the model again, and what it was trained on.

A checkpoint holds tensors, numbers and text only and is read with ``weights_only=True``, so a
file from a stranger cannot run code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mgsym.errors import InputError, MgsymError, short
from mgsym.models import create_model
from mgsym.models.base import BarrierModel
from mgsym.training.config import ModelConfig
from mgsym.training.runs import COUNT, SCORES, TEXT
from mgsym.uncertainty.out_of_distribution import TrainingSet
from mgsym.utils.files import first_line, load_safely, save_safely

FORMAT = "mgsym-model"
ENSEMBLE_FORMAT = "mgsym-ensemble"  # several of them in one file, see mgsym.prediction.ensemble
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Metadata:
    """What a checkpoint says beside its weights.

    Attributes:
        model: the model's name in the registry and its options.
        species, cutoff: the elements it knows, and the cutoff of its graphs in Å.
        label_mean, label_scale: eV, of the training labels.
        training_set: what it was trained on.
        extra: what the writer added (epoch, scores, seed, versions); numbers and text.
    """

    model: ModelConfig
    species: tuple[str, ...]
    cutoff: float
    label_mean: float
    label_scale: float
    training_set: TrainingSet = field(default_factory=TrainingSet)
    extra: Mapping[str, Any] = field(default_factory=dict)


def save_checkpoint(
    path: str | Path,
    model: BarrierModel,
    config: ModelConfig,
    training_set: TrainingSet | None = None,
    extra: Mapping[str, Any] | None = None,
    state: Mapping[str, Tensor] | None = None,
    overwrite: bool = True,
) -> None:
    """Write a model.

    Args:
        path: usually ``<run>/best.pt``.
        model: what is saved, or what `state` belongs to.
        config: the model's name in the registry and its options.
        training_set: what it was trained on.
        extra: numbers and text (in dicts and lists) to keep beside it.
        state: weights to save in place of the model's own.
        overwrite: whether a file at `path` may be replaced.
    """
    content = checkpoint_content(model, config, training_set, extra, state)
    save_safely(path, content, overwrite)


def checkpoint_content(
    model: BarrierModel,
    config: ModelConfig,
    training_set: TrainingSet | None = None,
    extra: Mapping[str, Any] | None = None,
    state: Mapping[str, Tensor] | None = None,
) -> dict[str, Any]:
    """What `save_checkpoint` writes."""
    weights = model.state_dict() if state is None else state
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": config.name,
        "options": dict(config.complete().options),
        "species": list(model.species),
        "cutoff": model.cutoff,
        "training_set": (training_set or TrainingSet()).as_dict(),
        "extra": dict(extra or {}),
        "state": {name: values.detach().cpu() for name, values in weights.items()},
    }


def load_checkpoint(
    path: str | Path, device: str | torch.device = "cpu"
) -> tuple[BarrierModel, Metadata]:
    """Read what `save_checkpoint` wrote; the model is in eval mode.

    Raises:
        InputError: no such file, not a checkpoint, damaged, or of another version.
    """
    path = Path(path)
    others = {ENSEMBLE_FORMAT: "holds several models, expected one: name a run of one seed"}
    return rebuilt(load_safely(path, FORMAT, FORMAT_VERSION, others=others), path, device)


def rebuilt(
    content: Mapping[str, Any], path: Path, device: str | torch.device = "cpu"
) -> tuple[BarrierModel, Metadata]:
    """The model that `checkpoint_content` told of, in eval mode.

    Args:
        content: as it was read.
        path: where, for errors.
        device: where to.

    Raises:
        InputError: its parts do not fit together.
    """
    try:
        _refuse_wrong_fields(content)
        config = ModelConfig.from_file(content["model"], content["options"])
        with torch.random.fork_rng(devices=[]):  # initial weights are drawn, then replaced
            model = create_model(
                config.name, tuple(content["species"]), content["cutoff"], config.options
            )
        model.load_state_dict(content["state"])
        _refuse_wrong_numbers(model)
        metadata = Metadata(
            model=config,
            species=model.species,
            cutoff=model.cutoff,
            label_mean=float(model.label_mean),
            label_scale=float(model.label_scale),
            training_set=TrainingSet.from_dict(content["training_set"]),
            extra=content["extra"],
        )
    except MgsymError as error:
        raise InputError(f"this mgsym cannot build its model: {error}", path=path) from error
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(
            f"a checkpoint whose parts do not fit together ({first_line(error)}): it is damaged, "
            "or of a changed model; train again",
            path=path,
        ) from error
    return model.to(device).eval(), metadata


# what a checkpoint must hold, and of which type
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "model": str,
    "options": dict,
    "species": (list, tuple),
    "cutoff": (int, float),
    "training_set": dict,
    "extra": dict,
    "state": dict,
}


def _refuse_wrong_fields(content: Mapping[str, Any]) -> None:
    """ValueError, which names the field, where one is of another type or out of range."""
    for name, kind in _FIELDS.items():
        value = content[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"field {name} is of type {type(value).__name__}")
    if not all(isinstance(symbol, str) for symbol in content["species"]):
        raise ValueError("field species holds something else than element symbols")
    if not 0 < content["cutoff"] < float("inf"):
        raise ValueError(f"field cutoff is {content['cutoff']}, expected a length in Å")
    for name, (wanted, holds) in {"scores": SCORES, "epoch": COUNT, "mgsym": TEXT}.items():
        value = content["extra"].get(name)
        if value is not None and not holds(value):
            raise ValueError(f"extra.{name} is {short(value)}, expected {wanted}")
    _refuse_wrong_training_set(content["training_set"])


def _refuse_wrong_training_set(content: Mapping[str, Any]) -> None:
    names = content.get("names", ())
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError("training_set.names is no list of names")
    atoms = content.get("atoms", 0)
    if type(atoms) is not int or atoms < 0:
        raise ValueError(f"training_set.atoms is {atoms!r}, expected a count")
    for name in ("number_density", "shortest_distance", "neighbors"):
        values = content.get(name, ())
        if not isinstance(values, list | tuple) or len(values) not in (0, 2):
            raise ValueError(f"training_set.{name} is {values!r}, expected two numbers or none")
        if not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
            raise ValueError(f"training_set.{name} is {values!r}, expected finite numbers")
    for name, values in (content.get("surroundings") or {}).items():
        if isinstance(values, Tensor) and not bool(torch.isfinite(values).all()):
            raise ValueError(f"training_set.surroundings.{name} has NaN or infinite numbers")


def _refuse_wrong_numbers(model: BarrierModel) -> None:
    """ValueError, which names the tensor, where a weight or a statistic is no finite number."""
    for name, values in model.state_dict().items():
        if not bool(torch.isfinite(values).all()):
            raise ValueError(f"{name} has NaN or infinite numbers")
    if float(model.label_scale) < 0:
        raise ValueError(f"label_scale is {float(model.label_scale):g}, expected at least 0")
