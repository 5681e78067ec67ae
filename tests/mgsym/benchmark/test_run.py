from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import torch

from mgsym.benchmark import (
    CHOSEN_ON_TEST,
    BenchmarkPlan,
    Table,
    Trial,
    benchmark_models,
    load_plan,
    make_folds,
    run_benchmark,
)
from mgsym.benchmark.plan import make_plan
from mgsym.benchmark.table import CEILING, POOLED, STRUCTURES, make_table
from mgsym.benchmark.trial import load_trial
from mgsym.errors import InputError, Interrupted, MgsymError, UsageError
from mgsym.graph import Graph
from mgsym.training.checkpoint import load_checkpoint
from mgsym.training.config import Config, preset
from mgsym.utils.files import read_json

Make = Callable[..., Graph]
MakeConfig = Callable[..., Config]


@pytest.fixture
def four(make_graph: Make) -> list[Graph]:
    """Two structures of one glass, two more glasses, and one that is marked for the last test."""
    places = [("a0", "a", ""), ("a1", "a", ""), ("b", "b", ""), ("c", "c", ""), ("t", "t", "test")]
    return [
        make_graph(name, glass=glass, split=split, seed=i)
        for i, (name, glass, split) in enumerate(places)
    ]


@pytest.fixture
def plan(tiny_config: MakeConfig) -> BenchmarkPlan:
    """Two sizes of the tiny model, two seeds."""
    small, large = tiny_config(epochs=2), tiny_config(epochs=2, options={"width": 12})
    return BenchmarkPlan({"small": small, "large": large}, seeds=(0, 1))


def roles(graphs: list[Graph], plan: BenchmarkPlan) -> dict[str, list[str]]:
    """``{fold: ["train names", "validation names", "test names"]}``."""
    return {
        fold.name: [" ".join(g.names[0] for g in members) for _, members in fold.split.items()]
        for fold in make_folds(graphs, plan)
    }


def comparable(folder: Path) -> dict[str, Any]:
    """Every record of a benchmark, without what a clock or a memory meter said."""
    records = {}
    for path in sorted((folder / "trials").glob("*.json")):
        record = read_json(path)
        del record["seconds"], record["peak_memory"]
        records[path.stem] = record
    return records


def after(calls: int) -> Callable[[], bool]:
    count = 0

    def should_stop() -> bool:
        nonlocal count
        count += 1
        return count >= calls

    return should_stop


def test_folds_of_each_protocol(four: list[Graph], plan: BenchmarkPlan) -> None:
    assert roles(four, plan) == {
        "a": ["b c", "", "a0 a1"], "b": ["a0 a1 c", "", "b"], "c": ["a0 a1 b", "", "c"],
    }  # fmt: skip
    assert roles(four, replace(plan, protocol="early"))["b"] == ["a0 a1", "c", "b"]
    assert roles(four, replace(plan, protocol="split")) == {"split": ["a0 a1 b", "c", "t"]}
    # the test structures take the place of validation
    assert roles(four, replace(plan, protocol="published-code")) == {
        "split": ["a0 a1 b c", "t", ""]
    }
    assert roles(four[:4], replace(plan, protocol="published-code"))["a"] == ["b c", "a0 a1", ""]
    assert list(roles(four, replace(plan, glasses=("[bc]",)))) == ["b", "c"]


def test_settings_of_a_training(tiny_config: MakeConfig) -> None:
    config = tiny_config(epochs=7, patience=3, evaluate_every=2)
    fixed = BenchmarkPlan({"m": config}, minutes=1.5)
    found = fixed.settings("m", 4)
    assert (found.seed, found.training.max_minutes) == (4, 1.5)
    assert (found.training.patience, found.training.evaluate_every) == (0, 7)
    early = replace(fixed, protocol="early", minutes=0.0).settings("m", 0)
    assert early.training == config.training


