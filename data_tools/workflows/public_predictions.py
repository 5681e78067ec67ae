"""Predictions for the two public test structures, from the seven labelled ones.

    make public-test-predictions DATA=<public dataset> POTENTIAL=Cu-Zr_2.eam.fs [REFINE=1] [JOBS=2]

An ensemble of networks and ridge regressions on descriptors and physical inputs. Most of its weight
lies on models of all seven structures; models that leave out one glass each calibrate its
spread, since every labelled structure is new to one of them. Nothing is chosen by a test
structure, and no search in one trains anything. REFINE searches from every atom of the test
structures and combines what they find with the prediction (mgsym.uncertainty.posterior).

Everything is kept in WORK (build/public), and what is there is not made again.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from mgsym.data_tools.simulation.labelling.barriers import SearchRun
from mgsym.data_tools.simulation.potentials.eam import EAM
from mgsym.data_tools.simulation.potentials.files import load_potential
from mgsym.data_tools.workflows.graphs import build_graphs, read_graphs, read_structures
from mgsym.data_tools.workflows.refinement import refine_file
from mgsym.descriptors.physical import AVAILABLE
from mgsym.evaluation.label_noise import label_noise
from mgsym.evaluation.splits import Split, leave_one_group_out
from mgsym.graph import Graph
from mgsym.graph.operations import glass_of
from mgsym.prediction import barrier_std, calibrated, predict_with_spread
from mgsym.prediction.ensemble import Ensemble, merge, read_ensemble, save_ensemble
from mgsym.structure.columns import PREDICTED, STD
from mgsym.training import train
from mgsym.training.config import Config, ModelConfig, preset
from mgsym.training.runs import read_run
from mgsym.utils.files import atomic_path
from mgsym.utils.names import file_in

TRAINING = tuple(f"train{i}.pickle" for i in range(7))
TESTS = ("test0", "test1")
TYPES = {1: "Cu", 2: "Zr"}
WHOLE_SHARE = 0.75  # of each kind's weight, on models that leave out nothing
SEARCH_SEED = 1
# own searches found 1.807 eV where the published labels of 100 atoms of train0 say 1.894 eV
SEARCH_SCALE = 1.048


@dataclass(frozen=True)
class Kind:
    """One kind of model in the ensemble.

    Attributes:
        config: its settings.
        share: of the ensemble's weight, from leave-one-group-out on the labelled structures.
        seeds: of the models of all structures.
    """

    config: Config
    share: float
    seeds: tuple[int, ...]


_PHYSICAL = {"physical_inputs": (AVAILABLE,)}
KINDS = {
    # the ridge regression below takes the place of a share of its own
    "symgnn": Kind(preset("fast").changed({"model.ridge_share": 0.0}), 0.3, (0, 1, 2)),
    "ace": Kind(
        replace(
            preset("fast"),
            model=ModelConfig("ace", {**_PHYSICAL, "physical_smoothing": (1.5, 2.5)}),
        ),
        0.4,
        (0,),
    ),
    "ridge": Kind(replace(preset("fast"), model=ModelConfig("ridge", _PHYSICAL)), 0.3, (0,)),
}


def public_predictions(data: Path, potential: EAM, work: Path, out: Path) -> Ensemble:
    """Train what is missing, and write ``test0.csv`` and ``test1.csv``.

    Args:
        data: folder of the public dataset.
        potential: of its structures.
        work: folder for graphs, runs and the ensemble; a run that stopped goes on.
        out: folder for the predictions.

    Returns:
        The calibrated ensemble, also in ``work/ensemble.pt``.
    """
    graphs = _graphs([data / name for name in TRAINING], potential, work / "graphs")
    ensemble = _ensemble(graphs, work)
    tests = _graphs([data / f"{name}.dump" for name in TESTS], potential, work / "tests")
    for graph, prediction in zip(tests, predict_with_spread(tests, ensemble, "cpu"), strict=True):
        std = barrier_std(prediction, graph, ensemble)
        write_predictions(file_in(out, graph.names[0], ".csv"), graph.ids, prediction.mean, std)
    return ensemble


def refined_predictions(
    data: Path, potential: EAM, work: Path, out: Path, searches: int, jobs: int
) -> None:
    """Search the test structures and write ``test0_refined.csv`` and ``test1_refined.csv``.

    Args:
        data, potential, work, out: as for `public_predictions`, which comes first.
        searches: from each atom.
        jobs: processes.
    """
    for name in TESTS:
        refined = refine_file(
            data / f"{name}.dump",
            work / "ensemble.pt",
            work / f"{name}.xyz",
            searches,
            potential,
            scale=SEARCH_SCALE,
            types=TYPES,
            search_run=SearchRun(seed=SEARCH_SEED, resume=True, device="cpu", jobs=jobs),
        )
        columns = refined.structure.columns
        mean, std = (columns[PREDICTED + end].values for end in ("", STD))
        write_predictions(out / f"{name}_refined.csv", refined.structure.ids, mean, std)


def write_predictions(path: Path, ids: Tensor, mean: Tensor, std: Tensor) -> None:
    """A table of id, barrier (eV) and barrier_std (eV), one atom a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path, overwrite=True) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("id", "barrier", "barrier_std"))
        for row in zip(ids.tolist(), mean.tolist(), std.tolist(), strict=True):
            writer.writerow((row[0], f"{row[1]:.5f}", f"{row[2]:.5f}"))


