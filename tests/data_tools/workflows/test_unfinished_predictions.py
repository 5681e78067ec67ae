"""A prediction that was stopped goes on where it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mgsym.data_tools.formats import read, write
from mgsym.data_tools.sample import sample_structures
from mgsym.data_tools.workflows.predictions import predict_files
from mgsym.errors import InputError, Interrupted
from mgsym.graph import build_graph
from mgsym.models import create_model
from mgsym.prediction.predict import predict_with_spread
from mgsym.training.checkpoint import save_checkpoint
from mgsym.training.config import ModelConfig
from mgsym.uncertainty.out_of_distribution import TrainingSet


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A checkpoint of a small network."""
    torch.manual_seed(0)
    config = ModelConfig("symgnn", {"heads": (2, 1), "width": 8})
    model = create_model("symgnn", ("Cu", "Zr"), 5.0, config.options)
    graph = build_graph(sample_structures()[0])
    model.fit_statistics([graph])
    save_checkpoint(tmp_path / "run.pt", model, config, TrainingSet.of([graph]))
    return tmp_path / "run.pt"


def test_goes_on_to_the_same_numbers(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    structure = sample_structures()[1]
    write([structure], tmp_path / "glass.xyz")
    predict_files([tmp_path / "glass.xyz"], run, tmp_path / "whole.npz", device="cpu")
    monkeypatch.setattr(predict_with_spread, "__defaults__", ("cpu", 4000, None, None))
    out, asked = tmp_path / "out.npz", [0]

    def stop() -> bool:
        asked[0] += 1
        return asked[0] > 28

    with pytest.raises(Interrupted, match="go on with --resume"):
        predict_files([tmp_path / "glass.xyz"], run, out, device="cpu", should_stop=stop)
    (left,) = tmp_path.glob("out.npz.*.unfinished.pt")
    assert not out.exists()
    kept = torch.load(left, weights_only=True)["predictions"]["0"]
    assert 0 < int((~kept.isnan()).sum()) < kept.numel()

    other = sample_structures()[-1]
    write([other], tmp_path / "other.xyz")
    left.rename(tmp_path / f"out.npz.{read(tmp_path / 'other.xyz').name}.unfinished.pt")
    with pytest.raises(InputError, match="of another structure or of other models"):
        predict_files([tmp_path / "other.xyz"], run, out, device="cpu", resume=True)
    (moved,) = tmp_path.glob("out.npz.*.unfinished.pt")
    moved.rename(left)

    steps: list[float] = []
    predict_files(
        [tmp_path / "glass.xyz"], run, out, device="cpu", resume=True,
        progress=lambda done, total: steps.append(done),
    )  # fmt: skip
    assert not left.exists()
    found, whole = (
        read(tmp_path / name).columns["barrier_predicted"].values
        for name in ("out.npz", "whole.npz")
    )
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=0)
    assert steps[-1] == 1
