from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from mgsym.benchmark import BenchmarkPlan, benchmark_models
from mgsym.errors import UsageError
from mgsym.models import create_model
from mgsym.training.config import (
    Config,
    ModelConfig,
    TrainingConfig,
    load_config,
    preset,
    settings_from_file,
)
from mgsym.utils.settings import differing


def test_paper_preset_is_the_papers() -> None:
    training = preset("paper").training
    assert (training.optimizer, training.amsgrad, training.learning_rate) == ("adam", True, 1e-4)
    assert (training.weight_decay, training.gradient_clip, training.loss) == (0, 0.1, "mse")
    assert (training.epochs, training.evaluate_every, training.patience) == (20_000, 10, 100)
    assert (training.batch_size, training.schedule, training.warmup) == (0, "constant", 0)
    assert preset("paper").model == ModelConfig("symgnn", {})


def test_every_setting_of_the_paper_preset() -> None:
    """Whatever the defaults become, which are those of the preset ``fast``."""
    flat = preset("paper").flat()
    assert {k: v for k, v in flat.items() if k.startswith("training.")} == {
        "training.epochs": 20_000, "training.block": 0.0,
        "training.batch_size": 0, "training.optimizer": "adam",
        "training.amsgrad": True, "training.learning_rate": 1e-4, "training.weight_decay": 0.0,
        "training.gradient_clip": 0.1, "training.schedule": "constant", "training.warmup": 0.0,
        "training.evaluate_every": 10, "training.patience": 100, "training.loss": "mse",
        "training.precision": "float32", "training.ema_decay": 0.0, "training.max_minutes": 0.0,
        "training.label_weights": "none", "training.label_floor": 0.5, "training.teacher": "",
        "training.teacher_share": 1.0, "training.teacher_last_share": 0.0,
        "training.teacher_until": 0.5, "training.transforms_rate": 1.0,
    }  # fmt: skip
    told = {k.removeprefix("model."): v for k, v in flat.items() if k.startswith("model.")}
    assert (told["name"], told["heads"], told["width"]) == ("symgnn", (8, 4, 2, 1), 32)
    assert (told["dropout"], told["decoder_layers"], told["ridge_share"]) == (0.25, 4, 0.0)
    assert (told["edge_input"], told["node_input"]) == ("vector", "types")
    assert (told["symmetrisation"], told["transforms"], told["samples"]) == ("edge", "von-mises", 2)
    assert create_model("symgnn", ("Cu", "Zr"), 5.0, preset("paper").model.options).num_parameters \
        == 102_385  # fmt: skip


def test_the_symgnn_preset_is_the_papers_network() -> None:
    """Edge vectors, learned von Mises, heads 8-4-2-1; no descriptors, no regression beside it."""
    options = preset("symgnn").model.complete().options
    paper = preset("paper").model.complete().options
    assert {k for k in paper if options[k] != paper[k]} == {
        "edge_input", "samples", "attention", "dropout", "decoder_layers"
    }  # fmt: skip
    assert (options["edge_input"], options["transforms"]) == ("polar", "von-mises")


def test_the_paper_preset_in_a_benchmark() -> None:
    models = benchmark_models(["symgnn", "egat-length", "schnet"], "paper")
    paper = preset("paper")
    assert {c.training for c in models.values()} == {paper.training}
    assert models["symgnn"].model.complete() == paper.model.complete()
    plan = BenchmarkPlan(models, seeds=(0, 1), protocol="split")
    assert plan.settings("schnet", 1).training == paper.training  # nor is its patience changed


def test_unknown_preset_lists_those_there_are() -> None:
    with pytest.raises(UsageError, match="'quick'; there are fast, symgnn, paper"):
        preset("quick")


def test_later_wins(tmp_path: Path, tiny: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'preset = "paper"\nseed = 3\n[training]\nepochs = 7\nlearning_rate = 1\n'
        '[model]\nname = "tiny"\nwidth = 5\n'
    )
    config = load_config(file, ["training.epochs=9", "model.dropout=0"])
    assert (config.preset, config.seed) == ("paper", 3)
    assert config.training.epochs == 9  # command line over file
    assert config.training.learning_rate == 1.0  # file over preset
    assert isinstance(config.training.learning_rate, float)
    assert config.training.patience == 100  # preset over default
    assert config.model == ModelConfig(
        tiny, {"width": 5, "dropout": 0.0, "centers": (2.5, 3.0, 3.5)}
    )
    assert load_config(file, preset_name="fast").training.patience == 10


def test_toml_round_trip(tmp_path: Path, tiny_config: Callable[..., Config]) -> None:
    config = tiny_config(
        seed=5, options={"centers": (1.0, 2.0), "dropout": 1e-5}, learning_rate=1e-4, amsgrad=True
    )
    file = tmp_path / "config.toml"
    file.write_text(config.to_toml())
    assert load_config(file).flat() == config.flat()


