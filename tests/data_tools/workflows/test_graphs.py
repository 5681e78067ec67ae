"""From structure files to a folder of graphs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from mgsym.data_tools.formats import write
from mgsym.data_tools.sample import sample_structures
from mgsym.data_tools.workflows.graphs import build_graphs, join_labels, read_structures
from mgsym.errors import InputError, UsageError
from mgsym.graph import Graph
from mgsym.structure import Column, Structure


def crystal(name: str, **labels: str) -> Structure:
    """Face-centred cubic copper, 32 atoms, lattice constant 3.6 Å, with a column of barriers."""
    corners = torch.cartesian_prod(*[torch.arange(2.0, dtype=torch.float64)] * 3)
    basis = torch.tensor([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    positions = 3.6 * (corners[:, None] + basis).reshape(-1, 3)
    barrier = torch.arange(32.0, dtype=torch.float64) / 10
    return Structure(
        positions=positions,
        cell=7.2 * torch.eye(3, dtype=torch.float64),
        types=torch.zeros(32, dtype=torch.int64),
        species=("Cu",),
        columns={"barrier": Column(barrier, "eV"), "other": Column(barrier + 1, "eV")},
        name=name,
        **labels,
    )


def test_graphs_are_written_and_summed_up(tmp_path: Path) -> None:
    seen = []
    summaries = build_graphs(
        [crystal("a", glass="g", split="train"), crystal("b")],
        tmp_path / "graphs",
        cutoff=3.0,
        progress=lambda done, total: seen.append((done, total)),
    )
    first = summaries[0]
    assert first.path == tmp_path / "graphs" / "a.npz"
    assert (first.atoms, first.composition, first.cutoff) == (32, {"Cu": 32}, 3.0)
    # twelve neighbours at 3.6 / √2 = 2.55 Å
    assert (first.edges, first.coordination) == (32 * 12, 12.0)
    assert (first.labelled, first.glass, first.split) == (32, "g", "train")
    assert first.label_mean == pytest.approx(1.55)
    # a uniform ladder of n steps of h: h √((n² − 1) / 12)
    assert first.label_sd == pytest.approx(0.1 * (1023 / 12) ** 0.5)
    assert seen == [(1, 2), (2, 2)]
    assert sorted(os.listdir(tmp_path / "graphs")) == ["a.npz", "b.npz"]
    assert Graph.load(first.path).num_edges == 32 * 12


def test_another_column_may_be_the_target(tmp_path: Path) -> None:
    summary = build_graphs([crystal("a")], tmp_path, target="other")[0]
    assert summary.label_mean == pytest.approx(2.55)


def test_a_structure_without_labels_is_fine(tmp_path: Path) -> None:
    summary = build_graphs([crystal("a").replace(columns={})], tmp_path)[0]
    assert (summary.labelled, summary.label_mean, summary.label_sd) == (0, None, None)


def test_jobs_change_nothing(tmp_path: Path) -> None:
    structures = sample_structures()
    build_graphs(structures, tmp_path / "one", jobs=1)
    build_graphs(structures, tmp_path / "three", jobs=3)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "three" / file.name).read_bytes()


def test_public_edge_counts(public_data: Path, tmp_path: Path) -> None:
    files = [public_data / "train0.pickle", public_data / "test0.dump"]
    structures = read_structures(files, {1: "Cu", 2: "Zr"})
    assert [s.edges for s in build_graphs(structures, tmp_path)] == [259_838, 97_530]


def test_a_failure_writes_nothing(tmp_path: Path) -> None:
    close = crystal("close")
    positions = close.positions.clone()
    positions[1] = positions[0] + 0.1
    with pytest.raises(InputError, match=r"close: atoms (1 and 2|2 and 1) are 0\.17"):
        build_graphs([crystal("a"), close.replace(positions=positions)], tmp_path / "graphs")
    assert os.listdir(tmp_path) == []


def test_existing_files_are_kept_unless_told(tmp_path: Path) -> None:
    build_graphs([crystal("a")], tmp_path)
    before = (tmp_path / "a.npz").read_bytes()
    again = [crystal("b"), crystal("a")]
    with pytest.raises(UsageError, match=r"a\.npz exists already: add --overwrite .* -o"):
        build_graphs(again, tmp_path, cutoff=3.0)
    assert (tmp_path / "a.npz").read_bytes() == before
    assert os.listdir(tmp_path) == ["a.npz"]
    build_graphs(again, tmp_path, cutoff=3.0, overwrite=True)
    assert Graph.load(tmp_path / "a.npz").cutoff == 3.0


def test_the_number_of_existing_files_is_told(tmp_path: Path) -> None:
    structures = [crystal("a"), crystal("b"), crystal("c")]
    build_graphs(structures, tmp_path)
    with pytest.raises(UsageError, match=r"a\.npz exists already \(and 2 more\)"):
        build_graphs(structures, tmp_path)


def test_the_folder_may_not_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "graphs").touch()
    with pytest.raises(UsageError, match="graphs is a file, expected a folder"):
        build_graphs([crystal("a")], tmp_path / "graphs")


def test_names_must_differ(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two structures are called a: rename"):
        build_graphs([crystal("a"), crystal("a")], tmp_path)


@pytest.mark.parametrize("name", ["", "../a", "/a", "a/b", ".hidden", "a\\b"])
def test_a_name_cannot_leave_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be a file name"):
        build_graphs([crystal(name)], tmp_path)


def test_nothing_to_build(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no structures"):
        build_graphs([], tmp_path)


def test_a_target_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no structure has a column 'x', found barrier, other:"):
        build_graphs([crystal("a")], tmp_path, target="x")


def test_a_target_is_one_value_per_atom(tmp_path: Path) -> None:
    structure = crystal("a").with_column("force", torch.zeros(32, 3))
    with pytest.raises(InputError, match=r"a: column 'force' is \[32, 3\], expected one value"):
        build_graphs([structure], tmp_path, target="force")


def test_the_sample_names_its_glasses_and_splits() -> None:
    structures = read_structures([])
    assert [s.name for s in structures] == [
        "test",
        "train_a",
        "train_a_again",
        "train_b",
        "validation",
    ]
    assert sorted(s.split for s in structures) == ["test", "train", "train", "train", "validation"]
    assert len({s.glass for s in structures}) == 4


def test_frames_of_one_file_are_one_glass(tmp_path: Path) -> None:
    write([crystal("", glass="") for _ in range(3)], tmp_path / "quench.xyz")
    frames = read_structures([tmp_path / "quench.xyz"], frames=":")
    assert [s.name for s in frames] == ["quench_0", "quench_1", "quench_2"]
    assert {s.glass for s in frames} == {"quench"}
    assert [s.name for s in read_structures([tmp_path / "quench.xyz"])] == ["quench_2"]


def test_glass_and_split_may_be_given(tmp_path: Path) -> None:
    write(crystal("a", glass="old", split="test"), tmp_path / "a.xyz")
    given = read_structures([tmp_path / "a.xyz"], split="train", glass="new")[0]
    assert (given.glass, given.split) == ("new", "train")
    kept = read_structures([tmp_path / "a.xyz"])[0]
    assert (kept.glass, kept.split) == ("old", "test")


def test_labels_come_from_a_table(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("id,height\n2,0.5\n7,1.5\n")
    structures = join_labels([crystal("a")], table, "height")
    summary = build_graphs(structures, tmp_path / "graphs", target="height")[0]
    assert (summary.labelled, summary.label_mean) == (2, 1.0)


def test_a_table_of_labels_belongs_to_one_structure(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one structure, 2 are given"):
        join_labels([crystal("a"), crystal("b")], tmp_path / "labels.csv")
