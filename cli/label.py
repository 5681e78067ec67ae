"""`mgsym label`: barriers from searches for saddle points."""

from __future__ import annotations

from pathlib import Path

import click

from mgsym.cli import console
from mgsym.cli import options as opt


@click.command()
@click.argument("file", required=False, type=opt.FILE)
@opt.field_option
@click.option("--searches", type=int, metavar="N", help="Searches an atom, at most.  [default: 20]")
@click.option("--events", type=int, metavar="M", help="Stop an atom at this many successes.")
@click.option("--atoms", metavar="ROWS", help="Rows from 0: 0:100, 1,5,9, random:100.")
@click.option("--ids", metavar="IDS", help="Atoms by id: 1:100, 1,5,9.")
@click.option("--choose", type=opt.FILE, metavar="RUN", help="Atoms that RUN is least certain of.")
@click.option("--count", type=int, default=500, help="How many to choose.  [default: 500]")
@click.option("--radius", type=opt.POSITIVE, metavar="Å", help="Of the region that moves.")
@click.option("--set", "changes", multiple=True, metavar="artn.KEY=VALUE", help="Any setting.")
@click.option("--shard", metavar="I/N", help="The I-th of N shares of the atoms; then mgsym merge.")
@click.option("--save-saddles", is_flag=True, help="Also write saddles, to OUT.saddles.xyz.")
@click.option("--resume", is_flag=True, help="Go on where an earlier run ended, if there was one.")
@click.option(
    "--slots", type=click.IntRange(1), help="Searches together.  [default: 64; GPU: by memory]"
)
@opt.jobs_option
@opt.types_option
@opt.frames_option
@opt.out_option(what="Labelled structure  [default: FILE-labelled.xyz]")
@opt.overwrite_option
@opt.seed_option
@opt.device_option
@opt.json_option
@opt.verbosity_options
def label(
    file: Path | None, potential: Path | None, searches: int | None, events: int | None,
    atoms: str | None, ids: str | None, choose: Path | None, count: int, radius: float | None,
    changes: tuple[str, ...], shard: str | None, save_saddles: bool, resume: bool,
    slots: int | None, jobs: int, types: dict[int, str] | None, frames: str | None,
    out: Path | None, overwrite: bool, seed: int | None, device: str, as_json: bool,
) -> None:  # fmt: skip
    """Label the atoms of a structure FILE with their energy barriers.

    From every atom, searches climb to saddle points (activation-relaxation technique); the label
    is the mean barrier in eV, with its standard error. FILE must be at a minimum of the potential
    (mgsym relax). Each search is kept as it finishes, in OUT.events.csv. Without FILE, a few atoms
    of the sample's test glass show how it goes.
    """
    from mgsym.cli.label_view import label_view
    from mgsym.data_tools.workflows.labelling import artn_settings, label_file

    settings = artn_settings(changes, radius)
    files = (file,) if file else ()
    model = opt.chosen_field(potential, files, types, frames)
    console.say(f"Potential: {model.name}")
    if file is None:
        console.say(
            "No FILE given: a demonstration on the sample's test glass, relaxed in this potential; "
            "a few atoms and searches, unless told otherwise"
        )
    with console.progress("Searching") as step, console.interruptible() as should_stop:
        labelled = label_file(
            file, model, out, settings, atoms=atoms, ids=ids, choose=choose, count=count,
            searches=searches, events=events, types=types, frames=frames,
            save_saddles=save_saddles,
            run=opt.search_run(
                step, should_stop, seed=seed, resume=resume, overwrite=overwrite, device=device,
                jobs=jobs, slots=slots, shard=shard,
            ),
        )  # fmt: skip
    label_view(labelled, as_json)