def test_a_benchmark_from_start_to_table(
    four: list[Graph], plan: BenchmarkPlan, tmp_path: Path
) -> None:
    told: list[tuple[float, float, Any]] = []
    table = run_benchmark(
        four, plan, tmp_path, device="cpu",
        progress=lambda done, total, **info: told.append((done, total, info["model"])),
    )  # fmt: skip
    assert told[-1] == (12, 12, "large")
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    records = comparable(tmp_path)
    assert len(records) == 12
    one = records["small-a-seed1"]
    assert one["scores"].keys() == {"train", "test"}
    assert one["scores"]["test"]["structures"].keys() == {"a0", "a1"}
    assert one["identity"]["structures to train"] == ["b", "c"]
    assert one["rotation"]["structure"] == "a0"
    assert one["rotation"]["rms"] < 1e-5
    assert (one["epochs"], one["invariant"], one["device"]) == (2, "yes", "cpu, 1 thread")
    # mean within a structure, over a fold, over folds; then over seeds
    by_seed = [
        fmean(records[f"small-{g}-seed{k}"]["scores"]["test"]["mean_pearson"] for g in "abc")
        for k in (0, 1)
    ]
    value = table.value("small", "pearson")
    assert value is not None
    assert value.mean == pytest.approx(fmean(by_seed))
    assert value.sd == pytest.approx(stdev(by_seed))
    facts = table.facts["large"]
    model, _ = load_checkpoint(tmp_path / "runs/large-a-seed0/best.pt")
    assert facts.parameters == model.num_parameters
    assert (facts.done, facts.planned, facts.seeds) == (6, 6, (0, 1))
    assert not list(tmp_path.glob("runs/*/last.pt"))
    ceiling = table.value(CEILING, "pearson")
    assert ceiling is not None
    assert 0.9 < ceiling.mean < 1
    assert read_json(tmp_path / "table.json")["rows"][0]["model"] == "small"


def test_what_is_left_out_is_never_looked_at(
    four: list[Graph], plan: BenchmarkPlan, tmp_path: Path
) -> None:
    """Other labels of a test glass change its scores, and no weight of the model."""
    for protocol, folder in (("fixed", "a"), ("early", "b")):
        asked = replace(plan, protocol=protocol, seeds=(0,), glasses=("b",))
        wrong = [g.replace(target=g.target.flip(0)) if g.names[0] == "b" else g for g in four]
        tables, states = [], []
        for graphs, name in ((four, "right"), (wrong, "wrong")):
            place = tmp_path / folder / name
            tables.append(run_benchmark(graphs, asked, place, device="cpu"))
            states.append(load_checkpoint(place / "runs/small-b-seed0/best.pt")[0].state_dict())
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
        assert tables[0].value("small", "pearson") != tables[1].value("small", "pearson")


def test_the_published_codes_protocol_chooses_on_test_and_says_so(
    four: list[Graph], tiny_config: MakeConfig, tmp_path: Path
) -> None:
    config = tiny_config(epochs=8, learning_rate=0.05, schedule="constant", ema_decay=0.0)
    table = run_benchmark(
        four, BenchmarkPlan({"m": config}, protocol="published-code"), tmp_path, device="cpu"
    )
    rows = list(csv.DictReader((tmp_path / "runs/m-split-seed0/metrics.csv").open()))
    on_test = [float(row["validation_pearson"]) for row in rows]
    record = comparable(tmp_path)["m-split-seed0"]
    assert record["best_epoch"] == 1 + on_test.index(max(on_test))
    assert record["scores"].keys() == {"train", CHOSEN_ON_TEST}
    assert record["scores"][CHOSEN_ON_TEST]["structures"].keys() == {"t"}
    assert table.scored == CHOSEN_ON_TEST
    for text in (table.markdown(), table.csv(), json.dumps(table.as_dict())):
        assert CHOSEN_ON_TEST in text
    assert "chosen on the test structures themselves" in " ".join(table.notes())
    assert not [row for row in table.rows if row.role in ("test", "validation")]


@pytest.mark.parametrize("stop_after", [3, 9])
def test_resumed_gives_the_same_records(
    four: list[Graph], plan: BenchmarkPlan, tmp_path: Path, stop_after: int
) -> None:
    asked = replace(plan, glasses=("a", "b"), seeds=(0,))
    run_benchmark(four, asked, tmp_path / "whole", device="cpu")
    part = tmp_path / "part"
    with pytest.raises(Interrupted, match=rf"go on with: mgsym benchmark --resume {part}"):
        run_benchmark(four, asked, part, device="cpu", should_stop=after(stop_after))
    finished = {p: p.stat().st_mtime_ns for p in (part / "trials").glob("*.json")}
    assert list((part / "runs").glob("*/last.pt"))  # the one that was cut goes on from there
    run_benchmark(four, load_plan(part), part, device="cpu", resume=True)
    assert comparable(part) == comparable(tmp_path / "whole")
    assert all(p.stat().st_mtime_ns == before for p, before in finished.items())


