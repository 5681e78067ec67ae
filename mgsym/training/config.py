"""What a training run does: presets, TOML files and overrides, each over the one before.

Settings have dotted names such as ``training.epochs`` or ``model.name``; the options of the model
stand beside its name (``model.<option>``). In a TOML file they are the tables ``[training]`` and
``[model]``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mgsym.descriptors.physical import AVAILABLE, available_inputs
from mgsym.errors import UsageError, short
from mgsym.evaluation.label_weights import KINDS
from mgsym.graph import Graph
from mgsym.models import fitted_in_one_go, model_options, with_current_names
from mgsym.utils.settings import (
    LARGEST,
    flattened,
    parse_override,
    read_toml,
    setting_like,
    toml_value,
    unknown_setting,
)

_CHOICES = {
    "optimizer": ("adam", "adamw"),
    "schedule": ("constant", "cosine"),
    "loss": ("mse", "huber"),
    "precision": ("float32", "bfloat16", "float16"),
    "label_weights": KINDS,
}
_AT_LEAST = {"epochs": 1, "evaluate_every": 1}  # every other number: at least 0
_BELOW_ONE = ("warmup", "ema_decay")
_AT_MOST_ONE = ("teacher_share", "teacher_until")
# settings of mgsym 0.1.0 that are gone; where they are 0, false or empty they said nothing
REMOVED = (
    "model.directions",
    "model.ridge",
    "model.bispectrum",
    "model.neighbors",
    "training.auxiliary",
)
_WITH_REMOVED = ("training.auxiliary_weight",)  # they said nothing by themselves


def without_removed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Drop settings by dotted name that older versions wrote and that said nothing.

    Raises:
        UsageError: one of them did say something.
    """
    for key in REMOVED:
        if settings.get(key):
            raise UsageError(
                f"{key} is {settings[key]!r}, but that setting is gone; mgsym 0.1.0 is the last "
                "version that has it"
            )
    return {key: value for key, value in settings.items() if key not in REMOVED + _WITH_REMOVED}


