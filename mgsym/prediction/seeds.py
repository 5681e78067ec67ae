"""Train one model per seed, and merge and calibrate them as an ensemble."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import TypedDict, Unpack, cast

import torch

from mgsym.errors import Interrupted, UsageError
from mgsym.evaluation.label_noise import label_noise
from mgsym.evaluation.splits import Split
from mgsym.graph import Graph
from mgsym.prediction.calibrate import calibrated
from mgsym.prediction.ensemble import merge, read_ensemble, save_ensemble
from mgsym.training.config import Config
from mgsym.training.runs import ENSEMBLE, TrainedRun, clear_run, read_summary
from mgsym.training.train import train
from mgsym.utils import processes
from mgsym.utils.files import lock_output, write_json
from mgsym.utils.progress import Progress, part


class TrainOptions(TypedDict, total=False):
    """What `mgsym.training.train` takes beside graphs, settings and run."""

    device: str | torch.device
    split: Split | None
    validation: Sequence[str] | None
    test: Sequence[str] | None
    start_from: str | Path | None
    graphs_from: str | Path | None
    overwrite: bool
    should_stop: Callable[[], bool] | None
    save_seconds: float


def train_seeds(
    graphs: Sequence[Graph],
    config: Config,
    seeds: Sequence[int],
    run: str | Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    **options: Unpack[TrainOptions],
) -> list[TrainedRun]:
    """Train one model per seed, in ``<run>/seed<k>``; write ``summary.json`` and ``ensemble.pt``.

    The ensemble is calibrated on the validation structures, where there are any. They chose the
    best epoch too, so its standard deviations are a little small.

    Args:
        graphs: as for `train`.
        config: its seed is replaced.
        seeds: distinct.
        run: the folder of the runs.
        resume: seeds that have a state go on from it, the others start.
        progress: as for `train`, over the steps of all seeds.
        options: everything else that `train` takes.
    """
    if processes.count() > 1:
        raise UsageError("several processes train one seed at a time: give --seed, not --seeds")
    if len(set(seeds)) < len(seeds) or not seeds:
        raise UsageError(f"expected distinct seeds, found {list(seeds)}")
    with lock_output(run, folder=True):
        return _train_seeds(graphs, config, seeds, Path(run), resume, progress, options)


def _train_seeds(
    graphs: Sequence[Graph],
    config: Config,
    seeds: Sequence[int],
    run: Path,
    resume: bool,
    progress: Progress | None,
    options: TrainOptions,
) -> list[TrainedRun]:
    if not resume:
        _refuse_existing_seeds(run, options.get("overwrite", False))
    options = _remembered(run, options) if resume else options
    about = {
        "seeds": list(seeds),
        "validation": _plain(options.get("validation")),
        "test": _plain(options.get("test")),
        "start_from": _plain(options.get("start_from")),
    }
    write_json(run / "summary.json", {**about, "scores": {}})
    (run / ENSEMBLE).unlink(missing_ok=True)
    results: list[TrainedRun] = []
    try:
        for i, seed in enumerate(seeds):
            folder = run / f"seed{seed}"
            seed_config = replace(config, seed=seed)
            going_on = resume and (folder / "run.json").exists()
            step = part(progress, i, len(seeds), alike=True, seed=seed)
            results.append(
                train(graphs, seed_config, run=folder, resume=going_on, progress=step, **options)
            )
    except Interrupted as error:
        raise Interrupted(
            f"training was interrupted at seed {seed}; go on with: mgsym train --resume {run}"
        ) from error
    write_json(run / "summary.json", {**about, "scores": summarize(results)})
    _merge(graphs, results, run, options.get("device", "auto"))
    return results


def _merge(
    graphs: Sequence[Graph], results: Sequence[TrainedRun], run: Path, device: str | torch.device
) -> None:
    """Write the seeds as one ensemble, calibrated on their validation structures."""
    ensemble = merge([read_ensemble(result.folder) for result in results if result.folder])
    wanted = set(results[0].split["validation"])
    if validation := [graph for graph in graphs if graph.names[0] in wanted]:
        # glasses labelled twice, training ones too, tell the noise of labels without an error
        ensemble = calibrated(ensemble, validation, label_noise(graphs), device)
    save_ensemble(run / ENSEMBLE, ensemble)


def summarize(results: Sequence[TrainedRun]) -> dict[str, dict[str, float]]:
    """Mean and sample standard deviation over runs (0 for one run) of their main scores.

    Returns:
        By role, ``mean_pearson``, ``pooled_pearson``, ``pooled_mae`` and each with ``_sd``.
    """
    summary: dict[str, dict[str, float]] = {}
    for role in results[0].scores:
        of_role = [result.scores[role] for result in results]
        values = {
            "mean_pearson": [s.mean_pearson for s in of_role],
            "pooled_pearson": [s.pooled.pearson for s in of_role],
            "pooled_mae": [s.pooled.mae for s in of_role],
        }
        summary[role] = {name: fmean(v) for name, v in values.items()}
        for name, v in values.items():
            summary[role][f"{name}_sd"] = stdev(v) if len(v) > 1 else 0.0
    return summary


def _remembered(folder: Path, options: TrainOptions) -> TrainOptions:
    """What was asked when the seeds began, for those that start only now."""
    saved = read_summary(folder)
    kept = {key: saved.get(key) for key in ("validation", "test", "start_from")}
    chosen = {key: value for key, value in options.items() if value is not None}
    return cast(TrainOptions, {**kept, **chosen})


def _plain(value: str | Path | Sequence[str] | None) -> str | list[str] | None:
    if value is None:
        return None
    return str(value) if isinstance(value, str | Path) else list(value)


def _refuse_existing_seeds(folder: Path, overwrite: bool) -> None:
    """An older seed that is not trained again would be taken for one of the new run."""
    old = sorted(folder.glob("seed*/run.json"))
    if old and not overwrite:
        raise UsageError(
            f"{folder} holds a run already: choose another run directory, go on with --resume "
            f"{folder}, or add --overwrite"
        )
    for file in old:
        clear_run(file.parent)
