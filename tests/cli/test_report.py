"""`mgsym report`: one page about a run."""

from __future__ import annotations

import contextlib
import csv
import json
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

from mgsym.cli.main import main
from mgsym.data_tools.report.sections import histories_of
from mgsym.graph import Graph
from mgsym.rendering.run_figures import curves_of_transforms
from mgsym.training.runs import read_history

pytest.importorskip("plotly")
pytest.importorskip("matplotlib")
Captured = pytest.CaptureFixture[str]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
KEYS = [
    "summary", "data", "training", "agreement", "calibration", "maps", "rotations", "explanations",
    "statistics",
]  # fmt: skip
QUICK = ["--method", "gradient", "--nodes", "3", "--rotations", "2", "--device", "cpu", "-q"]
TRAIN = ["train", "--device", "cpu", "-q", "--set", "training.evaluate_every=1", "--epochs", "2"]
ALONE = ["--set", "model.ridge_share=0.0"]
NEAR = ["--set", "model.descriptor_cutoff=3.0", "--set", "model.wide_cutoff=3.5"]
ODD = "<script>alert(1)</script>$x_1$"


@pytest.fixture(scope="module")
def workplace(trained_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small graphs, one of an odd name, with a run of one seed, one of two, and a ridge."""
    folder = tmp_path_factory.mktemp("report") / "work"
    shutil.copytree(trained_folder, folder)
    odd = Graph.load(folder / "graphs" / "c.npz")
    odd.replace(names=(ODD,), glasses=(ODD,)).save(folder / "odd" / "odd.npz")
    for name in ("a", "b"):
        shutil.copy(folder / "graphs" / f"{name}.npz", folder / "odd")
    with contextlib.chdir(folder):
        assert main([*TRAIN, *ALONE, "odd", "-o", "odd/run"]) == 0
        assert main([*TRAIN, *ALONE, "--seeds", "0,1", "-o", "two"]) == 0
        assert main([*TRAIN, *NEAR, "--model", "ridge", "-o", "ridge"]) == 0
        assert main([*TRAIN, *ALONE, "--val", "none", "--test", "none", "-o", "alone"]) == 0
    return folder


@pytest.fixture(autouse=True)
def _inside(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)


@pytest.fixture(scope="module")
def page(workplace: Path) -> str:
    """The report of the run of one seed."""
    with contextlib.chdir(workplace):
        assert main(["report", "runs/first", "-o", "page.html", *QUICK]) == 0
    return (workplace / "page.html").read_text(encoding="utf-8")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are made but not rendered, which takes longer than all the rest."""
    monkeypatch.setattr("mgsym.rendering.page.svg_source", lambda figure: "data:,")


def without_scripts(text: str) -> str:
    return re.sub(r"<script\b.*?</script>", "", text, flags=re.S)


def sections(text: str) -> dict[str, str]:
    """The HTML of each section by its key."""
    found = re.findall(r'<section id="([^"]+)">(.*?)</section>', without_scripts(text), re.S)
    return dict(found)


def rows(text: str) -> list[list[str]]:
    """The cells of all rows of all tables."""
    return [
        [unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.S)]
        for row in re.findall(r"<tr>(.*?)</tr>", text, re.S)
    ]


def test_sections_and_contents(page: str) -> None:
    found = sections(page)
    assert list(found) == KEYS
    assert re.findall(r'<li><a href="#([^"]+)">', page) == KEYS
    pictures = {key: text.count("<img ") for key, text in found.items()}
    assert pictures["training"] == pictures["maps"] == pictures["rotations"] == 1
    assert pictures["agreement"] == 3  # test, validation, train
    assert pictures["explanations"] == 3  # a high, a middle and a low barrier
    assert pictures["statistics"] == 1
    for key, text in found.items():
        figures = len(re.findall("<figure>|<figure class=.view", text))
        assert figures <= text.count("<figcaption>"), key


def test_facts_are_those_of_the_run(page: str, workplace: Path) -> None:
    run = json.loads((workplace / "runs/first/run.json").read_text())
    found = sections(page)
    terms = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", found["summary"])
    told = {name: unescape(value) for name, value in terms}
    assert told["parameters"] == str(run["parameters"])
    assert told["best epoch"] == str(run["best_epoch"])
    assert told["seed"] == "0"
    assert told["preset"] == "fast"
    assert told["device"] == "cpu"
    assert told["command"] == run["command"]
    assert run["versions"]["torch"] in told["versions"]
    scored = {tuple(row[:2]): row for row in rows(found["agreement"]) if len(row) >= 9}
    for role, name in (("test", "c"), ("validation", "b"), ("train", "a")):
        scores = run["scores"][role]["structures"][name]
        cells = [f"{scores[key]:.4f}" for key in ("pearson", "spearman", "mae", "rmse", "r2")]
        assert scored[role, name][2:8] == ["27", *cells]
    split = {row[0]: row[3] for row in rows(found["data"]) if row}
    assert split == {"a": "train", "b": "validation", "c": "test"}


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    assert page.count("plotly.js v") == 1  # its script is there once, for both views
    assert page.count("Plotly.newPlot(") == 2
    outside = without_scripts(page)
    sources = re.findall(r"""(?:src|href|srcset|data|action)\s*=\s*["']([^"']*)""", outside)
    assert all(s.startswith(("#", "data:image/svg+xml;base64,")) for s in sources)
    assert not re.search(r"<link\b|@import|url\(|<iframe|<object", outside)
    assert not re.search(r"<script[^>]+src", page)
    assert len(page) < 8_000_000