def _graphs(files: Sequence[Path], potential: EAM, folder: Path) -> list[Graph]:
    if not folder.exists():
        _say(f"building graphs with physical inputs in {folder}")
        build_graphs(read_structures(files, TYPES), folder, potential=potential)
    return read_graphs([folder])


def _ensemble(graphs: Sequence[Graph], work: Path) -> Ensemble:
    path = work / "ensemble.pt"
    if path.exists():
        return read_ensemble(path)
    folds = leave_one_group_out(graphs, stopping=False)
    members, weights = [], []
    for name, kind in KINDS.items():
        for fold in folds:
            run = work / "runs" / f"{name}-without-{glass_of(fold.test[0])}"
            members.append(_trained(fold, kind.config, 0, run))
            weights.append(kind.share * (1 - WHOLE_SHARE) / len(folds))
        for seed in kind.seeds:
            run = work / "runs" / f"{name}{seed}"
            members.append(_trained(Split(list(graphs), [], []), kind.config, seed, run))
            weights.append(kind.share * WHOLE_SHARE / len(kind.seeds))
    ensemble = calibrated(merge(members, weights), graphs, label_noise(graphs), "cpu")
    save_ensemble(path, ensemble)
    return ensemble


def _trained(split: Split, config: Config, seed: int, run: Path) -> Ensemble:
    """A model trained by a schedule fixed beforehand; nothing chooses its epoch."""
    if not (run / "run.json").exists() or read_run(run).get("status") != "finished":
        _say(f"training {run.name}")
        fixed = replace(config.training, patience=0, evaluate_every=config.training.epochs)
        config = replace(config, training=fixed, seed=seed)
        graphs = [graph for _, members in split.items() for graph in members]
        begun = (run / "last.pt").exists()
        train(graphs, config, run=run, device="cpu", split=split, resume=begun, overwrite=not begun)
    return read_ensemble(run)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the public dataset")
    parser.add_argument("--potential", type=Path, required=True, help="Cu-Zr_2.eam.fs")
    parser.add_argument("--work", type=Path, default=Path("build/public"))
    parser.add_argument("--out", type=Path, default=Path("docs/predictions"))
    parser.add_argument("--refine", type=int, default=0, help="searches from each test atom")
    parser.add_argument("--jobs", type=int, default=1, help="processes that search")
    options = parser.parse_args()
    potential = load_potential(options.potential)
    public_predictions(options.data, potential, options.work, options.out)
    if options.refine:
        refined_predictions(
            options.data, potential, options.work, options.out, options.refine, options.jobs
        )


if __name__ == "__main__":
    main()
