"""`mgsym check`: what a model claims, measured."""

from __future__ import annotations

from pathlib import Path

import click

from mgsym.cli import console
from mgsym.cli import options as opt


@click.command()
@click.argument("run", required=False, type=opt.FILE)
@click.argument("paths", nargs=-1, type=opt.FILE)
@click.option("--rotate", is_flag=True, help="Rotate and reflect structures (the default).")
@click.option(
    "--count",
    type=click.IntRange(min=2),
    default=16,
    show_default=True,
    help="Random rotations and reflections.",
)
@opt.types_option
@opt.seed_option
@opt.device_option
@opt.json_option
@opt.verbosity_options
def check(
    run: Path | None,
    paths: tuple[Path, ...],
    rotate: bool,
    count: int,
    types: dict[int, str] | None,
    seed: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Measure how predictions of RUN change when a structure is rotated or reflected.

    RUN is the latest in runs/ unless given, without any the shipped model; PATHS are structures
    or graphs, by default the folder graphs. Deviations are from an atom's mean over the
    transforms, over all atoms, in eV and in standard deviations of the training labels.
    """
    from mgsym.data_tools.workflows.predictions import check_rotations

    chosen = opt.chosen_run(run)
    with console.progress("Rotating") as step:
        checks = check_rotations(
            chosen,
            paths or [Path("graphs")],
            count,
            seed or 0,
            types,
            device=device,
            progress=step,
        )
    if as_json:
        console.emit_json(checks)
        return
    columns = ("run", "structure", "invariant", "rms/eV", "max/eV", "rms/sd", "max/sd")
    rows = []
    for c in checks:
        s = c.spread
        numbers = (s.rms, s.max, s.relative_rms, s.relative_max)
        rows.append((c.model, c.structure, c.declared, *(f"{n:.2g}" for n in numbers)))
    console.table(f"Spread over {count} random rotations and reflections", columns, rows)