@pytest.mark.usefixtures("undrawn")
def test_names_are_escaped(workplace: Path, tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "odd.html"
    line = ["report", "odd/run", "--graphs", "odd/odd.npz", "--graphs", "odd/a.npz"]
    assert main([*line, "--graphs", "odd/b.npz", "-o", str(out), *QUICK]) == 0
    text = out.read_text(encoding="utf-8")
    assert "<script>alert(1)" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in sections(text)["data"]


@pytest.mark.usefixtures("undrawn")
def test_several_seeds(tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "two.html"
    assert main(["report", "two", "-o", str(out), *QUICK[:-1]]) == 0
    notes = capsys.readouterr().err
    assert "Of 2 models the first is explained" in notes
    assert notes.splitlines()[-1] == f"Wrote {out}"
    found = sections(out.read_text(encoding="utf-8"))
    assert "<dt>seeds</dt><dd>0, 1</dd>" in found["summary"]
    assert "within 1.96 sd" in found["calibration"]
    assert found["calibration"].count("<img ") == 1
    summary = json.loads(Path("two/summary.json").read_text())["scores"]["test"]
    told = f"{summary['mean_pearson']:.4f} ± {summary['mean_pearson_sd']:.4f}"
    assert told in found["agreement"]


@pytest.mark.usefixtures("undrawn")
def test_a_model_without_edges(tmp_path: Path) -> None:
    out = tmp_path / "ridge.html"
    assert main(["report", "ridge", "-o", str(out), *QUICK]) == 0
    found = sections(out.read_text(encoding="utf-8"))
    assert list(found) == KEYS
    for key in ("explanations", "statistics"):
        assert "The model ridge makes no use of edges" in found[key]
        assert "<img" not in found[key]
    assert "fitted in one go" in found["training"]
    assert "predicts no standard deviation" in found["calibration"]


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_held_nothing_out(tmp_path: Path) -> None:
    out = tmp_path / "alone.html"
    assert main(["report", "alone", "-o", str(out), "--nodes", "0", *QUICK[4:]]) == 0
    found = sections(out.read_text(encoding="utf-8"))
    assert {row[3] for row in rows(found["data"]) if row} == {"train"}
    assert "There was no validation structure" in found["training"]
    assert "says nothing of others" in found["agreement"]
    assert "(--nodes 0)" in found["explanations"]


@pytest.mark.usefixtures("undrawn")
def test_a_checkpoint_away_from_its_run(tmp_path: Path) -> None:
    shutil.copy("runs/first/best.pt", tmp_path / "model.pt")
    out = tmp_path / "model.html"
    assert main(["report", str(tmp_path / "model.pt"), "-o", str(out), *QUICK]) == 0
    found = sections(out.read_text(encoding="utf-8"))
    roles = {row[0]: row[3] for row in rows(found["data"]) if row}
    assert roles == {"a": "train", "b": "held out", "c": "held out"}
    assert "nothing tells how it was trained" in found["training"]
    assert "<dt>best epoch</dt>" in found["summary"]


@pytest.mark.usefixtures("undrawn")
def test_the_latest_run_and_its_folder(capsys: Captured) -> None:
    assert main(["report", "--nodes", "0", *QUICK[4:-1]]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "Wrote runs/first/report.html"
    assert main(["report", "runs/first", "--nodes", "0"]) == 2
    assert "runs/first/report.html exists already" in capsys.readouterr().err
    assert main(["report", "runs/first/best.pt", "--nodes", "0", "--overwrite", "-q"]) == 0


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_atoms_are_explained_without_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workplace: Path, count: int
) -> None:
    monkeypatch.chdir(workplace)
    out = tmp_path / "few.html"
    few = [*QUICK[:2], "--nodes", str(count), *QUICK[4:]]
    assert main(["report", "runs/first", "-o", str(out), *few]) == 0
    found = sections(out.read_text(encoding="utf-8"))
    assert found["explanations"].count("<img ") == 1
    assert "high barrier:" not in found["explanations"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["runs/none"], 3, "runs/none: no such run"),
        (["bad.pt"], 3, "bad.pt: damaged, or not written by mgsym"),
        (["runs/first", "--graphs", "nowhere"], 3, "nowhere: no such file"),
        (["runs/first", "--graphs", "graphs/a.npz"], 3, "runs/first: its structures c, b are not"),
        (["runs/first", "-o", "page.pdf"], 2, "a page is .html, found '.pdf'"),
        (["runs/first", "--nodes", "99"], 2, "asked for 99 nodes, expected 0 … 27, the atoms of"),
        (["runs/first", "--method", "x"], 2, "no method is called 'x'"),
        (["runs/first", "--rotations", "1"], 2, "1 is not in the range"),
        (["runs/first", "--device", "tpu"], 2, "device 'tpu' is not known"),
    ],
)
def test_refusals(capsys: Captured, arguments: list[str], code: int, message: str) -> None:
    Path("bad.pt").write_text("no model")
    out = [] if "-o" in arguments else ["-o", "refused.html"]
    assert main(["report", *arguments, *out, "-q"]) == code
    told, notes = capsys.readouterr()
    assert told == ""
    assert message in notes
    assert notes.count("\n") == 1
    assert not Path("refused.html").exists()


