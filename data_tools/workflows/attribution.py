"""The references that models' attributions are compared with: found, or made and kept.

They lie beside the checkpoint (``best-reference.json`` beside ``best.pt``), as it does for the
model that ships with mgsym; they are made from the run's training graphs when first
asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
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
    mean_attribution,
    reference_of,
)
from mgsym.graph import Graph
from mgsym.graph.operations import graph_hash
from mgsym.models.base import BarrierModel
from mgsym.prediction.ensemble import Member
from mgsym.training.runs import read_run, run_graphs
from mgsym.utils.files import read_json, write_json
from mgsym.utils.names import file_in
from mgsym.utils.progress import Progress

FORMAT = "mgsym-attribution-reference"
FORMAT_VERSION = 2


@dataclass(frozen=True)
class FoundReferences:
    """The references of a run's models, and where they are from.

    Attributes:
        references: one a model.
        notes: what was chosen for the caller.
        path: the file that was written; None where there was one, or none can be kept.
    """

    references: tuple[Reference, ...]
    notes: tuple[str, ...] = ()
    path: Path | None = None


def reference_path(checkpoint: Path) -> Path:
    """Where the references of a run's models lie, beside its (first) checkpoint."""
    return checkpoint.with_name(f"{checkpoint.stem}-reference.json")


def model_hash(model: BarrierModel) -> str:
    """Of all numbers of a model, which a reference is right for alone."""
    digest = hashlib.sha256(repr(model.species).encode())
    for values in model.state_dict().values():
        digest.update(values.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_references(
    path: Path, models: Sequence[BarrierModel], references: Sequence[Reference]
) -> None:
    """Write the references of models as JSON."""
    each = [
        {"model": model_hash(model), **reference.as_dict()}
        for model, reference in zip(models, references, strict=True)
    ]
    write_json(path, {"format": FORMAT, "format_version": FORMAT_VERSION, "references": each})


def load_references(path: Path, models: Sequence[BarrierModel]) -> tuple[Reference, ...] | None:
    """Read what `save_references` wrote; None where there is no file, or it lacks a model.

    Raises:
        InputError: the file is damaged.
    """
    if not path.exists():
        return None
    content = read_json(path)
    by_version = {1: [content], FORMAT_VERSION: content.get("references")}  # the first held one
    kept = by_version.get(content.get("format_version", 0))
    if content.get("format") != FORMAT or not isinstance(kept, list):
        raise InputError(
            f"expected {FORMAT} version {FORMAT_VERSION}: delete it, and it is made anew",
            path=path,
        )
    try:
        of_model = {saved["model"]: saved for saved in kept}
        wanted = [of_model.get(model_hash(model)) for model in models]
        references = tuple(Reference.from_dict(saved) for saved in wanted if saved is not None)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"a damaged reference: {error!r}; delete it", path=path) from None
    return references if len(references) == len(models) else None


def find_references(
    system: ExplainedSystem,
    graphs: str | Path | None = None,
    progress: Progress | None = None,
    models: int | None = None,
) -> FoundReferences:
    """The references of the run's models: read, or made of their training graphs and kept.

    Where neither file nor training graphs are left, the atoms of the structure itself stand in.

    Args:
        system: the models and the structure.
        graphs: where the run's graphs are; None takes the folder it was trained on, or ``graphs``.
        progress: called with the atoms done and in all.
        models: of how many of them, the first ones; None takes all.

    Raises:
        InputError: a file is damaged.
        UsageError: a model has nothing to attribute to.
    """
    path, members = reference_path(system.checkpoint), system.members[:models]
    every = [member.model for member in members]
    saved = load_references(path, every)
    if saved is not None:
        return FoundReferences(saved)
    folder = Path(graphs or run_graphs(system.checkpoint.parent) or "graphs")
    references, missing = [], ""
    for member in members:
        training = _training_graphs(system, member, folder)
        missing = training if isinstance(training, str) else missing
        with frozen_eval(member.model) as where:
            chosen = [system.plain] if isinstance(training, str) else training
            here = [graph.to(where) for graph in chosen]
            references.append(reference_of(member.model, here, ENVIRONMENTS, progress))
    if missing:
        note = (
            f"{missing}: neighbours are compared with those of other atoms of the structure "
            "itself (mgsym explain --graphs FOLDER names the training graphs, once)"
        )
        return FoundReferences(tuple(references), (note,))
    try:
        save_references(path, every, references)
    except (OSError, MgsymError):
        return FoundReferences(tuple(references))  # a folder that cannot be written to: made anew
    return FoundReferences(tuple(references), (), path)


def _training_graphs(system: ExplainedSystem, member: Member, folder: Path) -> list[Graph] | str:
    """The graphs that a model was trained on; or, unless all are there as they were, what is not.

    What a file was is known of a run that has its run.json beside the checkpoint.
    """
    names = () if member.metadata is None else member.metadata.training_set.names
    files = [file_in(folder, str(name), ".npz") for name in names]
    gone = [file.name for file in files if not file.exists()]
    if not files or gone:
        return f"The training graphs are not in {folder}"
    training = list(read_graphs(files))
    run = system.checkpoint.parent
    hashes = read_run(run).get("graphs_sha256", {}) if (run / "run.json").exists() else {}
    changed = [
        str(file)
        for name, file, graph in zip(names, files, training, strict=True)
        if hashes.get(name, actual := graph_hash(graph)) != actual
    ]
    if changed:
        return f"{', '.join(changed)}: changed since the run {run}"
    return training


def attribute_atom(
    system: ExplainedSystem, node: int, references: Sequence[Reference]
) -> Attribution:
    """What the neighbours of one atom add to its prediction, the mean over the run's models."""
    attributions = []
    for member, reference in zip(system.members, references, strict=True):
        graph = system.graph if member.model is system.model else system.plain
        with frozen_eval(member.model) as where:
            whole = WholePrediction(member.model, graph.to(where))
            attributions.append(attribute(whole, node, reference))
    return mean_attribution(attributions, [member.weight for member in system.members])
