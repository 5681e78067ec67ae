"""`mgsym ensemble`: several models as one predictor."""

from __future__ import annotations

from pathlib import Path

import click

from mgsym.cli import console
from mgsym.cli import options as opt


@click.command()
@click.argument("runs", nargs=-1, required=True, type=opt.FILE)
@click.option(
    "--weights", metavar="W,W,...", callback=opt.parse_numbers, help="One for each run.  [equal]"
)
@click.option(
    "--calibrate",
    multiple=True,
    type=opt.FILE,
    metavar="PATH",
    help="Labelled structures or graphs that trained none of the models; may be given often.",
)
@opt.noise_option
@opt.types_option
@opt.potential_option
@opt.out_option("ensemble.pt", "The file to write")
@opt.overwrite_option
@opt.device_option
@opt.json_option
@opt.verbosity_options
def ensemble(
    runs: tuple[Path, ...],
    weights: list[float] | None,
    calibrate: tuple[Path, ...],
    noise: float | None,
    types: dict[int, str] | None,
    potential: Path | None,
    out: Path,
    overwrite: bool,
    device: str,
    as_json: bool,
) -> None:
    """Merge RUNS (runs, folders of seeds, checkpoints, ensembles) into one predictor file.

    It stands wherever a run is taken. Models may differ in kind. With --calibrate, the spread
    between them becomes the standard deviation of the true barrier.
    """
    from mgsym.cli.views import ensemble_view
    from mgsym.data_tools.workflows.ensembles import merge_runs

    with console.progress("Calibrating") as step:
        summary = merge_runs(
            runs, out, weights, calibrate, noise,
            types=types, potential=potential, device=device, overwrite=overwrite, progress=step,
        )  # fmt: skip
    if not calibrate:
        console.say(
            "Not calibrated, so its standard deviation is the spread between the models alone: "
            "name structures that trained none of them with --calibrate"
        )
    if as_json:
        console.emit_json(summary)
    else:
        ensemble_view(summary)
    console.wrote(out)
