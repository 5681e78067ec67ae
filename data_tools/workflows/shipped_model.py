"""Makes the model that ships with mgsym, and its card, from the public dataset.

    python -m mgsym.data_tools.workflows.shipped_model FOLDER OUT

FOLDER holds the public dataset (mgsym fetch); OUT is the folder for model and card.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mgsym.data_tools.shipped_model import NAME
from mgsym.data_tools.workflows.attribution import reference_path, save_references
from mgsym.data_tools.workflows.graphs import read_structures
from mgsym.evaluation.label_noise import label_noise
from mgsym.evaluation.metrics import SplitScores, score_graphs
from mgsym.explanation.computation_graph import frozen_eval
from mgsym.explanation.whole import reference_of
from mgsym.graph import Graph, build_graph
from mgsym.prediction import calibrated, features_of, predict_with_spread
from mgsym.prediction.ensemble import Ensemble, read_ensemble, save_ensemble
from mgsym.prediction.seeds import train_seeds
from mgsym.training.config import Config, preset
from mgsym.uncertainty.reliability import Reliability, reliability
from mgsym.utils.files import write_text
from mgsym.utils.progress import Progress
from mgsym.version import __version__

FILES = tuple(f"train{i}.pickle" for i in range(7))
CUTOFF = 5.0  # Å
HELD_OUT = "glass_3"  # it chooses the epoch, and calibrates
SEEDS = (0, 1)

Say = Callable[[str], object]


def make_model(data: Path, out: Path, config: Config, seeds: Sequence[int], say: Say) -> None:
    """Train, merge, calibrate and write ``<out>/cu64zr36.pt`` and ``.md``.

    Args:
        data: folder of the public dataset.
        out: folder for the two files.
        config: how to train; on structure alone, so that predictions need no potential.
        seeds: one model each.
        say: told how it goes.
    """
    graphs = public_graphs(data)
    with tempfile.TemporaryDirectory() as folder:
        train_seeds(
            graphs,
            config,
            seeds,
            folder,
            validation=[HELD_OUT],
            test=[],
            device="cpu",
            progress=_progress_lines(say),
        )
        ensemble = read_ensemble(folder)
    publish(ensemble, graphs, out, config)


def public_graphs(data: Path) -> list[Graph]:
    """The labelled structures of the public dataset."""
    structures = read_structures([data / name for name in FILES])
    return [build_graph(structure, CUTOFF) for structure in structures]


def publish(ensemble: Ensemble, graphs: Sequence[Graph], out: Path, config: Config) -> None:
    """Calibrate trained models on the glass that they left out, and write them with their card.

    Args:
        ensemble: trained without `HELD_OUT`.
        graphs: of the public dataset; the glass labelled twice tells the labels' noise.
        out: folder for the two files.
        config: how they were trained.
    """
    held_out = [graph for graph in graphs if graph.glasses[0] == HELD_OUT]
    ensemble = replace(
        calibrated(ensemble, held_out, label_noise(graphs), "cpu"), about=_about(config)
    )
    path = out / f"{NAME}.pt"
    save_ensemble(path, ensemble)
    write_text(path.with_suffix(".md"), _card(ensemble, config, held_out, path))
    write_reference(ensemble, graphs, path)


def write_reference(ensemble: Ensemble, graphs: Sequence[Graph], path: Path) -> None:
    """Write what `mgsym explain` compares neighbours with, beside the ensemble at `path`."""
    references = []
    for member in ensemble.members:
        training = [graph for graph in graphs if member.was_trained_on(graph.names[0])]
        with frozen_eval(member.model):
            references.append(reference_of(member.model, training))
    save_references(reference_path(path), ensemble.models, references)


def _progress_lines(say: Say) -> Progress:
    last = 0.0

    def report(done: float, total: float | None = None, **info: object) -> None:
        nonlocal last
        if time.monotonic() - last > 30 or done == total:
            last = time.monotonic()
            say(f"{done:g} of {total} steps, {info}\n")

    return report


def _about(config: Config) -> Mapping[str, Any]:
    return {"name": NAME, "mgsym": __version__, "settings": config.to_toml()}


def _card(ensemble: Ensemble, config: Config, held_out: Sequence[Graph], path: Path) -> str:
    (prediction,) = predict_with_spread(held_out, ensemble, "cpu")
    scores = score_graphs([prediction.mean], held_out)
    features = [features_of(prediction, held_out[0], ensemble)]
    errors = reliability(
        [prediction.mean], [prediction.std], held_out, ensemble.calibration, None, features
    )
    calibration, metadata = ensemble.calibration, ensemble.metadata
    assert calibration is not None
    assert metadata is not None
    assert errors is not None
    training = metadata.training_set
    return CARD.format(
        name=NAME,
        models=len(ensemble),
        parameters=ensemble.models[0].num_parameters,
        megabytes=path.stat().st_size / 1e6,
        model=config.model.name,
        preset=config.preset,
        training=", ".join(training.names),
        labelled=training.atoms,
        held_out=", ".join(graph.names[0] for graph in held_out),
        low=training.number_density[0],
        high=training.number_density[1],
        **_figures(scores, errors),
        **calibration.as_dict(),
        correlation=calibration.formula,
        atoms_apart=calibration.verdict,
    )


def _figures(scores: SplitScores, errors: Reliability) -> dict[str, float]:
    pooled = scores.pooled
    return {
        "pearson": scores.mean_pearson,
        "spearman": pooled.spearman,
        "mae": pooled.mae,
        "rmse": pooled.rmse,
        "bias": pooled.bias,
        "z_sd": errors.z_sd,
        "coverage_68": errors.coverage_68,
        "coverage_95": errors.coverage_95,
    }


CARD = """\
# {name}: the model that ships with mgsym

