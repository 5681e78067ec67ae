"""`mgsym convert`: structures from one file format to another."""

from __future__ import annotations

from pathlib import Path

import click

from mgsym.cli import console
from mgsym.cli import options as opt


@click.command()
@click.argument("files", nargs=-1, required=True, type=opt.FILE)
@click.option("-o", "--out", type=opt.FILE, required=True, help="Output file, or a folder.")
@click.option("--format", metavar="NAME", help="Format to write.  [default: by the name's ending]")
@click.option("--labels", type=opt.FILE, help="CSV table of labels per atom id, eV.")
@click.option(
    "--target", metavar="NAME", default="barrier", show_default=True, help="Column of --labels."
)
@opt.types_option
@opt.frames_option
@opt.overwrite_option
@opt.json_option
@opt.verbosity_options
def convert(
    files: tuple[Path, ...],
    out: Path,
    format: str | None,
    labels: Path | None,
    target: str,
    types: dict[int, str] | None,
    frames: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Convert structure FILES of any known format to another.

    Reads LAMMPS dumps and data files, extended XYZ, .npz, the public dataset's pickles, and what
    ASE reads. Writes .dump, .data, .xyz, .npz and tables of atoms as .csv, each also as .gz. All
    frames go into one output file; into a folder goes one file for each.
    """
    from mgsym.data_tools.workflows.conversion import convert

    written = convert(files, out, types, frames, labels, target, format, overwrite)
    if as_json:
        console.emit_json(written)
    else:
        rows = [(str(w.path), w.format, w.structures, w.atoms) for w in written]
        console.table("", ("file", "format", "structures", "atoms"), rows)
    if written[0].loses:
        console.say(f"{written[0].format} files do not keep: {written[0].loses}")
    console.wrote([w.path for w in written])