def test_models_and_seeds_can_be_added(
    four: list[Graph], plan: BenchmarkPlan, tiny: str, tmp_path: Path
) -> None:
    small = BenchmarkPlan({"small": plan.models["small"]}, glasses=("a", "b"))
    run_benchmark(four, small, tmp_path, device="cpu")
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "trials").glob("*.json")}
    changes = ["training.epochs=1"]
    more = make_plan({"models": [tiny], "changes": changes, "seeds": [3]}, "", load_plan(tmp_path))
    table = run_benchmark(four, more, tmp_path, device="cpu", resume=True)
    assert list(table.facts) == ["small", tiny]
    assert [f.seeds for f in table.facts.values()] == [(0, 3), (0, 3)]
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "trials").glob("*.json")}
    assert len(kept) == 8
    assert kept.items() >= before.items()


def test_what_was_trained_otherwise_is_refused(
    four: list[Graph], plan: BenchmarkPlan, tmp_path: Path
) -> None:
    one = BenchmarkPlan({"m": plan.models["small"]}, glasses=("a",))
    run_benchmark(four, one, tmp_path, device="cpu")
    with pytest.raises(UsageError, match="holds a benchmark already: go on with --resume"):
        run_benchmark(four, one, tmp_path)
    other = replace(one, models={"m": plan.models["large"]})
    with pytest.raises(UsageError, match=r"m-a-seed0.json was trained otherwise \(model.width: 8"):
        run_benchmark(four, other, tmp_path, resume=True)
    wrong = [g.replace(target=g.target + 1) for g in four]
    with pytest.raises(UsageError, match=r"trained otherwise \(graph b: "):
        run_benchmark(wrong, one, tmp_path, resume=True)
    table = run_benchmark(four, other, tmp_path, device="cpu", overwrite=True)
    assert table.facts["m"].done == 1
    assert comparable(tmp_path)["m-a-seed0"]["identity"]["model.width"] == 12


def test_a_record_of_before_a_setting_existed_counts(
    four: list[Graph], plan: BenchmarkPlan, tmp_path: Path
) -> None:
    one = BenchmarkPlan({"m": plan.models["small"]}, glasses=("a",))
    run_benchmark(four, one, tmp_path, device="cpu")
    file = tmp_path / "trials/m-a-seed0.json"
    record = json.loads(file.read_text())
    for name in ("training.teacher", "training.transforms_rate", "model.centers"):
        del record["identity"][name]
    file.write_text(json.dumps(record))
    done = file.stat().st_mtime_ns
    run_benchmark(four, one, tmp_path, device="cpu", resume=True)
    assert file.stat().st_mtime_ns == done
    taught = one.models["m"].changed({"training.teacher": "ridge"})
    with pytest.raises(UsageError, match=r"trained otherwise \(training.teacher: , now ridge\)"):
        run_benchmark(four, replace(one, models={"m": taught}), tmp_path, resume=True)


def test_a_training_that_diverges_does_not_stop_the_others(
    four: list[Graph], plan: BenchmarkPlan, tiny_config: MakeConfig, tmp_path: Path
) -> None:
    wild = tiny_config(epochs=2, learning_rate=1e30, gradient_clip=0.0)
    asked = BenchmarkPlan({"wild": wild, "small": plan.models["small"]}, glasses=("a", "b"))
    table = run_benchmark(four, asked, tmp_path, device="cpu")
    assert (table.facts["wild"].failed, table.facts["small"].done) == (2, 2)
    assert "the loss became" in table.failures["wild, a, seed 0"]
    assert "Failed: wild, a, seed 0: the loss became" in table.markdown()
    with pytest.raises(MgsymError, match=r"a training failed \(and 1 more\); --resume tries again"):
        table.raise_failures()
    again = run_benchmark(four, asked, tmp_path, device="cpu", resume=True)
    assert again.facts["wild"].failed == 2
    small = run_benchmark(four, replace(asked, models={"small": plan.models["small"]}), tmp_path,
                          resume=True)  # fmt: skip
    small.raise_failures()


def test_a_budget_ends_a_training_and_is_told(
    four: list[Graph], tiny_config: MakeConfig, tmp_path: Path
) -> None:
    config = tiny_config(epochs=100_000)
    asked = BenchmarkPlan({"m": config}, glasses=("a",), minutes=0.005)
    table = run_benchmark(four, asked, tmp_path, device="cpu")
    facts = table.facts["m"]
    assert (facts.cut, facts.budget) == (1, "100000 epochs, 0.005 min")
    assert facts.epochs is not None
    assert facts.epochs < 100_000
    assert facts.seconds is not None
    assert facts.seconds >= 0.3
    assert comparable(tmp_path)["m-a-seed0"]["identity"]["training.max_minutes"] == 0.005
    assert "Trainings that their time limit ended: m 1 of 1." in table.markdown()


