"""`mgsym models`: the models that can be trained."""

from __future__ import annotations

import click

from mgsym.cli import console
from mgsym.cli import options as opt


@click.command()
@opt.json_option
@opt.verbosity_options
def models(as_json: bool) -> None:
    """List the models that `mgsym train --model NAME` trains.

    Sizes and invariance are those of the default options, for Cu and Zr and a cutoff of 5 Å.
    --json tells every option.
    """
    from mgsym.models import summarize_models

    summaries = summarize_models()
    if as_json:
        console.emit_json(summaries)
        return
    columns = ("model", "invariant", "parameters", "reach/Å", "source", "differs in")
    rows = [
        (
            m.name,
            m.invariant,
            m.parameters,
            f"{m.receptive_field:g}",
            m.source,
            ", ".join(f"{name}={value}" for name, value in m.changed.items()) or None,
        )
        for m in summaries
    ]
    console.table("", columns, rows)
