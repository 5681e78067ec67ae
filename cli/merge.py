"""`mgsym merge`: the searches of several runs, or repeated labels, into labels."""

from __future__ import annotations

from pathlib import Path

import click

from mgsym.cli import console
from mgsym.cli import options as opt


@click.command()
@click.argument("file", type=opt.FILE)
@click.argument("event_files", nargs=-1, required=True, type=opt.FILE)
@click.option("-o", "--out", type=opt.FILE, required=True, help="Labelled structure.")
@click.option("--searches", type=int, metavar="N", help="Searches an atom, at most.")
@click.option("--events", type=int, metavar="M", help="Successes of an atom that count.")
@click.option("--labels", is_flag=True, help="The files are labelled structures: average them.")
@opt.types_option
@opt.frames_option
@opt.overwrite_option
@opt.json_option
@opt.verbosity_options
def merge(
    file: Path,
    event_files: tuple[Path, ...],
    out: Path,
    searches: int | None,
    events: int | None,
    labels: bool,
    types: dict[int, str] | None,
    frames: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Label the structure FILE from EVENT_FILES, which the shards of mgsym label wrote.

    All must come of the same structure, potential, settings and seed. --searches and --events
    choose which of the searches count; by default, those that the shards were asked for.

    With --labels, all files are labelled structures of one glass; the labels of each atom are
    averaged by inverse variance, and FILE is written with them.
    """
    from mgsym.cli.label_view import average_view, label_view
    from mgsym.data_tools.workflows.label_averages import average_files
    from mgsym.data_tools.workflows.labelling import merge_files

    if labels:
        if searches is not None or events is not None:
            raise click.UsageError("--searches and --events choose searches, not --labels")
        average_view(average_files((file, *event_files), out, types, frames, overwrite), as_json)
        return
    console.detail(f"Merging {len(event_files)} files")
    labelled = merge_files(file, event_files, out, searches, events, types, frames, overwrite)
    label_view(labelled, as_json)
