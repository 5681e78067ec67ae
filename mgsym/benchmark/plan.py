"""What a benchmark is to train: models, seeds, and which glasses train, stop and test.

No protocol but ``published-code`` looks at a test structure before the training is over, and that
one says so wherever its figures are shown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mgsym.errors import InputError, UsageError, short
from mgsym.evaluation.splits import Split, leave_one_group_out, split_by_glass
from mgsym.graph import Graph
from mgsym.graph.operations import glass_of
from mgsym.models import MODELS
from mgsym.training.config import PRESETS, Config, ModelConfig, load_config
from mgsym.training.runs import COUNT, NAMES, NUMBER, SEEDS, TABLE, TEXT, Kinds, check_kinds
from mgsym.utils.files import read_json, write_json
from mgsym.utils.settings import parse_override

PLAN = "plan.json"
FORMAT, VERSION = "mgsym-benchmark", 1
CHOSEN_ON_TEST = "test (epoch chosen on it)"  # the role of test structures under ``published-code``

_KINDS: Kinds = {
    "models": TABLE,
    "seeds": SEEDS,
    "glasses": NAMES,
    "minutes": NUMBER,
    "rotations": COUNT,
    **dict.fromkeys(("protocol", "graphs"), TEXT),
}

PROTOCOLS: dict[str, str] = {
    "fixed": "Each glass was left out once; all others trained for a schedule set beforehand.",
    "early": "Each glass was left out once; the next one stopped the training early, the others "
    "trained.",
    "split": "Structures trained, stopped early and tested as their files are marked; test was "
    "scored once.",
    "published-code": "As in the published code of SymGNN (the paper selects by validation), the "
    "best epoch was chosen on the test structures themselves: their figures flatter, and compare "
    "with nothing but what that code gives.",
}

RENAMED = {"paper": "published-code"}  # older names of protocols, still understood

# trained beside the default preset when nothing is asked for: seconds each on the sample
QUICK_MODELS = ("ridge", "gcn")


@dataclass(frozen=True)
class BenchmarkPlan:
    """What to train and how to score it.

    Attributes:
        models: settings by the label that their rows have.
        seeds: each model is trained once per seed and fold.
        protocol: a key of PROTOCOLS.
        glasses: leave out these only (names or patterns); all where empty.
        minutes: budget of each training; 0 leaves what the settings say.
        rotations: random transforms that measure the rotation spread; at least 2.
        graphs: where the graphs came from, to resume without being told; empty: the sample.
    """

    models: Mapping[str, Config]
    seeds: tuple[int, ...] = (0,)
    protocol: str = "fixed"
    glasses: tuple[str, ...] = ()
    minutes: float = 0.0
    rotations: int = 4
    graphs: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "protocol", RENAMED.get(self.protocol, self.protocol))
        if self.protocol not in PROTOCOLS:
            raise UsageError(
                f"no protocol is called {self.protocol!r}; there are {', '.join(PROTOCOLS)}"
            )
        if not self.models:
            raise UsageError("a benchmark needs at least one model")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UsageError(f"expected distinct seeds, found {list(self.seeds)}")
        if self.rotations < 2:
            raise UsageError(f"rotations is {self.rotations}, expected at least 2")
        if self.glasses and self.protocol == "split":
            raise UsageError("the protocol split leaves no glass out: give no glasses")

    def settings(self, label: str, seed: int) -> Config:
        """The settings of one training, as the protocol and the budget want them."""
        config = self.models[label]
        training = config.training
        if self.minutes:
            training = replace(training, max_minutes=self.minutes)
        if self.protocol == "fixed":
            training = replace(training, patience=0, evaluate_every=training.epochs)
        model = config.model.complete()
        return replace(config, seed=seed, training=training, model=model)

    def save(self, folder: str | Path) -> None:
        """Write ``plan.json``."""
        content = {
            "format": FORMAT,
            "format_version": VERSION,
            **{name: getattr(self, name) for name in ("seeds", "protocol", "glasses", "minutes")},
            "rotations": self.rotations,
            "graphs": self.graphs,
            "models": {label: as_json(config.flat()) for label, config in self.models.items()},
        }
        write_json(Path(folder) / PLAN, content)


def load_plan(folder: str | Path) -> BenchmarkPlan:
    """Read what `BenchmarkPlan.save` wrote.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = Path(folder) / PLAN
    if not path.exists():
        raise InputError(
            "no such benchmark: expected a folder that mgsym benchmark wrote", path=path
        )
    content = read_json(path)
    if (content.get("format"), content.get("format_version")) != (FORMAT, VERSION):
        raise InputError(f"expected {FORMAT} version {VERSION}", path=path)
    check_kinds(content, _KINDS, path)
    try:
        return BenchmarkPlan(
            models={label: Config().changed(flat) for label, flat in content["models"].items()},
            seeds=tuple(content["seeds"]),
            glasses=tuple(content["glasses"]),
            **{name: content[name] for name in ("protocol", "minutes", "rotations", "graphs")},
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, UsageError) as error:
        raise InputError(f"damaged: {short(error, 200)}", path=path) from error


