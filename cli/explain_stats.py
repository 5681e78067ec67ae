"""`mgsym explain-stats`: what the edges behind many predictions have in common."""

from __future__ import annotations

from pathlib import Path

import click

from mgsym.cli import console
from mgsym.cli import options as opt


@click.command()
@click.argument("structure", required=False, type=opt.FILE)
@click.option(
    "--nodes", default="30", callback=opt.parse_nodes, help="How many, or which: 4,8,15.  [30]"
)
@click.option("--topk", type=click.IntRange(1), default=50, show_default=True, help="Edges each.")
@click.option("--method", default="weakening", show_default=True, help="See mgsym explain.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Any of its settings.")
@click.option("--faithfulness", is_flag=True, help="Also measure what they are worth.")
@opt.old_flag("--proof", "--faithfulness")
@opt.run_option
@opt.types_option
@opt.potential_option
@opt.out_option(what="Folder  [default: explanations/<structure>-statistics in the run's folder]")
@click.option("--figures/--no-figures", default=True, help="Draw them.  [default: draw]")
@opt.overwrite_option
@opt.seed_option
@opt.device_option
@opt.json_option
@opt.verbosity_options
def explain_stats(
    structure: Path | None, nodes: int | list[int], topk: int, method: str,
    changes: tuple[str, ...], faithfulness: bool, proof: bool, run: Path | None,
    types: dict[int, str] | None, potential: Path | None, out: Path | None, figures: bool,
    overwrite: bool, seed: int | None, device: str, as_json: bool,
) -> None:  # fmt: skip
    """Explain many atoms and compare their bonds with others as far away from the atom.

    STRUCTURE is a structure or graph file; by default the test structure of the run. A number of
    --nodes takes a third each of the highest, middle and lowest predicted barriers. Compared are
    lengths, distances, hops, angles, elements, coordination and cycles of bonds; and of neighbours,
    by what they add to the whole prediction, distances, elements and Voronoi polyhedra (extra
    ase); with effect sizes and 95 % intervals over atoms. Written are statistics.json, tables
    (.csv) and figures.
    """
    from mgsym.cli.explanation_views import faithfulness_view, neighbours_view, statistics_view
    from mgsym.data_tools.workflows.explanation_statistics import explain_statistics
    from mgsym.data_tools.workflows.explanation_target import Method
    from mgsym.explanation import parse_settings

    which, settings = opt.chosen_run(run), parse_settings(method, changes)
    with console.progress("Explaining") as step:
        found = explain_statistics(
            which, structure, nodes=nodes,
            method=Method(method, settings, topk, seed or 0, device, step),
            faithfulness=faithfulness or proof, figures=figures, out=out, overwrite=overwrite,
            types=types, potential=potential,
        )  # fmt: skip
    console.remarks(found)
    if as_json:
        console.emit_json(found.to_dict())
    else:
        statistics_view(found.statistics)
        if found.neighbours is not None:
            neighbours_view(found.neighbours)
        if found.faithfulness is not None:
            faithfulness_view(found.faithfulness)
    console.wrote(found.paths)
