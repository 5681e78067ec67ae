"""One training of a benchmark, and the JSON record that is all a table needs of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from mgsym.benchmark.plan import (
    CHOSEN_ON_TEST,
    RENAMED,
    BenchmarkPlan,
    Fold,
    as_json,
    trial_name,
)
from mgsym.errors import InputError, Interrupted, MgsymError, UsageError, short
from mgsym.graph.operations import graph_hash
from mgsym.prediction import rotation_spread
from mgsym.training import train
from mgsym.training.config import Config, with_new_settings
from mgsym.training.runs import (
    COUNT,
    NUMBER,
    SCORES,
    TABLE,
    TEXT,
    Kinds,
    TrainedRun,
    check_kinds,
    clear_run,
    read_run,
)
from mgsym.utils.devices import PeakMemory, device_name
from mgsym.utils.files import read_json, write_json
from mgsym.utils.progress import Progress
from mgsym.utils.settings import differing
from mgsym.version import __version__

FORMAT, VERSION = "mgsym-benchmark-trial", 1


@dataclass(frozen=True)
class Planned:
    """A training to do.

    Attributes:
        label: of the model.
        fold: which structures have which role.
        seed: of everything random.
        config: its settings, seed included.
        protocol: a key of PROTOCOLS.
        hashes: of the graphs, by structure.
    """

    label: str
    fold: Fold
    seed: int
    config: Config
    protocol: str
    hashes: Mapping[str, str]

    @property
    def name(self) -> str:
        """``<model>-<fold>-seed<k>``."""
        return trial_name(self.label, self.fold.name, self.seed)

    def identity(self) -> dict[str, Any]:
        """What decides the result; a record counts only while this is the same."""
        split = {k: v for k, v in self.fold.split.names().items() if k != "unused"}
        used = {name for names in split.values() for name in names}
        hashes = {f"graph {name}": h for name, h in self.hashes.items() if name in used}
        roles = {f"structures to {role}": names for role, names in split.items()}
        return as_json({"protocol": self.protocol, **self.config.flat(), **roles, **hashes})


_KINDS: Kinds = {
    **dict.fromkeys(("model", "fold", "error", "invariant", "stopped", "device"), TEXT),
    **dict.fromkeys(("seed", "parameters", "best_epoch"), COUNT),
    **dict.fromkeys(("epochs", "seconds", "peak_memory"), NUMBER),
    **dict.fromkeys(("identity", "rotation", "versions"), TABLE),
    "scores": SCORES,
}


@dataclass(frozen=True)
class Trial:
    """A training that is over.

    Attributes:
        model: the label of its model.
        fold: the glass left out, or ``split``.
        seed: of everything random.
        identity: settings, split and hashes of the graphs.
        error: why it failed; empty for those that did not, and the rest is only known for these.
        scores: by role, as `SplitScores.as_dict` gives them. Under ``published-code`` the
            test structures' role is CHOSEN_ON_TEST.
        parameters: trained numbers.
        invariant: what the model declares.
        best_epoch, epochs: of the weights scored, and how many were run.
        stopped: why training ended early, or empty.
        seconds: of training, with its set-up and scoring, over all resumptions.
        peak_memory: GB; None where the system does not tell.
        rotation: `RotationSpread` on one scored structure (eV), and its name.
        device: what it ran on.
        versions: of mgsym and torch.
    """

    model: str
    fold: str
    seed: int
    identity: Mapping[str, Any]
    error: str = ""
    scores: Mapping[str, Any] = field(default_factory=dict)
    parameters: int = 0
    invariant: str = ""
    best_epoch: int = 0
    epochs: int | None = None
    stopped: str = ""
    seconds: float = 0.0
    peak_memory: float | None = None
    rotation: Mapping[str, Any] = field(default_factory=dict)
    device: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the record, whole or not at all."""
        write_json(path, {"format": FORMAT, "format_version": VERSION, **asdict(self)})


def load_trial(path: Path) -> Trial:
    """Read what `Trial.save` wrote.

    Raises:
        InputError: damaged, or something else.
    """
    content = read_json(path)
    if (content.pop("format", None), content.pop("format_version", None)) != (FORMAT, VERSION):
        raise InputError(f"expected {FORMAT} version {VERSION}", path=path)
    check_kinds(content, _KINDS, path)
    try:
        trial = Trial(**content)
    except TypeError as error:
        raise InputError(f"damaged: {error}", path=path) from error
    if not trial.error:
        _check_figures(trial, path)
    return trial


