"""Several models as one predictor: their weighted mean, their spread, and what it is worth.

Seeds of one model, or different models, lie in one file with a weight each and a calibration of
the spread between them (mgsym.uncertainty.calibration). Averaging models that were trained alike is
a deep ensemble (Lakshminarayanan, Pritzel & Blundell, NeurIPS 2017).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mgsym.errors import InputError, UsageError
from mgsym.models.base import BarrierModel
from mgsym.training.checkpoint import (
    ENSEMBLE_FORMAT,
    FORMAT,
    FORMAT_VERSION,
    Metadata,
    checkpoint_content,
    rebuilt,
)
from mgsym.training.runs import ENSEMBLE, run_checkpoints
from mgsym.uncertainty.calibration import Calibration
from mgsym.uncertainty.out_of_distribution import TrainingSet
from mgsym.utils.files import load_safely, save_safely


@dataclass(frozen=True, eq=False)
class Member:
    """One model of an ensemble.

    Attributes:
        model: in eval mode.
        name: of its run.
        weight: above 0; only ratios matter.
        metadata: what it was trained on; None for a model that was never saved.
    """

    model: BarrierModel
    name: str = ""
    weight: float = 1.0
    metadata: Metadata | None = None

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise UsageError(f"{self.name} has the weight {self.weight}, expected one above 0")

    def was_trained_on(self, name: str) -> bool:
        """Whether a structure of this name taught it."""
        return self.metadata is not None and name in self.metadata.training_set.names


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Models that predict together.

    Attributes:
        members: at least one.
        calibration: of the spread between them, where it is known.
        about: numbers and text (in dicts and lists) that belong to it.
    """

    members: tuple[Member, ...]
    calibration: Calibration | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.members:
            raise InputError("no model was given to predict with")

    def __len__(self) -> int:
        return len(self.members)

    @property
    def models(self) -> list[BarrierModel]:
        """Its models."""
        return [member.model for member in self.members]

    @property
    def cutoff(self) -> float:
        """Å, the largest of its models: a graph with this cutoff serves them all."""
        return max(model.cutoff for model in self.models)

    @property
    def metadata(self) -> Metadata | None:
        """That of the first model, with the training structures of all."""
        metadata = [member.metadata for member in self.members if member.metadata is not None]
        if not metadata:
            return None
        together = TrainingSet.union([m.training_set for m in metadata])
        return replace(metadata[0], training_set=together)

    @property
    def training_set(self) -> TrainingSet | None:
        """What its models were trained on; None for models that were never saved."""
        return None if self.metadata is None else self.metadata.training_set

    def combined(self, predictions: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted mean and standard deviation over the models.

        Args:
            predictions: [models, n] eV.

        Returns:
            Two [n], eV; the second is 0 for one model.
        """
        values = predictions.double()
        weights = values.new_tensor([member.weight for member in self.members])
        weights = (weights / weights.sum())[:, None]
        mean = (weights * values).sum(0)
        spread = (weights * (values - mean).square()).sum(0).sqrt()
        return mean.to(predictions), spread.to(predictions)

    def without(self, name: str) -> Ensemble | None:
        """The members that were not trained on a structure of this name; None if all were."""
        kept = tuple(member for member in self.members if not member.was_trained_on(name))
        return replace(self, members=kept) if kept else None


def save_ensemble(path: str | Path, ensemble: Ensemble, overwrite: bool = True) -> None:
    """Write all models of an ensemble, its weights and calibration into one file.

    Raises:
        UsageError: a model was never saved, so that nothing tells how to build it again.
        OSError: the disk is full.
    """
    members: list[dict[str, Any]] = []
    for member in ensemble.members:
        if member.metadata is None:
            raise UsageError("a model that was never saved cannot join a file: save it first")
        metadata = member.metadata
        content = checkpoint_content(
            member.model, metadata.model, metadata.training_set, metadata.extra
        )
        members.append({"name": member.name, "weight": member.weight, "checkpoint": content})
    _share_surroundings([member["checkpoint"]["training_set"] for member in members])
    calibration = ensemble.calibration
    content = {
        "format": ENSEMBLE_FORMAT,
        "format_version": FORMAT_VERSION,
        "members": members,
        "calibration": None if calibration is None else calibration.as_dict(),
        "about": dict(ensemble.about),
    }
    save_safely(path, content, overwrite)


def read_ensemble(run: str | Path, device: str | torch.device = "cpu") -> Ensemble:
    """The models of a run: of an ensemble file, a folder of seeds, a run directory, a checkpoint.

    A folder of seeds that holds an ensemble file is that ensemble.

    Raises:
        InputError: there is none, or a file is damaged.
    """
    merged = Path(run) / ENSEMBLE
    paths = [merged] if merged.exists() else run_checkpoints(run)
    ensembles = [_read(path, device) for path in paths]
    if len(ensembles) == 1:
        return ensembles[0]
    return Ensemble(tuple(member for ensemble in ensembles for member in ensemble.members))


def merge(ensembles: Sequence[Ensemble], weights: Sequence[float] | None = None) -> Ensemble:
    """One ensemble of the members of several; it has no calibration.

    Args:
        ensembles: each with one model or more.
        weights: of each ensemble, shared by its members; None weighs all models alike.

    Raises:
        UsageError: not one weight for each.
    """
    if weights is not None and len(weights) != len(ensembles):
        raise UsageError(f"{len(weights)} weights for {len(ensembles)} runs: give one for each")
    members = []
    for i, ensemble in enumerate(ensembles):
        total = sum(member.weight for member in ensemble.members)
        for member in ensemble.members:
            weight = 1.0 if weights is None else weights[i] * member.weight / total
            members.append(replace(member, weight=weight))
    return Ensemble(tuple(members))


def _read(path: Path, device: str | torch.device) -> Ensemble:
    wanted = "a file that mgsym train (best.pt) or mgsym ensemble wrote"
    content = load_safely(path, FORMAT, FORMAT_VERSION, wanted, or_kind=ENSEMBLE_FORMAT)
    if content["format"] == FORMAT:
        name = path.parent.name if path.name == "best.pt" else path.stem
        model, metadata = rebuilt(content, path, device)
        return Ensemble((Member(model, name or str(path), metadata=metadata),))
    try:
        if not isinstance(content["members"], list) or not isinstance(content["about"], dict):
            raise TypeError("members is no list, or about no table")
        kept = content["calibration"]
        calibration = None if kept is None else Calibration.from_dict(kept)
        return Ensemble(
            tuple(_member(part, path, device) for part in content["members"]),
            calibration,
            content["about"],
        )
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        raise InputError(
            f"an ensemble whose parts do not fit together ({error}): it is damaged, merge again",
            path=path,
        ) from error


def _member(part: Mapping[str, Any], path: Path, device: str | torch.device) -> Member:
    model, metadata = rebuilt(part["checkpoint"], path, device)
    return Member(model, str(part["name"]), float(part["weight"]), metadata)


def _share_surroundings(sets: Sequence[dict[str, Any]]) -> None:
    """Training sets that are alike hold the same tensors, which a file then stores once."""
    first: dict[tuple[str, ...], dict[str, Any]] = {}
    for training_set in sets:
        shared = first.setdefault(tuple(training_set["names"]), training_set)["surroundings"]
        own = training_set["surroundings"]
        if own is not None and shared is not None and torch.equal(own["mean"], shared["mean"]):
            training_set["surroundings"] = shared
