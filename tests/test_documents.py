"""What README.md and docs/ show is run: commands, programs, and the output printed beside them.

A page is run from top to bottom in one folder: of its ``sh`` blocks the ``mgsym`` lines, of its
``python`` blocks everything. A ``text`` block below a block of commands is what they print: each
line must be printed, with other numbers perhaps, and ``…`` stands for any lines. A comment before a
block says what else is to be known of it:

    <!-- slow -->             run by `make test-slow` alone
    <!-- as it stands -->     not shortened by the quick tests, which else train for two epochs and
                              without a ridge regression beside the network, and compare
                              neighbours with those of two atoms of each element, and edges
                              with random ones drawn once
    <!-- not run: reason -->  only its options are checked
"""

from __future__ import annotations

import ast
import json
import pickle
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from glob import glob
from pathlib import Path

import click
import numpy as np
import pytest

import mgsym
from mgsym.cli.main import cli, main
from mgsym.data_tools.sample import sample_structures
from mgsym.training.config import preset

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"))
)
BLOCK = re.compile(r"^(?:<!-- ([^\n]*?) -->\n)?```(\w+)\n(.*?)^```$", re.M | re.S)
MARKS = re.compile(r"|slow|as it stands|not run: .+")

# options that the quick tests, and the slow ones of pages that make glasses, give or change
Changes = dict[str, dict[str, str]]
FASTER: Changes = {"train": {"--epochs": "2", "--set": "model.ridge_share=0.0"}}
FEW_STEPS: Changes = {**FASTER, "explain": {"--steps": "3"}}
# what they measure an explanation with
LESS = {"attribution.ENVIRONMENTS": 2, "explanation.DRAWS": 1}
LABEL = {"label": {"--searches": "3", "--atoms": "0:8"}}
SMALLER: Changes = {"quench": {"--atoms": "200", "--rate": "1e15", "--melt": "0.5"}, **LABEL}
COOLER: Changes = {"quench": {"--temperature": "800", "--melt": "0.5"}, **LABEL}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and the mark before it."""

    mark: str
    language: str
    text: str

    @property
    def commands(self) -> list[list[str]]:
        """The arguments of every mgsym command, lines that go on joined."""
        if self.language not in ("sh", "bash"):
            return []
        lines = self.text.replace("\\\n", " ").splitlines()
        return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("mgsym ")]

    @property
    def launched(self) -> list[list[str]]:
        """The arguments of every mgsym command behind srun or torchrun: these are never run.

        Variables stand for what the script gives them first.
        """
        if self.language not in ("sh", "bash"):
            return []
        text = self.text.replace("\\\n", " ")
        values = dict(reversed(re.findall(r'^(\w+)="([^"$]*)"$', text, re.M)))
        found = re.findall(r"^(?:srun|torchrun) .*?\bmgsym(?:\.cli\.main)? (.*)$", text, re.M)
        for name, value in values.items():
            found = [re.sub(rf"\${name}\b", value, line) for line in found]
        found = [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", line) for line in found]
        return [shlex.split(line, comments=True) for line in found]


def blocks(page: str, title: str | None = None) -> list[Block]:
    """The blocks of a page, or of one of its sections."""
    text = (ROOT / page).read_text(encoding="utf-8")
    if title is not None:
        match = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", text, re.M | re.S)
        assert match, f"{page} has no section {title!r}"
        text = match[1]
    return [Block(mark, language, body) for mark, language, body in BLOCK.findall(text)]


def changed(command: list[str], changes: Changes) -> list[str]:
    """A command with other values of some options, and patterns of file names replaced by files."""
    kept = [name for part in command for name in (sorted(glob(part)) or [part])]
    for option, value in changes.get(command[0], {}).items():
        if option in kept:
            del kept[kept.index(option) : kept.index(option) + 2]
        kept += [option, value]
    return kept


def shape(line: str) -> str:
    """A line without what differs between machines: numbers, elements and runs of blanks."""
    line = re.sub(r"\b(Cu|Zr)\b", "El", line)
    return " ".join(re.sub(r"[-+−]?\d[\d.]*(e[-+]?\d+)?", "#", line).split())


def assert_shown(expected: str, printed: str, where: str) -> None:
    """Every line of `expected` was printed, in this order; next to each other without … between."""
    lines, at, gap = [shape(line) for line in printed.splitlines()], 0, True
    for wanted in map(shape, expected.splitlines()):
        if wanted == "…":
            gap = True
            continue
        end = len(lines) if gap else at + 1
        found = next((i for i in range(at, min(end, len(lines))) if lines[i] == wanted), None)
        assert found is not None, f"{where}: {wanted!r} is not printed in\n{printed}"
        at, gap = found + 1, False


def run(
    parts: list[Block], capsys: pytest.CaptureFixture[str], changes: Changes, slow: bool
) -> tuple[str, dict[str, object]]:
    """Run blocks one after the other; what was printed, and the names of the programs."""
    whole, last, space = "", "", {}
    ran = True
    for block in parts:
        if block.language == "text":
            if ran:
                assert_shown(block.text, last, block.text.splitlines()[0])
            continue
        ran = not block.mark.startswith("not run") and (slow or block.mark != "slow")
        if not ran:
            continue
        if block.language == "python":
            exec(compile(block.text, "documentation", "exec"), space)  # our own pages
        if block.commands:
            last = ""
        for command in block.commands:
            as_it_stands = block.mark == "as it stands"
            line = changed(command, {} if as_it_stands else changes)
            with pytest.MonkeyPatch.context() as patch:
                for name, number in ({} if slow or as_it_stands else LESS).items():
                    patch.setattr(f"mgsym.data_tools.workflows.{name}", number)
                code = main(line)
            printed = capsys.readouterr()
            assert code == 0, f"mgsym {' '.join(line)}: {printed.err}"
            last += printed.out
            whole += printed.out
    return whole, space


@pytest.fixture
def page_runner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[str, dict[str, object]]]:
    """Runs the blocks of a page in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.delenv("MGSYM_POTENTIAL", raising=False)

    def runner(
        page: str, title: str | None = None, *, changes: Changes = FASTER, slow: bool = False
    ) -> tuple[str, dict[str, object]]:
        return run(blocks(page, title), capsys, changes, slow)

    return runner


