"""`mgsym fetch`: the public dataset."""

from __future__ import annotations

from pathlib import Path

import click

from mgsym.cli import console
from mgsym.cli import options as opt


@click.command()
@click.argument("names", nargs=-1)
@opt.out_option("data/cu64zr36", "Folder for the files")
@click.option(
    "--base", metavar="ADDRESS|FOLDER", help="Where the files are.  [default: their publishers']"
)
@opt.overwrite_option
@opt.json_option
@opt.verbosity_options
def fetch(
    names: tuple[str, ...], out: Path, base: str | None, overwrite: bool, as_json: bool
) -> None:
    """Download the public Cu64Zr36 dataset of the SymGNN paper and check every file.

    NAMES, such as train0 or test1, choose some of its files; without them all are fetched. Files
    that are there and right stay, and a download that broke off goes on where it stopped.
    """
    from mgsym.data_tools.public_dataset import FILES, URL, fetch

    with console.progress("Fetching") as step:
        fetched = fetch(out, base or URL, names or None, step, overwrite)
    done = {
        **dict.fromkeys(fetched.downloaded, "fetched"),
        **dict.fromkeys(fetched.present, "was there"),
        **{name: f"skipped, {reason}" for name, reason in fetched.skipped},
    }
    if as_json:
        console.emit_json(fetched)
        return
    rows = [(f.name, f.glass, f.split, done[f.name]) for f in FILES if f.name in done]
    console.table(f"Public dataset in {out}", ("file", "glass", "split", ""), rows)
