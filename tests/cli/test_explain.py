"""`mgsym explain`, on the sample."""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
from pathlib import Path

import pytest

from mgsym.cli import explain as command
from mgsym.cli.main import main
from mgsym.data_tools.sample import sample_files
from mgsym.explanation import METHODS, Explanation

Captured = pytest.CaptureFixture[str]

SMALL = [
    "--set", "model.width=8", "--set", "model.heads=[2,1]", "--set", "model.decoder_layers=1",
    "--device", "cpu", "-q",
]  # fmt: skip
FEW = ["--device", "cpu", "--method", "edge-mask", "--steps", "3"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with graphs of the sample and a run."""
    folder = tmp_path_factory.mktemp("explain")
    with contextlib.chdir(folder):
        assert main(["build-graph", "-q"]) == 0
        assert main(["train", "--epochs", "2", "-o", "runs/one", *SMALL]) == 0
    return folder


@pytest.fixture(autouse=True)
def _inside(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    # fewer environments behind a reference and fewer random edges: nothing here depends on them
    monkeypatch.setattr("mgsym.data_tools.workflows.attribution.ENVIRONMENTS", 2)
    monkeypatch.setattr("mgsym.data_tools.workflows.explanation.DRAWS", 1)


@pytest.fixture
def one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure once, for 10 edges, what they are worth, where a test is of other things."""
    monkeypatch.setattr("mgsym.data_tools.workflows.explanation.SIZES", (10,))
    monkeypatch.setattr("mgsym.data_tools.workflows.explanation.PERTURBATIONS", ("deleted",))


def test_the_test_structure_of_the_latest_run_is_explained(capsys: Captured) -> None:
    assert main(["explain", "--node", "42", "--topk", "20", *FEW]) == 0
    told, notes = capsys.readouterr()
    lines = told.splitlines()
    assert lines[0] == "test: node 42"
    assert {"atom", "predicted", "label", "method"} <= {line.split()[0] for line in lines[1:6]}
    whole = next(i for i, line in enumerate(lines) if line.startswith("Neighbours beyond typical"))
    assert lines[whole + 1].split()[:2] == ["rank", "neighbour"]
    rows = [line.split() for line in lines[whole + 2 : whole + 23]]
    assert [row[0] for row in rows[:20]] == [str(i) for i in range(1, 21)]
    assert {row[4] for row in rows[:20]} <= {"raises", "lowers"}
    assert all((row[4] == "raises") == (float(row[5]) > 0) for row in rows[:20])
    assert rows[20][1] == "others"
    assert float(rows[20][-1]) == float(lines[2].split()[1])  # the sum is the prediction
    start = next(i for i, line in enumerate(lines) if line.startswith("rank  far end"))
    ranks = [line.split()[0] for line in lines[start + 1 : start + 21]]
    assert ranks == [str(i) for i in range(1, 21)]
    assert lines[start + 21] == "Hop by hop"
    near = next(i for i, line in enumerate(lines) if line.startswith("The nearest atoms"))
    assert len(lines[near + 2 : near + 12]) == 10
    assert all(line.split()[0] in ("Cu", "Zr") for line in lines[near + 2 : near + 12])
    assert lines[near + 12].startswith("Change of the prediction in label sd (0.3")
    assert [line.split()[0] for line in lines[near + 14 : near + 18]] == ["10", "20", "50", "100"]
    titles = [line for line in lines[near + 12 :] if line.startswith("Change of the prediction")]
    ways = ("edges deleted", "edges weakened by a tenth", "edges replaced")
    assert all(way in title for way, title in zip(ways, titles, strict=True))
    assert "No structure given: explaining graphs/test.npz" in notes
    files = [Path("runs/one/explanations") / f"test-node42{end}" for end in (".json", ".csv")]
    ends = ("test-node42.json", "test-node42-neighbours.csv", "best-reference.json")
    assert all(end in notes for end in ends)
    with files[0].with_name("test-node42-neighbours.csv").open(newline="") as file:
        added = [float(row["adds_eV"]) for row in csv.DictReader(file)]
    told_of = json.loads(files[0].read_text())["attribution"]
    total = told_of["reference_eV"] + told_of["own_eV"] + sum(added)
    assert total == pytest.approx(told_of["prediction_eV"], abs=1e-4)
    assert Path("runs/one/best-reference.json").exists()
    found = Explanation.load(files[0])
    assert (found.node, found.node_id, found.element, len(found)) == (42, 43, "Cu", 20)
    assert len(json.loads(files[0].read_text())["faithfulness"]["rows"]) == 4
    with files[1].open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 20


@pytest.mark.usefixtures("one_size")
def test_output_is_not_replaced_unasked(capsys: Captured, tmp_path: Path) -> None:
    line = ["explain", "--node", "1", "--method", "random", "-o", str(tmp_path), "-q"]
    assert main(line) == 0
    assert main(line) == 2
    assert "test-node1.json exists already" in capsys.readouterr().err
    assert main([*line, "--overwrite"]) == 0


def test_json_by_atom_id_of_a_structure_file(capsys: Captured, tmp_path: Path) -> None:
    structure = next(str(f) for f in sample_files() if "validation" in str(f))
    line = ["explain", structure, "--id", "8", "--topk", "5", "--method", "gradient", "--json"]
    assert main([*line, "-o", str(tmp_path), "--device", "cpu"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["node"], told["node_id"], told["method"]) == (7, 8, "gradient")
    assert len(told["edges"]) == 5
    assert [row["k"] for row in told["faithfulness"]["rows"]] == [5, 10, 20, 50, 100]
    assert told["fidelity"] == told["faithfulness"]  # its old name
    assert told == json.loads((tmp_path / f"{told['structure']}-node7.json").read_text())


@pytest.mark.usefixtures("one_size")
def test_settings_reach_the_method(capsys: Captured, tmp_path: Path) -> None:
    line = ["explain", "--node", "3", "--set", "initialisations=2", "--seed", "5", "--json", *FEW]
    assert main([*line, "-o", str(tmp_path)]) == 0
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert (settings["initialisations"], settings["steps"], settings["seed"]) == (2, 3, 5)
    assert settings["budget"] == 50


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "name one atom"),
        (["--node", "1", "--id", "2"], 2, "name one atom"),
        (["--node", "500"], 2, "no node 500: test has nodes 0 … 499"),
        (["--id", "0"], 2, "no atom of test has id 0: its ids lie in 1 … 500"),
        (["--node", "1", "--method", "x"], 2, "no method is called 'x'"),
        (["--node", "1", "--method", "random", "--steps", "3"], 2, "no setting 'steps'"),
        (["--node", "1", "--topk", "0"], 2, "topk"),
        (["nowhere.xyz", "--node", "1"], 3, "nowhere.xyz"),
        (["graphs", "--node", "1"], 2, "graphs holds 5 structures"),
        (["--node", "1", "--run", "nowhere"], 3, "nowhere: no such run"),
    ],
)
def test_failures_are_one_line(
    capsys: Captured, arguments: list[str], code: int, message: str
) -> None:
    assert main(["explain", *arguments]) == code
    told, notes = capsys.readouterr()
    assert told == ""
    assert message in notes
    assert len(notes.strip().splitlines()) == 1


