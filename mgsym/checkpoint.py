"""Trained models on disk: weights, what builds the model again, and what it was trained on.

A checkpoint holds tensors, numbers and text only and is read with ``weights_only=True``, so a
file from a stranger cannot run code.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mgsym.atomic import atomic_path
from mgsym.config import ModelConfig
from mgsym.errors import InputError, MgsymError
from mgsym.graph import Graph
from mgsym.models import BarrierModel, create_model
from mgsym.surroundings import Surroundings

FORMAT = "mgsym-model"
ENSEMBLE_FORMAT = "mgsym-ensemble"  # several of them in one file, see mgsym.ensemble
FORMAT_VERSION = 1


@dataclass(frozen=True)
class TrainingSet:
    """What the training structures were like: where predictions are on known ground.

    Attributes:
        names: the structures.
        atoms: how many atoms had labels.
        number_density: lowest and highest, atoms per Å³; empty when none is fully periodic.
        shortest_distance: lowest and highest of the shortest distance in a structure, Å.
        neighbors: lowest and highest mean number of neighbours within the cutoff.
        surroundings: what tells usual atoms from others; None in files from before there was any.
    """

    names: tuple[str, ...] = ()
    atoms: int = 0
    number_density: tuple[float, ...] = ()
    shortest_distance: tuple[float, ...] = ()
    neighbors: tuple[float, ...] = ()
    surroundings: Surroundings | None = None

    @classmethod
    def of(cls, graphs: Sequence[Graph]) -> TrainingSet:
        """The facts of training graphs, one structure each."""
        densities = [d for g in graphs if (d := number_density(g)) is not None]
        shortest = [float(g.edge_length.min()) for g in graphs if g.num_edges]
        neighbors = [g.num_edges / g.num_nodes for g in graphs]
        return cls(
            names=tuple(g.names[0] for g in graphs),
            atoms=sum(int(g.labelled.sum()) for g in graphs),
            number_density=_range(densities),
            shortest_distance=_range(shortest),
            neighbors=_range(neighbors),
            surroundings=Surroundings.of(graphs),
        )

    @classmethod
    def union(cls, sets: Sequence[TrainingSet]) -> TrainingSet:
        """Of models that were trained apart: all names, the widest ranges, the first surroundings.

        Atoms are those of the largest set.
        """
        ranges = {
            name: _range([value for one in sets for value in getattr(one, name)])
            for name in ("number_density", "shortest_distance", "neighbors")
        }
        return cls(
            names=tuple(dict.fromkeys(name for one in sets for name in one.names)),
            atoms=max((one.atoms for one in sets), default=0),
            surroundings=next((one.surroundings for one in sets if one.surroundings), None),
            **ranges,
        )

    def as_dict(self) -> dict[str, Any]:
        """Numbers, text and tensors, for files."""
        around = None if self.surroundings is None else self.surroundings.as_dict()
        return {**vars(self), "surroundings": around}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> TrainingSet:
        """What `as_dict` gave.

        Raises:
            TypeError, ValueError, KeyError: it is not.
        """
        around = content.get("surroundings")
        known = None if around is None else Surroundings.from_dict(around)
        return cls(**{**content, "surroundings": known})


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
    return rebuilt(load_safely(path, FORMAT, FORMAT_VERSION), path, device)


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
        config = ModelConfig(content["model"], content["options"]).complete()
        with torch.random.fork_rng(devices=[]):  # initial weights are drawn, then replaced
            model = create_model(
                config.name, tuple(content["species"]), content["cutoff"], config.options
            )
        model.load_state_dict(content["state"])
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
            f"a checkpoint whose parts do not fit together ({_first_line(error)}): it is damaged, "
            "or of a changed model; train again",
            path=path,
        ) from error
    return model.to(device).eval(), metadata


def save_safely(path: str | Path, content: Mapping[str, Any], overwrite: bool = True) -> None:
    """Write nested dicts of tensors, numbers and text, whole or not at all.

    Raises:
        OSError: the disk is full, or cannot be written.
    """
    buffer = io.BytesIO()  # torch's own writing to a file does not say why it failed
    torch.save(dict(content), buffer)
    with atomic_path(path, overwrite) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_safely(
    path: Path,
    kind: str,
    version: int,
    wanted: str = "a file that mgsym train wrote (best.pt)",
    *,
    or_kind: str | None = None,
) -> dict[str, Any]:
    """Read what `save_safely` wrote, onto the CPU, executing nothing.

    Args:
        path: the file.
        kind: what its ``format`` must say.
        version: what its ``format_version`` must say.
        wanted: what to ask for in errors.
        or_kind: another ``format`` that will do.

    Raises:
        InputError: no such file, not such a file, damaged, or of another version.
    """
    hint = f"expected {wanted}"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"no such file: {hint}", path=path) from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise InputError(f"damaged, or not written by mgsym: {hint}", path=path) from error
    except Exception as error:  # a hostile or garbled pickle can make the reader raise anything
        raise InputError(f"cannot be read safely: {hint}", path=path) from error
    found = content.get("format") if isinstance(content, dict) else None
    if found == ENSEMBLE_FORMAT and or_kind is None:
        raise InputError("holds several models, expected one: name a run of one seed", path=path)
    if found not in (kind, or_kind) or found is None:
        raise InputError(f"holds {found or 'something else'}, expected {kind}: {hint}", path=path)
    if content.get("format_version") != version:
        raise InputError(
            f"{found} version {content.get('format_version')}, this mgsym reads version {version}: "
            "use the mgsym that wrote it, or make it again",
            path=path,
        )
    return dict(content)


def number_density(graph: Graph) -> float | None:
    """Atoms per Å³; None unless every structure is periodic along all three vectors."""
    if not bool(graph.periodic.all()):
        return None
    return graph.num_nodes / float(torch.linalg.det(graph.cell).abs().sum())


def _range(values: Sequence[float]) -> tuple[float, ...]:
    return (min(values), max(values)) if values else ()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
