"""`mgsym report`: a trained run on one page."""

from __future__ import annotations

from pathlib import Path

import click

from mgsym.cli import console
from mgsym.cli import options as opt


@click.command()
@click.argument("run", required=False, type=opt.FILE)
@click.option(
    "--graphs",
    multiple=True,
    type=opt.FILE,
    help="Folder or files with the run's graphs or structures; may be repeated.  [default: graphs]",
)
@click.option(
    "--nodes", type=click.IntRange(0), default=6, show_default=True, help="Atoms to explain."
)
@click.option("--topk", type=click.IntRange(1), default=50, show_default=True, help="Edges each.")
@click.option("--method", default="weakening", show_default=True, help="See mgsym explain.")
@click.option(
    "--rotations", type=click.IntRange(2), default=4, show_default=True, help="Orientations."
)
@opt.types_option
@opt.potential_option
@opt.out_option(what="The page, .html  [default: report.html in the run's folder]")
@opt.overwrite_option
@opt.seed_option
@opt.device_option
@opt.verbosity_options
def report(
    run: Path | None,
    graphs: tuple[Path, ...],
    nodes: int,
    topk: int,
    method: str,
    rotations: int,
    types: dict[int, str] | None,
    potential: Path | None,
    out: Path | None,
    overwrite: bool,
    seed: int | None,
    device: str,
) -> None:
    """Write one HTML page about RUN (a run, checkpoint, ensemble or 'shipped'; default: latest).

    Data and split, learning curves, scores and parity plots, calibration, barrier maps of a slice
    and in 3-D, rotation spread, and explanations of a few atoms with their statistics. The page
    opens without a network. --nodes takes a third each of the highest, middle and lowest predicted
    barriers; 0 explains none.
    """
    from mgsym.data_tools.report import write_report
    from mgsym.data_tools.report.facts import ReportSettings

    chosen = opt.chosen_run(run)
    settings = ReportSettings(nodes, topk, method, rotations, seed or 0)
    with console.progress("Reporting") as step:
        written = write_report(
            chosen, out, graphs, settings,
            types=types, potential=potential, device=device, overwrite=overwrite, progress=step,
        )  # fmt: skip
    console.remarks(written)
    console.wrote(written.path)
