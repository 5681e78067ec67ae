"""`mgsym evaluate`: a model against labels."""

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
    types: dict[int, str] | None,
    frames: str | None,
    figure: Path | None,
    overwrite: bool,
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
        asked: dict[str, Any] = {"figure": figure, "overwrite": overwrite, "device": device}
        asked["progress"] = step
        scores = evaluate_files(paths, run, types, frames, labels, **asked)
    if as_json:
        console.emit_json(scores.as_dict())
    else:
        agreement_table(str(run), {"": scores})
    if figure is not None:
        console.wrote(figure)
