"""`mgsym build-graph`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mgsym.cli.main import main
from mgsym.data_tools.sample import sample_files
from mgsym.graph import Graph

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_without_files_the_sample_is_built(capsys: Captured) -> None:
    assert main(["build-graph"]) == 0
    out, err = capsys.readouterr()
    names = ["test.npz", "train_a.npz", "train_a_again.npz", "train_b.npz", "validation.npz"]
    assert sorted(os.listdir("graphs")) == names
    lines = out.splitlines()
    assert lines[0] == "Graphs, cutoff 5 Å"
    assert lines[1].split()[:4] == ["name", "atoms", "formula", "edges"]
    assert len(lines) == 2 + len(names)
    assert max(map(len, lines)) <= 100
    assert "\x1b" not in out + err
    assert "Building graphs: 5/5 (100 %)" in err.splitlines()
    assert err.splitlines()[-1] == "Wrote 5 files to graphs"


def test_json_is_all_there_is_on_stdout(capsys: Captured) -> None:
    assert main(["build-graph", str(sample_files()[0]), "--json", "-o", "elsewhere"]) == 0
    (summary,) = json.loads(capsys.readouterr().out)
    graph = Graph.load(summary["path"])
    assert summary["path"] == f"elsewhere/{graph.names[0]}.npz"
    assert summary["edges"] == graph.num_edges
    assert summary["composition"] == {"Cu": 320, "Zr": 180}


def test_options_reach_the_graph() -> None:
    file = str(sample_files()[0])
    options = ["--cutoff", "4.5", "--split", "train", "--glass", "mine", "--target", "events"]
    assert main(["build-graph", file, *options, "--jobs", "2", "-q"]) == 0
    graph = Graph.load(next(Path("graphs").iterdir()))
    assert (graph.cutoff, graph.splits, graph.glasses) == (4.5, ("train",), ("mine",))
    assert float(graph.target.max()) > 10  # counts, not eV


def test_types_name_the_elements_of_a_dump() -> None:
    rows = "".join(f"{i} {1 + i % 2} {3 * i} 0 0\n" for i in range(4))
    Path("a.dump").write_text(
        "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n4\nITEM: BOX BOUNDS pp pp pp\n"
        f"0 12\n0 12\n0 12\nITEM: ATOMS id type x y z\n{rows}"
    )
    assert main(["build-graph", "a.dump", "--types", "1=Cu,2=Zr"]) == 0
    assert Graph.load("graphs/a.npz").species == ("Cu", "Zr")


def test_labels_are_joined_by_id() -> None:
    Path("labels.csv").write_text("id,barrier\n5,1.25\n")
    file = str(sample_files()[0])
    assert main(["build-graph", file, "--labels", "labels.csv"]) == 0
    graph = Graph.load(next(Path("graphs").iterdir()))
    assert graph.target[graph.labelled].tolist() == [1.25]
    assert graph.ids[graph.labelled].tolist() == [5]


def test_the_same_command_again_says_what_to_do(capsys: Captured) -> None:
    assert main(["build-graph", "-q"]) == 0
    before = {file.name: file.read_bytes() for file in Path("graphs").iterdir()}
    capsys.readouterr()
    assert main(["build-graph", "-q", "--cutoff", "4"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "exists already (and 4 more): add --overwrite" in err
    assert before == {file.name: file.read_bytes() for file in Path("graphs").iterdir()}
    assert main(["build-graph", "-q", "--cutoff", "4", "--overwrite"]) == 0
    assert all(Graph.load(file).cutoff == 4 for file in Path("graphs").iterdir())


def test_other_graphs_in_the_folder_are_mentioned(capsys: Captured) -> None:
    first, second, *_ = map(str, sample_files())
    assert main(["build-graph", first]) == 0
    assert "warning" not in capsys.readouterr().err
    assert main(["build-graph", second]) == 0
    assert "warning: graphs also holds 1 other graph" in capsys.readouterr().err


def fcc_copper(path: str, displaced: float = 0.0) -> str:
    """A file of 32 atoms of fcc copper at their sites, where symmetry leaves no force."""
    basis = [(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)]
    corners = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    sites = [[3.64 * (c + b) for c, b in zip(o, s, strict=True)] for o in corners for s in basis]
    sites[5][0] += displaced
    rows = "".join(f"Cu {x} {y} {z}\n" for x, y, z in sites)
    lattice = 'Lattice="7.28 0 0 0 7.28 0 0 0 7.28" Properties=species:S:1:pos:R:3'
    Path(path).write_text(f"32\n{lattice}\n{rows}")
    return path


def test_physics_become_node_features_with_units(capsys: Captured) -> None:
    assert main(["build-graph", fcc_copper("cu.xyz"), "--physics"]) == 0
    out, err = capsys.readouterr()
    assert "Physical inputs from the potential" in err
    graph = Graph.load("graphs/cu.npz")
    # Zhou, Johnson & Wadley give copper its cohesive energy of 3.54 eV
    assert float(graph.node_features["energy"].mean()) == pytest.approx(-3.54, abs=0.01)
    assert graph.feature_units["compliance_9"] == "Å²/eV"
    assert "compliance_6 (Å²/eV), compliance_9 (Å²/eV), stiffness_1 (eV/Å²)" in out
    assert main(["info", "graphs/cu.npz", "--json"]) == 0
    (summary,) = json.loads(capsys.readouterr().out)[0]["graphs"]
    assert summary["features"] == dict(graph.feature_units)


def test_a_variable_alone_asks_for_no_physics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MGSYM_POTENTIAL", "nowhere.fs")
    assert main(["build-graph", fcc_copper("cu.xyz")]) == 0
    assert Graph.load("graphs/cu.npz").node_features == {}


def test_a_named_potential_asks_for_physics(capsys: Captured) -> None:
    assert main(["build-graph", fcc_copper("cu.xyz"), "--potential", "nowhere.fs"]) == 3
    assert "nowhere.fs" in capsys.readouterr().err
    assert not Path("graphs").exists()


def test_physics_need_a_structure_at_rest(capsys: Captured) -> None:
    assert main(["build-graph", fcc_copper("cu.xyz", displaced=0.1), "--physics"]) == 3
    assert "force on atom id 6 is" in capsys.readouterr().err
    assert not Path("graphs").exists()
