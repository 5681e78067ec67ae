"""`mgsym deform`: glasses under shear and extension."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mgsym.cli import console
from mgsym.cli import options as opt

SHEARS, LENGTHS = (f"shear-{p}" for p in ("xy", "xz", "yz")), (f"uniaxial-{a}" for a in "xyz")
MODES = click.Choice([*SHEARS, *LENGTHS])


@click.command()
@click.argument("files", nargs=-1, type=opt.FILE)
@opt.field_option
@click.option("--mode", "modes", type=MODES, multiple=True, help="Any number.  [default: shear-xy]")
@click.option("--reverse", is_flag=True, help="Each mode with the opposite strain too.")
@click.option("--strain", type=float, default=0.1, show_default=True, help="The last one.")
@click.option("--step", type=opt.POSITIVE, default=1e-3, show_default=True, help="Of the strain.")
@click.option("--every", type=click.IntRange(1), default=10, help="Steps a frame.  [default: 10]")
@click.option("--method", type=click.Choice(["cg", "fire"]), default="cg", show_default=True)
@click.option("--fmax", type=opt.POSITIVE, default=1e-5, show_default=True, help="eV/Å.")
@click.option("--max-steps", type=click.IntRange(1), default=10_000, help="Of a minimisation.")
@click.option("--transverse", type=float, metavar="GPA", help="Pressure across a uniaxial strain.")
@click.option("--rate", type=opt.POSITIVE, metavar="1/S", help="Of the strain; with --temperature.")
@click.option("--temperature", type=opt.POSITIVE, metavar="K", help="Molecular dynamics at it.")
@click.option("--timestep", type=opt.POSITIVE, default=1.0, help="fs, at most.  [default: 1]")
@click.option("--equilibrate", type=float, default=10.0, help="ps before it.  [default: 10]")
@click.option("--radius", type=opt.POSITIVE, default=4.0, help="Of D²min, Å.  [default: 4]")
@click.option("--compare", multiple=True, metavar="COLUMN", help="Does it foretell D²min?")
@click.option("--format", type=click.Choice(["extxyz", "dump"]), default="extxyz", help="Frames.")
@click.option("--figures", is_flag=True, help="Draw stress–strain curves and maps of D²min.")
@click.option("--resume", is_flag=True, help="Go on with a run that was interrupted.")
@opt.types_option
@opt.frames_option
@opt.seed_option
@opt.out_option("deformed", "folder")
@opt.overwrite_option
@opt.device_option
@opt.json_option
@opt.verbosity_options
def deform(files: tuple[Path, ...], potential: Path | None, as_json: bool, **chosen: Any) -> None:
    """Strain structure FILES and see where they yield.

    Without --rate, each --step is an affine strain and a minimisation. Stresses are positive under
    tension, in GPa. D²min (Å², the non-affine displacement of an atom's neighbours) and the local
    shear strain of each frame are against the unstrained glass. --compare asks how well a column,
    such as barrier_predicted of mgsym predict, foretells D²min beside energy, coordination,
    compliance and chance.
    """
    from mgsym.cli.deform_view import deform_view
    from mgsym.data_tools.simulation.deformation.plan import directions_of, plan_of
    from mgsym.data_tools.workflows.deformation import deform_files

    directions = directions_of(chosen.pop("modes"), chosen.pop("reverse"))
    plan, others = plan_of(directions, chosen)
    if not files:
        console.say("No files given: taking the sample that ships with mgsym")
    loaded = opt.chosen_field(potential, files, chosen["types"], chosen["frames"])
    with console.progress("Straining") as step, console.interruptible() as should_stop:
        others.update(columns=others.pop("compare"), progress=step, should_stop=should_stop)
        strained = deform_files(files, loaded, plan, **others)
    deform_view(strained, as_json)