def make_plan(
    options: Mapping[str, Any], graphs: str = "", before: BenchmarkPlan | None = None
) -> BenchmarkPlan:
    """Make the plan that some options ask for.

    Args:
        options: those of ``models``, ``preset``, ``changes`` (see `benchmark_models`), ``seeds``,
            ``protocol``, ``glasses`` and ``minutes`` that were given.
        graphs: where the graphs come from; empty: the sample.
        before: the plan of a benchmark to resume, to which models and seeds are added.

    Raises:
        UsageError: a mistake in the options, or it would change what was begun.
    """
    settings = {key: options[key] for key in ("preset", "changes") if key in options}
    kept = {key: options[key] for key in ("protocol", "minutes") if key in options}
    if "protocol" in kept:
        kept["protocol"] = RENAMED.get(kept["protocol"], kept["protocol"])
    kept.update({key: tuple(options[key]) for key in ("seeds", "glasses") if key in options})
    if before is None:
        models = benchmark_models(options.get("models"), **settings)
        return BenchmarkPlan(models, graphs=graphs, **kept)
    fixed = {key: value for key, value in kept.items() if key != "seeds"}
    if changed := [key for key, value in fixed.items() if value != getattr(before, key)]:
        raise UsageError(
            f"what is resumed was begun with {changed[0]} {getattr(before, changed[0])}: begin "
            "another benchmark to change it"
        )
    if settings and "models" not in options:
        raise UsageError("--preset and --set are for models that are added: name them, --models")
    added = benchmark_models(options["models"], **settings) if "models" in options else {}
    seeds = tuple(sorted({*before.seeds, *kept.get("seeds", ())}))
    return replace(
        before, models={**before.models, **added}, seeds=seeds, graphs=graphs or before.graphs
    )


def benchmark_models(
    names: Sequence[str] | None = None,
    preset: str | None = None,
    changes: Sequence[str] = (),
) -> dict[str, Config]:
    """Settings of the models that a benchmark is to compare, by label.

    Args:
        names: models of the registry (with their own default options), presets, or TOML files
            (their label is the file's stem); None takes a few quick ones and the default preset.
            A name that is both a preset and a model means the preset, unless `preset` is given.
        preset: whose training the models of the registry have, and whose options a model has that
            is the preset's own; and what files start from. The default one unless given.
        changes: such as ``training.epochs=30``, for all of them.

    Raises:
        UsageError: no such model or file, a label twice, or a setting that a model lacks.
    """
    if names is None:
        names = [*(n for n in QUICK_MODELS if n in MODELS), preset or load_config().preset]
    models: dict[str, Config] = {}
    for name in names:
        label = Path(name).stem if name.endswith(".toml") else name
        if label in models:
            raise UsageError(f"two models are called {label}: rename a file")
        try:
            models[label] = _config(name, preset).changed(dict(map(parse_override, changes)))
        except UsageError as error:
            raise UsageError(f"model {label}: {error}") from None
    return models


def _config(name: str, preset_name: str | None) -> Config:
    if name.endswith(".toml"):
        return load_config(name, preset_name=preset_name)
    if name in PRESETS and preset_name in (None, name):
        return PRESETS[name]
    if name in MODELS:
        base = load_config(preset_name=preset_name)
        own = preset_name is not None and base.model.name == name
        return base if own else replace(base, model=ModelConfig(name).complete())
    names = ", ".join(dict.fromkeys((*MODELS, *PRESETS)))
    raise UsageError(f"not in the registry, which has {names}; a file ends with .toml")


@dataclass(frozen=True)
class Fold:
    """What is trained and scored at once.

    Attributes:
        name: the glass left out; ``split`` where the files decide.
        split: the structures by role. Under ``published-code``, those of validation are the test.
    """

    name: str
    split: Split


def make_folds(graphs: Sequence[Graph], plan: BenchmarkPlan) -> list[Fold]:
    """The folds of a plan.

    Structures that their files mark ``test`` take part in ``split`` and ``published-code`` only:
    leaving glasses out serves to choose models, and what is chosen must not have seen them.

    Raises:
        InputError: too few glasses, or structures without labels.
        UsageError: a pattern of the plan matches no glass.
    """
    if plan.protocol == "split":
        return [Fold("split", split_by_glass(graphs))]
    if plan.protocol == "published-code" and any(g.splits[0] == "test" for g in graphs):
        split = split_by_glass(graphs, validation=[])
        if split.test:
            return [Fold("split", Split(split.train, split.test, []))]
    unmarked = [g for g in graphs if g.splits[0] != "test"]
    folds = [
        Fold(glass_of(split.test[0]), split)
        for split in leave_one_group_out(unmarked, stopping=plan.protocol == "early")
    ]
    if plan.protocol == "published-code":
        folds = [Fold(f.name, Split(f.split.train, f.split.test, [])) for f in folds]
    return _asked_for(folds, plan.glasses)


def _asked_for(folds: list[Fold], patterns: Sequence[str]) -> list[Fold]:
    for pattern in patterns:
        if not any(fnmatchcase(fold.name, pattern) for fold in folds):
            names = ", ".join(fold.name for fold in folds)
            raise UsageError(f"no glass to leave out is called {pattern!r}; there are {names}")
    wanted = patterns or ["*"]
    return [fold for fold in folds if any(fnmatchcase(fold.name, p) for p in wanted)]


def trial_name(label: str, fold: str, seed: int) -> str:
    """The name of one training, fit for a file."""
    return f"{_plain(label)}-{_plain(fold)}-seed{seed}"


def _plain(text: str) -> str:
    return re.sub(r"[^\w.+]+", "_", text).strip(".") or "_"


def as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON gives them back: lists for tuples, and nothing for None."""
    kept = {key: value for key, value in values.items() if value is not None}
    plain: dict[str, Any] = json.loads(json.dumps(kept))
    return plain