def test_graphs_that_are_gone(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workplace: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(workplace / "runs/first"), "-o", "a.html"]) == 3
    notes = capsys.readouterr().err
    assert "graphs: no such folder: name the graphs of " in notes
    assert "--graphs" in notes
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("undrawn")
def test_graphs_that_have_changed(capsys: Captured, tmp_path: Path) -> None:
    graph = Graph.load("graphs/c.npz")
    graph.replace(target=graph.target + 1).save(tmp_path / "c.npz")
    line = ["report", "runs/first", "-o", str(tmp_path / "a.html"), "--nodes", "0", *QUICK[4:]]
    given = [part for p in (tmp_path / "c.npz", "graphs/a.npz", "graphs/b.npz")
             for part in ("--graphs", str(p))]  # fmt: skip
    assert main([*line, *given]) == 0
    assert "c: changed since the run runs/first" in capsys.readouterr().err
    assert "c: changed since the run" in (tmp_path / "a.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("module", ["matplotlib.figure", "plotly"])
def test_the_extra_is_named(capsys: Captured, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["report", "runs/first", "-o", "refused.html", "-q"]) == 2
    notes = capsys.readouterr().err
    assert 'pip install "mgsym[plot]"' in notes
    assert notes.count("\n") == 1


def test_curves_are_those_of_the_file(workplace: Path) -> None:
    from mgsym.data_tools.report.facts import run_records
    from mgsym.data_tools.report.sections import histories_of

    (curves,) = histories_of(run_records(workplace / "runs/first")).values()
    with (workplace / "runs/first/metrics.csv").open(newline="") as file:
        expected = list(csv.DictReader(file))
    assert [point["epoch"] for point in curves] == [1, 2]
    assert [point["train_loss"] for point in curves] == [float(r["train_loss"]) for r in expected]


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium to open a page in")
def test_a_browser_shows_the_page(page: str, workplace: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--use-gl=swiftshader",
            "--enable-unsafe-swiftshader", f"--user-data-dir={tmp_path / 'profile'}",
            "--enable-logging=stderr", "--virtual-time-budget=10000", "--dump-dom",
            (workplace / "page.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    assert done.stdout.count('class="gl-container"') == 2  # both scenes were made
    told = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert [line for line in told if re.search("error|refused|failed", line, re.I)] == []


def test_learned_transforms(vectors_run: Path, undrawn: None) -> None:
    asked = ["report", str(vectors_run), "--graphs", "graphs", "-o", "vectors.html"]
    assert main([*asked, *QUICK, "--nodes", "0"]) == 0
    text = sections(Path("vectors.html").read_text(encoding="utf-8"))["training"]
    assert text.count("<img ") == 2
    assert "3 drawn of each half" in text
    assert [row[:2] for row in rows(text) if row] == [
        [half, angle] for half in ("rotation", "reflection") for angle in ("alpha", "beta", "gamma")
    ]
    run = json.loads((vectors_run / "run.json").read_text())
    histories = histories_of({"vectors": {"history": read_history(vectors_run)}})
    figure = curves_of_transforms({**histories, "again": histories["vectors"]})
    assert [axes.get_title() for axes in figure.axes] == [
        f"{seed}: {kind}"
        for seed in ("vectors", "again")
        for kind in ("location (rad)", "concentration")
    ]
    assert {axes.get_xlabel() for axes in figure.axes} == {"epoch"}
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].get_lines()}
    assert len(lines) == 6
    at = run["best_epoch"] - 1
    moved = lines["rotation gamma"][at] - run["transforms_start"]["location_rotation_gamma_rad"]
    shown = next(row for row in rows(text) if row[:2] == ["rotation", "gamma"])
    assert shown[3] == f"{moved:.3f}"
