"""Compare models: train each over seeds and glasses under one protocol and budget.

A benchmark is a folder: ``plan.json`` what is trained · ``trials/`` one JSON record per finished
training · ``runs/`` their run directories · ``table.md``, ``table.csv``, ``table.json`` what came
of it, written anew after each training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path

import torch

from mgsym.benchmark.plan import (
    CHOSEN_ON_TEST,
    PLAN,
    PROTOCOLS,
    BenchmarkPlan,
    Fold,
    benchmark_models,
    load_plan,
    make_folds,
)
from mgsym.benchmark.table import Table, make_table
from mgsym.benchmark.trial import (
    Planned,
    Trial,
    finished_trial,
    hashes_of,
    load_trial,
    run_trial,
)
from mgsym.errors import InputError, Interrupted, UsageError
from mgsym.evaluation.splits import refuse_equal_names
from mgsym.graph import Graph, match_species
from mgsym.models import create_model
from mgsym.structure import index_species
from mgsym.training.config import Config
from mgsym.training.runs import clear_run
from mgsym.utils import processes
from mgsym.utils.devices import resolve_device
from mgsym.utils.files import lock_output
from mgsym.utils.progress import Progress, part

__all__ = [
    "CHOSEN_ON_TEST",
    "PROTOCOLS",
    "BenchmarkPlan",
    "Fold",
    "Planned",
    "Table",
    "Trial",
    "benchmark_models",
    "default_benchmark",
    "latest_benchmark",
    "load_plan",
    "make_folds",
    "run_benchmark",
]

BENCHMARKS = "benchmarks"
TABLES = ("table.md", "table.csv", "table.json")
PILOT_ATOMS = 100


def default_benchmark(plan: BenchmarkPlan, folder: str = BENCHMARKS) -> Path:
    """``benchmarks/<date>-<time>-<protocol>``: names sort by time."""
    return Path(folder) / f"{datetime.now():%Y%m%d-%H%M%S}-{plan.protocol}"


def latest_benchmark(folder: str | Path = BENCHMARKS) -> Path:
    """The benchmark in `folder` whose name sorts last.

    Raises:
        UsageError: there is none.
    """
    plans = sorted(Path(folder).glob(f"*/{PLAN}"))
    if not plans:
        raise UsageError(f"no benchmark in {folder}/: name its folder")
    return plans[-1].parent


def run_benchmark(
    graphs: Sequence[Graph],
    plan: BenchmarkPlan,
    folder: str | Path,
    *,
    device: str | torch.device = "auto",
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Table:
    """Train every model of a plan on every fold with every seed, and make a table of it.

    Models take turns within a fold, so that what is there when time runs out can be compared. A
    training that diverges is recorded as failed, and the others go on; resuming tries it again.

    Where torchrun started several processes, each trains what no other has begun, and the first
    makes the table.

    Args:
        graphs: one structure each, with distinct names.
        plan: see BenchmarkPlan.
        folder: written as it goes; nothing finished is lost when the process is killed.
        device: as for `mgsym.training.train`.
        resume: keep the trainings that are finished, and go on with the one that was cut.
        overwrite: replace a benchmark that exists.
        progress: called with trainings done, with the part of the running one, and to do.
        should_stop: asked after each step of a training.

    Raises:
        UsageError: the folder holds a benchmark, or another one than is to be resumed.
        InputError: a model cannot be trained on the graphs; told before any training.
        Interrupted: `should_stop` said so; the message tells how to go on.
    """
    folder, where = Path(folder), resolve_device(processes.own_device(device))
    first = processes.rank() == 0
    with processes.joined(), lock_output(folder) if first else nullcontext():
        refuse_equal_names(graphs)
        folds = make_folds(graphs, plan)
        planned = _trainings(plan, folds)
        check_models(plan, folds)
        if first:
            _open(folder, plan, resume, overwrite)
        processes.barrier()
        waiting = [p for p in planned if finished_trial(_record(folder, p), p) is None]
        processes.barrier()  # all have read the same records
        for number in processes.taken(len(waiting), "trainings"):
            training = waiting[number]
            step = part(
                progress,
                number,
                len(waiting),
                model=training.label,
                glass=training.fold.name,
                seed=training.seed,
            )
            try:
                with processes.alone():
                    _train(training, plan, folder, where, step, should_stop)
            except Interrupted as error:
                done = len(_recorded(folder, planned))
                raise Interrupted(
                    f"the benchmark was interrupted, {done} of {len(planned)} trainings are "
                    f"done; go on with: mgsym benchmark --resume {folder}"
                ) from error
            if first:
                make_table(plan, folds, _recorded(folder, planned)).save(folder)
        processes.barrier()
        table = make_table(plan, folds, _recorded(folder, planned))
        if first:
            table.save(folder)
    return table


def _recorded(folder: Path, planned: Sequence[Planned]) -> list[Trial]:
    """The trainings that are over, those that failed among them."""
    paths = [_record(folder, training) for training in planned]
    return [load_trial(path) for path in paths if path.exists()]


def _record(folder: Path, training: Planned) -> Path:
    return folder / "trials" / f"{training.name}.json"


def _train(
    training: Planned,
    plan: BenchmarkPlan,
    folder: Path,
    device: torch.device,
    progress: Progress | None,
    should_stop: Callable[[], bool] | None,
) -> None:
    """Do one training and keep its record."""
    run = folder / "runs" / training.name
    if should_stop is not None and should_stop():  # not every model asks it
        raise Interrupted("before a training")
    run_trial(training, plan, run, device, progress, should_stop).save(_record(folder, training))
    (run / "last.pt").unlink(missing_ok=True)  # the record is safe


def check_models(plan: BenchmarkPlan, folds: Sequence[Fold]) -> None:
    """Try every model on a few atoms of every structure, so that no night is lost to a mistake.

    Raises:
        InputError: a model lacks an input, or a fold trains without an element that it tests.
        UsageError: a model cannot be made with its options.
    """
    for fold in folds:
        train, *others = [members for _, members in fold.split.items()]
        species, _ = index_species([s for g in train for s in g.species])
        for graph in (g for members in others for g in members):
            match_species(graph, species)
    members = {g.names[0]: g for fold in folds for _, gs in fold.split.items() for g in gs}
    pilots = [_pilot(graph) for graph in members.values()]
    for label, config in plan.models.items():
        try:
            _try_model(config, pilots)
        except InputError as error:
            raise InputError(f"model {label}: {error}") from error
        except UsageError as error:
            raise UsageError(f"model {label}: {error}") from error


def _try_model(config: Config, pilots: Sequence[Graph]) -> None:
    species, _ = index_species([s for g in pilots for s in g.species])
    alike = [match_species(g, species) for g in pilots]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        complete = config.model.for_graphs(alike)
        model = create_model(complete.name, species, pilots[0].cutoff, complete.options)
        model.fit_statistics(alike)
        model.eval()
        for graph in alike:
            model(graph)


def _pilot(graph: Graph) -> Graph:
    """A ball of some atoms around the first that has a label."""
    first, limit = int(graph.labelled.nonzero()[0]), 1
    inside = graph.hops_to(first, limit) >= 0
    while int(inside.sum()) < min(PILOT_ATOMS, graph.num_nodes):
        limit += 1
        wider = graph.hops_to(first, limit) >= 0
        if torch.equal(wider, inside):
            break
        inside = wider
    return graph.subgraph(inside.nonzero().squeeze(1))[0]


def _trainings(plan: BenchmarkPlan, folds: list[Fold]) -> list[Planned]:
    hashes = hashes_of(folds)
    planned = [
        Planned(label, fold, seed, plan.settings(label, seed), plan.protocol, hashes)
        for seed in plan.seeds
        for fold in folds
        for label in plan.models
    ]
    names = [p.name for p in planned]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"two trainings would be called {min(twice)}: rename a model or a glass")
    return planned


def _open(folder: Path, plan: BenchmarkPlan, resume: bool, overwrite: bool) -> None:
    """Have the folder ready: empty, or holding what is to be resumed."""
    if folder.is_file():
        raise UsageError(f"{folder} is a file, expected a folder: choose another with -o")
    if not resume and (folder / PLAN).exists():
        if not overwrite:
            raise UsageError(
                f"{folder} holds a benchmark already: go on with --resume {folder}, choose "
                "another folder with -o, or add --overwrite"
            )
        _clear(folder)
    plan.save(folder)


def _clear(folder: Path) -> None:
    """Remove what an earlier benchmark wrote, and nothing else."""
    for file in (*(folder / "trials").glob("*.json"), *(folder / name for name in TABLES)):
        file.unlink(missing_ok=True)
    for run in (folder / "runs").glob("*/"):
        clear_run(run)
