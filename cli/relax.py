"""`mgsym relax`: structures brought to a minimum of their energy."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from mgsym.cli import console
from mgsym.cli import options as opt


@click.command()
@click.argument("files", nargs=-1, type=opt.FILE)
@opt.field_option
@click.option("--method", type=click.Choice(["fire", "cg"]), default="fire", show_default=True)
@click.option(
    "--cell",
    type=click.Choice(["none", "isotropic", "full"]),
    default="none",
    show_default=True,
    help="What of the cell may change: nothing, its size, or its shape too.",
)
@click.option(
    "--fmax", type=opt.POSITIVE, default=1e-4, show_default=True, help="Largest force left, eV/Å."
)
@click.option("--max-steps", type=click.IntRange(min=0), default=10_000, show_default=True)
@click.option("--pressure", type=float, default=0.0, help="On a free cell, GPa.  [default: 0]")
@opt.types_option
@opt.frames_option
@opt.out_option("relaxed", "A file (.extxyz, .dump, .data, .npz, ...) or a folder")
@opt.overwrite_option
@opt.device_option
@opt.json_option
@opt.verbosity_options
def relax(
    files: tuple[Path, ...], potential: Path | None, method: Literal["fire", "cg"],
    cell: Literal["none", "isotropic", "full"], fmax: float, max_steps: int, pressure: float,
    types: dict[int, str] | None, frames: str | None, out: Path, overwrite: bool, device: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Move the atoms of structure FILES to a minimum of the energy.

    Without FILES, the sample that ships with mgsym is taken. Ids, glass and split are kept; of
    the columns only the energy per atom (eV) is written, as the others belonged to the old
    positions. A free cell ends with 1.6 MPa (1e-5 eV/Å³) or less on it beside --pressure. What
    has not reached --fmax after --max-steps is written as it stands, and the command fails.

    fire needs fewer steps where atoms overlap; near a minimum cg often does.
    """
    from mgsym.cli.views import relaxation_table
    from mgsym.data_tools.workflows.relaxation import check_converged, relax_files

    if not files:
        console.say("No files given: taking the sample that ships with mgsym")
    chosen = opt.chosen_field(potential, files, types, frames)
    free = None if cell == "none" else cell
    with console.progress("Relaxing") as step:
        relaxed = relax_files(
            files, chosen, out, types, frames, method=method, cell=free, fmax=fmax,
            max_steps=max_steps, pressure=pressure, device=device, overwrite=overwrite,
            progress=step,
        )  # fmt: skip
    if as_json:
        console.emit_json(relaxed)
    else:
        relaxation_table(relaxed)
    dropped = dict.fromkeys(name for summary in relaxed for name in summary.dropped)
    if dropped:
        console.say(f"Not written, as they belong to the old positions: {', '.join(dropped)}")
    console.wrote(dict.fromkeys(summary.path for summary in relaxed))
    check_converged(relaxed)