def test_mistakes_are_told_before_anything_is_trained(
    four: list[Graph], plan: BenchmarkPlan, tmp_path: Path
) -> None:
    physical = preset("fast").changed({"model.physical_inputs": ["energy"]})
    asked = replace(plan, models={**plan.models, "physical": physical})
    with pytest.raises(InputError, match=r"model physical: b: .* no node feature energy"):
        run_benchmark(four, asked, tmp_path / "x")
    # one structure of many that lacks what the others have
    features = {"energy": torch.zeros(64)}
    most = [g.replace(node_features=features) if g.names[0] != "c" else g for g in four]
    with pytest.raises(InputError, match=r"model physical: c: .* no node feature energy"):
        run_benchmark(most, asked, tmp_path / "x")
    nothing = torch.full((64,), float("nan"))
    bare = [g.replace(target=nothing) for g in four]
    with pytest.raises(InputError, match="needs at least two with labels, found 0"):
        run_benchmark(bare, plan, tmp_path / "x")
    with pytest.raises(InputError, match="needs at least three with labels, found 2"):
        run_benchmark(four[:3], replace(plan, protocol="early"), tmp_path / "x")
    foreign = [g.replace(species=("Cu", "Al")) if g.names[0] == "c" else g for g in four]
    with pytest.raises(InputError, match="c has Al, but the model knows only Cu, Zr"):
        run_benchmark(foreign, plan, tmp_path / "x")
    wide = [g.replace(cutoff=5.0) if g.names[0] == "c" else g for g in four]
    with pytest.raises(InputError, match=r"the graph's cutoff is 5 Å, the model was made for 4 Å"):
        run_benchmark(wide, plan, tmp_path / "x")
    with pytest.raises(InputError, match="several structures are called 'b'"):
        run_benchmark([*four, four[2]], plan, tmp_path / "x")
    with pytest.raises(UsageError, match="no glass to leave out is called 'z'; there are a, b, c"):
        run_benchmark(four, replace(plan, glasses=("z",)), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_models_are_named_in_three_ways(tiny: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[model]\nname = "tiny"\nwidth = 5\n[training]\nepochs = 3\n')
    models = benchmark_models([tiny, "paper", str(file)], changes=["training.patience=4"])
    assert list(models) == [tiny, "paper", "mine"]
    assert models[tiny].model.name == tiny
    assert models[tiny].training.epochs == preset("fast").training.epochs
    assert models["paper"].training.epochs == 20_000
    assert (models["mine"].model.options["width"], models["mine"].training.epochs) == (5, 3)
    assert {m.training.patience for m in models.values()} == {4}
    with_preset = benchmark_models([tiny], "paper")[tiny]
    assert (with_preset.model.name, with_preset.training.epochs) == (tiny, 20_000)
    with pytest.raises(UsageError, match=r"model wrong: not in the registry, which has symgnn"):
        benchmark_models(["wrong"])
    with pytest.raises(UsageError, match=r"model tiny: no setting is called 'model.heads'"):
        benchmark_models([tiny], changes=["model.heads=[1]"])
    with pytest.raises(UsageError, match="two models are called mine"):
        benchmark_models([str(file), str(tmp_path / "other" / "mine.toml")])
    assert preset("fast").flat() == list(benchmark_models().values())[-1].flat()


def test_a_model_has_its_own_options_unless_its_preset_is_asked_for() -> None:
    own = benchmark_models(["egat-length"])["egat-length"]
    assert own.model.options["node_input"] == "types"
    assert own.training == preset("fast").training
    # a name that is both means the preset
    assert benchmark_models(["symgnn"])["symgnn"].flat() == preset("symgnn").flat()
    asked = benchmark_models(["symgnn"], "fast")["symgnn"]
    assert asked.model.options["node_input"] == "descriptors"
    assert benchmark_models(["fast"])["fast"].flat() == preset("fast").flat()


def test_a_plan_comes_back_from_its_file(plan: BenchmarkPlan, tmp_path: Path) -> None:
    full = replace(plan, protocol="early", glasses=("a",), minutes=2.0, graphs="graphs")
    full.save(tmp_path)
    again = load_plan(tmp_path)
    assert {k: c.flat() for k, c in again.models.items()} == {
        k: c.flat() for k, c in full.models.items()
    }
    assert replace(again, models={"m": Config()}) == replace(full, models={"m": Config()})
    with pytest.raises(UsageError, match="was begun with protocol early: begin another"):
        make_plan({"protocol": "fixed"}, "", again)
    with pytest.raises(UsageError, match="are for models that are added"):
        make_plan({"changes": ["training.epochs=1"]}, "", again)
    (tmp_path / "plan.json").write_text('{"format": "mgsym-benchmark", "format_version": 1}')
    with pytest.raises(InputError, match=r"plan.json: damaged"):
        load_plan(tmp_path)
    with pytest.raises(InputError, match="no such benchmark"):
        load_plan(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"protocol": "best"}, "no protocol is called 'best'; there are fixed, early"),
        ({"models": {}}, "needs at least one model"),
        ({"seeds": (1, 1)}, "expected distinct seeds"),
        ({"rotations": 1}, "expected at least 2"),
        ({"protocol": "split", "glasses": ("a",)}, "leaves no glass out"),
    ],
)
def test_plans_that_cannot_be(plan: BenchmarkPlan, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(plan, **wrong)


# ---- the table, from records made by hand ----


def scores(**pearsons: float | None) -> dict[str, Any]:
    """What `SplitScores.as_dict` gives: structures with a Pearson, errors a tenth of it."""

    def one(p: float | None) -> dict[str, Any]:
        return {"count": 10, "pearson": p, "spearman": p, "mae": (p or 0) / 10, "rmse": 0.2}

    pooled = fmean(p or 0 for p in pearsons.values()) + 0.1
    return {"structures": {n: one(p) for n, p in pearsons.items()}, "pooled": one(pooled)}


def trial(model: str, fold: str, seed: int, error: str = "", **pearsons: float | None) -> Trial:
    found = {} if error else {"test": scores(**pearsons)}
    return Trial(
        model, fold, seed, {}, error, found, parameters=7, seconds=2.0 + seed, device="cpu",
        rotation={"rms": 0.01}, peak_memory=0.5,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("rotation", {"rms": "small"}, "rotation.rms is 'small', expected a number"),
        ("rotation", {}, "rotation.rms is None, expected a number"),
        ("rotation", {"rms": float("nan")}, "rotation.rms is nan, expected a number"),
        ("scores", {"test": {"pooled": {}, "structures": {}}}, "scores.test.pooled.mae is None"),
        ("scores", {"test": {"rmse": 0.1}}, "scores.test.pooled.mae is None"),
        ("scores", {"test": 0.1}, "scores"),
        ("seed", -1, "seed"),
        ("seconds", "long", "seconds"),
    ],
)
def test_damaged_records_are_told(field: str, value: object, told: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    trial("small", "a", 0, a0=0.2, a1=None).save(path)  # a correlation may be undefined
    assert load_trial(path).scores["test"]["structures"]["a1"]["pearson"] is None
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(InputError, match=f"a.json: .*{re.escape(told)}"):
        load_trial(path)


def test_a_record_of_a_failure_has_no_figures(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    replace(trial("small", "a", 0, error="diverged"), rotation={}).save(path)
    assert load_trial(path).error == "diverged"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seeds", [10**30]),
        ("minutes", "long"),
        ("rotations", 1),
        ("models", {"a": {"training.epochs": 10**30}}),
        ("models", {"a": 7}),
        ("models", []),
        ("glasses", 7),
    ],
)
def test_damaged_plans_are_told(
    plan: BenchmarkPlan, field: str, value: object, tmp_path: Path
) -> None:
    plan.save(tmp_path)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(InputError, match=r"plan\.json: ") as caught:
        load_plan(tmp_path)
    assert len(str(caught.value)) < 400 + len(str(path))


