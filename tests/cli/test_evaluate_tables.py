"""`mgsym evaluate` with tables of predictions in place of a model."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mgsym.cli.main import main
from mgsym.data_tools.formats import write
from mgsym.structure import Column, Structure

Captured = pytest.CaptureFixture[str]
LABELS = torch.tensor([1.0, 1.5, 2.0, 3.0])


def glass(name: str, labels: Tensor = LABELS, stderr: float | None = None) -> Structure:
    """Four atoms with the ids 40, 30, 20 and 10, labelled in this order."""
    columns = {"barrier": Column(labels, "eV")}
    if stderr is not None:
        columns["barrier_stderr"] = Column(torch.full_like(labels, stderr), "eV")
    return Structure(
        positions=torch.tensor([[0.0, 0, 0], [2.5, 0, 0], [0, 2.5, 0], [0, 0, 2.5]]),
        cell=9 * torch.eye(3),
        types=torch.tensor([0, 1, 0, 1]),
        species=("Cu", "Zr"),
        ids=torch.tensor([40, 30, 20, 10]),
        columns=columns,
        name=name,
    )


def table(file: str, values: Sequence[float], heading: str = "id,barrier") -> str:
    """A table in the order of ids, which is not that of the structure."""
    rows = [f"{i},{v}" for i, v in zip((40, 30, 20, 10), values, strict=True)]
    Path(file).write_text("\n".join([heading, *reversed(rows)]) + "\n")
    return file


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(glass("a"), "a.xyz")
    write(glass("b", LABELS.flip(0)), "b.xyz")


def scores(capsys: Captured, *arguments: str) -> dict:  # type: ignore[type-arg]
    assert main(["evaluate", *arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def test_figures_are_those_of_the_formulas(capsys: Captured) -> None:
    off = [0.1, 0.4, -0.2, 0.1]
    predicted = [float(label) + e for label, e in zip(LABELS, off, strict=True)]
    found = scores(capsys, table("p.csv", predicted), "a.xyz")["structures"]["a"]
    assert found["count"] == 4
    assert found["bias"] == pytest.approx(0.1, abs=1e-6)
    assert found["mae"] == pytest.approx(0.2, abs=1e-6)
    assert found["rmse"] == pytest.approx(math.sqrt(0.22 / 4), abs=1e-6)
    both = torch.stack([LABELS, torch.tensor(predicted)])
    assert found["pearson"] == pytest.approx(float(torch.corrcoef(both)[0, 1]), abs=1e-6)
    assert found["spearman"] == pytest.approx(0.8)  # two neighbours change places: 1.1 1.9 1.8 3.1
    assert found["ceiling"] is None


def test_each_structure_and_all_pooled(capsys: Captured) -> None:
    """Two tables that are right but for an offset each: 1 within, less pooled."""
    tables = [table("1.csv", LABELS.tolist()), table("2.csv", (LABELS.flip(0) + 1).tolist())]
    found = scores(capsys, *tables, "a.xyz", "b.xyz")
    assert [s["pearson"] for s in found["structures"].values()] == pytest.approx([1, 1])
    assert found["mean_pearson"] == pytest.approx(1)
    assert found["pooled"]["bias"] == pytest.approx(0.5)
    # labels of variance v, and an offset that is ±1/2 around its mean: 1/√(1 + 1/(4v))
    variance = float(LABELS.var(correction=0))
    assert found["pooled"]["pearson"] == pytest.approx(1 / math.sqrt(1 + 0.25 / variance))
    assert main(["evaluate", *tables, "a.xyz", "b.xyz"]) == 0
    shown = capsys.readouterr().out
    first = [line.split()[0] for line in shown.splitlines()[2:]]
    agreement, extremes = ["a", "b", "mean", "pooled"], ["structure", "a", "b", "pooled"]
    assert first == [*agreement, *extremes]
    assert [(s["auc_high"], s["auc_low"]) for s in found["structures"].values()] == [(1, 1)] * 2


def test_the_prediction_is_taken_where_labels_stand_beside_it(capsys: Captured) -> None:
    """`mgsym predict -o out.csv` keeps a structure's labels, under the name barrier."""
    labelled = glass("a").with_column("barrier_predicted", LABELS + 0.25, "eV")
    write(labelled, "out.csv.gz")
    found = scores(capsys, "out.csv.gz", "a.xyz")
    assert found["pooled"]["bias"] == pytest.approx(0.25)


