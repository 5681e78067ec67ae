"""`mgsym quench`: glasses by melting and cooling."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from mgsym.cli import console
from mgsym.cli import options as opt
from mgsym.errors import UsageError


@click.command()
@click.option("--composition", default="Cu64Zr36", show_default=True, help="Such as Cu64Zr36.")
@click.option("--atoms", type=int, default=500, show_default=True, help="In each glass.")
@click.option(
    "--rate", "rates", type=float, multiple=True, help="K/s, any number.  [default: 1e13]"
)
@click.option("--glasses", type=click.IntRange(1), help="Of each rate, with the next seeds.")
@opt.seed_option
@click.option("--seeds", metavar="0:4", callback=opt.parse_seeds, help="One glass per seed.")
@click.option("--melt", type=float, default=50.0, show_default=True, help="Time of melting, ps.")
@click.option("--temperature", type=float, default=2000.0, show_default=True, help="Melt, K.")
@click.option("--final", type=float, default=1.0, show_default=True, help="Where cooling ends, K.")
@click.option("--timestep", type=float, default=1.0, show_default=True, help="fs.")
@click.option("--pressure", type=float, default=0.0, show_default=True, help="GPa.")
@click.option(
    "--density", type=float, default=0.0, help="At the start, g/cm³.  [default: from the potential]"
)
@click.option("--method", type=click.Choice(["fire", "cg"]), default="fire", help="To relax by.")
@opt.field_option
@opt.out_option("glass.xyz", "file for all glasses, or a folder (no suffix) for one file each")
@click.option("--resume", is_flag=True, help="Go on with a run that was interrupted.")
@opt.jobs_option
@opt.overwrite_option
@opt.device_option
@opt.json_option
@opt.verbosity_options
def quench(
    composition: str, atoms: int, rates: tuple[float, ...], glasses: int | None, seed: int | None,
    seeds: list[int], melt: float, temperature: float, final: float, timestep: float,
    pressure: float, density: float, method: Literal["fire", "cg"], potential: Path | None,
    out: Path, resume: bool, overwrite: bool, jobs: int, device: str, as_json: bool,
) -> None:  # fmt: skip
    """Make glasses: melt random atoms, cool them at a constant rate, and relax what results."""
    from mgsym.cli.views import glasses_table
    from mgsym.data_tools.simulation.dynamics.recipe import Recipe, parse_composition
    from mgsym.data_tools.workflows.quenching import expected_seconds, quench
    from mgsym.utils.devices import device_for_jobs

    if seeds and (seed is not None or glasses is not None):
        clash = "--seed" if seed is not None else "--glasses"
        raise UsageError(f"give {clash} or --seeds, not both")
    first = seed or 0
    recipe = Recipe(
        composition=composition, atoms=atoms, rates=rates or (1e13,),
        seeds=tuple(seeds or range(first, first + (glasses or 1))), melt=melt,
        temperature=temperature, final=final, timestep=timestep, pressure=pressure, density=density,
    )  # fmt: skip
    elements = list(parse_composition(recipe.composition))
    loaded = opt.chosen_field(potential, elements=elements)
    where = device_for_jobs(device, jobs)
    if not (resume or console.quiet()):
        console.say(f"Expect {console.duration(expected_seconds(recipe, loaded, where, jobs))}")
    with console.progress("Quench") as step, console.interruptible() as should_stop:
        made, written = quench(
            recipe, loaded, out, method=method, resume=resume, overwrite=overwrite,
            device=where, jobs=jobs, progress=step, should_stop=should_stop,
        )  # fmt: skip
    if as_json:
        console.emit_json({"glasses": [glass.facts() for glass in made], "written": written})
    else:
        glasses_table(made)
    for glass in made:
        if not glass.relaxed:
            console.warn(f"{glass.name}: the relaxation did not converge: run mgsym relax on it")
    console.wrote(written)
