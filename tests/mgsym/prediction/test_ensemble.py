"""Ensembles: several models in one file predict as they do apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mgsym.errors import InputError, UsageError
from mgsym.graph import Graph, build_graph
from mgsym.graph.operations import narrowed
from mgsym.models import create_model
from mgsym.prediction import calibrated, load_ensemble, load_models, predict, predict_with_spread
from mgsym.prediction.ensemble import Ensemble, Member, merge, read_ensemble, save_ensemble
from mgsym.prediction.seeds import train_seeds
from mgsym.structure import Structure
from mgsym.training.checkpoint import load_checkpoint, save_checkpoint
from mgsym.training.config import Config, ModelConfig
from mgsym.training.runs import only_checkpoint
from mgsym.uncertainty.calibration import Calibration
from mgsym.uncertainty.error_features import error_features
from mgsym.uncertainty.out_of_distribution import TrainingSet


@pytest.fixture
def checkpoints(tiny: str, five_graphs: list[Graph], tmp_path: Path) -> list[Path]:
    """Two seeds of one model and a third of another width, all untrained."""
    paths = []
    facts = TrainingSet.of(five_graphs[:3])
    for seed, width in enumerate((6, 6, 9)):
        torch.manual_seed(seed)
        model = create_model(tiny, ("Cu", "Zr"), 4.0, {"width": width})
        model.fit_statistics(five_graphs)
        paths.append(tmp_path / f"run{seed}" / "best.pt")
        save_checkpoint(paths[-1], model.eval(), ModelConfig(tiny, {"width": width}), facts)
    return paths


def test_a_file_of_several_predicts_as_they_do(
    checkpoints: list[Path], five_graphs: list[Graph], tmp_path: Path
) -> None:
    apart = torch.stack([predict(five_graphs[4], path) for path in checkpoints])
    file = tmp_path / "ensemble.pt"
    save_ensemble(file, merge([read_ensemble(path) for path in checkpoints]))
    (found,) = predict_with_spread([five_graphs[4]], file)
    torch.testing.assert_close(found.mean, apart.mean(0))
    torch.testing.assert_close(found.std, apart.std(0, correction=0), atol=1e-6, rtol=1e-5)
    assert torch.equal(predict(five_graphs[4], file), found.mean)
    assert [member.name for member in read_ensemble(file).members] == ["run0", "run1", "run2"]
    assert len(load_models(file)) == 3


def test_weights_count(checkpoints: list[Path], five_graphs: list[Graph], tmp_path: Path) -> None:
    apart = torch.stack([predict(five_graphs[4], path) for path in checkpoints])
    pair = merge([read_ensemble(path) for path in checkpoints[:2]])
    weighted = merge([pair, read_ensemble(checkpoints[2])], [1.0, 3.0])
    save_ensemble(tmp_path / "weighted.pt", weighted)
    (found,) = predict_with_spread([five_graphs[4]], tmp_path / "weighted.pt")
    share = torch.tensor([0.125, 0.125, 0.75])[:, None]
    mean = (share * apart).sum(0)
    torch.testing.assert_close(found.mean, mean)
    torch.testing.assert_close(
        found.std, (share * (apart - mean) ** 2).sum(0).sqrt(), atol=1e-6, rtol=1e-5
    )
    with pytest.raises(UsageError, match="1 weights for 2 runs"):
        merge([pair, pair], [1.0])
    with pytest.raises(UsageError, match="has the weight 0"):
        merge([pair, pair], [1.0, 0.0])


def test_calibration_and_facts_survive(
    checkpoints: list[Path], five_graphs: list[Graph], tmp_path: Path
) -> None:
    known = Calibration(1.5, 0.1, 0.14, 0.5, 3.0, 0.1, 100)
    ensemble = merge([read_ensemble(path) for path in checkpoints])
    file = tmp_path / "ensemble.pt"
    save_ensemble(file, replace(ensemble, calibration=known, about={"name": "x"}))
    again = read_ensemble(file)
    assert again.calibration == known
    assert again.about == {"name": "x"}
    assert again.metadata is not None
    facts = again.metadata.training_set
    assert facts.names == ("s0", "s1", "s2")
    assert facts.surroundings is not None
    # the training set that all have in common is stored once
    alone = sum(path.stat().st_size for path in checkpoints)
    size = facts.surroundings.factor.numel() * 4
    assert file.stat().st_size < alone - 1.8 * size


def test_calibration_takes_the_members_that_did_not_train(
    tiny: str, five_graphs: list[Graph], tmp_path: Path
) -> None:
    members = []
    for seed, names in enumerate((("s0", "s1"), ("s1", "s2"), ("s0", "s2"))):
        torch.manual_seed(seed)
        model = create_model(tiny, ("Cu", "Zr"), 4.0, {})
        model.fit_statistics(five_graphs)
        facts = TrainingSet(names=names)
        save_checkpoint(tmp_path / f"{seed}.pt", model.eval(), ModelConfig(tiny), facts)
        members.append(read_ensemble(tmp_path / f"{seed}.pt").members[0])
    ensemble = Ensemble(tuple(members))
    graphs = five_graphs[:3]
    one_each = [predict(g, members[i].model) for g, i in zip(graphs, (1, 2, 0), strict=True)]
    features = [error_features(g, mean, None) for g, mean in zip(graphs, one_each, strict=True)]
    expected = Calibration.fit(one_each, [torch.zeros(64)] * 3, graphs, 0.02, features)
    assert calibrated(ensemble, graphs, 0.02).calibration == expected
    with pytest.raises(InputError, match="s0 was trained on, so its errors are too small"):
        calibrated(Ensemble((members[0],)), graphs)


def test_models_of_several_cutoffs(
    tiny: str, disordered: Structure, five_graphs: list[Graph]
) -> None:
    models = []
    for cutoff in (3.5, 4.5):
        torch.manual_seed(0)
        models.append(create_model(tiny, ("Cu", "Zr"), cutoff).eval())
    apart = torch.stack([predict_with_spread([disordered], [model])[0].mean for model in models])
    torch.testing.assert_close(predict(disordered, models), apart.mean(0))
    wide, narrow = build_graph(disordered, 4.5), build_graph(disordered, 3.5)
    again = narrowed(wide, 3.5)
    assert again.cutoff == 3.5
    assert torch.equal(again.edge_index, narrow.edge_index)
    assert torch.equal(again.edge_shift, narrow.edge_shift)


def test_a_file_of_several_is_no_single_model(checkpoints: list[Path], tmp_path: Path) -> None:
    file = tmp_path / "ensemble.pt"
    save_ensemble(file, merge([read_ensemble(path) for path in checkpoints]))
    with pytest.raises(InputError, match=r"ensemble.pt: holds several models, expected one"):
        load_checkpoint(only_checkpoint(file))


def test_damaged_files_are_told(checkpoints: list[Path], tmp_path: Path) -> None:
    file = tmp_path / "ensemble.pt"
    save_ensemble(file, read_ensemble(checkpoints[0]))
    content = torch.load(file, weights_only=True)
    for changes in ({"members": [{}]}, {"calibration": {"scale": 1.0}}, {"members": 3}):
        torch.save({**content, **changes}, file)
        with pytest.raises(InputError, match=r"ensemble.pt: an ensemble whose parts do not fit"):
            read_ensemble(file)
    torch.save({**content, "members": []}, file)
    with pytest.raises(InputError, match="no model was given"):
        read_ensemble(file)


def test_a_model_that_was_never_saved_cannot_join(
    tiny: str, tmp_path: Path, five_graphs: list[Graph]
) -> None:
    model = create_model(tiny, ("Cu", "Zr"), 4.0, {})
    with pytest.raises(UsageError, match="never saved"):
        save_ensemble(tmp_path / "a.pt", Ensemble((Member(model),)))
    assert load_ensemble(model).models == [model]


def test_seeds_are_merged_and_calibrated(
    five_graphs: list[Graph], tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    runs = train_seeds(five_graphs, tiny_config(), [0, 2], tmp_path / "two")
    found = read_ensemble(tmp_path / "two")
    assert [member.name for member in found.members] == ["seed0", "seed2"]
    assert found.calibration is not None
    assert found.calibration.atoms == 64
    assert found.calibration.noise == pytest.approx(0.02)
    (one,) = predict_with_spread(five_graphs[4:], tmp_path / "two")
    (other,) = predict_with_spread(five_graphs[4:], runs)
    assert torch.equal(one.mean, other.mean)
    # trained again without validation, nothing is left of the old one
    options = {"validation": [], "test": ["s4"], "overwrite": True}
    train_seeds(five_graphs, tiny_config(), [1], tmp_path / "two", **options)
    assert [member.name for member in read_ensemble(tmp_path / "two").members] == ["seed1"]
    assert read_ensemble(tmp_path / "two").calibration is None
