"""`mgsym explain-benchmark`: does an explainer find reasons that are known?"""

from __future__ import annotations

from pathlib import Path

import click

from mgsym.cli import console
from mgsym.cli import options as opt


@click.command()
@click.argument("structure", required=False, type=opt.FILE)
@click.option("--nodes", type=click.IntRange(1), default=5, show_default=True, help="Atoms.")
@click.option("--methods", metavar="A,B,…", callback=opt.parse_names, help="Explainers.  [all]")
@click.option("--cutoff", type=opt.POSITIVE, default=5.0, show_default=True, help="Å.")
@opt.types_option
@opt.seed_option
@opt.json_option
@opt.verbosity_options
def explain_benchmark(
    structure: Path | None,
    nodes: int,
    methods: list[str] | None,
    cutoff: float,
    types: dict[int, str] | None,
    seed: int | None,
    as_json: bool,
) -> None:
    """Explain a model that is a known function of known edges, and count those found.

    STRUCTURE is a structure or graph file; by default the sample's test structure. Of each atom
    about twenty edges count; as many mislead: the prediction has a slope in them, but is the same
    with and without them. precision_at_k is the share of planted edges among as many edges as
    were planted.
    """
    from mgsym.cli.explanation_views import planted_view
    from mgsym.data_tools.workflows.explanation_statistics import planted_graph
    from mgsym.explanation.planted import planted_benchmark

    graph = planted_graph(structure, cutoff, types)
    with console.progress("Explaining") as step:
        found = planted_benchmark(
            graph, nodes=nodes, methods=methods or (), seed=seed or 0, progress=step
        )
    if as_json:
        console.emit_json(found.to_dict())
    else:
        planted_view(found)
