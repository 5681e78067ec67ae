"""`mgsym potential`: what a potential file holds."""

from __future__ import annotations

from pathlib import Path

import click

from mgsym.cli import console
from mgsym.cli import options as opt


@click.command()
@click.argument("file", required=False, type=opt.FILE)
@click.option("--figure", type=opt.FILE, help="Draw its functions: .png, .pdf or .svg.")
@opt.overwrite_option
@opt.json_option
@opt.verbosity_options
def potential(file: Path | None, figure: Path | None, overwrite: bool, as_json: bool) -> None:
    """Show the elements, cutoffs and crystals of a potential FILE.

    FILE is LAMMPS' eam/alloy or eam/fs, or zhou:Zr,Cu,Al for the analytic potential of some of
    sixteen metals. Lattice constants (Å) and cohesive energies (eV) of fcc, bcc and hcp are those
    of the minimum without pressure; compare them with what you know of the metals. Without FILE,
    the potential that other commands would take.
    """
    from mgsym.data_tools.simulation.potentials.files import load_potential
    from mgsym.data_tools.workflows.potential import describe_potential, potential_figure
    from mgsym.rendering.figures import check_figure, write_figure

    if figure is not None:
        check_figure(figure, overwrite)
    loaded = load_potential(file)
    with console.progress("Crystals") as step:
        facts = describe_potential(loaded, step)
    if figure is not None:
        write_figure(potential_figure(loaded), figure)
    if as_json:
        console.emit_json(facts)
    else:
        masses = (f"{s} {m:g}" for s, m in zip(facts.elements, facts.masses, strict=True))
        pairs = {pair: length for pair, length in facts.reach.items() if len(facts.elements) < 5}
        reach = ", ".join(f"{pair} {length:.3f} Å" for pair, length in pairs.items())
        items = {"masses": ", ".join(masses), "cutoff": f"{facts.cutoff:.4f} Å"}
        console.facts(facts.name, {**items, "pairs end at": reach})
        rows = [
            (c.element, c.lattice, f"{c.a:.4f}", None if c.c is None else f"{c.c:.4f}",
             f"{c.cohesive_energy:.4f}", "lowest" if c.lowest else "")
            for c in facts.crystals
        ]  # fmt: skip
        console.table("", ("element", "lattice", "a Å", "c Å", "cohesive eV/atom", ""), rows)
    if figure is not None:
        console.wrote(figure)
