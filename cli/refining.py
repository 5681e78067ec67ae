"""`mgsym predict --refine`: its options, and how its result is shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mgsym.cli import console
from mgsym.cli import options as opt
from mgsym.cli.label_view import label_facts

if TYPE_CHECKING:
    from mgsym.data_tools.workflows.refinement import Refined

ONLY_WITH_REFINE = (
    "share", "atoms", "changes", "search_scale", "search_shift", "events_out",
    "jobs", "slots", "seed",
)  # fmt: skip


def refine_options(function: opt.Command) -> opt.Command:
    """``--refine`` and what goes with it; the function receives them as keywords."""
    for decorate in reversed(_OPTIONS):
        function = decorate(function)
    return function


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--refine", type=click.IntRange(0), metavar="N",
        help="Search N times from every atom of the one FILE, and combine; 0: use its labels.",
    ),
    click.option("--share", type=float, help="Search from this share of the atoms, least certain."),
    click.option("--atoms", metavar="ROWS", help="Search from these: 0:100, 1,5,9, random:100."),
    click.option("--set", "changes", multiple=True, metavar="artn.KEY=VALUE", help="Of searches."),
    click.option(
        "--search-scale", type=opt.POSITIVE, default=1.0,
        help="Barriers found, times this, are like the model's labels.  [default: 1]",
    ),
    click.option("--search-shift", type=float, default=0.0, metavar="EV", help="Plus this, eV."),
    click.option("--events-out", type=opt.FILE, help="Searches  [default: OUT.events.csv]"),
    click.option("--resume", is_flag=True, help="Go on where an earlier run was stopped."),
    click.option("--slots", type=click.IntRange(1), help="Searches together  [default: 64]."),
    opt.jobs_option,
    opt.seed_option,
)  # fmt: skip


def refined(files: tuple[Path, ...], run: Path, out: Path, **chosen: Any) -> None:
    """Do what ``--refine`` asks for and show it."""
    from mgsym.data_tools.simulation.potentials.files import load_potential
    from mgsym.data_tools.workflows.labelling import artn_settings
    from mgsym.data_tools.workflows.refinement import refine_file
    from mgsym.errors import UsageError

    if len(files) != 1:
        raise UsageError(f"--refine takes one structure at a time, {len(files)} files are given")
    searches, potential = chosen["refine"], chosen["potential"]
    if searches:
        potential = load_potential(potential)
        console.say(f"Potential: {potential.name}")
    with console.progress("Searching") as step, console.interruptible() as should_stop:
        result = refine_file(
            files[0], run, out, searches, potential, artn_settings(chosen["changes"]),
            share=chosen["share"], atoms=chosen["atoms"], events=chosen["events_out"],
            scale=chosen["search_scale"], shift=chosen["search_shift"],
            types=chosen["types"], frames=chosen["frames"],
            search_run=opt.search_run(step, should_stop, **chosen),
        )  # fmt: skip
    refined_view(result, chosen["as_json"])


def refined_view(refined: Refined, as_json: bool) -> None:
    """A refined prediction as facts or JSON, then warnings and files."""
    if as_json:
        console.emit_json(refined.to_dict())
    else:
        items: dict[str, console.Cell] = {
            "error of the model": f"{refined.error_before:.4f} eV",
            "error now": f"{refined.error_after:.4f} eV (root mean square over all atoms)",
            "prediction moved": f"{refined.moved:.4f} eV",
            "atoms searched": f"{refined.searched} of {len(refined.structure)}",
        }
        searches = {} if refined.labels is None else label_facts(refined.labels)
        shown = ("searches", "successful", "failed", "force calls", "this run")
        items.update({name: searches[name] for name in shown if name in searches})
        console.facts(refined.structure.name, items)
    for warning in refined.warnings:
        console.warn(warning)
    console.wrote(refined.paths)


def refuse_without_refine() -> None:
    """UsageError where options of ``--refine`` were given without it."""
    from mgsym.errors import UsageError

    misplaced = [name for name in ONLY_WITH_REFINE if name in opt.options_given()]
    if misplaced:
        names = {"changes": "--set"}
        flag = names.get(misplaced[0], f"--{misplaced[0].replace('_', '-')}")
        raise UsageError(f"{flag} goes with --refine N")