Runner = Callable[..., tuple[str, dict[str, object]]]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_and_program_is_understood(page: str) -> None:
    """Options exist and have values of their kind; programs compile; marks are known ones."""
    for block in blocks(page):
        assert MARKS.fullmatch(block.mark), f"{page}: no block is marked {block.mark!r}"
        if block.language == "python":
            tree = ast.parse(block.text, page)
            tree.body = [n for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom))]
            exec(compile(tree, page, "exec"), {})  # what it imports is there
        for command in (*block.commands, *block.launched):
            line = [re.sub(r"\$\{?\w+\}?", "1", part) for part in command]
            group = click.Context(cli, info_name="mgsym")
            known = cli.get_command(group, line[0])
            assert known is not None, f"{page}: no command is called {line[0]}"
            known.make_context(line[0], line[1:], parent=group)


def test_commands_behind_a_launcher_are_read() -> None:
    found = [line for block in blocks("docs/scale.md") for line in block.launched]
    assert [line[0] for line in found] == [
        "train", "train", "train", "label", "predict", "benchmark", "label", "benchmark", "label",
    ]  # fmt: skip
    assert found[2] == ["train", "graphs", "--preset", "paper", "-o", "runs/paper"]
    assert found[7][:4] == ["benchmark", "graphs", "--models", "fast,paper"]


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:`|^)make ([a-z-]+)", text, re.M):
        assert f"\n{target}:" in makefile, f"{page}: make {target}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page: str) -> None:
    """`make docs` checks the site's links; README.md is no part of it, and is read elsewhere."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in link:
            assert ((ROOT / page).parent / link).exists(), f"{page}: {link}"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_lines_shown_are_compared_by_their_shape() -> None:
    printed = "a 1.5 Cu\nb 2\nc\nd 3\n"
    assert_shown("a 9 Zr\nb -1\n…\nd 0.1\n", printed, "")
    for wrong in ("a 1\n", "b 2\nd 3\n", "c\nb 2\n", "…\ne\n"):
        with pytest.raises(AssertionError):
            assert_shown(wrong, printed, "")


def test_the_readme(tmp_path: Path, page_runner: Runner) -> None:
    of_glass = {s.glass: s.replace(split="") for s in sample_structures()}
    *labelled, other = of_glass.values()
    for structure, file in zip(labelled, ("slow.xyz", "medium.xyz", "fast.dump"), strict=True):
        mgsym.write(structure, tmp_path / file)
    mgsym.write(other.replace(columns={}), tmp_path / "other.dump")

    (three, *_) = (block for block in blocks("README.md", "Three commands") if block.commands)
    assert [" ".join(line) for line in three.commands] == [
        "build-graph", "train", "explain --node 42 --topk 50",
    ]  # fmt: skip
    shown, space = page_runner("README.md")
    assert "Bonds by importance" in shown
    assert len(list(tmp_path.glob("graphs/*.npz"))) == 5
    (first,) = tmp_path.glob("runs/2*")
    assert (first / "explanations" / "test-node42.csv").read_text().count("\n") == 51
    test = re.search(r"^test +test +250 +([\d.]+)", shown, re.M)
    assert test, shown
    # what the sample must give at least; a ridge on invariants reaches 0.555
    assert float(test[1]) >= 0.40

    assert (tmp_path / "edges.png").stat().st_size > 10_000
    assert "barrier_predicted" in mgsym.read(tmp_path / "other.extxyz").columns
    assert space["barriers"].shape == (500,)  # type: ignore[attr-defined]


def test_ci_runs_the_tests_and_builds_the_site() -> None:
    steps = (ROOT / ".ci" / "run").read_text()
    assert re.search(r"^make .*\btest docs\b", steps, re.M)


def test_the_tutorial_on_the_sample(tmp_path: Path, page_runner: Runner) -> None:
    page_runner("docs/tutorials/sample.md", changes=FEW_STEPS)
    for figure in ("edges.png", "nearest.png", "barriers.png"):
        assert (tmp_path / figure).stat().st_size > 10_000


@pytest.mark.slow
def test_the_tutorial_on_the_sample_as_it_stands(tmp_path: Path, page_runner: Runner) -> None:
    page_runner("docs/tutorials/sample.md", changes={}, slow=True)
    assert (tmp_path / "runs/first/report.html").exists()


def test_the_tutorial_on_an_alloy(tmp_path: Path, page_runner: Runner) -> None:
    """From the labels on, glasses of the sample in the place of those that it makes."""
    glasses = {s.glass: s for s in sample_structures()}.values()
    for number, structure in enumerate(glasses):
        name = f"Cu50Zr50_1e14_seed{number}"  # as mgsym quench names them
        own = structure.replace(name=name, glass=name, split="")
        if number < 3:
            mgsym.write(own, tmp_path / "labelled" / f"glass{number}.xyz")
    mgsym.write(own.replace(columns={}), tmp_path / "relaxed" / f"{name}.extxyz")
    page_runner("docs/tutorials/own-alloy.md", changes=FEW_STEPS)
    assert (tmp_path / "edges.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_tutorial_from_an_alloy_to_its_plasticity(tmp_path: Path, page_runner: Runner) -> None:
    less: Changes = {"deform": {"--strain": "0.02", "--step": "0.01", "--every": "2"}}
    page = "docs/tutorials/alloy-to-plasticity.md"
    page_runner(page, changes={**COOLER, **FASTER, **less}, slow=True)
    compared = (tmp_path / "sheared" / "compared.csv").read_text()
    assert {"barrier_predicted", "compliance", "random"} <= {
        line.split(",")[3] for line in compared.splitlines()[1:]
    }
    assert (tmp_path / "sheared" / "compared.png").stat().st_size > 10_000
    assert (tmp_path / "labelled" / "glass0.saddles.xyz").exists()


def test_the_guides_program(
    tmp_path: Path, page_runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = preset("fast").changed({"training.epochs": 2, "model.ridge_share": 0.0})
    monkeypatch.setattr(mgsym, "train", partial(mgsym.train, config=few))
    page_runner("docs/guide/python.md")
    assert (tmp_path / "predicted.extxyz").exists()


def tiny_pickle(path: Path, seed: int) -> None:
    """A crystal of 64 atoms as the files of the public dataset are."""
    generator = np.random.default_rng(seed)
    sites = 2.6 * np.stack(np.meshgrid(*[np.arange(4.0)] * 3), -1).reshape(-1, 3) - 5.2
    numbers = generator.random(64)
    content = {
        "positions": sites + 0.3 * generator.random((64, 3)),
        "box": np.full(3, 10.4, np.float32),
        "types": generator.integers(1, 3, 64).astype(np.int32),
        "trajectory_start_velocities": (1.5 + 0.3 * numbers).astype(np.float32),
        **dict.fromkeys(("pot", "press", "von"), numbers.astype(np.float32)),
    }
    path.write_bytes(pickle.dumps(content, protocol=4))


def test_table_1_of_the_paper(tmp_path: Path, page_runner: Runner) -> None:
    """As shown, on tiny structures, for one epoch with two seeds."""
    (tmp_path / "data/cu64zr36").mkdir(parents=True)
    for number, name in enumerate([*(f"train{k}" for k in range(7)), "test0", "test1"]):
        tiny_pickle(tmp_path / f"data/cu64zr36/{name}.pickle", number)
    few: Changes = {"benchmark": {"--seeds": "0:2", "--set": "training.epochs=1"}}
    page_runner("docs/paper.md", "Table 1", changes=few)
    table = json.loads((tmp_path / "table1/table.json").read_text())
    assert table["protocol"] == "split"
    assert len(table["models"]) == 11
    found = {(r["model"], r["role"], r["of"]): r["values"]["pearson"] for r in table["rows"]}
    for model in table["models"]:
        for role in ("train", "validation", "test"):
            assert found[model, role, "pooled"]["sd"] > 0
    summary = (tmp_path / "table1/table.md").read_text().split("| model |")[1].splitlines()
    columns = [cell.strip() for cell in summary[0].split("|")]
    cells = dict(zip(columns, (c.strip() for c in summary[2].split("|")[2:]), strict=False))
    for column, role in (("pooled", "test"), ("train, pooled", "train")):
        value = found["symgnn", role, "pooled"]
        assert cells[column] == f"{value['mean']:.3f} ± {value['sd']:.3f}"
    trial = json.loads((tmp_path / "table1/trials/symgnn-split-seed1.json").read_text())
    paper = preset("paper").changed({"seed": 1, "training.epochs": 1}).flat()
    identity = trial["identity"]
    assert {k: identity[k] for k in paper if k.startswith("training.")} == {
        k: v for k, v in paper.items() if k.startswith("training.")
    }
    assert identity["structures to train"] == [f"train{k}" for k in range(6)]
    assert identity["structures to validation"] == ["train6"]
    assert identity["structures to test"] == ["test0", "test1"]
    assert trial["parameters"] == 102_385


@pytest.mark.slow
def test_the_public_data(
    public_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As shown, with the folder that holds the data in place of the download."""
    monkeypatch.chdir(tmp_path)
    parts = blocks("docs/guide/public-data.md")
    assert main(["fetch", "--base", str(public_data)]) == 0
    shown = parts[0].text.replace("mgsym fetch\n", "")
    if not Path("data/cu64zr36/test0.pickle").exists():  # a folder with the dumps alone
        test0 = mgsym.read(public_data / "test0.dump", types={1: "Cu", 2: "Zr"})
        mgsym.write(test0, "data/cu64zr36/test0.xyz")
        shown = shown.replace("test0.pickle", "test0.xyz")
    capsys.readouterr()
    run([Block("slow", "sh", shown), *parts[1:]], capsys, {}, slow=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "title", "changes"),
    [
        ("docs/physics.md", "From a composition to an explanation", SMALLER),
        ("docs/tutorials/own-alloy.md", None, COOLER),
    ],
)
def test_a_glass_that_did_not_exist_before(
    page: str, title: str | None, changes: Changes, tmp_path: Path, page_runner: Runner
) -> None:
    page_runner(page, title, changes=changes, slow=True)
    for labelled in (*tmp_path.glob("labelled.xyz"), *tmp_path.glob("labelled/*.xyz")):
        structure = mgsym.read(labelled)
        assert len(structure) == 200
        assert int(structure.columns["events"].values.sum()) > 0
    assert list(tmp_path.glob("runs/*/explanations/*-node42.csv"))
