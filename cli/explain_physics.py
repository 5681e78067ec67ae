"""`mgsym explain-physics`: do the neighbours that an explanation selects decide the barrier?"""

from __future__ import annotations

from pathlib import Path

import click

from mgsym.cli import console
from mgsym.cli import options as opt

POSITIVE = click.IntRange(1)


@click.command()
@click.argument("structure", required=False, type=opt.FILE)
@click.option("--nodes", default="6", callback=opt.parse_nodes, help="How many, or 4,8,15.  [6]")
@click.option("--topk", type=POSITIVE, default=50, help="Edges of an explanation.  [default: 50]")
@click.option("--method", default="weakening", show_default=True, help="See mgsym explain.")
@click.option("--atoms", type=POSITIVE, default=5, help="Neighbours to displace.  [default: 5]")
@click.option("--displace", type=opt.POSITIVE, default=2.0, help="Å, at first.  [default: 2]")
@click.option("--repeats", type=POSITIVE, default=1, help="Draws of each.  [default: 1]")
@click.option("--searches", type=POSITIVE, default=10, help="From an atom, each.  [default: 10]")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Of method, or artn.")
@click.option("--resume", is_flag=True, help="Go on where an earlier run ended, if there was one.")
@click.option("--slots", type=POSITIVE, help="Searches together.  [default: 64; GPU: by memory]")
@opt.jobs_option
@opt.potential_option
@opt.run_option
@opt.types_option
@opt.out_option(what="Folder  [default: explanations/<structure>-physics in the run's folder]")
@opt.overwrite_option
@opt.seed_option
@opt.device_option
@opt.json_option
@opt.verbosity_options
def explain_physics(
    structure: Path | None, nodes: int | list[int], topk: int, method: str, atoms: int,
    displace: float, repeats: int, searches: int, changes: tuple[str, ...], resume: bool,
    slots: int | None, jobs: int, potential: Path | None, run: Path | None,
    types: dict[int, str] | None, out: Path | None, overwrite: bool, seed: int | None, device: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Displace the neighbours that matter, and others as far away; search for saddles again.

    STRUCTURE is a structure or graph file; by default the test structure of the run. It is relaxed
    first. The atoms at the most important edges, and as many others at the same distances, are
    displaced in random directions and everything relaxes, further and further until some of both
    sets end in a new minimum. Mean barriers from searches (ARTn) there are set against those
    before, and against the model's predictions. Written are physics.json and .csv, and the minima.
    """
    from mgsym.cli.physics_view import physics_view
    from mgsym.data_tools.displacement_test.measure import measure
    from mgsym.data_tools.displacement_test.prepare import Request, prepare
    from mgsym.data_tools.simulation.potentials.files import load_potential
    from mgsym.data_tools.workflows.labelling import artn_settings
    from mgsym.explanation import parse_settings

    artn = artn_settings(change for change in changes if change.startswith("artn."))
    rest = [change for change in changes if not change.startswith("artn.")]
    settings = parse_settings(method, rest)
    request = Request(nodes, method, settings, topk, atoms, displace, repeats, seed or 0)
    which = opt.chosen_run(run)
    model = load_potential(potential)
    console.say(f"Potential: {model.name}")
    with console.progress("Displacing") as step:
        prepared = prepare(
            which, structure, model, request, out=out, radius=artn.radius, types=types,
            resume=resume, overwrite=overwrite, device=device, progress=step,
        )  # fmt: skip
    console.remarks(prepared)
    with console.progress("Searching") as step, console.interruptible() as should_stop:
        found = measure(
            prepared, model, artn, searches=searches, resume=resume, overwrite=overwrite,
            device=device, jobs=jobs, slots=slots, progress=step, should_stop=should_stop,
        )  # fmt: skip
    physics_view(found, as_json)