def _check_figures(trial: Trial, path: Path) -> None:
    """Refuse a record that lacks a figure which the table is made of.

    Raises:
        InputError: the figure is named.
    """
    needed: list[tuple[str, Any]] = [("rotation.rms", trial.rotation.get("rms"))]
    for role, scores in trial.scores.items():
        structures = scores.get("structures") or {"structures": {}}
        for name, figures in (("pooled", scores.get("pooled", {})), *structures.items()):
            # a correlation that is not defined stands as null
            needed += [
                (f"scores.{role}.{name}.{key}", figures.get(key))
                for key in ("mae", "rmse", "count")
            ]
            needed += [
                (f"scores.{role}.{name}.{key}", figures.get(key, "nothing") or 0.0)
                for key in ("pearson", "spearman")
            ]
    for figure, value in needed:
        if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value):
            raise InputError(
                f"{figure[:120]} is {short(value)}, expected a number: it is damaged, delete "
                "it, and its training is done again",
                path=path,
            )


def finished_trial(path: Path, planned: Planned) -> Trial | None:
    """The record of a planned training, if it is there and did not fail.

    Raises:
        UsageError: it was trained with other settings or graphs.
    """
    if not path.exists():
        return None
    trial = load_trial(path)
    before = dict(trial.identity)
    before["protocol"] = RENAMED.get(before.get("protocol", ""), before.get("protocol"))
    new = with_new_settings({"model.name": planned.config.model.name})
    before = {**as_json(new), **before}
    if changed := differing(before, planned.identity()):
        raise UsageError(
            f"{path} was trained otherwise ({'; '.join(changed[:4])}): take another folder with "
            "-o, or train everything again with --overwrite"
        )
    return None if trial.error else trial


def run_trial(
    planned: Planned,
    plan: BenchmarkPlan,
    run: Path,
    device: torch.device,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Trial:
    """Train, score and measure. What was begun in the run directory goes on.

    A training that diverges or fills the memory gives a Trial with an error.

    Raises:
        InputError, UsageError: as `train`.
        Interrupted: `should_stop` said so.
    """
    about: dict[str, Any] = {
        "model": planned.label,
        "fold": planned.fold.name,
        "seed": planned.seed,
        "identity": planned.identity(),
        "device": device_name(device),
        "versions": {"mgsym": __version__, "torch": torch.__version__},
    }
    going_on = (run / "last.pt").exists()
    start, memory = time.perf_counter(), PeakMemory(device)
    try:
        trained = train(
            [],
            planned.config,
            run=run,
            device=device,
            split=planned.fold.split,
            resume=going_on,
            overwrite=True,
            progress=progress,
            should_stop=should_stop,
        )
    except (InputError, UsageError, Interrupted):
        raise
    except (MgsymError, torch.OutOfMemoryError) as error:
        clear_run(run)
        return Trial(**about, error=str(error))
    facts = read_run(run)
    about["device"] = device_name(device, facts.get("threads"))  # training may take fewer
    seconds = max(time.perf_counter() - start, float(facts.get("seconds", 0.0)))
    return Trial(
        **about,
        scores=_scores(trained, planned.protocol),
        parameters=trained.model.num_parameters,
        invariant=trained.model.invariant,
        best_epoch=trained.best_epoch,
        epochs=facts.get("epochs"),
        stopped=trained.stopped,
        seconds=round(seconds, 2),
        peak_memory=memory.gigabytes(),
        rotation=_rotation(trained, planned.fold, plan.rotations),
    )


def _scores(trained: TrainedRun, protocol: str) -> dict[str, Any]:
    by_role = {role: scores.as_dict() for role, scores in trained.scores.items()}
    if protocol == "published-code":
        by_role[CHOSEN_ON_TEST] = by_role.pop("validation")
    return by_role


def _rotation(trained: TrainedRun, fold: Fold, count: int) -> dict[str, Any]:
    """On the first structure that trained nothing."""
    graph = [*fold.split.test, *fold.split.validation][0]
    spread = rotation_spread(trained.model, graph, count)
    return {"structure": graph.names[0], **asdict(spread)}


def hashes_of(folds: list[Fold]) -> dict[str, str]:
    """`graph_hash` of every structure in some folds, each computed once."""
    graphs = {g.names[0]: g for fold in folds for _, members in fold.split.items() for g in members}
    return {name: graph_hash(graph) for name, graph in graphs.items()}
