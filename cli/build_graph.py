"""`mgsym build-graph`: structures into graphs."""

from __future__ import annotations

from pathlib import Path

import click

from mgsym.cli import console
from mgsym.cli import options as opt


@click.command()
@click.argument("files", nargs=-1, type=opt.FILE)
@click.option("--cutoff", type=opt.POSITIVE, default=5.0, show_default=True, help="Å.")
@click.option("--target", metavar="NAME", help="Column to learn, eV.  [default: barrier]")
@click.option("--labels", type=opt.FILE, help="CSV table of labels per atom id.")
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "test"]),
    help="The split of all these structures.  [default: as the files say]",
)
@click.option("--glass", help="The glass of all these structures.  [default: as the files say]")
@opt.physics_options
@opt.types_option
@opt.frames_option
@opt.out_option("graphs", "Folder for the graphs, one file each")
@opt.overwrite_option
@opt.device_option
@opt.jobs_option
@opt.json_option
@opt.verbosity_options
def build_graph(
    files: tuple[Path, ...],
    cutoff: float,
    target: str | None,
    labels: Path | None,
    split: str | None,
    glass: str | None,
    potential: Path | None,
    physics: bool,
    types: dict[int, str] | None,
    frames: str | None,
    out: Path,
    overwrite: bool,
    device: str,
    jobs: int,
    as_json: bool,
) -> None:
    """Turn structure FILES into graphs that models read.

    Without FILES, the labelled Cu64Zr36 sample that ships with mgsym is taken; of a trajectory,
    the last frame. All graphs are written, or none. Units are Å and eV. For --physics, relax
    the structures with its potential first (mgsym relax).
    """
    from mgsym.cli.views import graph_table
    from mgsym.data_tools.workflows import graphs
    from mgsym.utils.devices import resolve_device

    place = resolve_device(device)
    if not files:
        console.say("No files given: taking the sample that ships with mgsym")
    structures = graphs.read_structures(files, types, frames, split, glass)
    if labels:
        structures = graphs.join_labels(structures, labels, target)
    eam = opt.physics_potential(potential, physics)
    with console.progress("Building graphs") as step:
        summaries = graphs.build_graphs(
            structures, out, cutoff, target, overwrite,
            potential=eam, device=place, jobs=jobs, progress=step,
        )  # fmt: skip
    if as_json:
        console.emit_json(summaries)
    else:
        graph_table(f"Graphs, cutoff {cutoff:g} Å", summaries)
    console.wrote([summary.path for summary in summaries])
    others = len(graphs.graph_files(out)) - len(summaries)
    if others:
        console.warn(f"{out} also holds {others} other graph{'s' * (others > 1)}, made before")
