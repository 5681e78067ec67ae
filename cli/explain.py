"""`mgsym explain`: the edges behind one prediction."""

from __future__ import annotations

from pathlib import Path

import click

from mgsym.cli import console
from mgsym.cli import options as opt

# told here, so that --help loads no torch
METHODS = """weakening, edge-mask, sampled-mask, soft-mask, parameterised-mask, gradient,
integrated-gradients, attention, leave-one-out, random"""


@click.command()
@click.argument("structure", required=False, type=opt.FILE)
@click.option("--node", type=int, help="The atom, by its row, counted from 0.")
@click.option("--id", "atom_id", type=int, help="The atom, by its id in the file.")
@click.option("--topk", type=click.IntRange(1), default=50, help="How many bonds.  [50]")
@click.option("--directed", is_flag=True, help="Count each direction of a bond by itself.")
@click.option("--method", default="weakening", show_default=True, help=f"One of {METHODS}.")
@click.option("--steps", type=int, metavar="N", help="Steps of optimisation of a mask.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Any setting.")
@opt.run_option
@opt.types_option
@click.option("--graphs", type=opt.FILE, help="Folder of the run's graphs, where it has moved.")
@opt.out_option(what="Folder for the files  [default: explanations in the run's folder]")
@click.option("--figure", type=opt.FILE, help="Draw the bonds: .png, .pdf, .svg or .html (3-D).")
@click.option("--local", type=opt.FILE, help="Draw the nearest atoms: .png, .pdf or .svg.")
@click.option("--ranking", type=opt.FILE, help="Draw what neighbours add: .png, .pdf or .svg.")
@click.option("--export", "exports", multiple=True, type=opt.FILE, help="For OVITO, see above.")
@opt.potential_option
@opt.overwrite_option
@opt.seed_option
@opt.device_option
@opt.json_option
@opt.verbosity_options
def explain(
    structure: Path | None, node: int | None, atom_id: int | None, topk: int, directed: bool,
    method: str, steps: int | None, changes: tuple[str, ...], run: Path | None,
    types: dict[int, str] | None, out: Path | None, figure: Path | None, local: Path | None,
    ranking: Path | None, exports: tuple[Path, ...], graphs: Path | None, potential: Path | None,
    overwrite: bool, seed: int | None, device: str, as_json: bool,
) -> None:  # fmt: skip
    """Say which neighbours raise and lower the predicted barrier of one atom, and on which bonds.

    STRUCTURE is a structure or graph file; by default the test structure of the run. The bonds
    (both directions of a pair of atoms are one) are put to the proof: does the prediction stay with
    these alone, and change without them? Both go to a .json and a .csv file; --export atoms.extxyz
    and edges.local (dump local) are for OVITO.
    """
    from mgsym.cli.explanation_views import explanation_view
    from mgsym.data_tools.workflows.explanation import Output, explain_atom
    from mgsym.data_tools.workflows.explanation_target import Method
    from mgsym.explanation import parse_settings

    if steps is not None:
        changes = (*changes, f"steps={steps}")
    which, settings = opt.chosen_run(run), parse_settings(method, changes)
    output = Output(out, figure, local, ranking, exports, overwrite)
    with console.progress("Explaining") as step:
        how = Method(method, settings, topk, seed or 0, device, step, directed)
        found = explain_atom(
            which, structure, node=node, atom_id=atom_id, method=how, out=output, types=types,
            graphs=graphs, potential=potential,
        )  # fmt: skip
    console.remarks(found)
    if as_json:
        console.emit_json(found.to_dict())
    else:
        explanation_view(found)
    console.wrote(found.paths)
