"""Train a model on labelled graphs: reproducible to the bit on a CPU, resumable at any step.

How a model is trained is read in five files, from here down:

- this one: what is asked for is checked, glasses are held out, the run folder is opened;
- `trainer`: the loop over epochs and steps, the evaluation, what is saved and resumed;
- `loss`: what a step minimises;
- `teacher`: a regression whose predictions it may follow before the labels;
- `optimizer`: how it steps (optimiser, learning rate, averaged weights).

The settings are described in `config`; `runs` and `checkpoint` know the files of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from mgsym.errors import InputError, UsageError
from mgsym.evaluation.splits import Split, refuse_equal_names, split_by_glass
from mgsym.graph import Graph
from mgsym.training.config import Config, preset, settings_from_file, with_new_settings
from mgsym.training.runs import (
    PARTS,
    TrainedRun,
    clear_run,
    read_run,
    start_run,
)
from mgsym.training.trainer import STATE_FORMAT, STATE_VERSION, Hooks, Trainer
from mgsym.utils import processes
from mgsym.utils.devices import one_thread, resolve_device
from mgsym.utils.files import load_safely, lock_output
from mgsym.utils.progress import Progress
from mgsym.utils.settings import differing

# edges: smaller steps take one thread, as waiting for others is most of it on a busy machine
# (docs/benchmarks.md, "The sample")
WORTH_SHARING = 50_000


def train(
    graphs: Sequence[Graph],
    config: Config | None = None,
    *,
    run: str | Path | None = None,
    device: str | torch.device = "auto",
    split: Split | None = None,
    validation: Sequence[str] | None = None,
    test: Sequence[str] | None = None,
    start_from: str | Path | None = None,
    graphs_from: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
    save_seconds: float = 10.0,
) -> TrainedRun:
    """Train a model.

    The best epoch is the one with the highest mean per-structure Pearson on the validation
    structures; the test structures are scored once, at the end. The caller's random state is left
    as it was.

    Args:
        graphs: one labelled structure each, with distinct names.
        config: see `mgsym.training.config.load_config`; the preset ``fast`` when None.
        run: the run directory to write; nothing is written when None.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``. Where torchrun started several processes,
            they share the structures of each step; on a machine with GPUs each takes its own.
        split: which graphs train, validate and test; by default `split_by_glass` decides, from
            `validation` and `test`.
        validation, test: names, glasses or patterns; see `split_by_glass`.
        start_from: a run or checkpoint whose weights to start from (fine-tuning). Its model and
            label scale are kept.
        graphs_from: the folder that the graphs were read from, which run.json keeps.
        resume: go on where the run in `run` stopped, from its beginning where it had saved nothing.
        overwrite: replace a run that exists.
        progress: called after each step with steps done, steps in all and, by keyword, what is
            known: epoch, loss, validation, best.
        should_stop: asked after each step; when it says yes, the state is saved and `Interrupted`
            raised.
        save_seconds: how often the state is saved, at most.

    Raises:
        UsageError: the settings do not fit, the run exists, another program is at it, or what is
            resumed has changed.
        InputError: the graphs cannot be trained on.
        MgsymError: training diverged.
        Interrupted: `should_stop` said so; the message tells how to go on.
    """
    config = preset("fast") if config is None else config
    folder = None if run is None else Path(run)
    where = resolve_device(processes.own_device(device))
    writes = processes.rank() == 0
    lock = lock_output(folder, folder=True) if folder is not None and writes else nullcontext()
    with lock, processes.joined(where):
        _check_request(config, folder if writes or resume else None, where, resume, overwrite)
        saved = _load_state(folder) if resume and folder else None
        begun = saved or (read_run(folder) if resume and folder else {})
        start_from = start_from or begun.get("start_from") or None
        if split is None:
            split = _choose_split(graphs, begun.get("split"), validation, test)
        refuse_equal_names([g for _, members in split.items() for g in members])
        _check_processes(config, len(split.train))
        processes.barrier()  # what is resumed is read before anything is written
        devices = [where] if where.type == "cuda" else []
        shared = where.type == "cuda" or _edges_in_a_step(split.train, config) > WORTH_SHARING
        with (
            torch.random.fork_rng(devices=devices),
            nullcontext() if shared else one_thread(),
            _beginning(folder, config, split, start_from)
            if folder and writes and not saved
            else nullcontext(),
        ):
            hooks = Hooks(
                folder if writes else None, graphs_from, save_seconds, progress, should_stop
            )
            trainer = Trainer(split, config, where, start_from, hooks)
            if saved is not None:
                _refuse_changes(saved, trainer)
                trainer.restore(saved)
            return trainer.run()


def _check_processes(config: Config, structures: int) -> None:
    """UsageError where a step has fewer structures than there are processes to share them."""
    in_a_step = min(config.training.batch_size or structures, structures)
    if processes.count() > in_a_step:
        raise UsageError(
            f"{processes.count()} processes, but a step has {in_a_step} structures: start "
            f"{in_a_step} at most, or set training.batch_size (0: all structures in a step)"
        )


def _edges_in_a_step(graphs: Sequence[Graph], config: Config) -> int:
    """At most."""
    sizes = sorted((graph.num_edges for graph in graphs), reverse=True)
    return sum(sizes[: config.training.batch_size or len(sizes)])


def _check_request(
    config: Config, folder: Path | None, device: torch.device, resume: bool, overwrite: bool
) -> None:
    if config.training.precision == "float16" and device.type == "cpu":
        raise UsageError("precision float16 needs a CUDA device: use bfloat16 or float32")
    if resume and folder is None:
        raise UsageError("resuming needs the run directory")
    if folder is None or resume:
        return
    if folder.is_file() or any((folder / name).exists() for name in PARTS):
        if folder.is_file() or not overwrite:
            raise UsageError(
                f"{folder} exists already: choose another run directory, go on with --resume "
                f"{folder}, or add --overwrite"
            )
        clear_run(folder)


def _load_state(folder: Path) -> dict[str, Any] | None:
    """What to go on from; None where a run was stopped before it saved anything."""
    path = folder / "last.pt"
    if path.exists():
        return load_safely(path, STATE_FORMAT, STATE_VERSION)
    if not (folder / "run.json").exists() or read_run(folder).get("status") == "finished":
        raise InputError("there is no last.pt to resume from", path=folder)
    return None


@contextmanager
def _beginning(
    folder: Path, config: Config, split: Split, start_from: str | Path | None
) -> Iterator[None]:
    """Say what a run is before the work, so that one that is killed can be begun again.

    Where it comes to nothing, no run is left.
    """
    clear_run(folder)
    try:
        start_run(folder, config, {"split": split.names(), "start_from": str(start_from or "")})
        yield
    except (OSError, InputError, UsageError):
        if not any((folder / name).exists() for name in ("best.pt", "last.pt")):
            clear_run(folder)
        raise


def _choose_split(
    graphs: Sequence[Graph],
    begun: Mapping[str, Sequence[str]] | None,
    validation: Sequence[str] | None,
    test: Sequence[str] | None,
) -> Split:
    """What is asked for; a resumed run that asks for nothing keeps the split that it had."""
    if begun is None or validation is not None or test is not None:
        return split_by_glass(graphs, validation, test)
    by_name = {g.names[0]: g for g in graphs}
    missing = [n for names in begun.values() for n in names if n not in by_name]
    if missing:
        raise InputError(f"the run was trained with {', '.join(missing)}, not among these graphs")
    return Split(**{role: [by_name[n] for n in names] for role, names in begun.items()})


def _refuse_changes(saved: Mapping[str, Any], trainer: Trainer) -> None:
    """A run goes on as it began, or not at all."""
    advice = "start a new run, or fine-tune with --from"
    before = with_new_settings(settings_from_file(saved["config"]))
    after = trainer.config.flat()
    if changed := differing(before, after):
        raise UsageError(f"the settings have changed ({'; '.join(changed)}): {advice}")
    if saved["split"] != trainer.split.names():
        raise UsageError(f"the split has changed since the run began: {advice}")
    hashes = saved["hashes"]
    if changed := [name for name, value in trainer.hashes.items() if hashes.get(name) != value]:
        raise UsageError(f"the graphs have changed ({', '.join(changed)}): {advice}")