def table_of(graphs: list[Graph], plan: BenchmarkPlan, trials: list[Trial]) -> Table:
    return make_table(plan, make_folds(graphs, replace(plan, glasses=("a", "b"))), trials)


def test_means_over_structures_folds_and_seeds(four: list[Graph], plan: BenchmarkPlan) -> None:
    trials = [
        trial("small", "a", 0, a0=0.2, a1=0.4), trial("small", "b", 0, b=0.7),
        trial("small", "a", 1, a0=0.4, a1=0.6), trial("small", "b", 1, b=0.9),
    ]  # fmt: skip
    table = table_of(four, plan, trials)
    mean = table.value("small", "pearson")  # seeds: (0.3 + 0.7) / 2 and (0.5 + 0.9) / 2
    assert mean is not None
    assert (mean.mean, mean.sd) == (pytest.approx(0.6), pytest.approx(stdev([0.5, 0.7])))
    assert str(mean) == "0.600 ± 0.141"
    pooled = table.value("small", "pearson", POOLED)
    assert pooled is not None
    assert pooled.mean == pytest.approx(0.7)
    single = table.value("small", "mae", "a1")
    assert single is not None
    assert single.mean == pytest.approx(0.05)
    atoms = {row.of: row.atoms for row in table.rows if row.model == "small"}
    assert atoms == {STRUCTURES: 30, POOLED: 30, "a0": 10, "a1": 10, "b": 10}
    assert table.facts["small"].seconds == 2.5
    assert table.facts["small"].rotation == 0.01


