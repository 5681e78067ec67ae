"""`mgsym evaluate`: a model, or a table of predictions, against labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mgsym.cli import console
from mgsym.cli import options as opt


@click.command()
@click.argument("run", type=opt.FILE)
@click.argument("paths", nargs=-1, required=True, type=opt.FILE)
@click.option("--labels", type=opt.FILE, help="CSV table of labels per atom id.")
@opt.noise_option
@opt.potential_option
@opt.types_option
@opt.frames_option
@click.option("--figure", type=opt.FILE, help="Also draw a parity plot: .png, .pdf or .svg.")
@opt.overwrite_option
@opt.device_option
@opt.json_option
@opt.verbosity_options
def evaluate(
    run: Path,
    paths: tuple[Path, ...],
    labels: Path | None,
    noise: float | None,
    potential: Path | None,
    types: dict[int, str] | None,
    frames: str | None,
    figure: Path | None,
    overwrite: bool,
    device: str,
    as_json: bool,
) -> None:
    """Score RUN (a run, checkpoint, ensemble or 'shipped') on structures or graphs with labels.

    RUN may also be a CSV table of predictions (id, barrier), or several, one for each structure.
    Correlations are given within each structure and over all atoms pooled, which flatters where
    structures differ. The AUC tells how well the 5 % of the atoms with the highest and lowest
    barriers are told from the others. The ceiling is what a perfect model would reach, given the
    labels' errors.
    Of several models or a calibrated one, predicted standard deviations are compared with errors.
    """
    from mgsym.cli.views import agreement_table, extremes_table, reliability_table
    from mgsym.data_tools.formats.label_table import is_table
    from mgsym.data_tools.shipped_model import run_or_shipped
    from mgsym.data_tools.workflows.predictions import evaluate_files, evaluate_tables

    options: dict[str, Any] = {"noise": noise, "figure": figure, "overwrite": overwrite}
    if is_table(run):
        tables = [path for path in (run, *paths) if is_table(path)]
        paths = tuple(path for path in paths if not is_table(path))
        evaluation = evaluate_tables(tables, paths, types, frames, labels, **options)
    else:
        with console.progress("Predicting") as step:
            options.update(potential=potential, device=device, progress=step)
            evaluation = evaluate_files(
                paths, run_or_shipped(run), types, frames, labels, **options
            )
    if as_json:
        console.emit_json(evaluation.as_dict())
    else:
        agreement_table(str(run), {"": evaluation.scores})
        extremes_table(evaluation.scores)
        if evaluation.reliability is not None:
            reliability_table(evaluation.reliability)
    if figure is not None:
        console.wrote(figure)
