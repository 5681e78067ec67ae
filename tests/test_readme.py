"""The commands and programs that README.md and docs/guide.md show are run as they stand there."""

from __future__ import annotations

import re
import shlex
from glob import glob
from pathlib import Path

import pytest

import mgsym
from mgsym.cli.main import main
from mgsym.data_tools.sample import sample_structures

ROOT = Path(__file__).resolve().parents[1]


def section(title: str, file: str = "README.md") -> str:
    """The text below a heading, up to the next one of its rank."""
    text = (ROOT / file).read_text(encoding="utf-8")
    match = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert match, f"{file} has no section {title!r}"
    return match[1]


def commands(text: str) -> list[list[str]]:
    """The arguments of every indented mgsym command."""
    return [shlex.split(line)[1:] for line in re.findall(r"^ {4}(mgsym .*)$", text, re.M)]


def programs(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)


def expanded(line: list[str]) -> list[str]:
    """Patterns of file names replaced by the files, as a shell does."""
    return [name for part in line for name in (sorted(glob(part)) if "*" in part else [part])]


def run_all(lines: list[list[str]], capsys: pytest.CaptureFixture[str]) -> str:
    """Standard output of commands run one after another, each of which must succeed."""
    shown = ""
    for line in lines:
        code = main(line)
        printed = capsys.readouterr()
        assert code == 0, f"mgsym {' '.join(line)}: {printed.err}"
        shown += printed.out
    return shown


def test_the_three_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = commands(section("Try it"))
    assert [" ".join(line) for line in lines] == [
        "build-graph", "train", "explain --node 42 --topk 50",
    ]  # fmt: skip
    shown = run_all(lines, capsys)
    assert "Edges by importance" in shown
    assert len(list(tmp_path.glob("graphs/*.npz"))) == 5
    (run,) = tmp_path.glob("runs/*")
    assert (run / "explanations" / "test-node42.csv").read_text().count("\n") == 51
    test = re.search(r"^test +test +250 +([\d.]+)", shown, re.M)
    assert test, shown
    # what the sample must give at least; a ridge on invariants reaches 0.555
    assert float(test[1]) >= 0.40


def test_the_set_up_commands_exist() -> None:
    targets = re.findall(r"`?make ([a-z-]+)`?", section("Try it"))
    assert set(targets) == {"demo", "test"}
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{target}:" in makefile for target in targets)
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_own_files_and_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    of_glass = {s.glass: s.replace(split="") for s in sample_structures()}
    *labelled, other = of_glass.values()
    for structure, file in zip(labelled, ("slow.xyz", "medium.xyz", "fast.dump"), strict=True):
        mgsym.write(structure, file)
    mgsym.write(other.replace(columns={}), "other.dump")
    text = section("On your own files")
    run_all(commands(text), capsys)
    assert Path("edges.png").stat().st_size > 10_000
    assert "barrier_predicted" in mgsym.read("other.extxyz").columns
    (program,) = programs(text)
    space: dict[str, object] = {}
    exec(program, space)  # our own README
    assert space["barriers"].shape == (500,)  # type: ignore[attr-defined]


def test_the_guides_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (program,) = programs(section("Python", "docs/guide.md"))
    exec(program, {})
    assert "importance" in capsys.readouterr().out
    assert Path("predicted.extxyz").exists()


@pytest.mark.slow
def test_the_public_data(
    public_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As shown, with the folder that holds the data in place of the download."""
    monkeypatch.chdir(tmp_path)
    lines = commands(section("On the public data"))
    fetch = lines.pop(0)
    assert main([*fetch, "--base", str(public_data)]) == 0
    if not Path("data/cu64zr36/test0.pickle").exists():  # a folder with the dumps alone
        test0 = mgsym.read(public_data / "test0.dump", types={1: "Cu", 2: "Zr"})
        mgsym.write(test0, "data/cu64zr36/test0.xyz")
        lines = [[part.replace("test0.pickle", "test0.xyz") for part in line] for line in lines]
    shown = run_all([expanded(line) for line in lines], capsys)
    assert "test0: node 42" in shown


SMALLER = {
    "quench": {"--atoms": "200", "--rate": "1e15", "--melt": "0.5"},
    "label": {"--searches": "3"},
}


def smaller(line: list[str]) -> list[str]:
    """The same command on a glass that takes seconds."""
    changed = list(line)
    for option, value in SMALLER.get(line[0], {}).items():
        changed[changed.index(option) + 1] = value
    return [*changed, "--atoms", "0:8"] if line[0] == "label" else changed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "title"),
    [
        ("docs/physics.md", "From a composition to an explanation"),
        ("README.md", "Your own labelled glasses"),
    ],
)
def test_a_glass_that_did_not_exist_before(
    file: str,
    title: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MGSYM_POTENTIAL", raising=False)
    lines = commands(section(title, file))
    assert [line[0] for line in lines][:4] == ["quench", "relax", "label", "build-graph"]
    run_all([smaller(line) for line in lines], capsys)
    labelled = mgsym.read("labelled.xyz")
    assert len(labelled) == 200
    assert int(labelled.columns["events"].values.sum()) > 0
    if lines[-1][0] == "explain":
        assert list(tmp_path.glob("runs/new/explanations/*-node42.csv"))