def test_another_model_forgets_the_options_of_the_one_before(tiny: str) -> None:
    config = Config(model=ModelConfig(tiny, {"width": 3})).changed({"model.name": "symgnn"})
    assert config.model == ModelConfig("symgnn").complete()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training]\nepoch = 3", r"bad.toml: no setting is called 'training.epoch'; .*\.epochs,"),
        ("[model]\nwidht = 3", r"bad.toml: no setting is called 'model.widht'; .*model.width"),
        ("[trainig]\nepochs = 3", r"bad.toml: no setting is called 'trainig.epochs'; .*seed"),
        ("[training]\nepochs = 2.5", r"bad.toml: training.epochs is 2.5, expected a whole number"),
        ("[training]\nepochs = true", r"training.epochs is True, expected a whole number"),
        ("[training]\namsgrad = 1", r"training.amsgrad is 1, expected true or false"),
        ('[training]\nloss = "l1"', r"bad.toml: training.loss is 'l1', expected mse or huber"),
        ("[training]\nlearning_rate = -1", r"bad.toml: .*learning_rate is -1.0, expected at least"),
        ("[training]\nlearning_rate = nan", r"learning_rate is nan, expected at least 0"),
        ("[training]\nwarmup = 1", r"training.warmup is 1.0, expected less than 1"),
        ("[training]\nepochs = 0", r"training.epochs is 0, expected at least 1"),
        ("training = 3", r"bad.toml: no setting is called 'training'"),
        ("seed = ", r"bad.toml: not a TOML file"),
        ('preset = "x"', r"no preset is called 'x'"),
        ('[model]\nname = "x"', r"no model is called 'x'; there are symgnn"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_config(file)


def test_missing_file_and_bad_override_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no.toml: cannot read the settings"):
        load_config(tmp_path / "no.toml")
    with pytest.raises(UsageError, match=r"'epochs' is no setting, expected NAME=VALUE"):
        load_config(overrides=["epochs"])
    with pytest.raises(UsageError, match=r"'epochs'; there are preset, seed"):
        load_config(overrides=["epochs=3"])


def test_bare_words_are_text() -> None:
    assert load_config(overrides=["training.loss=huber"]).training.loss == "huber"


def test_differing_names_the_settings() -> None:
    old = Config(training=TrainingConfig(epochs=60)).flat()
    new = Config(training=TrainingConfig(epochs=30)).flat()
    assert differing(old, new) == ["training.epochs: 60, now 30"]
    assert differing(old, old) == []


def test_settings_that_are_gone(tmp_path: Path) -> None:
    """Settings that an older version wrote are read over where they said nothing."""
    file = tmp_path / "config.toml"
    gone = "auxiliary = {}\nauxiliary_weight = 0.1\n\n[model]\nname = 'mlp'\nneighbors = {}\n"
    file.write_text("[training]\nepochs = 3\n" + gone.format("[]", "false"))
    config = load_config(file)
    assert (config.model.name, config.training.epochs) == ("mlp", 3)
    last = "but that setting is gone; mgsym 0.1.0 is the last version that has it"
    file.write_text("[training]\n" + gone.format("['energy']", "false"))
    with pytest.raises(
        UsageError, match=rf"config.toml: training.auxiliary is \['energy'\], {last}"
    ):
        load_config(file)
    file.write_text("[training]\n" + gone.format("[]", "true"))
    with pytest.raises(UsageError, match=f"config.toml: model.neighbors is True, {last}"):
        load_config(file)
    with pytest.raises(UsageError, match=f"model.ridge is 10.0, {last}"):
        load_config(overrides=["model.ridge=10.0"])
    with pytest.raises(UsageError, match=r"the model kernel is gone; mgsym 0\.1\.0 is the last"):
        load_config(overrides=["model.name=kernel"])


OLD_NAMES = {"model.companion": 0.3, "model.smoothing": [2.0]}


def test_old_names_of_options_are_understood_and_said_to_be_old(tmp_path: Path) -> None:
    text = "[model]\ncompanion = 0.3\nsmoothing = [2.0]"
    (tmp_path / "old.toml").write_text(text)
    line = (
        "model.companion is now called model.ridge_share, model.smoothing is now called "
        "model.physical_smoothing; the old name is understood for one more release"
    )
    expected = preset("fast").changed({"model.ridge_share": 0.3, "model.physical_smoothing": [2.0]})
    for path, overrides, place in (
        (tmp_path / "old.toml", {}, f"{tmp_path / 'old.toml'}: "),
        (None, OLD_NAMES, ""),
        (None, ["model.companion=0.3", "model.smoothing=[2.0]"], ""),
    ):
        with pytest.warns(FutureWarning) as heard:
            assert load_config(path, overrides).flat() == expected.flat()
        assert [str(warning.message) for warning in heard] == [place + line]
    with pytest.warns(FutureWarning, match="model.companion is now called"):
        model = create_model("symgnn", ("Cu", "Zr"), 5.0, {"companion": 0.3, "width": 8})
    assert model.edges_share == 0.7


def test_old_names_stay_where_a_model_has_them_and_clash_with_the_new() -> None:
    assert load_config(overrides={"model.name": "ridge", "model.smoothing": [2.0]}).flat()[
        "model.smoothing"
    ] == (2.0,)
    with pytest.raises(UsageError, match=r"no setting is called 'model.companion'"):
        load_config(overrides={"model.name": "ridge", "model.companion": 0.3})
    with pytest.raises(UsageError, match=r"model.companion is the old name of model.ridge_share"):
        load_config(overrides={"model.companion": 0.3, "model.ridge_share": 0.3})


def test_what_older_versions_saved_is_read_without_a_word() -> None:
    saved = {"model.name": "symgnn", "training.auxiliary": [], **OLD_NAMES}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = settings_from_file(saved)
        options = ModelConfig.from_file("symgnn", {"companion": 0.3}).options
    assert found == {
        "model.name": "symgnn", "model.ridge_share": 0.3, "model.physical_smoothing": [2.0],
    }  # fmt: skip
    assert options["ridge_share"] == 0.3


def test_a_misspelt_choice_is_told() -> None:
    with pytest.raises(UsageError, match=r"training\.label_weights is 'sterr', expected none or s"):
        load_config(None, ["training.label_weights=sterr"])
