"""`mgsym info`: what a file or folder is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mgsym.cli import console
from mgsym.cli import options as opt


@click.command()
@click.argument("paths", nargs=-1, required=True, type=opt.FILE)
@opt.types_option
@opt.frames_option
@opt.json_option
@opt.verbosity_options
def info(
    paths: tuple[Path, ...], types: dict[int, str] | None, frames: str | None, as_json: bool
) -> None:
    """Say what each of PATHS is and holds.

    Structure files, graph files, checkpoints, ensembles, run folders, and folders of graphs or
    runs. Of a trajectory, the last frame is described.
    """
    from mgsym.data_tools.workflows.inspection import inspect

    descriptions = [inspect(path, types, frames) for path in paths]
    if as_json:
        console.emit_json(descriptions)
        return
    for number, description in enumerate(descriptions):
        if number:
            console.result("")
        _show(description)


def _show(item: dict[str, Any]) -> None:
    from mgsym.cli import views
    from mgsym.data_tools.workflows.ensembles import ensemble_summary
    from mgsym.data_tools.workflows.graphs import GraphSummary

    match item["kind"]:
        case "structures":
            count = item["frames"]
            kind = item["format"] + (f", {count} frames" if count > 1 else "")
            for structure in item["structures"]:
                views.structure_view(item["path"], kind, structure)
        case "graphs":
            graphs = [GraphSummary(**graph) for graph in item["graphs"]]
            cutoffs = " ".join(f"{c:g}" for c in sorted({g.cutoff for g in graphs}))
            views.graph_table(f"{item['path']}: graphs, cutoff {cutoffs} Å", graphs)
        case "checkpoint":
            views.checkpoint_view(item)
        case "ensemble":
            views.ensemble_view(ensemble_summary(item))
        case "run":
            views.run_view(item)
        case "runs":
            for run in item["runs"]:
                views.run_view(run)