`mgsym predict FILE` uses it where there is no run in `runs/`; `--run shipped` asks for it by name.

## What it is
The weighted mean of {models} networks (`{model}`, preset `{preset}`, seeds apart), \
{parameters:,} parameters each, {megabytes:.2f} MB in all. It takes positions and elements alone; \
no potential is needed. Predictions do not change under rotation, reflection or translation.

## What it predicts
For each atom of a Cu64Zr36 glass at rest, the mean energy barrier (eV) of the saddle points that \
searches from that atom find (ARTn, about 20 searches an atom). `barrier_predicted_std` is the \
standard deviation of the true mean barrier given the prediction, without the labels' own noise.

## Data
Trained on {training} of the public dataset of arXiv 2401.08627 ({labelled:,} labelled atoms); \
{held_out} is another glass, which chose the best epoch and calibrates the spread between the \
networks. The potential behind structures and labels is that of Mendelev et al., Phil. Mag. 89, \
967 (2009). The published test structures took no part.

## Figures, on {held_out}
| Pearson | Spearman | MAE/eV | RMSE/eV | bias/eV | sd of z | within 1 sd | within 1.96 sd |
| --- | --- | --- | --- | --- | --- | --- | --- |
| {pearson:.3f} | {spearman:.3f} | {mae:.3f} | {rmse:.3f} | {bias:+.3f} | {z_sd:.3f} | \
{coverage_68:.3f} | {coverage_95:.3f} |

z is label − prediction over its predicted standard deviation, label noise ({noise:.2f} eV) \
included. The epoch was chosen and the spread calibrated on this glass, so these figures flatter \
a little. Noise alone keeps a perfect predictor near 0.87.

Calibration: σ² = ({scale:.2f} × spread)² + ({floor:.3f} eV)². Errors of two atoms at a distance r \
have the correlation {correlation}. {atoms_apart}

## Limits
- Cu and Zr only, near the composition 64:36, {low:.4f}–{high:.4f} atoms/Å³; other elements are \
refused.
- Structures at a minimum of that potential. Relax them first; thermal displacements of 0.05 Å \
already count as unfamiliar.
- `training_distance` tells how far each atom's surroundings lie from the training atoms' (1 is \
usual); a warning comes when too many are far. Other compositions, crystals, surfaces and strained \
glasses were never seen: there, neither prediction nor standard deviation is to be trusted.
- Few independent glasses stand behind it: means of whole structures may be off by more than the \
standard deviation of an atom suggests.

## Made by
`make shipped-model DATA=<folder of the public dataset>`, on one core.
"""


def main(arguments: Sequence[str]) -> None:
    """Make the model from the folder that the first argument names."""
    if len(arguments) != 2:
        raise SystemExit(__doc__)
    data = Path(arguments[0])
    out = Path(arguments[1])
    make_model(data, out, preset("fast"), SEEDS, sys.stderr.write)


if __name__ == "__main__":
    main(sys.argv[1:])