def test_the_ceiling_is_that_of_known_noise(capsys: Captured) -> None:
    perfect = table("p.csv", LABELS.tolist())
    variance = float(LABELS.var(correction=0))
    expected = math.sqrt(1 - 0.3**2 / variance)
    asked = scores(capsys, perfect, "a.xyz", "--noise", "0.3")
    assert asked["pooled"]["ceiling"] == pytest.approx(expected)
    write(glass("c", stderr=0.3), "c.xyz")
    assert scores(capsys, perfect, "c.xyz")["pooled"]["ceiling"] == pytest.approx(expected)


def test_a_glass_labelled_twice_tells_the_noise(capsys: Captured) -> None:
    """Differences 0.2, −0.2, 0.2, −0.2 have variance 0.16/3, of which each label has half."""
    again = LABELS + torch.tensor([0.2, -0.2, 0.2, -0.2])
    for name, labels in (("first", LABELS), ("second", again)):
        write(glass(name, labels).replace(glass="one"), f"{name}.xyz")
    tables = [table("1.csv", LABELS.tolist()), table("2.csv", LABELS.tolist())]
    found = scores(capsys, *tables, "first.xyz", "second.xyz")["structures"]["first"]
    variance = float(LABELS.var(correction=0))
    assert found["ceiling"] == pytest.approx(math.sqrt(1 - 0.08 / 3 / variance))


def test_predicted_errors_are_put_to_the_proof(capsys: Captured) -> None:
    rows = ["id,barrier,barrier_std", "40,1.1,0.1", "30,1.5,0.1", "20,1.9,0.1", "10,3.0,0.1"]
    Path("p.csv").write_text("\n".join(rows))
    honest = scores(capsys, "p.csv", "a.xyz")["calibration"]
    assert honest["z_sd"] == pytest.approx(math.sqrt(0.5), abs=1e-4)  # z: −1, 0, 1, 0
    assert honest["z_mean"] == pytest.approx(0, abs=1e-4)
    assert main(["evaluate", "p.csv", "a.xyz", "--figure", "parity.png"]) == 0
    assert "Predicted standard deviation" in capsys.readouterr().out
    assert Path("parity.png").stat().st_size > 1000


def test_graphs_and_atoms_without_labels(capsys: Captured) -> None:
    """An atom that has no label needs no prediction."""
    some = torch.tensor([1.0, math.nan, 2.0, 3.0])
    write(glass("d", some), "d.xyz")
    assert main(["build-graph", "d.xyz", "-o", "graphs", "-q"]) == 0
    Path("p.csv").write_text("id,barrier\n40,1\n20,2\n10,3\n")
    capsys.readouterr()
    found = scores(capsys, "p.csv", "graphs/d.npz")
    assert found == scores(capsys, "p.csv", "d.xyz")
    assert found["pooled"]["count"] == 3
    assert found["pooled"]["mae"] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,barrier\n10,1\n20,1\n30,1\n", "p.csv: no prediction for 1 labelled atoms of a, the"),
        ("id,barrier\n10,1\n20,nan\n30,1\n40,1\n", "the first has id 20"),
        ("id,barrier\n7,1\n", "line 2: the structure has no atom with id 7: is this another"),
        ("id,energy\n10,1\n", "line 1: no column 'barrier_predicted' or 'barrier', expected id,"),
        ("atom,barrier\n10,1\n", "line 1: no column 'id'"),
        ("id,barrier\n10,1\n10,2\n", "line 3: atom id 10 again"),
        ("id,barrier\n10,x\n", "line 2: barrier must be a number in eV, found 'x'"),
        ("", "p.csv: the file is empty"),
    ],
)
def test_tables_that_do_not_fit(capsys: Captured, text: str, message: str) -> None:
    Path("p.csv").write_text(text)
    assert main(["evaluate", "p.csv", "a.xyz"]) == 3
    shown = capsys.readouterr()
    assert message in shown.err.splitlines()[-1]
    assert shown.out == ""


def test_other_mistakes(capsys: Captured) -> None:
    perfect = table("p.csv", LABELS.tolist())
    write(glass("a").replace(columns={}), "bare.xyz")
    for arguments, code, message in (
        ([perfect, "a.xyz", "b.xyz"], 2, "tables of predictions: 1, structures: 2; give one"),
        ([perfect, "bare.xyz"], 3, "no atom has a label to score against"),
        (["gone.csv", "a.xyz"], 3, "gone.csv: no such file"),
        ([perfect, "gone.xyz"], 3, "gone.xyz: no such file"),
        ([perfect], 2, "missing argument"),
    ):
        assert main(["evaluate", *arguments]) == code
        assert message in capsys.readouterr().err.lower()
