"""`mgsym train`: a model from graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mgsym.cli import console
from mgsym.cli import options as opt

# options that are settings
SETTINGS = {k: f"training.{k}" for k in ("epochs", "learning_rate", "max_minutes", "precision")}
SETTINGS |= {"seed": "seed", "model": "model.name"}
NAMES = "these structures or glasses (a,b*; none)"


@click.command()
@click.argument("graphs", default="graphs", type=opt.FILE)
@click.option("--model", help="Name of a model; mgsym models lists them.  [default: symgnn]")
@click.option("--preset", help="Settings to start from: fast, symgnn or paper.  [default: fast]")
@opt.config_option
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Any setting.")
@click.option("--epochs", type=click.IntRange(min=1), help="Times each structure is seen.")
@click.option("--learning-rate", type=click.FloatRange(min=0), help="Peak learning rate.")
@click.option("--precision", type=click.Choice(["float32", "bfloat16", "float16"]))
@click.option("--minutes", "max_minutes", type=click.FloatRange(min=0), help="Time limit.")
@opt.seed_option
@click.option("--seeds", metavar="0:4", callback=opt.parse_seeds, help="One model per seed.")
@click.option(
    "--val", "validation", metavar="NAMES", callback=opt.parse_names, help=f"Validate on {NAMES}."
)
@click.option("--test", metavar="NAMES", callback=opt.parse_names, help=f"Test on {NAMES}.")
@click.option("--from", "start_from", type=opt.FILE, help="Run or checkpoint to fine-tune.")
@click.option("--resume", is_flag=False, flag_value="", metavar="[RUN]", help="Go on with a run.")
@opt.out_option(what="Run folder  [default: runs/<date>-<model>-<preset>-seed<k>]")
@opt.overwrite_option
@opt.device_option
@opt.json_option
@opt.verbosity_options
def train(graphs: Path, out: Path | None, as_json: bool, **chosen: Any) -> None:
    """Train a model on the graph files of the folder GRAPHS.

    Whole glasses are held out for validation and test. The best epoch is chosen on validation;
    test is scored once, at the end.
    """
    from mgsym.cli.views import training_view
    from mgsym.data_tools.workflows.graphs import read_graphs
    from mgsym.prediction.seeds import train_seeds
    from mgsym.training import train as train_one
    from mgsym.training.config import load_config
    from mgsym.training.runs import default_run, latest_run, run_config, run_graphs, run_seeds
    from mgsym.utils.settings import parse_override

    resume, seeds = chosen["resume"] is not None, chosen["seeds"]
    if resume:
        out = Path(chosen["resume"] or latest_run())
        seeds = seeds or run_seeds(out)
        graphs = graphs if "graphs" in opt.options_given() else run_graphs(out) or graphs
    file = run_config(out) if resume and out else chosen["config"]
    flags = {SETTINGS[k]: v for k, v in opt.options_given().items() if k in SETTINGS}
    changes = dict(map(parse_override, chosen["changes"]))
    config = load_config(file, changes | flags, chosen["preset"])
    out = out or default_run(config, seeds)
    options = {k: chosen[k] for k in ("device", "validation", "test", "start_from", "overwrite")}
    loaded = read_graphs([graphs])
    options["graphs_from"] = graphs.resolve()
    with console.progress("Training") as step, console.interruptible() as should_stop:
        options.update(progress=step, should_stop=should_stop, resume=resume)
        if seeds:
            runs = train_seeds(loaded, config, seeds, out, **options)
        else:
            runs = [train_one(loaded, config, run=out, **options)]
    training_view(runs, out, as_json)
