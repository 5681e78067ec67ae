"""`mgsym predict`: barriers for structures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mgsym.cli import console
from mgsym.cli import options as opt
from mgsym.cli.refining import refine_options, refined, refuse_without_refine


@click.command()
@click.argument("files", nargs=-1, required=True, type=opt.FILE)
@opt.run_option
@opt.types_option
@opt.frames_option
@opt.potential_option
@refine_options
@opt.out_option("predicted", "A file (.extxyz, .dump, .csv, .npz, ...) or a folder")
@opt.overwrite_option
@opt.device_option
@opt.json_option
@opt.verbosity_options
def predict(
    files: tuple[Path, ...],
    run: Path | None,
    types: dict[int, str] | None,
    frames: str | None,
    potential: Path | None,
    out: Path,
    overwrite: bool,
    device: str,
    as_json: bool,
    **searches: Any,
) -> None:
    """Predict the energy barrier of every atom of FILES (structures or graphs).

    They are written with the columns barrier_predicted (eV), barrier_predicted_std (eV; of several
    models or a calibrated one) and training_distance (1 is usual for a training atom). Without a
    run, the model that ships with mgsym predicts. A model with physical inputs computes them with
    --potential; structures must be at a minimum of it (mgsym relax). Of a large structure, what was
    predicted before it was stopped is kept: --resume goes on. With --refine, searches from the
    atoms (as of mgsym label) and the prediction are combined.
    """
    from mgsym.cli.views import error_note
    from mgsym.data_tools.workflows.predictions import predict_files

    chosen = opt.chosen_run(run)
    if searches["refine"] is not None:
        about = {"types": types, "frames": frames, "device": device, "overwrite": overwrite}
        refined(files, chosen, out, potential=potential, as_json=as_json, **about, **searches)
        return
    refuse_without_refine()
    with console.progress("Predicting") as step, console.interruptible() as should_stop:
        summaries = predict_files(
            files, chosen, out, types, frames,
            potential=potential, device=device, overwrite=overwrite, progress=step,
            resume=searches["resume"], should_stop=should_stop,
        )  # fmt: skip
    for text in [text for summary in summaries for text in summary.warnings]:
        console.warn(text)
    if as_json:
        console.emit_json(summaries)
    else:
        rows = [
            [s.name, str(s.atoms), *(f"{x:.4f}" for x in (s.mean, s.sd, s.lowest, s.highest)),
             *(None if x is None else f"{x:.3f}" for x in (s.error, s.distance, s.distance_95))]
            for s in summaries
        ]  # fmt: skip
        columns = ("structure", "atoms", "mean", "sd", "lowest", "highest")
        more = ("error", "distance", "95 %")
        console.table("Predicted barriers, eV", (*columns, *more), rows)
    if summaries and summaries[0].error is not None:
        console.say(error_note(summaries))
    console.wrote(dict.fromkeys(s.path for s in summaries))