@pytest.mark.usefixtures("one_size")
def test_a_damaged_reference_is_told_and_anothers_is_made_anew(
    capsys: Captured, tmp_path: Path
) -> None:
    shutil.copy("runs/one/best.pt", tmp_path / "best.pt")
    kept = tmp_path / "best-reference.json"
    line = ["explain", "graphs/test.npz", "--run", str(tmp_path / "best.pt"), "--node", "1"]
    line += ["--method", "random", "--overwrite", "-o", str(tmp_path)]
    kept.write_text('{"format": "something else"}')
    assert main(line) == 3
    assert "best-reference.json: expected mgsym-attribution-reference" in capsys.readouterr().err
    content = {"format": "mgsym-attribution-reference", "format_version": 1, "model": "another"}
    kept.write_text(json.dumps(content))
    assert main(line) == 0
    (made,) = json.loads(kept.read_text())["references"]
    assert made["model"] != "another"


@pytest.mark.usefixtures("one_size")
def test_without_training_graphs_the_structure_itself_is_compared_with(
    capsys: Captured, tmp_path: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy("runs/one/best.pt", tmp_path / "best.pt")
    monkeypatch.chdir(tmp_path)
    line = ["explain", str(workplace / "graphs/test.npz"), "--run", "best.pt", "--node", "1"]
    assert main([*line, "--method", "random", "--ranking", "bars.png"]) == 0
    assert "other atoms of the structure itself" in capsys.readouterr().err
    assert not Path("best-reference.json").exists()
    assert Path("bars.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("one_size")
def test_training_graphs_that_changed_are_not_compared_with(
    capsys: Captured, tmp_path: Path, workplace: Path
) -> None:
    run, graphs = tmp_path / "run", tmp_path / "graphs"
    run.mkdir()
    for name in ("best.pt", "run.json", "config.toml"):
        shutil.copy(workplace / "runs/one" / name, run / name)
    shutil.copytree(workplace / "graphs", graphs)
    shutil.copy(graphs / "test.npz", graphs / "train_a.npz")
    line = ["explain", "graphs/test.npz", "--run", str(run / "best.pt"), "--node", "1"]
    line += ["--graphs", str(graphs), "--method", "random", "-o", str(tmp_path)]
    assert main(line) == 0
    notes = capsys.readouterr().err
    assert f"{graphs / 'train_a.npz'}: changed since the run" in notes
    assert "other atoms of the structure itself" in notes
    assert not (run / "best-reference.json").exists()


@pytest.mark.usefixtures("one_size")
def test_a_checkpoint_away_from_its_run_needs_a_structure(capsys: Captured, tmp_path: Path) -> None:
    copy = shutil.copy("runs/one/best.pt", tmp_path / "best.pt")
    line = ["explain", "--run", str(copy), "--node", "1", "--method", "random"]
    assert main(line) == 2
    assert "which structure?" in capsys.readouterr().err
    assert main([*line[:1], "graphs/test.npz", *line[1:]]) == 0
    assert (tmp_path / "explanations" / "test-node1.csv").exists()


@pytest.mark.usefixtures("one_size")
def test_a_run_knows_the_folder_of_its_graphs(
    capsys: Captured, tmp_path: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = str(workplace / "runs/one")
    line = ["explain", "--run", run, "--node", "1", "--method", "random", "-o", "out"]
    assert main(line) == 0
    assert f"explaining {workplace / 'graphs/test.npz'}" in capsys.readouterr().err


@pytest.mark.usefixtures("one_size")
def test_changed_and_missing_graphs_are_told(
    capsys: Captured, tmp_path: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(workplace / "runs/one", "moved")
    facts = Path("moved/run.json")
    facts.write_text(facts.read_text().replace(str(workplace / "graphs"), str(tmp_path / "gone")))
    line = ["explain", "--run", "moved", "--node", "1", "--method", "random"]
    line += ["-o", str(tmp_path / "out")]
    assert main(line) == 2
    assert "graphs/test.npz, the run's test structure, is gone" in capsys.readouterr().err
    assert main(["build-graph", "-q", "--target", "barrier_stderr"]) == 0
    assert main(line) == 0
    assert "graphs/test.npz has changed since the run" in capsys.readouterr().err


def test_help_names_every_method() -> None:
    assert ", ".join(METHODS) == " ".join(command.METHODS.split())
