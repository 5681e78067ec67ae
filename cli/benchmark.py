"""`mgsym benchmark`: many models, one protocol, one table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mgsym.cli import console
from mgsym.cli import options as opt

PROTOCOLS = ("fixed", "early", "split", "published-code", "paper")


@click.command()
@click.argument("graphs", required=False, type=opt.FILE)
@click.option(
    "--models", metavar="A,B,…", callback=opt.parse_names, help="Models, presets or .toml files."
)
@click.option("--preset", help="Settings that models of the registry start from.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Any setting, for all.")
@click.option("--seeds", metavar="0:4", callback=opt.parse_seeds, help="Train once per seed.  [0]")
@click.option(
    "--protocol", type=click.Choice(PROTOCOLS), default=PROTOCOLS[0], show_default=True,
    help="What trains and tests; see above.",
)  # fmt: skip
@click.option("--glasses", metavar="A,B", callback=opt.parse_names, help="Leave out only these.")
@click.option("--minutes", type=opt.POSITIVE, help="Budget of each training.")
@click.option("--resume", is_flag=False, flag_value="", metavar="[FOLDER]", help="Go on with one.")
@opt.out_option(what="Folder  [default: benchmarks/<date>-<protocol>]")
@opt.overwrite_option
@opt.device_option
@opt.json_option
@opt.verbosity_options
def benchmark(graphs: Path | None, out: Path | None, as_json: bool, **chosen: Any) -> None:
    """Train models on the folder GRAPHS (the sample by default) and compare them in a table.

    \b
    fixed  each glass is left out once; the others train for a fixed schedule
    early  each glass is left out once; the next one stops the training early
    split  structures train, validate and test as their files are marked
    published-code  the best epoch is chosen ON THE TEST structures, as the published code
           of SymGNN does (the paper selects by validation); its figures flatter and are
           labelled so
    paper  deprecated: the old name of published-code

    The table is never sorted, and nothing chosen, by a test figure. With --resume, finished
    trainings are kept, and --models and --seeds add to what was asked for before.
    """
    from mgsym.benchmark import default_benchmark, latest_benchmark, load_plan, run_benchmark
    from mgsym.benchmark.plan import make_plan
    from mgsym.cli.benchmark_view import benchmark_view
    from mgsym.data_tools.workflows.graphs import read_graphs, sample_graphs

    before = None
    if chosen["resume"] is not None:
        out = Path(chosen["resume"] or latest_benchmark())
        before = load_plan(out)
    if chosen["protocol"] == "paper":
        console.warn("--protocol paper is now called published-code, which it is")
    options = {k: v for k, v in opt.options_given().items() if k in chosen and v not in (None, [])}
    plan = make_plan(options, str(graphs or ""), before)
    out = out or default_benchmark(plan)
    loaded = read_graphs([Path(plan.graphs)]) if plan.graphs else sample_graphs()
    with console.progress("Benchmark") as step, console.interruptible() as should_stop:
        run: dict[str, Any] = {k: chosen[k] for k in ("device", "overwrite")}
        run.update(resume=before is not None, progress=step, should_stop=should_stop)
        table = run_benchmark(loaded, plan, out, **run)
    if as_json:
        console.emit_json(table.as_dict())
    else:
        benchmark_view(table)
    console.wrote([out / f"table.{suffix}" for suffix in ("md", "csv", "json")])
    table.raise_failures()
