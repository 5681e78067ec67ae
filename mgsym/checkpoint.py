"""Trained models on disk: weights, what builds the model again, and what it was trained on.

A checkpoint holds tensors, numbers and text only and is read with ``weights_only=True``, so a
file from a stranger cannot run code.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from mgsym.atomic import atomic_path
from mgsym.config import ModelConfig
from mgsym.errors import InputError, MgsymError
from mgsym.graph import Graph
from mgsym.models import BarrierModel, create_model
from mgsym.pickles import names_asked_for
from mgsym.surroundings import Surroundings

FORMAT = "mgsym-model"
ENSEMBLE_FORMAT = "mgsym-ensemble"  # several of them in one file, see mgsym.ensemble
FORMAT_VERSION = 1

_DAMAGED = (RuntimeError, EOFError, OSError, ValueError, NotImplementedError)
# all that tensors, numbers and text are made of; torch would allow more
_OF_TENSORS = re.compile(
    r"collections\.OrderedDict|torch\._utils\._rebuild_tensor_v2|torch\.\w+Storage"
)


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
            f"a checkpoint whose parts do not fit together ({_first_line(error)}): it is damaged, "
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
    _refuse_wrong_training_set(content["training_set"])


def _refuse_wrong_training_set(told: Mapping[str, Any]) -> None:
    names = told.get("names", ())
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError("training_set.names is no list of names")
    atoms = told.get("atoms", 0)
    if type(atoms) is not int or atoms < 0:
        raise ValueError(f"training_set.atoms is {atoms!r}, expected a count")
    for name in ("number_density", "shortest_distance", "neighbors"):
        values = told.get(name, ())
        if not isinstance(values, list | tuple) or len(values) not in (0, 2):
            raise ValueError(f"training_set.{name} is {values!r}, expected two numbers or none")
        if not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
            raise ValueError(f"training_set.{name} is {values!r}, expected finite numbers")
    for name, values in (told.get("surroundings") or {}).items():
        if isinstance(values, Tensor) and not bool(torch.isfinite(values).all()):
            raise ValueError(f"training_set.surroundings.{name} has NaN or infinite numbers")


def _refuse_wrong_numbers(model: BarrierModel) -> None:
    """ValueError, which names the tensor, where a weight or a statistic is no finite number."""
    for name, values in model.state_dict().items():
        if not bool(torch.isfinite(values).all()):
            raise ValueError(f"{name} has NaN or infinite numbers")
    if float(model.label_scale) < 0:
        raise ValueError(f"label_scale is {float(model.label_scale):g}, expected at least 0")


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
    others: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Read what `save_safely` wrote, onto the CPU, executing nothing.

    Args:
        path: the file.
        kind: what its ``format`` must say.
        version: what its ``format_version`` must say.
        wanted: what to ask for in errors.
        or_kind: another ``format`` that will do.
        others: what to say of a file of another ``format``, by it.

    Raises:
        InputError: no such file, not such a file, damaged, or of another version.
    """
    hint = f"expected {wanted}"
    try:
        _look_through(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"no such file: {hint}", path=path) from error
    except MemoryError as error:
        raise InputError("there is not enough memory for what it holds", path=path) from error
    except (*_DAMAGED, pickle.UnpicklingError, zipfile.BadZipFile, KeyError) as error:
        raise InputError(f"damaged, or not written by mgsym: {hint}", path=path) from error
    except Exception as error:  # a hostile or garbled pickle can make the reader raise anything
        raise InputError(f"cannot be read safely: {hint}", path=path) from error
    found = content.get("format") if isinstance(content, dict) else None
    found = found[:80] if isinstance(found, str) else None
    if found is not None and found in others:
        raise InputError(others[found], path=path)
    if found not in (kind, or_kind) or found is None:
        raise InputError(f"holds {found or 'something else'}, expected {kind}: {hint}", path=path)
    if content.get("format_version") != version:
        raise InputError(
            f"{found} version {content.get('format_version')}, this mgsym reads version {version}: "
            "use the mgsym that wrote it, or make it again",
            path=path,
        )
    return dict(content)


def _look_through(path: Path) -> None:
    """Check that a file is as torch packs tensors, numbers and text, before it is unpacked.

    Raises:
        ValueError: it is not, or asks for other than that; it could take any amount of memory.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("it is compressed")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise ValueError("its parts are larger than it is")
        (pickled,) = (m for m in members if m.filename.rpartition("/")[2] == "data.pkl")
        names = names_asked_for(archive.read(pickled), ("BINPERSID",))
    unknown = {name for name in names if not _OF_TENSORS.fullmatch(name)}
    if unknown:
        raise ValueError(f"it asks for {', '.join(sorted(unknown))}")


def number_density(graph: Graph) -> float | None:
    """Atoms per Å³; None unless every structure is periodic along all three vectors."""
    if not bool(graph.periodic.all()):
        return None
    return graph.num_nodes / float(torch.linalg.det(graph.cell).abs().sum())


def _range(values: Sequence[float]) -> tuple[float, ...]:
    return (min(values), max(values)) if values else ()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
