"""The options that mean the same in every command.

Each is a decorator; the comment tells the parameter that the command's function receives::

    @click.command()
    @out_option("graphs", "folder for the graphs")
    @device_option
    @overwrite_option
    @json_option
    @verbosity_options
    def build_graph(out: Path, device: str, overwrite: bool, as_json: bool) -> None: ...
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from mgsym.cli import console

if TYPE_CHECKING:
    from mgsym.data_tools.simulation.labelling.barriers import SearchRun
    from mgsym.data_tools.simulation.potentials.eam import EAM
    from mgsym.data_tools.simulation.potentials.evaluation import Potential
    from mgsym.utils.progress import Progress

Command = TypeVar("Command", bound=Callable[..., Any])
FILE = click.Path(path_type=Path)  # whether it exists is for the library to say, as InputError
POSITIVE = click.FloatRange(min=0, min_open=True)

# device: str; give it to mgsym.utils.devices.resolve_device
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda[:N]",
    help="Where to compute; auto takes a GPU when there is one.",
)

# seed: int | None; None leaves the library's default
seed_option = click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), help="Seed of everything random."
)

# overwrite: bool
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace output that exists already."
)

# as_json: bool
json_option = click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")

# run: Path | None; give it to chosen_run
run_option = click.option(
    "--run",
    type=FILE,
    help="Run folder, checkpoint or ensemble; 'shipped' is the model that comes with mgsym.  "
    "[default: the latest in runs/, else shipped]",
)


def chosen_run(run: Path | None) -> Path:
    """The run that is asked for, the latest, or the shipped model; says so where it is that."""
    from mgsym.data_tools.shipped_model import run_or_shipped, shipped_card, shipped_model

    path = run_or_shipped(run)
    if path == shipped_model():
        why = "" if run else "No run in runs/: "
        console.say(f"{why}Predicting with the model that ships with mgsym, see {shipped_card()}")
    return path


# noise: float | None; None is what each label says of itself
noise_option = click.option(
    "--noise",
    type=click.FloatRange(min=0),
    metavar="EV",
    help="Standard error of the labels, eV.  [default: each label's own]",
)


def _elements(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> dict[int, str] | None:
    if value is None:
        return None
    from mgsym.data_tools.formats import parse_types

    return parse_types(value)


# types: dict[int, str] | None, such as {1: "Cu", 2: "Zr"}
types_option = click.option(
    "--types",
    metavar="1=Cu,2=Zr",
    callback=_elements,
    help="Elements of the type numbers in LAMMPS files.",
)

# frames: str | None, such as "-1" or "0:100:10"
frames_option = click.option(
    "--frames",
    metavar="N|FIRST:LAST:STEP",
    help="Frames of a trajectory, counted from 0; -1 is the last one.",
)

# potential: Path | None; give it to chosen_potential, or to potential_files.load_potential
potential_option = click.option(
    "--potential",
    type=FILE,
    envvar="MGSYM_POTENTIAL",
    show_envvar=True,
    help="EAM file (eam/alloy or eam/fs), or zhou:Zr,Cu,Al.  [default: an analytic potential]",
)

# the same where a calculator of ASE serves too; give it to chosen_field
field_option = click.option(
    "--potential",
    type=FILE,
    envvar="MGSYM_POTENTIAL",
    show_envvar=True,
    help="EAM file (eam/alloy or eam/fs), zhou:Zr,Cu,Al, or ase:package.module:factory.  "
    "[default: an analytic potential]",
)


def chosen_potential(
    potential: Path | None,
    files: Sequence[Path] = (),
    types: dict[int, str] | None = None,
    frames: str | None = None,
    *,
    elements: Sequence[str] = (),
) -> EAM:
    """The potential that is asked for, or the analytic one of the elements; says so then."""
    from mgsym.data_tools.simulation.potentials.files import load_potential
    from mgsym.data_tools.workflows.graphs import read_structures

    if potential is not None:
        return load_potential(potential)
    for structure in read_structures(files, types, frames) if files else ():
        elements = [*elements, *(symbol for symbol, n in structure.composition.items() if n)]
    loaded = load_potential(elements=list(dict.fromkeys(elements)))
    console.say(f"Without --potential: {loaded.name}")
    return loaded


def chosen_field(
    potential: Path | None,
    files: Sequence[Path] = (),
    types: dict[int, str] | None = None,
    frames: str | None = None,
    *,
    elements: Sequence[str] = (),
) -> Potential:
    """As `chosen_potential`, or a calculator of ASE; says of it how fast it is with the files."""
    from mgsym.data_tools.simulation.potentials import ase_calculator
    from mgsym.data_tools.workflows.graphs import read_structures

    if not str(potential or "").startswith(ase_calculator.PREFIX):
        return chosen_potential(potential, files, types, frames, elements=elements)
    calculator = ase_calculator.ASEPotential(str(potential).removeprefix(ase_calculator.PREFIX))
    structures = read_structures(files, types, frames)[:1] if files else []
    if not structures:
        console.say(f"{calculator.name} is slower than built-in potentials: see the time left")
    for structure in structures:
        seconds = ase_calculator.seconds_a_call(calculator, structure)
        calls = ", ".join(f"{task} {_time(n * seconds)}" for task, n in CALLS.items())
        name = structure.name or "a structure"
        console.say(
            f"{calculator.name} takes {seconds:.2g} s for the forces of {name} and is asked one "
            f"structure at a time, unlike built-in potentials. Expect: {calls}"
        )
    return calculator


CALLS = {"a relaxation": 300, "a step of strain": 100, "a search": 800, "1 ps of a quench": 1000}


def _time(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 100 else f"{seconds / 60:.3g} min"


def physics_options(function: Command) -> Command:
    """``--potential`` and ``--physics``; the function receives both: `physics_potential`."""
    physics = click.option(
        "--physics",
        is_flag=True,
        help="Add energy, stress and stiffness of each atom as node features; --potential on the "
        "command line does so too, MGSYM_POTENTIAL alone does not.",
    )
    return physics(potential_option(function))


def physics_potential(potential: Path | None, physics: bool) -> EAM | None:
    """The potential of the physical inputs that the command line asked for, if it did."""
    source = click.get_current_context().get_parameter_source("potential")
    if not physics and source is not ParameterSource.COMMANDLINE:
        return None
    from mgsym.data_tools.simulation.potentials.files import load_potential

    eam = load_potential(potential)
    console.say(f"Physical inputs from the potential {eam.name}")
    return eam


# jobs: int
jobs_option = click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="How much is worked on at once.",
)

# config: Path | None
config_option = click.option(
    "--config", type=FILE, help="TOML file of settings; options given here win over it."
)


def search_run(
    progress: Progress,
    should_stop: Callable[[], bool],
    *,
    seed: int | None,
    resume: bool,
    overwrite: bool,
    device: str,
    jobs: int,
    slots: int | None,
    shard: str | None = None,
    **others: Any,
) -> SearchRun:
    """How searches go, from the options of a command; other options are passed over."""
    from mgsym.data_tools.simulation.labelling.barriers import SearchRun

    return SearchRun(
        seed or 0, shard, resume, overwrite, device, jobs, slots, progress, should_stop
    )


def out_option(default: str | None = None, what: str = "output") -> Callable[[Command], Command]:
    """``-o/--out``; the function receives ``out: Path`` (or None without a default)."""
    return click.option(
        "-o", "--out", type=FILE, default=default, show_default=default is not None, help=_say(what)
    )


def verbosity_options(function: Command) -> Command:
    """``-q/--quiet`` and ``-v/--verbose``; the function receives nothing, console obeys them."""
    quiet = _flag("-q", "--quiet", -1, "Only results, warnings and errors.")
    verbose = _flag("-v", "--verbose", 1, "More notes, and tracebacks of errors.")
    return quiet(verbose(function))


def old_flag(old: str, new: str) -> Callable[[Command], Command]:
    """A flag by the name that it had, which says so; the function receives it beside the new."""

    def warn(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
        if value:
            console.warn(
                f"{old} is now called {new}; the old name is understood for one more release"
            )
        return value

    return click.option(old, is_flag=True, hidden=True, callback=warn)


def parse_names(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str] | None:
    """``a,b`` as a list of names; ``none`` as an empty one; None when the option is not given."""
    if value is None:
        return None
    return [] if value == "none" else [name.strip() for name in value.split(",") if name.strip()]


def parse_numbers(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> list[float] | None:
    """``1,0.5`` as a list of numbers; None when the option is not given."""
    try:
        return None if value is None else [float(part) for part in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"{value!r}: expected numbers such as 1,0.5", ctx, param) from None


def parse_nodes(ctx: click.Context, param: click.Parameter, value: str) -> int | list[int]:
    """``30`` as how many, ``4,8,15`` (or ``4,``) as which."""
    try:
        numbers = [int(part) for part in value.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 0:
        raise click.BadParameter(f"{value!r}: expected 30, or rows such as 4,8,15", ctx, param)
    return numbers if "," in value else numbers[0]


def parse_seeds(ctx: click.Context, param: click.Parameter, value: str | None) -> list[int]:
    """``0:4`` as 0, 1, 2, 3 and ``0,7`` as 0, 7; empty when the option is not given."""
    if value is None:
        return []
    first, colon, end = value.partition(":")
    try:
        seeds = (
            list(range(int(first or 0), int(end))) if colon else list(map(int, value.split(",")))
        )
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0:
        raise click.BadParameter(f"{value!r}: expected seeds such as 0:4 or 0,7", ctx, param)
    return seeds


def options_given() -> dict[str, Any]:
    """The parameters of the running command that its user gave, without the defaults.

    For commands whose settings come from defaults, then a TOML file, then the command line.
    """
    ctx = click.get_current_context()
    from_user = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    return {k: v for k, v in ctx.params.items() if ctx.get_parameter_source(k) in from_user}


def _flag(short: str, long: str, level: int, text: str) -> Callable[[Command], Command]:
    def obey(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value:
            console.set_verbosity(level)

    return click.option(
        short, long, is_flag=True, expose_value=False, is_eager=True, callback=obey, help=text
    )


def _say(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."