def settings_from_file(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Give settings by dotted name that this version or an older one saved the names of today.

    Raises:
        UsageError: one of them is gone.
    """
    kept = without_removed(settings)
    return _with_current_names(kept["model.name"], kept, warn=False)


def with_new_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Add the settings by dotted name that did not exist when these were saved.

    They have their defaults, which is what that version did.
    """
    defaults = Config(model=ModelConfig(settings["model.name"])).flat()
    new = {key: value for key, value in defaults.items() if key.startswith(("model.", "training."))}
    return {**new, **settings}


def _with_current_names(
    model: str, settings: Mapping[str, Any], *, warn: bool = True, source: str = ""
) -> dict[str, Any]:
    """The same, options of this model by the names that they have today."""
    options = {k.removeprefix("model."): v for k, v in settings.items() if k.startswith("model.")}
    renamed = with_current_names(model, options, warn=warn, source=source)
    names = dict(zip(options, renamed, strict=True))
    return {
        f"model.{names[key.removeprefix('model.')]}" if key.startswith("model.") else key: value
        for key, value in settings.items()
    }


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained. The defaults are those of the preset ``fast``.

    Attributes:
        epochs: times that every training structure is seen.
        batch_size: structures per step; 0 puts all of them into one batch.
        block: side in Å of the random block of a structure that a step takes in place of all of
            it, more than twice the cutoff; 0 takes whole structures
            (mgsym.graph.operations.random_block).
        optimizer: ``adam`` or ``adamw``.
        amsgrad: whether the optimiser keeps the largest second moment.
        learning_rate: its peak, after the warm-up.
        weight_decay: on matrices; biases and other vectors do not decay.
        gradient_clip: largest norm of a step's gradient; 0 does not clip.
        schedule: ``constant``, or ``cosine`` down to zero at the last step.
        warmup: fraction of all steps in which the learning rate rises from zero.
        evaluate_every: epochs between evaluations on the validation structures.
        patience: evaluations without a better one after which training stops; 0 never stops, and
            nor does a run without validation structures.
        loss: ``mse`` or ``huber`` (quadratic up to one standard deviation of the label).
        precision: ``float32``, or ``bfloat16`` or ``float16`` (CUDA only) for the matrix products
            of models that bear it.
        ema_decay: decay per step of an average of the weights, which then is what is evaluated
            and saved as best; 0 averages nothing.
        max_minutes: training stops after this time; 0 never stops.
        label_weights: ``none``, or ``stderr`` for labels that count as well as they are known
            (mgsym.evaluation.label_weights).
        label_floor: what is added to standard errors then, in standard deviations of the label.
        teacher: the name of a regression (``ridge``, ``boosting``) that is fitted first, on the
            training structures, and whose predictions a network learns before the labels
            (mgsym.training.teacher); empty for none.
        teacher_share: how much the teacher counts in the first step; labels have the rest.
        teacher_last_share: how much it counts in the end, no more than at first.
        teacher_until: fraction of all steps in which its share falls from one to the other.
        transforms_rate: learning rate of the von Mises distributions of transforms, in units of
            the others'.
    """

    epochs: int = 16
    batch_size: int = 1
    block: float = 0.0
    optimizer: str = "adamw"
    amsgrad: bool = False
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    gradient_clip: float = 1.0
    schedule: str = "cosine"
    warmup: float = 0.1
    evaluate_every: int = 1
    patience: int = 10
    loss: str = "mse"
    precision: str = "float32"
    ema_decay: float = 0.95
    max_minutes: float = 0.0
    label_weights: str = "none"
    label_floor: float = 0.5
    teacher: str = ""
    teacher_share: float = 1.0
    teacher_last_share: float = 0.0
    teacher_until: float = 0.5
    transforms_rate: float = 1.0

    def __post_init__(self) -> None:
        choices = {**_CHOICES, "teacher": ("", *fitted_in_one_go())}
        for name, value in asdict(self).items():
            if name in choices:
                if value not in choices[name]:
                    raise UsageError(
                        f"training.{name} is {value!r}, expected {_either(choices[name])}"
                    )
                continue
            low = _AT_LEAST.get(name, 0)
            if not low <= value < math.inf:
                raise UsageError(f"training.{name} is {value}, expected at least {low}")
            if name in _BELOW_ONE and value >= 1:
                raise UsageError(f"training.{name} is {value}, expected less than 1")
            if name in _AT_MOST_ONE and value > 1:
                raise UsageError(f"training.{name} is {value}, expected at most 1")
        if self.teacher_last_share > self.teacher_share:
            raise UsageError(
                f"training.teacher_last_share is {self.teacher_last_share}, expected at most "
                f"training.teacher_share, {self.teacher_share}"
            )


@dataclass(frozen=True)
class ModelConfig:
    """Which model of the registry, and its options (those not given have their defaults)."""

    name: str = "symgnn"
    options: Mapping[str, Any] = field(default_factory=dict)

    def complete(self) -> ModelConfig:
        """Write out every option.

        Raises:
            UsageError: no such model or option.
        """
        return ModelConfig(self.name, model_options(self.name, self.options))

    @classmethod
    def from_file(cls, name: str, options: Mapping[str, Any]) -> ModelConfig:
        """Complete the config of a model that this version or an older one saved.

        Raises:
            UsageError: the model, or an option that it was made with, is gone or unknown.
        """
        model_options(name)  # tells of a model that is gone before it tells of its options
        kept = without_removed({f"model.{key}": value for key, value in options.items()})
        options = {key.removeprefix("model."): value for key, value in kept.items()}
        return cls(name, with_current_names(name, options, warn=False)).complete()

    def for_graphs(self, graphs: Sequence[Graph]) -> ModelConfig:
        """Write out every option for these training graphs: all physical inputs named."""
        options = dict(self.complete().options)
        if "physical_inputs" in options:
            options["physical_inputs"] = available_inputs(options["physical_inputs"], graphs)
        return ModelConfig(self.name, options)


@dataclass(frozen=True)
class Config:
    """Everything that decides a training run, given the graphs."""

    preset: str = "fast"
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < LARGEST:
            raise UsageError(f"seed is {short(self.seed)}, expected 0 to {LARGEST - 1}")

    def flat(self) -> dict[str, Any]:
        """List every setting under its dotted name, model options written out."""
        model = self.model.complete()
        return {
            "preset": self.preset,
            "seed": self.seed,
            "model.name": model.name,
            **{f"model.{key}": _spelt(value) for key, value in model.options.items()},
            **{f"training.{key}": value for key, value in asdict(self.training).items()},
        }

    def to_toml(self) -> str:
        """Write the text of a TOML file that `load_config` reads back to the same settings."""
        tables: dict[str, list[str]] = {}
        for key, value in self.flat().items():
            table, _, name = key.rpartition(".")
            if value is not None:  # TOML has no null: an absent key keeps its default
                tables.setdefault(table, []).append(f"{name} = {toml_value(value)}")
        blocks = ["\n".join([f"[{t}]"] * bool(t) + lines) for t, lines in tables.items()]
        return "\n\n".join(blocks) + "\n"

    def changed(self, changes: Mapping[str, Any], source: str = "") -> Config:
        """Return a copy with some settings changed.

        Choosing another model (``model.name``) forgets the options of the one before.

        Args:
            changes: values by dotted name.
            source: where they come from, for error messages.

        Raises:
            UsageError: no such setting, or a value of the wrong type or range.
        """
        place = f"{source}: " if source else ""
        try:
            changes = without_removed(changes)
        except UsageError as error:
            raise UsageError(f"{place}{error}") from None
        base = self
        try:
            name = setting_like("model.name", self.model.name, changes)
            if name != self.model.name:
                base = replace(self, model=ModelConfig(name).complete())
            settings = base.flat()
            changes = _with_current_names(name, changes, source=source)
            for key in changes:
                if key not in settings:
                    raise UsageError(unknown_setting(key, settings))
                settings[key] = setting_like(key, settings[key], changes)
            return _from_flat(settings)
        except UsageError as error:
            raise UsageError(f"{place}{error}") from None


PRESETS: dict[str, Config] = {
    # minutes on a CPU; chosen by leave-one-group-out on the public glasses (docs/benchmarks.md)
    "fast": Config(
        "fast",
        model=ModelConfig(
            options={
                "width": 64,
                "heads": (2, 2),
                "dropout": 0.3,
                "decoder_layers": 1,
                "edge_input": "length",
                "node_input": "descriptors",
                "physical_inputs": None,  # all that there are
                "physical_smoothing": (1.5, 2.5),
                "ridge_share": 0.6,
            }
        ),
    ),
    # the paper's network, trained on a CPU; docs/paper.md says what each setting is worth
    "symgnn": Config(
        "symgnn",
        model=ModelConfig(
            options={
                "edge_input": "polar",
                "samples": 8,
                "attention": "softplus",
                "dropout": 0.1,
                "decoder_layers": 1,
            },
        ),
        training=TrainingConfig(
            epochs=400,
            block=27.0,
            warmup=0.05,
            evaluate_every=10,
            patience=0,
            teacher="ridge",
            teacher_last_share=0.5,
            teacher_until=1.0,
        ),
    ),
    # Sec. "Training" of the paper: all graphs in one batch for up to 20,000 epochs (docs/paper.md)
    "paper": Config(
        "paper",
        training=TrainingConfig(
            epochs=20_000,
            batch_size=0,
            optimizer="adam",
            amsgrad=True,
            learning_rate=1e-4,
            weight_decay=0.0,
            gradient_clip=0.1,
            schedule="constant",
            warmup=0.0,
            evaluate_every=10,
            patience=100,
            ema_decay=0.0,
        ),
    ),
}


def preset(name: str) -> Config:
    """Return a named set of settings: ``fast``, ``symgnn`` or ``paper``.

    Raises:
        UsageError: no such preset.
    """
    if name not in PRESETS:
        raise UsageError(f"no preset is called {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def load_config(
    path: str | Path | None = None,
    overrides: Mapping[str, Any] | Iterable[str] = (),
    preset_name: str | None = None,
) -> Config:
    """Load settings from a preset, then a TOML file, then overrides.

    Args:
        path: a TOML file; none is read when None.
        overrides: values by dotted name, or texts such as ``training.epochs=30``.
        preset_name: the preset to start from; by default the file's ``preset``, else ``fast``.

    Raises:
        UsageError: the file is missing or not TOML, or a setting is unknown or wrong.
    """
    from_file = {} if path is None else flattened(read_toml(path))
    try:
        named = setting_like("preset", "fast", from_file)
        config = preset(preset_name or named)
    except UsageError as error:
        raise UsageError(f"{path}: {error}" if path is not None else str(error)) from None
    from_file.pop("preset", None)
    config = config.changed(from_file, source=str(path or ""))
    if not isinstance(overrides, Mapping):
        overrides = dict(parse_override(text) for text in overrides)
    return config.changed(overrides)


def _from_flat(settings: Mapping[str, Any]) -> Config:
    tables: dict[str, dict[str, Any]] = {"model": {}, "training": {}}
    for key, value in settings.items():
        table, _, name = key.rpartition(".")
        if table:
            tables[table][name] = value
    name = tables["model"].pop("name")
    for key, value in tables["model"].items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"model.{key} is {value}, expected a finite number")
    return Config(
        preset=settings["preset"],
        model=ModelConfig(name, model_options(name, tables["model"])),
        training=TrainingConfig(**tables["training"]),
        seed=settings["seed"],
    )


def _either(choices: Sequence[str]) -> str:
    return " or ".join(choice or "nothing" for choice in choices)


def _spelt(value: Any) -> Any:
    """An option's value as settings write it: text files know no None."""
    return (AVAILABLE,) if value is None else value
