"""`mgsym explain`: the edges behind one prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mgsym.cli import console
from mgsym.cli import options as opt

METHODS = "edge-mask, gradient, random, soft-mask"  # told here, so that --help loads no torch


@click.command()
@click.argument("structure", required=False, type=opt.FILE)
@click.option("--node", type=int, help="The atom, by its row, counted from 0.")
@click.option("--id", "atom_id", type=int, help="The atom, by its id in the file.")
@click.option("--topk", type=click.IntRange(1), default=50, help="How many edges.  [default: 50]")
@click.option("--method", default="edge-mask", show_default=True, help=f"One of {METHODS}.")
@click.option("--steps", type=int, metavar="N", help="Steps of optimisation of a mask.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Any setting.")
@opt.run_option
@opt.types_option
@opt.out_option(what="Folder for the files  [default: explanations in the run's folder]")
@click.option("--figure", type=opt.FILE, help="Also draw the edges: .png, .pdf or .svg.")
@opt.overwrite_option
@opt.seed_option
@opt.device_option
@opt.json_option
@opt.verbosity_options
def explain(
    structure: Path | None,
    method: str,
    steps: int | None,
    changes: tuple[str, ...],
    run: Path | None,
    seed: int | None,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Find the edges on which the predicted barrier of one atom rests.

    STRUCTURE is a structure or graph file; by default the test structure of the run. The edges
    are then put to the proof: does the prediction stay with these edges alone, and change
    without them, more than with random ones? Both are written to a .json and a .csv file.
    """
    from mgsym.cli.views import explanation_view
    from mgsym.data_tools.explanations import explain_atom
    from mgsym.explanation import parse_settings

    if steps is not None:
        changes = (*changes, f"steps={steps}")
    chosen_run = opt.chosen_run(run)
    with console.progress("Explaining") as step:
        found = explain_atom(
            chosen_run,
            structure,
            method=method,
            settings=parse_settings(method, changes),
            seed=seed or 0,
            progress=step,
            **chosen,
        )
    for note in found.notes:
        console.say(note)
    for warning in found.warnings:
        console.warn(warning)
    if as_json:
        console.emit_json(found.to_dict())
    else:
        explanation_view(found)
    console.wrote(found.paths)
