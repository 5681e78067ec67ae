"""An atom of a large structure is explained from its surroundings alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mgsym.data_tools.formats import write
from mgsym.data_tools.sample import sample_structures
from mgsym.data_tools.workflows import explanation_target
from mgsym.data_tools.workflows.explanation import Explained, Output, explain_atom
from mgsym.data_tools.workflows.explanation_target import Method
from mgsym.graph import build_graph
from mgsym.models import create_model
from mgsym.structure import Structure
from mgsym.training.checkpoint import save_checkpoint
from mgsym.training.config import ModelConfig
from mgsym.uncertainty.out_of_distribution import TrainingSet

NODE = 1700


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A checkpoint of a small network, and a sample structure repeated 3 × 2 × 2."""
    torch.manual_seed(0)
    options = {"heads": (1,), "width": 8, "node_input": "descriptors", "radial": 3, "l_max": 2}
    config = ModelConfig("symgnn", options)
    model = create_model("symgnn", ("Cu", "Zr"), 4.0, config.options)
    one = sample_structures()[0]
    graph = build_graph(one, 4.0)
    model.fit_statistics([graph])
    save_checkpoint(tmp_path / "run.pt", model, config, TrainingSet.of([graph]))
    repeats = torch.tensor([3, 2, 2])
    images = torch.cartesian_prod(*(torch.arange(int(n)) for n in repeats)).double()
    large = Structure(
        positions=(one.positions + (images @ one.cell)[:, None]).flatten(0, 1),
        cell=one.cell * repeats[:, None],
        types=one.types.repeat(len(images)),
        species=one.species,
        ids=torch.randperm(len(images) * len(one)) + 1,
        name="large",
    )
    write([large], tmp_path / "large.npz")
    return tmp_path / "run.pt", tmp_path / "large.npz"


def test_the_surroundings_tell_the_same(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explained(folder: str, **atom: int) -> Explained:
        method = Method("gradient", topk=20, device="cpu")
        out = Output(tmp_path / folder)
        return explain_atom(*files, method=method, out=out, **atom)  # type: ignore[arg-type]

    whole = explained("whole", node=NODE)
    monkeypatch.setattr(explanation_target, "LARGE", 1000)
    for number, atom in enumerate(({"node": NODE}, {"atom_id": whole.explanation.node_id})):
        cut = explained(f"cut{number}", **atom)
        assert any("can bear on this one" in note for note in cut.notes)
        one, other = whole.explanation, cut.explanation
        assert (other.node, other.node_id) == (NODE, one.node_id)
        assert other.prediction == pytest.approx(one.prediction, abs=1e-5)
        assert set(other.endpoints.T.flatten().tolist()) == set(one.endpoints.flatten().tolist())
        torch.testing.assert_close(
            other.importance.sort().values, one.importance.sort().values, atol=1e-6, rtol=1e-4
        )
        assert [a.node for a in cut.near] == [a.node for a in whole.near]
        assert cut.paths[0].name == whole.paths[0].name
    system = explanation_target.explained_system(*files, around=(NODE, None))
    assert system.graph.num_nodes < 1000