def test_constant_predictions_count_as_zero(four: list[Graph], plan: BenchmarkPlan) -> None:
    table = table_of(four, plan, [trial("small", "a", 0, a0=None, a1=0.4)])
    value = table.value("small", "pearson")
    assert value is not None
    assert (value.mean, value.sd) == (pytest.approx(0.2), None)


def test_a_seed_counts_when_its_folds_are_complete(four: list[Graph], plan: BenchmarkPlan) -> None:
    done = [trial("small", "a", 0, a0=0.2), trial("small", "b", 0, b=0.4)]
    half = [trial("small", "a", 1, a0=0.9), trial("large", "a", 0, a0=0.8)]
    table = table_of(four, plan, [*done, *half])
    value, other = table.value("small", "pearson"), table.value("large", "pearson")
    assert value is not None
    assert other is not None
    assert (value.mean, other.mean) == (pytest.approx(0.3), pytest.approx(0.8))
    assert table.facts["small"].seeds == (0,)
    assert (table.facts["small"].done, table.facts["small"].planned) == (3, 4)
    failed = trial("small", "b", 1, error="the loss became nan")
    assert table_of(four, plan, [*done, half[0], failed]).facts["small"].seeds == (0,)


def test_models_stand_as_they_were_asked_for(four: list[Graph], plan: BenchmarkPlan) -> None:
    """The better one second: nothing is ranked by its test figure."""
    trials = [trial("large", "a", 0, a0=0.9), trial("small", "a", 0, a0=0.1)]
    table = table_of(four, plan, trials)
    lines = [line[0] for line in table.summary()[1]]
    assert lines == ["small", "large", CEILING]
    assert table_of(four, plan, []).summary()[1][0][1] == "–"


def test_the_three_forms_tell_the_same(four: list[Graph], plan: BenchmarkPlan) -> None:
    trials = [trial("small", g, k, **{g: 0.5 + 0.1 * k}) for g in ("a", "b") for k in (0, 1)]
    table = table_of(four, plan, trials)
    lines = list(csv.DictReader(io.StringIO(table.csv())))
    rows = table.as_dict()["rows"]
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        assert (line["model"], line["of"], int(line["atoms"])) == (
            row["model"], row["of"], row["atoms"],
        )  # fmt: skip
        assert float(line["pearson"]) == pytest.approx(row["values"]["pearson"]["mean"])
    assert (lines[0]["seeds"], lines[0]["budget"], lines[0]["parameters"]) == (
        "0 1", "2 epochs", "7",
    )  # fmt: skip
    assert "| small | test | mean of structures | 20 | 0.550 ± 0.071 |" in table.markdown()


def test_the_ceiling_row_takes_either_kind_of_noise(
    four: list[Graph], plan: BenchmarkPlan, make_graph: Make
) -> None:
    known = table_of(four, plan, [])
    value = known.value(CEILING, "rmse")
    assert value is not None
    assert value.mean == pytest.approx(0.02)
    assert known.noise == "from the labels' standard errors"
    nothing = torch.full((64,), float("nan"))
    bare = [g.replace(target_stderr=nothing) for g in four]
    assert table_of(bare, plan, []).ceiling == ()
    generator = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(64, generator=generator)
    twin = bare[0].replace(names=("a1",), target=bare[0].target + noise)
    twice = table_of([bare[0], twin, *bare[2:]], plan, [])
    assert "a0 and a1, one glass labelled twice" in twice.noise
    value = twice.value(CEILING, "rmse")
    assert value is not None
    assert value.mean == pytest.approx(float(noise.double().var() / 2) ** 0.5, rel=1e-4)
