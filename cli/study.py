"""`mgsym study`: a whole study as a Snakemake workflow."""

from __future__ import annotations

from pathlib import Path

import click

from mgsym.cli import console
from mgsym.cli import options as opt


@click.group()
@opt.verbosity_options
def study() -> None:
    """Make a study of many glasses: a workflow that runs on a laptop or a cluster."""


@study.command()
@click.argument("folder", type=opt.FILE)
@opt.overwrite_option
@opt.verbosity_options
def init(folder: Path, overwrite: bool) -> None:
    """Write a Snakemake workflow and its settings into FOLDER.

    study.toml lists compositions, rates and seeds; each becomes a glass that is quenched, relaxed,
    labelled, learned from, predicted and sheared. Change it, then run: cd FOLDER && snakemake
    --cores 2. Needs Snakemake: pip install "mgsym[study]".
    """
    from mgsym.data_tools.workflows.study import init_study

    console.wrote(init_study(folder, overwrite))
    console.say(f"Change {folder / 'study.toml'}, then: cd {folder} && snakemake --cores 2")
