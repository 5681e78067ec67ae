"""`mgsym evaluate`: a model against labels."""

from __future__ import annotations

from pathlib import Path

import click

from mgsym.cli import console
from mgsym.cli import options as opt


@click.command()
@click.argument("run", type=opt.FILE)
@click.argument("paths", nargs=-1, required=True, type=opt.FILE)
@click.option("--labels", type=opt.FILE, help="CSV table of labels per atom id.")
@opt.types_option
@opt.frames_option
@opt.device_option
@opt.json_option
@opt.verbosity_options
def evaluate(
    run: Path,
    paths: tuple[Path, ...],
    labels: Path | None,
    types: dict[int, str] | None,
    frames: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Score the run or checkpoint RUN on labelled structures or graphs at PATHS.

    Correlations are given within each structure and over all atoms pooled, which flatters where
    structures differ. The ceiling is what a perfect model would reach, given the labels' errors.
    """
    from mgsym.cli.views import agreement_table
    from mgsym.data_tools.predictions import evaluate_files

    with console.progress("Predicting") as step:
        scores = evaluate_files(paths, run, types, frames, labels, device=device, progress=step)
    if as_json:
        console.emit_json(scores.as_dict())
    else:
        agreement_table(str(run), {"": scores})
