"""`mgsym predict`: barriers for structures."""

from __future__ import annotations

from pathlib import Path

import click

from mgsym.cli import console
from mgsym.cli import options as opt


@click.command()
@click.argument("files", nargs=-1, required=True, type=opt.FILE)
@opt.run_option
@opt.types_option
@opt.frames_option
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
    out: Path,
    overwrite: bool,
    device: str,
    as_json: bool,
) -> None:
    """Predict the energy barrier of every atom of structure FILES.

    They are written with a column barrier_predicted (eV); with a run of several seeds, this is
    their mean, and barrier_predicted_std their standard deviation.
    """
    from mgsym.data_tools.predictions import predict_files
    from mgsym.runs import latest_run

    with console.progress("Predicting") as step:
        found = predict_files(
            files,
            run or latest_run(),
            out,
            types,
            frames,
            device=device,
            overwrite=overwrite,
            progress=step,
        )
    for text in [text for summary in found for text in summary.warnings]:
        console.warn(text)
    if as_json:
        console.emit_json(found)
    else:
        rows = [
            [s.name, str(s.atoms), *(f"{x:.4f}" for x in (s.mean, s.sd, s.lowest, s.highest))]
            for s in found
        ]
        columns = ("structure", "atoms", "mean", "sd", "lowest", "highest")
        console.table("Predicted barriers, eV", columns, rows)
    console.wrote(dict.fromkeys(s.path for s in found))
