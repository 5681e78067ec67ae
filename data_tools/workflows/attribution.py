"""The reference that a model's attributions are compared with: found, or made and kept.

It lies beside the checkpoint (``best-reference.json`` beside ``best.pt``), as it does for the
model that ships with mgsym; it is made from the run's training graphs when first asked for.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from mgsym.data_tools.workflows.explanation_target import ExplainedSystem
from mgsym.data_tools.workflows.graphs import read_graphs
from mgsym.errors import InputError, MgsymError
from mgsym.explanation.computation_graph import frozen_eval
from mgsym.explanation.whole import (
    ENVIRONMENTS,
    Attribution,
    Reference,
    WholePrediction,
    attribute,
    reference_of,
)
from mgsym.graph import Graph
from mgsym.models.base import BarrierModel
from mgsym.training.runs import run_graphs
from mgsym.utils.files import read_json, write_json
from mgsym.utils.names import file_in
from mgsym.utils.progress import Progress

FORMAT = "mgsym-attribution-reference"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class FoundReference:
    """A reference, and where it is from.

    Attributes:
        reference: of the model.
        notes: what was chosen for the caller.
        path: the file that was written; None where there was one, or none can be kept.
    """

    reference: Reference
    notes: tuple[str, ...] = ()
    path: Path | None = None


def reference_path(checkpoint: Path) -> Path:
    """Where the reference of a checkpoint's (first) model lies."""
    return checkpoint.with_name(f"{checkpoint.stem}-reference.json")


def model_hash(model: BarrierModel) -> str:
    """Of all numbers of a model, which a reference is right for alone."""
    digest = hashlib.sha256(repr(model.species).encode())
    for values in model.state_dict().values():
        digest.update(values.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_reference(path: Path, model: BarrierModel, reference: Reference) -> None:
    """Write a model's reference as JSON."""
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, "model": model_hash(model)}
    write_json(path, {**content, **reference.as_dict()})


def load_reference(path: Path, model: BarrierModel) -> Reference | None:
    """Read what `save_reference` wrote; None where there is no file, or one of another model.

    Raises:
        InputError: the file is damaged.
    """
    if not path.exists():
        return None
    content = read_json(path)
    if (content.get("format"), content.get("format_version")) != (FORMAT, FORMAT_VERSION):
        raise InputError(
            f"expected {FORMAT} version {FORMAT_VERSION}: delete it, and it is made anew",
            path=path,
        )
    if content.get("model") != model_hash(model):
        return None
    try:
        return Reference.from_dict(content)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"a damaged reference: {error!r}; delete it", path=path) from None


def find_reference(
    system: ExplainedSystem,
    graphs: str | Path | None = None,
    progress: Progress | None = None,
) -> FoundReference:
    """The reference of the model explained: read, or made of its training graphs and kept.

    Where neither file nor training graphs are left, the atoms of the structure itself stand in.

    Args:
        system: the model and the structure.
        graphs: where the run's graphs are; None takes the folder it was trained on, or ``graphs``.
        progress: called with the atoms done and in all.

    Raises:
        InputError: a file is damaged.
        UsageError: the model has nothing to attribute to.
    """
    path, model = reference_path(system.checkpoint), system.model
    known = load_reference(path, model)
    if known is not None:
        return FoundReference(known)
    folder = Path(graphs or run_graphs(system.checkpoint.parent) or "graphs")
    training = _training_graphs(system, folder)
    with frozen_eval(model) as where:
        chosen = [graph.to(where) for graph in training or [system.graph]]
        found = reference_of(model, chosen, ENVIRONMENTS, progress)
    if not training:
        note = (
            f"The training graphs are not in {folder}: neighbours are compared with those of "
            "other atoms of the structure itself"
        )
        return FoundReference(found, (note,))
    try:
        save_reference(path, model, found)
    except (OSError, MgsymError):
        return FoundReference(found)  # a folder that cannot be written to: made anew next time
    return FoundReference(found, (), path)


def _training_graphs(system: ExplainedSystem, folder: Path) -> list[Graph]:
    """The graphs that the model was trained on; empty unless all are there."""
    known = system.training_set
    names = () if known is None else known.names
    files = [file_in(folder, str(name), ".npz") for name in names]
    if not files or not all(file.exists() for file in files):
        return []
    return list(read_graphs(files))


def attribute_atom(system: ExplainedSystem, node: int, reference: Reference) -> Attribution:
    """What the neighbours of one atom add to its prediction."""
    with frozen_eval(system.model) as where:
        return attribute(WholePrediction(system.model, system.graph.to(where)), node, reference)
